"""The training loop: steps, metrics, evaluations, checkpoints, stop signals."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.core import hosts
from kdjax.core.peak_memory import peak_memory
from kdjax.core.timeline import Timeline
from kdjax.core.types import PyTree
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.compiled import Compiled
from kdjax.train.progress import Bar
from kdjax.train.state import TrainState

# Seconds of training after which a process writes its first checkpoint.
FIRST_CHECKPOINT = 10.0


class NonFiniteError(RuntimeError):
    """The loss or a parameter is NaN or infinite. The text names the step."""


class Interrupted(RuntimeError):
    """The run received the stop signal `number`, and saved a checkpoint first."""

    def __init__(self, text: str, number: int = signal.SIGTERM):
        super().__init__(text)
        self.number = number


class Plan(NamedTuple):
    """The length of a run and its intervals, in steps."""

    name: str
    steps: int
    images_per_step: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    steps_per_call: int
    # Steps in a row that may be left out.
    skip: int = 0

    def next_stop(self, step: int) -> int:
        """The last step of the call that starts after `step` steps."""
        every = self.log_every, self.evaluate_every, self.checkpoint_every
        stops = [step - step % n + n for n in every]
        return min(*stops, self.steps, step + self.steps_per_call)


def fit(
    compiled: Compiled,
    state: TrainState,
    constants: PyTree,
    plan: Plan,
    *,
    batches: Callable[[int], Iterator[dict[str, Any]]],
    evaluate: Callable[[TrainState], dict[str, list[float]]],
    write: Callable[[dict[str, Any]], None],
    checkpoints: Checkpoints,
    bar: Bar,
    seconds: float = 0.0,
    timeline: Timeline | None = None,
) -> tuple[TrainState, float]:
    """Train from `state` to the end of the plan.

    Args:
      constants: arrays that no step changes (`compile_step`).
      batches: `start -> batches` of the steps from `start` on, as arrays.
      evaluate: measures the state on the validation split, a number a seed.
      write: a function of a line of metrics.
      seconds: time that the run took before.
      timeline: receives the events of this process.

    Returns:
      The last state and the seconds spent, evaluations and compilation included.

    Raises:
      NonFiniteError: named step; checkpoints before it are kept, none is written.
      Interrupted: after SIGTERM or SIGINT, once a checkpoint is on disk.
    """
    step = int(np.max(jax.device_get(state.step)))
    running = compiled.enter(state)
    iterator = batches(step)
    timeline, compiles = timeline or Timeline(), True
    clock = _Clock(seconds)
    lines = _Lines(plan, clock, write, bar)
    early = _EarlyCheckpoints()
    with _stop_signals() as stop:
        while step < plan.steps:
            end = plan.next_stop(step)
            with timeline.spend("data"):
                batch = stack([next(iterator) for _ in range(step, end)])
            with timeline.spend("compile") if compiles else contextlib.nullcontext():
                running, metrics = compiled.call(running, batch, constants)
            compiles = False
            lines.add(step, end, metrics)
            step = end
            stopping = bool(stop) or hosts.reached_preemption()
            last = step == plan.steps
            logs = last or step % plan.log_every == 0
            if logs:
                lines.write_train(step)
                timeline.steps(step, memory=peak_memory())
            saves = stopping or last or step % plan.checkpoint_every == 0
            saves = saves or early.is_due(logs)
            measures = last or step % plan.evaluate_every == 0
            if not (saves or measures):
                continue
            # Before anything is saved or measured, both the losses so far and the
            # parameters after the last of them must be finite.
            lines.check()
            clock.pause()
            current = compiled.leave(running)
            _check_parameters(current, step)
            accuracy = None
            if measures:
                with timeline.spend("evaluation"):
                    results = evaluate(current)
                accuracy = lines.write_validation(step, results)
            if saves or (accuracy is not None and checkpoints.would_be_best(accuracy)):
                with timeline.spend("checkpoint"):
                    checkpoints.save(current, step, accuracy)
                early.saved()
            # Also at the end, for a caller that starts another run after this one.
            if stopping or (last and stop):
                with timeline.spend("checkpoint"):
                    checkpoints.wait()
                timeline.steps(step)
                number = stop[0] if stop else signal.SIGTERM
                raise Interrupted(f"stopped at step {step} of {plan.steps}", number)
            clock.resume()
    with timeline.spend("checkpoint"):
        checkpoints.wait()
    return compiled.leave(running), clock.seconds()


class _Lines:
    """The metrics of a training: lines to write, and what the bar shows."""

    def __init__(
        self, plan: Plan, clock: "_Clock", write: Callable[[dict], None], bar: Bar
    ):
        self._plan, self._clock, self._write, self._bar = plan, clock, write, bar
        self._window: list[tuple[int, Any]] = []
        self._skipped: Any = 0
        self._validation = ""
        self._compiled = False

    def add(self, start: int, end: int, metrics: Any) -> None:
        """Keep the metrics of the steps of one call."""
        if not self._compiled:
            self._bar.compiled(self._clock.since_last_rate())
            self._compiled = True
        self._bar.advance(end)
        self._window.append((start, metrics))

    def check(self) -> None:
        """Raise `NonFiniteError` where a loss that is not yet written is not finite."""
        if self._window:
            _means(self._window, self._skipped, self._plan.skip)

    def write_train(self, step: int) -> None:
        """Write the means since the last line, and show them."""
        means, self._skipped = _means(self._window, self._skipped, self._plan.skip)
        steps = sum(len(m["loss"]) for _, m in self._window)
        rate = self._clock.rate(steps * self._plan.images_per_step)
        self._write(_line("train", step, self._clock, means, images_per_second=rate))
        pace = rate / self._plan.images_per_step
        text = f"{pace:,.{0 if pace >= 100 else 1 if pace >= 1 else 3}f} steps/s"
        self._bar.show(
            step, rate, f"{text}  {_format_metrics(means)}{self._validation}"
        )
        self._window = []

    def write_validation(self, step: int, results: dict[str, list[float]]) -> float:
        """Write the results on the validation split; returns the mean accuracy."""
        self._write(_line("validation", step, self._clock, results))
        accuracy = float(np.mean(results["accuracy"]))
        self._validation = f"  validation {accuracy:.1%} at step {step}"
        return accuracy


class _EarlyCheckpoints:
    """Checkpoints of a process's first minutes, besides the regular ones.

    The first is due after `FIRST_CHECKPOINT` seconds of training, the next ones when
    the time has doubled since the last. So a process that is killed loses at most half
    of its training, however rare the regular checkpoints are.
    """

    def __init__(self) -> None:
        self._begun: float | None = None
        self._next = FIRST_CHECKPOINT

    def is_due(self, logs: bool) -> bool:
        """True where a checkpoint is due. logs: the step has a line of metrics.

        Hosts agree only where they wait for the metrics anyway.
        """
        # The first call compiles, which is no training.
        if self._begun is None:
            self._begun = time.perf_counter()
        if jax.process_count() > 1 and not logs:
            return False
        seconds = time.perf_counter() - self._begun
        return bool(hosts.agree(seconds >= self._next))

    def saved(self) -> None:
        if self._begun is not None:
            doubled = 2 * (time.perf_counter() - self._begun)
            self._next = max(doubled, FIRST_CHECKPOINT)


class _Clock:
    """Seconds of the run, and images per second without its pauses."""

    def __init__(self, before: float):
        self._start = time.perf_counter() - before
        self._since = self._paused = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def rate(self, images: int) -> float:
        now = time.perf_counter()
        spent, self._since = now - self._since, now
        return images / max(spent, 1e-9)

    def since_last_rate(self) -> float:
        return time.perf_counter() - self._since

    def pause(self) -> None:
        self._paused = time.perf_counter()

    def resume(self) -> None:
        self._since += time.perf_counter() - self._paused


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that is empty until SIGTERM or SIGINT arrives; a second one stops at once.

    Only the main thread may listen. In a run of several processes JAX's preemption
    service listens instead, so that all hosts stop at the same step.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def listen(number: int, _frame: Any) -> None:
        received.append(number)
        signal.signal(number, before[number])

    with contextlib.ExitStack() as undo:
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                with contextlib.suppress(ValueError):
                    before[number] = signal.signal(number, listen)
                    undo.callback(signal.signal, number, before[number])
        yield received


def stack(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """One first axis for the steps of a call; arrays on devices stay on them."""
    if len(batches) == 1:
        return jax.tree.map(lambda x: x[None], batches[0])
    stack = {True: jnp.stack, False: np.stack}
    return jax.tree.map(lambda *x: stack[isinstance(x[0], jax.Array)](x), *batches)


def _means(
    window: list[tuple[int, Any]], before: np.ndarray | int, most: int
) -> tuple[dict[str, list[float]], np.ndarray]:
    """Metrics averaged over the steps of a window, a number a seed; finite or an error.

    Steps that were left out do not count, except in `skipped`, their number.

    Args:
      before: the steps left out in a row at the end of the window before, by seed.
      most: steps in a row that may be left out.

    Returns:
      The means, and the steps left out in a row at the end of this window.
    """
    fetched = jax.device_get(window)
    in_a_row = before
    for start, metrics in fetched:
        skipped = metrics.get("skipped", np.zeros_like(metrics["loss"]))
        bad = ~np.isfinite(metrics["loss"]) & (skipped == 0)
        for at in range(len(bad)):
            in_a_row = np.where(skipped[at] > 0, in_a_row + 1, 0)
            bad[at] |= in_a_row > most
        if bad.any():
            at, seed = (int(i) for i in np.argwhere(bad)[0])
            value, step = metrics["loss"][at, seed], start + at + 1
            text = f"loss: expected a finite number, got {value} at step {step}"
            if most:
                text = f"skip.most: expected at most {most} in a row, got {most + 1}"
                text += f" up to step {step}, where the loss is {value}"
            raise NonFiniteError(f"{text} (seed {seed} of the run)")
    names = fetched[0][1]
    stacked = {k: np.concatenate([m[k] for _, m in fetched]) for k in names}
    if "skipped" not in stacked:
        means = {k: x.mean(axis=0) for k, x in stacked.items()}
    else:
        taken = stacked.pop("skipped") == 0
        count = taken.sum(axis=0)
        means = {
            k: np.where(taken, x, 0).sum(axis=0) / np.where(count, count, np.nan)
            for k, x in stacked.items()
        }
        means["skipped"] = (~taken).sum(axis=0)
    return {k: [float(v) for v in x] for k, x in means.items()}, np.asarray(in_a_row)


@jax.jit
def _all_finite(tree: PyTree) -> jax.Array:
    return jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


def _check_parameters(state: TrainState, step: int) -> None:
    if not _all_finite((state.params, state.model_state)):
        raise NonFiniteError(
            f"parameters: expected finite numbers, got others after step {step}"
        )


def _format_metrics(means: dict[str, list[float]]) -> str:
    text = f"loss {np.mean(means['loss']):.4f}"
    if any(means.get("skipped", ())):
        text += f"  left out {sum(means['skipped']):.0f}"
    if "agreement" not in means:
        return text
    return f"{text}  agreement {np.mean(means['agreement']):.1%}"


def _line(kind: str, step: int, clock: _Clock, values: dict, **more: Any) -> dict:
    return {
        "kind": kind,
        "step": step,
        "seconds": round(clock.seconds(), 3),
        **more,
        **values,
    }
