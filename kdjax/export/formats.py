"""Students as files of other runtimes, preprocessing included."""

import importlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.config import ConfigError
from kdjax.export.student import Student


class Format(NamedTuple):
    """A file format: its file name, its runtime, and the function that writes it."""

    file: str
    runtime: str
    write: Callable[[Student, int], bytes]


def write_export(
    student: Student, name: str, folder: pathlib.Path, *, batch: int = 0
) -> pathlib.Path:
    """Write a student in a format of `FORMATS`; returns the file.

    The exported function takes uint8 images `[batch, side, side, channels]` with the
    side `student.input_size`, and returns float32 logits.

    Args:
        batch: its batch; 0 for any, where the format has such batches.

    Raises:
        ConfigError: the library of the format is not installed, or it needs a batch.
    """
    form = FORMATS[name]
    content = form.write(student, batch)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / form.file
    path.write_bytes(content)
    return path


def _exported(student: Student, batch: int) -> jax.export.Exported:
    """The student with its variables as constants, for CPU and accelerators."""

    def function(images: jax.Array) -> jax.Array:
        return student.apply(student.variables, images)

    side = student.input_size
    rows = batch or jax.export.symbolic_shape("batch")[0]
    shape = (rows, side, side, student.channels)
    platforms = ("cpu", "cuda", "tpu")
    export = jax.export.export(jax.jit(function), platforms=platforms)
    try:
        return export(jax.ShapeDtypeStruct(shape, jnp.uint8))
    except Exception as error:
        if batch:
            raise
        reason = "this model cannot be traced for a batch of any size; state one "
        reason += f"({type(error).__name__}: {str(error).splitlines()[0]})"
        raise ConfigError("batch", reason=reason) from error


def _stablehlo(student: Student, batch: int) -> bytes:
    try:
        importlib.import_module("flatbuffers")
    except ImportError:
        raise _missing("flatbuffers") from None
    return bytes(_exported(student, batch).serialize())


def _iree(student: Student, batch: int) -> bytes:
    if not batch:
        expected = "a number above 0: programs of IREE have one batch"
        raise ConfigError("batch", expected, batch)
    try:
        compiler = importlib.import_module("iree.compiler")
    except ImportError:
        raise _missing("iree-base-compiler") from None

    def function(images: jax.Array) -> jax.Array:
        # IREE converts uint8 to float as if it had a sign.
        pixels = jnp.bitwise_and(images.astype(jnp.int32), 255)
        return student.apply(student.variables, pixels)

    side = student.input_size
    images = jax.ShapeDtypeStruct((batch, side, side, student.channels), jnp.uint8)
    text = jax.jit(function).lower(images).as_text(dialect="stablehlo")
    options = ["--iree-llvmcpu-target-cpu=generic"]
    return compiler.compile_str(
        text, target_backends=["llvm-cpu"], input_type="stablehlo", extra_args=options
    )


def _safetensors(student: Student, batch: int) -> bytes:
    del batch
    import tempfile

    from kdjax.models.weights import save_weights

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "weights.safetensors")
        save_weights(student.variables, path)
        return path.read_bytes()


def _missing(package: str) -> ConfigError:
    reason = f"needs {package}: pip install 'kdjax[export]'"
    return ConfigError("format", reason=reason)


FORMATS = {
    "stablehlo": Format("model.stablehlo", "jax.export.deserialize", _stablehlo),
    "iree": Format("model.vmfb", "IREE", _iree),
    "safetensors": Format("weights.safetensors", "names of kdjax", _safetensors),
}
