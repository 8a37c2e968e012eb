"""Turns of the networks of a strategy, and checks of its declarations."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.config import RESERVED, ConfigError, require, require_known
from kdjax.core.trees import find_difference, is_numeric
from kdjax.core.types import PyTree, Strategy, Turns


def movers(turns: Turns) -> list[tuple[str, ...]]:
    """The networks that move, turn by turn."""
    return [(names,) if isinstance(names, str) else tuple(names) for names, _ in turns]


def turn_at(turns: Turns, step: int) -> np.int32:
    """The number of the turn that a step is part of; 0 without turns.

    Example:
        >>> [int(turn_at((("critic", 1), ("student", 2)), i)) for i in range(5)]
        [0, 1, 1, 0, 1]
    """
    ends = np.cumsum([count for _, count in turns])
    if not len(ends):
        return np.int32(0)
    return np.int32(np.searchsorted(ends, step % ends[-1], side="right"))


def check_networks(strategy: Strategy, networks: Mapping[str, PyTree]) -> None:
    """Refuse a strategy whose declarations do not fit the networks that it makes.

    networks: the result of its `init`, or its shapes.

    Raises:
      ConfigError: of `strategy`, with the expected and the actual value.
    """
    ok = isinstance(networks, Mapping) and all(
        isinstance(x, Mapping) for x in networks.values()
    )
    expected = "init to return {network: variables}"
    require(ok, "strategy", expected, type(networks).__name__)
    trained = [name for name, variables in networks.items() if "params" in variables]
    expected = 'init to return at least one network, a dict with "params"'
    require(bool(trained), "strategy", expected, sorted(networks))
    for name in trained:
        for path, leaf in jax.tree_util.tree_leaves_with_path(networks[name]["params"]):
            ok = jnp.issubdtype(leaf.dtype, jnp.inexact)
            at = jax.tree_util.keystr(path, simple=True, separator="/")
            expected = f'init to return floats in "params" of {name}'
            require(ok, "strategy", expected, f"{leaf.dtype} in {at}")
    require_known(strategy.student, trained, "strategy.student")
    for name in strategy.optim:
        require_known(name, trained, "strategy.optim")
    if not strategy.turns:
        return
    for turn in strategy.turns:
        ok = isinstance(turn, (tuple, list)) and len(turn) == 2
        expected = "pairs of a network, or several, and a number of steps"
        require(ok, "strategy.turns", expected, turn)
        ok = type(turn[1]) is int and turn[1] >= 1
        require(ok, "strategy.turns", "at least 1 step a turn", turn[1])
    moving = {name for group in movers(strategy.turns) for name in group}
    for name in moving:
        require_known(name, trained, "strategy.turns")
    expected = f"a turn for each of {sorted(trained)}"
    require(moving == set(trained), "strategy.turns", expected, sorted(moving))


def check_losses(losses: Any, params: Collection[str]) -> None:
    """Refuse losses that are not one scalar for each of some of the networks."""
    ok = isinstance(losses, Mapping) and bool(losses)
    expected = "loss to return {network: scalar}"
    require(ok, "strategy", expected, losses if ok else type(losses).__name__)
    for name, value in losses.items():
        expected = f"losses of its networks, {sorted(params)}"
        require_known(name, params, "strategy", expected)
        shape = jnp.shape(value)
        require(shape == (), "strategy", f"one scalar as the loss of {name}", shape)


def check_moves(losses: Collection[str], moving: Collection[str]) -> None:
    """Refuse a turn of networks without a loss: they would learn from nothing."""
    expected = f"a loss of one of {sorted(moving)}, which move in this turn"
    ok = any(name in moving for name in losses)
    require(ok, "strategy.turns", expected, sorted(losses))


def check_state(aux: Any, state: Mapping[str, PyTree]) -> None:
    """Refuse what a loss returns beside its losses unless it is `(state, metrics)`.

    The state has the entries and shapes of before, and metrics are scalars.
    """
    pair = isinstance(aux, tuple) and len(aux) == 2
    ok = pair and all(isinstance(x, Mapping) for x in aux)
    expected = "loss to return (losses, (state, metrics)), both dicts"
    require(ok, "strategy", expected, type(aux).__name__)
    expected = f"loss to return the state of each of {sorted(state)}"
    require(set(state) == set(aux[0]), "strategy", expected, sorted(aux[0]))
    if difference := find_difference(state, aux[0]):
        at, before, now = difference
        expected = f"loss to return the state as it was, {before} at {at}"
        raise ConfigError("strategy", expected, shown=now)
    for name, value in aux[1].items():
        expected = f"names of metrics other than {', '.join(RESERVED)}"
        require(name not in RESERVED, "strategy", expected, name)
        got = f"shape {jnp.shape(value)}" if is_numeric(value) else value
        ok = is_numeric(value) and jnp.shape(value) == ()
        require(ok, "strategy", f"a scalar as the metric {name}", got)
