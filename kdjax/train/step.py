"""One update as a pure function; how it is compiled stands in `compiled.py`."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from kdjax.core import collectives, keys
from kdjax.core.types import Array, PyTree, Strategy, Teacher, View
from kdjax.train.state import TrainState, join

Batch = dict[str, Any]
Metrics = dict[str, Array]
Step = Callable[[TrainState, Batch, Any], tuple[TrainState, Metrics]]


def make_train_step(
    strategy: Strategy,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    view: Callable[[Array, Batch, Any], View],
    teacher: Teacher | None = None,
    axis_name: str | None = None,
) -> Step:
    """One update: see the batch, ask the teacher, teach the players.

    Args:
      strategy: what is optimised.
      optimizer: over `{player: params}`, its update taking `rates=`.
      view: `(step, batch, given) -> View`.
      teacher: whom to ask about each view; None without a teacher.
      axis_name: the pmap axis over which each batch is split. None under jit, where
        a batch is whole whatever devices it lies on.

    Returns:
      `step(state, batch, given) -> (state, metrics)`. `batch` holds `"seed"` (scalar),
      `"knobs"` (numbers of the strategy), `"rates"` (of the optimiser) and what `view`
      reads. `given` is what does not change: the teacher's variables, the resident
      data.
    """

    def step(state: TrainState, batch: Batch, given: Any):
        seen = view(state.step, batch, given)
        targets = (
            teacher.targets(state.teacher, seen, batch, given) if teacher else None
        )
        key = keys.step_key(batch["seed"], "model", state.step)

        def total(params: dict[str, PyTree]):
            losses, aux = strategy.loss(
                params, state.model_state, seen, targets, batch["knobs"], key
            )
            return sum(losses.values()), aux

        graded = jax.value_and_grad(total, has_aux=True)
        (loss, (model_state, metrics)), grads = graded(state.params)
        loss, metrics, grads = collectives.mean((loss, metrics, grads), axis_name)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, rates=batch["rates"]
        )
        params: Any = optax.apply_updates(state.params, updates)
        carried = state.teacher
        if teacher:
            carried = teacher.update(carried, join(params, model_state))
        new = TrainState(state.step + 1, params, model_state, opt_state, carried)
        return new, {"loss": loss, **metrics}

    return step


def over_steps(step: Step) -> Step:
    """Several updates in one dispatch: every entry of `batch` gains a first axis."""

    def scan(state: TrainState, batch: Batch, given: Any):
        return jax.lax.scan(lambda s, b: step(s, b, given), state, batch)

    return scan
