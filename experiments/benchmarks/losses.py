"""What the losses cost, as ratios to a plain form measured in the same run.

    PYTHONPATH=. python experiments/benchmarks/losses.py [--out FILE] [--repeats N]

Times are of one compiled forward and backward pass, the student's gradient alone. The
two sides of a ratio take turns, so that whatever else the machine does weighs on both;
a ratio is the median of the ratios of the turns. Memory is what XLA reserves beside
inputs and outputs (`memory_analysis`), read from the compiled program without running
it. Prints a Markdown table and writes it to FILE; `--only PART` measures a part.
"""

import argparse
import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.common import circumstances
from kdjax import losses
from kdjax.core.examples import gram

MIB = 2**20


class Row(NamedTuple):
    """One line of the table: ours beside the plain form, and the most it may be."""

    what: str
    unit: str
    ours: float
    plain: float
    ratio: float
    cpu: float | None
    most: str
    met: bool


# What keeps a kernel from its requirement.
BOUNDS = {
    "rkd_angle": (
        "the definition: two cosines and a Huber loss for each of N^3 triples, "
        "forward and again backward, where two Gram matrices are 2 N^2 D products"
    ),
    "triplet_relation": (
        "the definition: N^3 pairs of distances to compare; `triplets=` limits them"
    ),
    "mhgd": (
        "a tanh, an exponential and a log-softmax of every score, computed again "
        "backward, beside products over a head of only 16 numbers"
    ),
    "rkd_distance": (
        "exact differences of rows, N^2 D subtractions that are no matrix product; a "
        "Gram matrix would be cheap enough, and wrong beside near neighbors"
    ),
    "softmax_kl": "the same passes over memory as the plain form",
}


def gradient(kernel: Callable, arguments: Sequence[Any], where: Sequence[int] = (0,)):
    """The compiled value and gradient of the mean of a kernel's values."""

    def mean(*arguments):
        return jnp.mean(kernel(*arguments))

    step = jax.jit(jax.value_and_grad(mean, tuple(where)))
    return step.lower(*arguments).compile()


def seconds(step, arguments) -> np.ndarray:
    """Time and CPU time of one run, right after another: with caches as it left them.

    CPU time is summed over the threads. Other processes add little to it.
    """
    jax.block_until_ready(step(*arguments))
    start = np.array([time.perf_counter(), time.process_time()])
    jax.block_until_ready(step(*arguments))
    return np.array([time.perf_counter(), time.process_time()]) - start


def race(what: str, steps, arguments, repeats: int, most: float) -> Row:
    """Time ours and the plain step on the same arguments, turn by turn."""
    ours, plain = steps
    # Short steps are measured for a second or two: the shorter, the noisier.
    longest = max(seconds(step, arguments)[0] for step in (ours, plain))
    turns = []
    for turn in range(max(repeats, min(200, int(0.5 / longest)))):
        order = (ours, plain) if turn % 2 == 0 else (plain, ours)
        times = [seconds(step, arguments) for step in order]
        turns.append(times if turn % 2 == 0 else times[::-1])
    ratio, cpu = np.median([a / b for a, b in turns], axis=0)
    a, b = 1e3 * np.median(turns, axis=0)[:, 0]
    return Row(what, "ms", a, b, ratio, cpu, f"{most:.2f}", round(ratio, 2) <= most)


def temporaries(step) -> float:
    return step.memory_analysis().temp_size_in_bytes / MIB


def normal(*shapes, dtype: Any = np.float32, scale: float = 1.0):
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
    steps = [gradient(f, arguments) for f in (ours, plain)]
    yield race("softmax_kl, 4096 x 1000, against optax", steps, arguments, repeats, 1.0)


def linear_rows(repeats: int):
    """Against the form that holds all logits."""

    def plain(hidden, head, teacher_hidden, teacher_head):
        def logits(x, w):
            return jnp.matmul(x, w, preferred_element_type=jnp.float32)

        student, teacher = logits(hidden, head), logits(teacher_hidden, teacher_head)
        return losses.softmax_kl(student, teacher)

    for dtype in (jnp.float32, jnp.bfloat16):
        shapes = ((1024, 256), (256, 65536)) * 2
        arguments = normal(*shapes, dtype=dtype, scale=0.2)
        ours, other = (
            gradient(f, arguments, (0, 1)) for f in (losses.linear_softmax_kl, plain)
        )
        kind = jnp.dtype(dtype).name
        name = f"linear_softmax_kl, 1024 x 256 x 65536, {kind}, against all logits"
        a, b = temporaries(ours), temporaries(other)
        yield Row(name, "MiB", a, b, a / b, None, "1/6", a / b <= 1 / 6)
        yield race(name, (ours, other), arguments, repeats, 1.3)


def rkd_angle_rows(repeats: int):
    """Against all `[N, N, N]` cosines at once; only compiled, they are too large."""
    del repeats
    arguments = [jax.ShapeDtypeStruct((1024, 128), jnp.float32)] * 2
    whole = functools.partial(losses.rkd_angle, chunk=1024)
    a, b = (temporaries(gradient(f, arguments)) for f in (losses.rkd_angle, whole))
    name = "rkd_angle, batch 1024, against one chunk"
    yield Row(name, "MiB", a, b, a / b, None, "1024 MiB", a < 1024)


def two_grams(student, teacher, **others):
    """The least that a relation of rows costs: both matrices of products."""
    del others
    return jnp.square(gram(student) - gram(teacher))


def three_grams(student, teacher, **others):
    """Within each side, and across."""
    across = student @ teacher.T
    return two_grams(student, teacher, **others) + jnp.square(across)


def graph_grams(student, teacher, *, student_later, teacher_later, **logits):
    """The edges of both layers; the later one's are not differentiated."""
    del logits
    return two_grams(student, teacher) + two_grams(student_later, teacher_later)


