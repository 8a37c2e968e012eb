"""What the losses cost, as ratios to a plain form measured in the same run.

    python experiments/benchmarks/losses.py [--out FILE] [--repeats N] [--only TEXT]

Times are of one compiled forward and backward pass. The two sides of a ratio take
turns, so that whatever else the machine does weighs on both; a ratio is the median of
the ratios of the turns. Memory is what XLA reserves beside inputs and outputs
(`memory_analysis`), read from the compiled program without running it. Prints a
Markdown table and writes it to FILE.
"""

import argparse
import inspect
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax import losses
from kdjax.losses.linear import linear_softmax_kl

MIB = 2**20


class Row(NamedTuple):
    """One line of the table: ours beside the plain form, in ms or MiB."""

    what: str
    unit: str
    ours: float
    plain: float
    ratio: float


def gradient(kernel: Callable, arguments: Sequence[Any], where: Sequence[int]):
    """The compiled value and gradient of the mean of a kernel's values."""

    def mean(*arguments):
        return jnp.mean(kernel(*arguments))

    step = jax.jit(jax.value_and_grad(mean, tuple(where)))
    return step.lower(*arguments).compile()


def seconds(step, arguments) -> float:
    start = time.perf_counter()
    jax.block_until_ready(step(*arguments))
    return time.perf_counter() - start


def race(what: str, ours, plain, arguments, repeats: int) -> Row:
    """Time two compiled steps on the same arguments, turn by turn."""
    for step in (ours, plain):
        seconds(step, arguments)
    pairs = []
    for turn in range(repeats):
        order = (ours, plain) if turn % 2 == 0 else (plain, ours)
        times = [seconds(step, arguments) for step in order]
        pairs.append(tuple(times if turn % 2 == 0 else times[::-1]))
    ratio = statistics.median(a / b for a, b in pairs)
    a, b = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(what, "ms", a, b, ratio)


def temporaries(step) -> float:
    return step.memory_analysis().temp_size_in_bytes / MIB


def memory(what: str, ours, plain) -> Row:
    a, b = temporaries(ours), temporaries(plain)
    return Row(what, "MiB", a, b, a / b)


def normal(*shapes, dtype=np.float32, scale: float = 1.0):
    """Random arrays on the device."""
    rng = np.random.default_rng(0)
    arrays = (scale * rng.standard_normal(shape, np.float32) for shape in shapes)
    return [jax.device_put(jnp.asarray(x, dtype)) for x in arrays]


def softmax_kl_rows(repeats: int):
    """Against optax on the same logits, at temperature 4."""

    def plain(student, teacher):
        log_student, log_teacher = (
            jax.nn.log_softmax(x / 4.0) for x in (student, teacher)
        )
        return 16.0 * optax.losses.kl_divergence_with_log_targets(
            log_student, log_teacher
        )

    def ours(student, teacher):
        return losses.softmax_kl(student, teacher, temperature=4.0)

    arguments = normal((4096, 1000), (4096, 1000), scale=3.0)
    step, other = (gradient(f, arguments, (0,)) for f in (ours, plain))
    name = "softmax_kl, 4096 x 1000, against optax"
    yield race(name, step, other, arguments, repeats)
    yield memory(name, step, other)


def linear_rows(repeats: int):
    """Against the form that holds all logits; the student's gradient alone."""

    def plain(hidden, head, teacher_hidden, teacher_head):
        def logits(x, w):
            return jnp.matmul(x, w, preferred_element_type=jnp.float32)

        student, teacher = logits(hidden, head), logits(teacher_hidden, teacher_head)
        return losses.softmax_kl(student, teacher)

    for dtype in (jnp.float32, jnp.bfloat16):
        shapes = ((1024, 256), (256, 65536)) * 2
        arguments = normal(*shapes, dtype=dtype, scale=0.2)
        step = gradient(linear_softmax_kl, arguments, (0, 1))
        other = gradient(plain, arguments, (0, 1))
        kind = jnp.dtype(dtype).name
        name = f"linear_softmax_kl, 1024 x 256 x 65536, {kind}, against all logits"
        yield memory(name, step, other)
        yield race(name, step, other, arguments, min(repeats, 3))


def rkd_angle_rows(repeats: int):
    """Against all `[N, N, N]` cosines at once; only compiled, they are too large."""

    def plain(student, teacher):
        return losses.rkd_angle(student, teacher, chunk=student.shape[0])

    arguments = [jax.ShapeDtypeStruct((1024, 128), jnp.float32)] * 2
    step, other = (gradient(f, arguments, (0,)) for f in (losses.rkd_angle, plain))
    yield memory("rkd_angle, batch 1024, against one chunk", step, other)


def two_grams(student, teacher):
    """The least that a relation of rows costs: both matrices of products."""
    a, b = (x @ x.T for x in (student, teacher))
    return jnp.square(a - b)


# Arrays that a relation kernel needs besides the two batches, by parameter name.
EXTRAS: dict[str, Callable[[int], Any]] = {
    "labels": lambda rows: jnp.arange(rows) % 10,
    "key": lambda rows: jax.random.key(0),
}


def relation_rows(repeats: int):
    """Every kernel of `losses.RELATION` against its own two Gram matrices."""
    arguments = normal((512, 128), (512, 128))
    plain = gradient(two_grams, arguments, (0,))
    for name in sorted(losses.RELATION):
        kernel = getattr(losses, name)
        parameters = inspect.signature(kernel).parameters
        extras = {k: make(512) for k, make in EXTRAS.items() if k in parameters}
        what = f"{name}, 512 x 128, against two Gram matrices"
        try:
            step = gradient(
                lambda s, t, k=kernel, e=extras: k(s, t, **e), arguments, (0,)
            )
        except (TypeError, ValueError) as error:
            print(f"{what}: left out, needs other arguments ({error})")
            continue
        yield race(what, step, plain, arguments, repeats)
        yield memory(what, step, plain)


PARTS = {
    "softmax_kl": softmax_kl_rows,
    "linear": linear_rows,
    "rkd_angle": rkd_angle_rows,
    "relation": relation_rows,
}


def table(rows: Sequence[Row]) -> str:
    lines = ["| what | unit | ours | plain | ratio |", "|---|---|---|---|---|"]
    for row in rows:
        numbers = f"{row.ours:.1f} | {row.plain:.1f} | {row.ratio:.2f}"
        lines.append(f"| {row.what} | {row.unit} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="runs/benchmark-losses.md")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--only", default="", choices=["", *PARTS])
    options = parser.parse_args()
    rows = []
    for name, part in PARTS.items():
        if options.only in ("", name):
            rows.extend(part(options.repeats))
    device = jax.devices()[0]
    where = f"jax {jax.__version__}, {device.platform} ({device.device_kind})"
    text = f"{table(rows)}\n\nForward and backward; {where}.\n"
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
