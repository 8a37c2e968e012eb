"""One step as a pure function; how it is compiled stands in `compiled.py`."""

import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.core import collectives, keys
from kdjax.core.types import Array, PyTree, Strategy, Teacher, View, make_batch
from kdjax.train import turns
from kdjax.train.optimizer import restore_inactive
from kdjax.train.state import TrainState, join

StepInputs = dict[str, Any]
Metrics = dict[str, Array]
_NORM = "norm of all gradients"
Step = Callable[[TrainState, StepInputs, Any], tuple[TrainState, Metrics]]


def make_train_step(
    strategy: Strategy,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    view: Callable[[Array, StepInputs, Any], View],
    teacher: Teacher | None = None,
    axis_name: str | None = None,
    frozen: Collection[str] = ("teacher",),
    largest: float | None = None,
) -> Step:
    """One step: apply the view, compute the targets, move the networks.

    Args:
      strategy: the losses to minimize, and the networks.
      optimizer: over `{network: params}` (`by_network`), its update taking `rates=`.
      view: `(step, batch, constants) -> View`.
      teacher: the source of the targets; None without a teacher.
      axis_name: the pmap axis over which each batch is split. None under jit, where
        a batch is whole whatever devices it lies on.
      frozen: the entries of the constants that are variables of frozen networks, for
        strategies that differentiate through one in its input.
      largest: the norm of all gradients above which a step is left out, as are those
        with a loss or gradient that is not finite. Metrics then have `"skipped"`, 1
        for such a step. None takes every step.

    Returns:
      `step(state, batch, constants) -> (state, metrics)`. `batch` holds `"seed"`
      (scalar), `"schedules"` (numbers of the strategy), `"rates"` (of the optimizer),
      with turns `"turn"` (`turns.turn_at`), and the entries that `view` reads. The
      constants do not change: the teacher's variables, the data on the devices.
    """

    def step(state: TrainState, inputs: StepInputs, constants: Any):
        step_view = view(state.step, inputs, constants)
        targets = (
            teacher.targets(state.teacher, step_view, inputs, constants)
            if teacher
            else None
        )
        fixed = {name: constants[name] for name in frozen if name in constants}
        batch = make_batch(step_view, targets, fixed)
        key = keys.step_key(inputs["seed"], "model", state.step)

        def move(moving: Collection[str]) -> tuple[Any, Any, Any, Metrics]:
            """The state after `moving` have moved; the others are constants."""

            def total(params: dict[str, PyTree]):
                losses, aux = strategy.loss(
                    {**state.params, **params},
                    state.model_state,
                    batch,
                    inputs["schedules"],
                    key,
                )
                turns.check_losses(losses, state.params)
                turns.check_state(aux, state.model_state)
                turns.check_moves(losses, moving)
                return sum(losses[name] for name in losses if name in moving), aux

            graded = jax.value_and_grad(total, has_aux=True)
            params: Any = {name: state.params[name] for name in moving}
            (loss, (model_state, metrics)), grads = graded(params)
            loss, metrics, grads = collectives.mean((loss, metrics, grads), axis_name)
            inactive = [name for name in state.params if name not in moving]
            zeros = {n: jax.tree.map(jnp.zeros_like, state.params[n]) for n in inactive}
            updates, opt_state = optimizer.update(
                {**grads, **zeros},
                state.opt_state,
                state.params,
                rates=inputs["rates"],
            )
            params = optax.apply_updates(state.params, updates)
            if inactive:
                previous = {name: state.params[name] for name in inactive}
                params = {**params, **previous}
                opt_state = restore_inactive(opt_state, state.opt_state, inactive)
                model_state = {
                    **model_state,
                    **{n: state.model_state[n] for n in inactive},
                }
            metrics = {"loss": loss, **metrics}
            if largest is not None:
                metrics[_NORM] = optax.tree.norm(grads)
            return params, model_state, opt_state, metrics

        if strategy.turns:
            moves = [functools.partial(move, m) for m in turns.movers(strategy.turns)]
            moved = jax.lax.switch(inputs["turn"], moves)
        else:
            moved = move(tuple(state.params))
        params, model_state, opt_state, metrics = moved
        carried = state.teacher
        if teacher:
            carried = teacher.update(carried, join(params, model_state))
        new = TrainState(state.step + 1, params, model_state, opt_state, carried)
        if largest is not None:
            norm = metrics.pop(_NORM)
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
            taken = finite & (norm <= largest)
            same = state._replace(step=new.step)
            new = jax.tree.map(lambda x, y: jnp.where(taken, x, y), new, same)
            metrics["skipped"] = 1.0 - taken
        return new, metrics

    return step


def over_steps(step: Step) -> Step:
    """Several steps in one dispatch: every entry of `batch` gains a first axis."""

    def scan(state: TrainState, inputs: StepInputs, constants: Any):
        return jax.lax.scan(lambda s, b: step(s, b, constants), state, inputs)

    return scan
