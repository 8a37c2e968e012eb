"""Reading one checkpoint: whole, or an error that names what is damaged.

Beside its arrays a checkpoint has a record: its step, its accuracy, a digest of the
metrics so far, and the names, shapes and digests of all arrays. Checkpoints of earlier
releases have none: their values are read with a warning that nothing checks them.
"""

import functools
import json
import pathlib
import re
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from kdjax.core import hosts
from kdjax.core.bucket import read_bytes
from kdjax.core.fingerprint import fingerprint_bytes
from kdjax.core.safe_read import parse_json
from kdjax.core.types import PyTree
from kdjax.train.digest import digest_array

# Items of a checkpoint: folders in it.
ARRAYS, RECORD, METRICS = "default", "record", "metrics"

Shapes = Mapping[str, tuple[int, ...]]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or written. The text names it and says why."""


class DamagedError(CheckpointError):
    """Files of a checkpoint have changed since it was saved, or are lost.

    step: of the training that it holds, where its folder has the number of another.
    """

    step: int | None = None


def make_record(
    tree: PyTree, step: int, accuracy: float | None, log: str
) -> dict[str, Any]:
    """The record of a checkpoint, saved beside its arrays.

    Every process of a run must call it. log: of the metrics so far
    (`runlog.hash_metrics`).
    """
    arrays = {
        name: {"shape": list(x.shape), "digest": _digits(x)}
        for name, x in _named(tree).items()
    }
    content = {"step": step, "accuracy": accuracy, "log": log, "arrays": arrays}
    return {"content": content, "digest": _digest_content(content)}


def read_record(folder: pathlib.Path) -> dict[str, Any] | None:
    """The record of a checkpoint; None for one of an earlier release.

    Raises DamagedError where it is lost or changed, or is that of another step.
    """
    if not (folder / RECORD).exists() and RECORD not in _saved_items(folder):
        return None
    file = folder / RECORD / "metadata"
    try:
        record = parse_json(read_bytes(file))
        whole = record["digest"] == _digest_content(record["content"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, f"cannot read {file}: {first_line(error)}") from error
    if not whole:
        raise _damaged(folder, f"{file} has changed")
    content = record["content"]
    _require_step(folder, content["step"])
    return content


def read_accuracy(folder: pathlib.Path) -> float | None:
    """The validation accuracy of a checkpoint; None where it was not evaluated.

    Raises DamagedError as `read_record`, and for metrics that are lost or changed.
    """
    record = read_record(folder)
    file = folder / METRICS / "metrics"
    try:
        accuracy = parse_json(read_bytes(file))["accuracy"] if file.exists() else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, f"cannot read {file}: {first_line(error)}") from error
    if record is not None and record["accuracy"] != accuracy:
        raise _damaged(folder, f"{file} has changed")
    return accuracy


def read_shapes(folder: pathlib.Path) -> PyTree:
    """The tree of a checkpoint, with the shapes and types of its arrays."""
    try:
        return _read_metadata(folder)
    except Exception as error:
        raise _damaged(folder, _describe(error)) from error


def read_arrays(
    folder: pathlib.Path, expected: Mapping[str, Any], *, exact: bool
) -> dict[str, Any]:
    """The arrays of a checkpoint, laid out like `expected`, each as it was saved.

    Every process of a run must call it.

    Args:
      folder: of the checkpoint; its name is the step.
      expected: arrays, or their shapes with shardings.
      exact: no further arrays are allowed.

    Raises:
      DamagedError: on every process, where one of them cannot read it, or an array has
        other values than were saved.
      CheckpointError: it has other arrays, all of which are listed.
    """
    abstract = jax.tree.map(_abstract, dict(expected))
    restored, record, problem = None, None, None
    try:
        record = read_record(folder)
        _compare(folder, _saved_shapes(folder, record), abstract, exact)
        restored = _restore(folder, abstract)
    except CheckpointError as error:
        problem = error
    except Exception as error:
        problem = _damaged(folder, _describe(error))
        silence_orbax()
    if hosts.any_of(problem is not None):
        raise problem or _damaged(folder, "another process cannot read it")
    assert restored is not None
    arrays = record["arrays"] if record else {}
    for name, x in _named(restored).items():
        # Orbax leaves out what damaged metadata say to leave out.
        if not isinstance(x, (jax.Array, np.ndarray)):
            raise _damaged(folder, f"{name} is not read")
        if arrays and _digits(x) != arrays[name]["digest"]:
            raise _damaged(folder, f"{name} has other values than were saved")
    step = np.max(hosts.fetch_global(restored.get("step", int(folder.name))))
    _require_step(folder, int(step))
    if record is None and hosts.is_first():
        text = f"{folder}: it has no digests, so that its values are not checked"
        warnings.warn(text, stacklevel=4)
    return restored


def make_handler() -> ocp.PyTreeCheckpointHandler:
    """A folder for each array.

    Orbax's default (OCDBT) takes a path for a glob pattern: below `run[1]` it writes
    what it cannot read. Its checkpoints of earlier releases are read as before.
    """
    return ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=True)


def _restore(folder: pathlib.Path, abstract: PyTree) -> dict[str, Any]:
    args = ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
    )
    with _reader() as reader:
        return reader.restore(folder / ARRAYS, args=args)


def _reader() -> ocp.Checkpointer:
    """A reader that waits for no other process: one of them may fail alone."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=None,
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"process-{jax.process_index()}",
    )
    return ocp.Checkpointer(make_handler(), multiprocessing_options=alone)


