"""Programs of the GPU script: compiled apart from being measured."""

import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments.benchmarks.common import Prepared
from kdjax import losses
from kdjax.core import runlog
from kdjax.core.types import Model, PyTree
from kdjax.jobs.trainer import make_plan
from kdjax.train import loop
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.progress import Bar

MIB = 2**20


class Program(NamedTuple):
    """A compiled program, the seconds that took, and the memory that it reserves."""

    run: Callable[..., Any]
    seconds: float
    mib: float


def compile_program(
    function: Callable, *arguments: Any, donate: tuple[int, ...] = ()
) -> Program:
    """Compile for these arguments; memory is of arguments, results and temporaries."""
    start = time.perf_counter()
    program = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
    return Program(program, time.perf_counter() - start, reserved(program))


def reserved(program: Any) -> float:
    """MiB that a compiled program needs at once; NaN where XLA does not say."""
    sizes = program.memory_analysis()
    if sizes is None:
        return float("nan")
    total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return (total + sizes.temp_size_in_bytes - sizes.alias_size_in_bytes) / MIB


def peak() -> int:
    """The most bytes that JAX has held on the device so far; 0 where not counted."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def show_peak(before: int) -> dict[str, Any]:
    """The peak of a row; an upper bound where an earlier row went higher.

    The peak of a process never falls.
    """
    now = peak()
    if not now:
        return {}
    return {"peak MiB": round(now / MIB) if now > before else f"<= {now / MIB:,.0f}"}


def random_variables(model: Model, size: int, seed: int) -> PyTree:
    """Random variables with sane scales, drawn on the host without a compilation."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    rng = np.random.default_rng(seed)

    def draw(path: tuple, x: Any) -> np.ndarray:
        name = getattr(path[-1], "key", "")
        if name in ("scale", "var"):
            return np.ones(x.shape, np.float32)
        if name != "kernel":
            return np.zeros(x.shape, np.float32)
        fan = max(int(np.prod(x.shape[:-1])), 1)
        scale = np.float32((2 / fan) ** 0.5)
        return scale * rng.standard_normal(x.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class Floor:
    """Teacher forward and student step on fixed arrays, one step a dispatch.

    The networks, loss and optimizer of the full loop; nothing else of it.
    """

    def __init__(self, student, teacher, images: np.ndarray):
        """student, teacher: pairs of a model and its variables."""
        self.batch = len(images)
        model, variables = student
        optimizer = optax.sgd(0.05, momentum=0.9)
        params = variables["params"]
        self._state = jax.device_put(
            (params, variables.get("batch_stats", {}), optimizer.init(params))
        )
        self._fixed = jax.device_put((teacher[1], images))
        step = floor_step(model, teacher[0], optimizer)
        arguments = self._state, *self._fixed
        self.program = compile_program(step, *arguments, donate=(0,))

    def turn(self, steps: int) -> float:
        """Seconds of some steps, ending with the last loss on the host."""
        start = time.perf_counter()
        loss = None
        for _ in range(steps):
            self._state, loss = self.program.run(self._state, *self._fixed)
        jax.device_get(loss)
        return time.perf_counter() - start


def floor_step(student: Model, teacher: Model, optimizer: Any) -> Callable:
    """`((params, batch_stats, optimizer state), teacher, images) -> state, loss`."""

    def step(state, teacher_variables, images):
        params, moving, opt_state = state
        targets = teacher.apply(teacher_variables, images)[0].logits

        def total(params):
            variables = {"params": params}
            variables |= {"batch_stats": moving} if moving else {}
            output, new = student.apply(variables, images, train=True)
            loss = losses.softmax_kl(output.logits, targets, temperature=4.0)
            return jnp.mean(loss), new

        (loss, new), grads = jax.value_and_grad(total, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        moving = (new or {}).get("batch_stats", moving)
        return (optax.apply_updates(params, updates), moving, opt_state), loss

    return step


def compile_call(ready: Prepared, steps: int) -> Program:
    """kdjax's own program of some steps a dispatch."""
    coming = ready.batches(0)
    batch = loop.stack([next(coming) for _ in range(steps)])
    arguments = ready.state, batch, ready.given
    return compile_program(ready.call.call, *arguments, donate=(0,))


def turns(ready: Prepared, program: Program, steps: int) -> Iterator[float]:
    """Seconds of one turn of steps after another, one step a dispatch, no loop."""
    state, coming = ready.state, ready.batches(0)
    while True:
        start = time.perf_counter()
        metrics = None
        for _ in range(steps):
            batch = loop.stack([next(coming)])
            state, metrics = program.run(state, batch, ready.given)
        jax.device_get(metrics)
        yield time.perf_counter() - start


def loop_seconds(
    ready: Prepared,
    program: Program,
    folder: pathlib.Path,
    between: Callable[[], None],
) -> list[float]:
    """Seconds of each window of the training loop, from log line to log line.

    The loop is the one of every job: batches, views, metrics read and written,
    checkpoints. Evaluation is left out. The first window is a warm-up. `between` runs
    at each line, when the device is idle, and does not count.
    """
    run, seconds = ready.parts.run, []
    mark = time.perf_counter()
    checkpoints = Checkpoints(folder)

    def write(line: dict[str, Any]) -> None:
        nonlocal mark
        runlog.append_metrics(folder, line)
        if line["kind"] == "train":
            seconds.append(time.perf_counter() - mark)
            between()
            mark = time.perf_counter()

    def evaluate(_state: Any) -> dict[str, list[float]]:
        return {"accuracy": [0.0] * run.seeds}

    with Bar(run.name, run.steps, 0, Console(quiet=True)) as bar:
        try:
            loop.fit(
                ready.call._replace(call=program.run),
                ready.state,
                ready.given,
                make_plan(ready.parts.run),
                batches=ready.batches,
                evaluate=evaluate,
                write=write,
                checkpoints=checkpoints,
                bar=bar,
            )
        finally:
            checkpoints.close()
    return seconds[1:]
