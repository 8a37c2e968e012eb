"""The exponential moving average (EMA) of the variables of a network."""

from typing import Any

import jax
import jax.numpy as jnp

from kdjax.core.types import PyTree


def start_average(variables: PyTree) -> PyTree:
    """The average of no step yet: a copy of the variables, `{"average", "updates"}`."""
    # A copy: the state is donated, and no buffer may be donated twice.
    average = jax.tree.map(lambda x: jnp.array(x, copy=True), variables)
    return {"average": average, "updates": jnp.zeros((), jnp.int32)}


def move_average(state: PyTree, variables: PyTree, decay: float) -> PyTree:
    """The average after one more step, as `kdjax.teachers.ema.moving_average`."""
    keep = jnp.minimum(decay, 1 - 1 / (state["updates"] + 1.0))

    def move(new: Any, old: Any) -> Any:
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return new
        share = 1 - keep
        return (share * new + (1.0 - share) * old).astype(old.dtype)

    average = jax.tree.map(move, variables, state["average"])
    return {"average": average, "updates": state["updates"] + 1}
