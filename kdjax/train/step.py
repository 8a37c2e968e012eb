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
from kdjax.train.optimizer import keep_still
from kdjax.train.state import TrainState, join

Feed = dict[str, Any]
Metrics = dict[str, Array]
Step = Callable[[TrainState, Feed, Any], tuple[TrainState, Metrics]]


def make_train_step(
    strategy: Strategy,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    view: Callable[[Array, Feed, Any], View],
    teacher: Teacher | None = None,
    axis_name: str | None = None,
    frozen: Collection[str] = ("teacher",),
) -> Step:
    """One step: apply the view, compute the targets, move the networks.

    Args:
      strategy: what is optimized.
      optimizer: over `{network: params}` (`by_network`), its update taking `rates=`.
      view: `(step, batch, constants) -> View`.
      teacher: the source of the targets; None without a teacher.
      axis_name: the pmap axis over which each batch is split. None under jit, where
        a batch is whole whatever devices it lies on.
      frozen: the entries of the constants that are variables of frozen networks, for
        strategies that differentiate through one in its input.

    Returns:
      `step(state, batch, constants) -> (state, metrics)`. `batch` holds `"seed"`
      (scalar), `"schedules"` (numbers of the strategy), `"rates"` (of the optimizer),
      with turns `"turn"` (`turns.turn_at`), and what `view` reads. The constants do
      not change: the teacher's variables, the resident data.
    """

    def step(state: TrainState, feed: Feed, constants: Any):
        seen = view(state.step, feed, constants)
        targets = (
            teacher.targets(state.teacher, seen, feed, constants) if teacher else None
        )
        fixed = {name: constants[name] for name in frozen if name in constants}
        batch = make_batch(seen, targets, fixed)
        key = keys.step_key(feed["seed"], "model", state.step)

        def move(moving: Collection[str]) -> tuple[Any, Any, Any, Metrics]:
            """The state after `moving` have moved; the others are constants."""

            def total(params: dict[str, PyTree]):
                losses, aux = strategy.loss(
                    {**state.params, **params},
                    state.model_state,
                    batch,
                    feed["schedules"],
                    key,
                )
                turns.check_losses(losses, state.params)
                return sum(losses[name] for name in losses if name in moving), aux

            graded = jax.value_and_grad(total, has_aux=True)
            params: Any = {name: state.params[name] for name in moving}
            (loss, (model_state, metrics)), grads = graded(params)
            loss, metrics, grads = collectives.mean((loss, metrics, grads), axis_name)
            still = [name for name in state.params if name not in moving]
            zeros = {n: jax.tree.map(jnp.zeros_like, state.params[n]) for n in still}
            updates, opt_state = optimizer.update(
                {**grads, **zeros},
                state.opt_state,
                state.params,
                rates=feed["rates"],
            )
            params = optax.apply_updates(state.params, updates)
            if still:
                keep = {name: state.params[name] for name in still}
                params = {**params, **keep}
                opt_state = keep_still(opt_state, state.opt_state, still)
                model_state = {
                    **model_state,
                    **{n: state.model_state[n] for n in still},
                }
            return params, model_state, opt_state, {"loss": loss, **metrics}

        if strategy.turns:
            moves = [functools.partial(move, m) for m in turns.movers(strategy.turns)]
            moved = jax.lax.switch(feed["turn"], moves)
        else:
            moved = move(tuple(state.params))
        params, model_state, opt_state, metrics = moved
        carried = state.teacher
        if teacher:
            carried = teacher.update(carried, join(params, model_state))
        new = TrainState(state.step + 1, params, model_state, opt_state, carried)
        return new, metrics

    return step


def over_steps(step: Step) -> Step:
    """Several steps in one dispatch: every entry of `batch` gains a first axis."""

    def scan(state: TrainState, feed: Feed, constants: Any):
        return jax.lax.scan(lambda s, b: step(s, b, constants), state, feed)

    return scan
