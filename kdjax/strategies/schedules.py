"""Paths of weights and temperatures over a run."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax.config import Scalar


def make_schedule(scalar: Scalar, steps: int) -> Callable[[int], float]:
    """`step -> value` of a scalar over a run of so many steps."""
    start, end, last = scalar.value, scalar.end, max(1, steps - 1)
    if scalar.schedule == "constant" or end is None:
        return lambda step: start
    first, final = (round(part * last) for part in scalar.over)
    length = final - first
    if not length:
        return lambda step: start if step < first else end
    if scalar.schedule == "linear":
        path = optax.linear_schedule(1.0, 0.0, length)
    else:
        path = optax.cosine_decay_schedule(1.0, length)
    # Computed for all steps now: later calls would wait for the device that trains.
    shares = np.asarray(jax.jit(path)(jnp.arange(length + 1)), float)
    return lambda step: end + (start - end) * shares[min(max(step - first, 0), length)]