def _read_metadata(folder: pathlib.Path) -> PyTree:
    with _reader() as reader:
        metadata = reader.metadata(folder / ARRAYS).item_metadata
    if metadata is None:
        raise FileNotFoundError("its metadata is missing")
    return metadata.tree


def _saved_shapes(folder: pathlib.Path, record: dict[str, Any] | None) -> Shapes:
    if record is None:
        return _shapes(_read_metadata(folder))
    return {k: tuple(x["shape"]) for k, x in record["arrays"].items()}


def _saved_items(folder: pathlib.Path) -> Mapping[str, Any]:
    """The items that a checkpoint was saved with, as Orbax lists them."""
    file = folder / "_CHECKPOINT_METADATA"
    try:
        return dict(parse_json(read_bytes(file))["item_handlers"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, f"cannot read {file}: {first_line(error)}") from error


def _require_step(folder: pathlib.Path, step: int) -> None:
    """Raise where a checkpoint holds another step than its folder's name says."""
    if step != int(folder.name):
        error = _damaged(folder, f"it is that of step {step}")
        error.step = step
        raise error


def _compare(
    folder: pathlib.Path, saved: Shapes, abstract: PyTree, exact: bool
) -> None:
    """Raise for a checkpoint of another architecture, or for one of an optimizer with
    other arrays, listing the differences; `exact` allows no further arrays."""
    expected = _shapes(abstract)
    names = sorted({*expected, *(saved if exact else ())})
    lines = [
        f"{k}: expected {expected.get(k, 'nothing')}, got {saved.get(k, 'nothing')}"
        for k in sorted(names, key=lambda k: not k.startswith("params"))
        if saved.get(k) != expected.get(k)
    ]
    if not lines:
        return
    if any(line.startswith(("params", "model_state")) for line in lines):
        what = "a checkpoint of another architecture"
    else:
        what = (
            "a checkpoint whose optimizer keeps other arrays, of another version of "
            "kdjax perhaps (finish the run with that one, or begin in another folder)"
        )
    raise CheckpointError(f"{folder / ARRAYS}: {what}:\n  " + "\n  ".join(lines))


def _damaged(folder: pathlib.Path, why: str) -> DamagedError:
    return DamagedError(f"{folder}: expected a whole checkpoint, but {why}")


def _digits(x: Any) -> str:
    return "".join(f"{int(word):08x}" for word in digest_array(x))


def _digest_content(content: Mapping[str, Any]) -> str:
    return fingerprint_bytes(json.dumps(content, sort_keys=True).encode())


def first_line(error: Exception) -> str:
    """The first line of an error of Orbax or the system, without its details."""
    text = str(error).strip() or type(error).__name__
    # The details are the whole specification of an array, over many lines.
    first = text.splitlines()[0].partition(" See full TensorStore details")[0]
    if "Too many open files" in text:
        return "too many files are open; `ulimit -n` says how many may be"
    full = ("RESOURCE_EXHAUSTED", "No space left", "Disk quota exceeded")
    if any(name in text for name in full):
        return "no space is left on its disk"
    return first[:200].rstrip(".")


def _describe(error: Exception) -> str:
    """The array that cannot be read, where TensorStore names its folder."""
    found = re.search(r"'path': '[^']*?([^/']+)/?'", str(error))
    return f"cannot read {found.group(1) if found else f'it: {first_line(error)}'}"


@functools.cache
def silence_orbax() -> None:
    """Keep Python from printing a traceback for each task that Orbax leaves behind.

    When one array cannot be read or written, the tasks of the others are never
    finished, or end when their event loop has gone.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        left = code is not None and "orbax" in code.co_filename
        if not left and str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in _named(tree).items()}


def _named(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by name: the keys of its path, as `params/student/w`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)

    def name(path: tuple) -> str:
        parts = (
            getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))) for k in path
        )
        return "/".join(str(p) for p in parts)

    return {name(path): x for path, x in flat}
