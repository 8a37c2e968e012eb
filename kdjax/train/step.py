"""One step as a pure function; how it is compiled stands in `compiled.py`."""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.core import collectives, keys
from kdjax.core.average import move_average
from kdjax.core.types import Array, PyTree, Strategy, Teacher, View, make_batch
from kdjax.train import turns
from kdjax.train.accumulate import Part, over_parts
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
    parts: int = 1,
    averages: Mapping[str, float] | None = None,
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
      parts: of equal size, into which each batch is divided. Teacher and networks see
        one after another, and gradients and metrics are the means over them. So losses
        of single examples are those of the whole batch. A loss that compares examples,
        and BatchNorm, has those of its part.
      averages: decays of the moving averages of the networks that have one.

    Returns:
      `step(state, batch, constants) -> (state, metrics)`. `batch` holds `"seed"`
      (scalar), `"schedules"` (numbers of the strategy), `"rates"` (of the optimizer),
      with turns `"turn"` (`turns.turn_at`), and the entries that `view` reads. The
      constants do not change: the teacher's variables, the data on the devices.
    """

    def step(state: TrainState, inputs: StepInputs, constants: Any):
        step_view = view(state.step, inputs, constants)
        fixed = {name: constants[name] for name in frozen if name in constants}
        key = keys.step_key(inputs["seed"], "model", state.step)

        def move(moving: Collection[str]) -> tuple[Any, Any, Any, Metrics]:
            """The state after `moving` have moved; the others are constants."""

            def total(params: dict[str, PyTree], model_state: PyTree, batch, key):
                losses, aux = strategy.loss(
                    {**state.params, **params},
                    model_state,
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

            def grade(model_state: PyTree, part: Part):
                """The state of the networks, and means over one part of the batch."""
                view, rows, number = part
                targets = None
                if teacher:
                    part_inputs = {**inputs, "rows": rows}
                    targets = teacher.targets(
                        state.teacher, view, part_inputs, constants
                    )
                batch = make_batch(view, targets, fixed)
                part_key = key if parts == 1 else jax.random.fold_in(key, number)
                (loss, (model_state, metrics)), grads = graded(
                    params, model_state, batch, part_key
                )
                return model_state, (loss, metrics, grads)

            model_state, means = over_parts(
                grade, state.model_state, step_view, inputs.get("rows", {}), parts
            )
            loss, metrics, grads = collectives.mean(means, axis_name)
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
        carried, averaged, variables = {}, {}, join(params, model_state)
        if teacher:
            carried = teacher.update(state.teacher, variables)
        for name, decay in (averages or {}).items():
            averaged[name] = move_average(state.averages[name], variables[name], decay)
        step_number = state.step + 1
        new = TrainState(step_number, params, model_state, opt_state, carried, averaged)
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