def level_grams(student, teacher):
    """Pairs of examples and pairs of classes at five temperatures."""
    total = 0.0
    for level in (2.0, 3.0, 4.0, 5.0, 6.0):
        a, b = student / level, teacher / level
        total += jnp.sum(two_grams(a, b)) + jnp.sum(two_grams(a.T, b.T))
    return total


def head_grams(student, teacher, *, student_earlier, teacher_earlier, sender, receiver):
    """The scores of every head."""

    def scores(later, earlier):
        return [
            gram(gram(later, s), gram(earlier, r))
            for s, r in zip(sender, receiver, strict=True)
        ]

    sides = scores(student, student_earlier), scores(teacher, teacher_earlier)
    return sum(jnp.square(a - b) for a, b in zip(*sides, strict=True))


# Kernels whose Gram matrices are others than those of the two batches.
GRAMS: dict[str, Callable] = {
    "irg": graph_grams,
    "mmd": three_grams,
    "mhgd": head_grams,
    "mlld": level_grams,
}
# Shapes of what a kernel needs besides the two batches.
_BATCH, _HEADS = (512, 128), (8, 16, 128)
_LATER = {"student_later": _BATCH, "teacher_later": _BATCH}
EXTRAS: dict[str, dict[str, tuple[int, ...]]] = {
    "irg_transformation": _LATER,
    "irg": {**_LATER, "student_logits": _BATCH, "teacher_logits": _BATCH},
    "mhgd": {
        "student_earlier": _BATCH,
        "teacher_earlier": _BATCH,
        "sender": _HEADS,
        "receiver": _HEADS,
    },
}


def relation_rows(repeats: int):
    """Every kernel of `losses.RELATION` against its own two Gram matrices."""
    # The cost of `rkd` is that of the potential.
    for name in sorted(losses.RELATION - {"rkd"}):
        shapes = EXTRAS.get(name, {})
        extras = dict(zip(shapes, normal(*shapes.values(), scale=0.1), strict=True))
        arguments = (*normal(_BATCH, _BATCH), extras)

        steps = [
            gradient(lambda s, t, more, f=f: f(s, t, **more), arguments)
            for f in (getattr(losses, name), GRAMS.get(name, two_grams))
        ]
        what = f"{name}, 512 x 128, against its own two Gram matrices"
        yield race(what, steps, arguments, repeats, 1.5)


# Of two logits, with nothing else to pass.
RESPONSE = (
    *("hard_cross_entropy", "jeffreys", "jensen_shannon", "log_softmax_l2"),
    *("logit_l2", "logit_mse", "probability_mse", "reverse_softmax_kl"),
    *("sigmoid_kl", "soft_cross_entropy", "softmax_kl", "standardized_kl"),
)


def bandwidth_rows(repeats: int):
    """Against copying what must be moved: both logits in, one gradient out."""
    arguments = normal((32768, 1000), (32768, 1000), scale=3.0)
    # A copy reads and writes one array: 1.5 of them move as much.
    copy = jax.jit(jnp.copy).lower(arguments[0]).compile()
    copied = statistics.median(
        seconds(copy, arguments[:1])[0] for _ in range(max(repeats, 50))
    )
    least = 1.5e3 * copied
    for name in RESPONSE:
        step = gradient(getattr(losses, name), arguments)
        times = [seconds(step, arguments)[0] for _ in range(max(repeats, 50))]
        ours = 1e3 * statistics.median(times)
        what = f"{name}, 32768 x 1000, {least / ours:.0%} of the copy bandwidth"
        yield Row(
            what, "ms", ours, least, ours / least, None, "1.50", ours / least <= 1.5
        )


PARTS = {
    "softmax_kl": softmax_kl_rows,
    "linear": linear_rows,
    "rkd_angle": rkd_angle_rows,
    "relation": relation_rows,
    "bandwidth": bandwidth_rows,
}


def line(row: Row) -> str:
    name = row.what.partition(",")[0]
    verdict = "met" if row.met else f"not met: {BOUNDS.get(name, 'not known')}"
    cpu = "" if row.cpu is None else f"{row.cpu:.2f}"
    numbers = f"{row.ours:.1f} | {row.plain:.1f} | {row.ratio:.2f} | {cpu} | {row.most}"
    return f"| {row.what} | {row.unit} | {numbers} | {verdict} |"


def table(rows: Sequence[Row]) -> str:
    head = "| what | unit | ours | plain | ratio | of CPU time | ratio at most | |"
    return "\n".join([head, "|---" * 8 + "|", *map(line, rows)])


INTRODUCTION = """# What the losses cost

Forward and backward of the mean, the student's gradient alone, beside a plain form that
takes turns with it in the same run; `ratio` is the median over the turns, so it is not
quite the quotient of the two medians before it. Beside it is the ratio of the CPU time
of all threads, to which other processes add less: on a busy machine a step of many
milliseconds is interrupted and one of two is not. See `losses.py` for what is plain.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="runs/benchmark-losses.md")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--only", default="", choices=["", *PARTS])
    options = parser.parse_args()
    parts = [options.only] if options.only else list(PARTS)
    on_gpu = jax.devices()[0].platform == "gpu"
    if not on_gpu and not options.only:
        parts.remove("bandwidth")
    rows = [row for part in parts for row in PARTS[part](options.repeats)]
    command = f"python experiments/benchmarks/losses.py --repeats {options.repeats}"
    if options.only:
        command += f" --only {options.only}"
    text = f"{INTRODUCTION}\n{circumstances(command)}\n\n{table(rows)}\n"
    if not on_gpu:
        text += "\nThe part `bandwidth` needs a GPU and was not measured.\n"
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
