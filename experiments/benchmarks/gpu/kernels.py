"""Part `kernels`: loss kernels against a copy, and against the form with all logits."""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.gpu.steps import compile_program
from experiments.benchmarks.gpu.tables import Table
from kdjax import losses

# Bytes of the inputs that one dispatch goes through: more than an L2 cache holds.
AHEAD = 2**28
COPY, LINEAR = "softmax_kl, forward and backward", "linear_softmax_kl"


def measure(table: Table, options: argparse.Namespace) -> None:
    """All rows; the largest shapes in float32 first."""
    dry = options.dry
    shapes = [(64, 100), (8, 512)] if dry else [(8192, 1000), (64, 32768)]
    tokens, width, words = (32, 16, 512) if dry else (1024, 1024, 131072)
    kinds = [jnp.dtype(x) for x in ("float32", "bfloat16")]
    bandwidth = {f"{list(s)} {k}": (s, k) for k in kinds for s in shapes}
    linear = {f"{tokens} tokens, {width} wide, {words} words, {k}": k for k in kinds}
    table.plan(COPY, bandwidth)
    table.plan(LINEAR, linear)
    table.note(
        "GB/s counts each logit of both networks read once and one gradient written "
        "once; of the copy, bytes read and written."
    )
    table.note(
        "A dispatch of softmax_kl goes through 16 input sets or more, over 256 MiB in "
        "all, so that no cache holds them; times are of one set."
    )
    repeats = 3 if dry else 20
    for name, (shape, kind) in bandwidth.items():
        table.measure(COPY, name, lambda s=shape, k=kind: against_copy(s, k, repeats))
    for name, kind in linear.items():
        sizes = tokens, width, words
        table.measure(
            LINEAR, name, lambda k=kind, s=sizes: against_logits(s, k, repeats)
        )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _normal(shape: tuple[int, ...], kind: Any, seed: int, scale: float) -> jax.Array:
    return (scale * jax.random.normal(jax.random.key(seed), shape)).astype(kind)


def normal(shape: Sequence[int], kind: Any, seed: int, scale: float = 1.0) -> jax.Array:
    """Random numbers, drawn on the device."""
    return _normal(tuple(shape), kind, seed, scale)


def seconds(run: Callable, arguments: Sequence[Any], repeats: int) -> float:
    """The median of some calls, each waited for, after two that warm up."""
    times = []
    for turn in range(repeats + 2):
        start = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        if turn > 1:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def against_copy(shape: tuple[int, int], kind: Any, repeats: int) -> dict[str, Any]:
    """One dispatch over many sets: the kernel's traffic against a copy's."""
    size = int(np.prod(shape)) * kind.itemsize
    # 16 at least, so that the start of a dispatch counts little.
    count = 2 if repeats < 5 else max(16, AHEAD // (2 * size))
    students = [normal(shape, kind, 2 * i, 3.0) for i in range(count)]
    teachers = [normal(shape, kind, 2 * i + 1, 3.0) for i in range(count)]

    def gradient(student, teacher):
        def mean(student):
            return jnp.mean(losses.softmax_kl(student, teacher, temperature=4.0))

        return jax.value_and_grad(mean)(student)

    def all_gradients(students, teachers):
        return [gradient(*pair) for pair in zip(students, teachers, strict=True)]

    def all_copies(arrays):
        return [jnp.copy(x) for x in arrays]

    ours = compile_program(all_gradients, students, teachers)
    copy = compile_program(all_copies, students)
    spent = seconds(ours.run, (students, teachers), repeats) / count
    copied = seconds(copy.run, (students,), repeats) / count
    rate, best = 3 * size / spent / 1e9, 2 * size / copied / 1e9
    return {
        "us": 1e6 * spent,
        "GB/s": rate,
        "copy GB/s": best,
        "share of the copy": rate / best,
        "compile s": ours.seconds,
    }


def against_logits(
    sizes: tuple[int, int, int], kind: Any, repeats: int
) -> dict[str, Any]:
    """Time and memory against the form that holds the logits of both networks."""
    tokens, width, words = sizes
    hidden = [normal((tokens, width), kind, i) for i in (0, 1)]
    heads = [normal((width, words), kind, i, width**-0.5) for i in (2, 3)]
    arguments = hidden[0], heads[0], hidden[1], heads[1]

    def plain(hidden, head, teacher_hidden, teacher_head):
        def logits(x, w):
            return jnp.matmul(x, w, preferred_element_type=jnp.float32)

        student, teacher = logits(hidden, head), logits(teacher_hidden, teacher_head)
        return losses.softmax_kl(student, teacher)

    def gradient(kernel):
        def mean(*arguments):
            return jnp.mean(kernel(*arguments))

        return compile_program(jax.value_and_grad(mean, (0, 1)), *arguments)

    ours, other = gradient(losses.linear_softmax_kl), gradient(plain)
    times = [seconds(p.run, arguments, repeats) for p in (ours, other)]
    return {
        "ms": 1e3 * times[0],
        "all logits ms": 1e3 * times[1],
        "ratio": times[0] / times[1],
        "MiB": ours.mib,
        "all logits MiB": other.mib,
        "compile s": ours.seconds,
    }
