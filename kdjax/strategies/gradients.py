"""Gradients of single terms: their norms and bounds, and projection of conflicts."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from kdjax.core import collectives
from kdjax.core.types import Array, PyTree


def term_gradients(
    values: Callable[[PyTree], Mapping[str, Array]],
    params: PyTree,
    axis_name: str | None,
) -> dict[str, PyTree]:
    """The gradient of each value in the parameters, by name; one pass back for each.

    Args:
      values: the weighted terms, scalars by name, as a function of the parameters.
      axis_name: the pmap axis over which the gradients are averaged; None for none.
    """
    return collectives.mean(jax.jacrev(values)(params), axis_name)


def norms(gradients: Mapping[str, PyTree]) -> dict[str, Array]:
    """The metrics `gradient of NAME`."""
    return {f"gradient of {name}": optax.tree.norm(x) for name, x in gradients.items()}


def resolve_conflicts(gradients: Mapping[str, PyTree], key: Array) -> PyTree:
    """The sum of gradients without their conflicts: PCGrad, arXiv 2001.06782.

    A gradient that points against another loses its part along it:
    g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j, where g_i . g_j < 0. This is done for every
    other gradient j, in an order drawn from the key. Gradients that do not conflict
    are summed as they are.
    """
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *gradients.values())
    count = len(gradients)
    order = jax.random.permutation(key, count)

    def resolved(i: Array) -> PyTree:
        def step(n: Array, own: PyTree) -> PyTree:
            j = order[n]
            other = jax.tree.map(lambda x: x[j], stacked)
            dot = jnp.asarray(optax.tree.vdot(own, other))
            square = optax.tree.vdot(other, other)
            against = (dot < 0) & (i != j)
            # A gradient of 0 conflicts with none; the 1 only avoids 0 / 0.
            share = jnp.where(against, dot / jnp.where(against, square, 1.0), 0.0)
            return jax.tree.map(lambda a, b: a - share * b, own, other)

        return jax.lax.fori_loop(0, count, step, jax.tree.map(lambda x: x[i], stacked))

    each = jax.vmap(resolved)(jnp.arange(count))
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), each)


def clip_each(gradient: PyTree, bound: PyTree) -> PyTree:
    """A gradient of which no array is longer than the same array of another one."""

    def clip(x: Array, other: Array) -> Array:
        length, most = optax.tree.norm(x), optax.tree.norm(other)
        # A gradient of 0 stays 0; the 1 only avoids 0 / 0.
        share = jnp.minimum(most / jnp.where(length > 0, length, 1.0), 1.0)
        return share * x

    return jax.tree.map(clip, gradient, bound)


def with_gradient(value: Array, params: PyTree, gradient: PyTree) -> Array:
    """A scalar of the same value, whose gradient in `params` is `gradient`.

    value: a scalar that does not depend on `params`.
    """
    fixed = jax.lax.stop_gradient(gradient)
    product = optax.tree.vdot(fixed, params)
    return value + product - jax.lax.stop_gradient(product)
