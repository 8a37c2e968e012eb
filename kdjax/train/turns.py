"""Whose turn it is to move, and whether a strategy's networks fit together."""

from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from kdjax.config import require, require_known
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

    networks: what its `init` returns, or the shapes of that.

    Raises:
      ConfigError: of `strategy`, with what was expected and what came.
    """
    ok = isinstance(networks, Mapping) and all(
        isinstance(x, Mapping) for x in networks.values()
    )
    want = "init to return {network: variables}"
    require(ok, "strategy", want, type(networks).__name__)
    trained = [name for name, variables in networks.items() if "params" in variables]
    want = 'init to return at least one network, a dict with "params"'
    require(bool(trained), "strategy", want, sorted(networks))
    require_known(strategy.student, trained, "strategy.student")
    for name in strategy.optim:
        require_known(name, trained, "strategy.optim")
    if not strategy.turns:
        return
    for _, count in strategy.turns:
        ok = type(count) is int and count >= 1
        require(ok, "strategy.turns", "at least 1 step a turn", count)
    moving = {name for group in movers(strategy.turns) for name in group}
    for name in moving:
        require_known(name, trained, "strategy.turns")
    still = sorted(set(trained) - moving)
    require(not still, "strategy.turns", f"a turn for each of {sorted(trained)}", still)


def check_losses(losses: Any, params: Collection[str]) -> None:
    """Refuse losses that are not one scalar for networks that there are."""
    ok = isinstance(losses, Mapping) and bool(losses)
    want = "loss to return {network: scalar}"
    require(ok, "strategy", want, losses if ok else type(losses).__name__)
    for name, value in losses.items():
        want = f"losses of its networks, {sorted(params)}"
        require_known(name, params, "strategy", want)
        shape = jnp.shape(value)
        require(shape == (), "strategy", f"one scalar as the loss of {name}", shape)
