"""Weighted sum of the means of several losses."""

from collections.abc import Mapping

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import promote_together
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array


def _check(terms: Mapping, weights: Mapping) -> None:
    for field, value in (("terms", terms), ("weights", weights)):
        if not isinstance(value, Mapping):
            kind = type(value).__name__
            checks.refuse(field, "a dict by name", f"a {kind}")
    if not terms:
        checks.refuse("terms", "at least one term", "none")
    if set(terms) != set(weights):
        names, got = (sorted(map(str, x)) for x in (terms, weights))
        checks.refuse("weights", f"one weight for each of {names}", got)
    for name, values in terms.items():
        label = f"terms[{name!r}]"
        checks.floating(label, values)
        checks.rank(label, values, 1, at_least=True)
        checks.not_empty(label, values)
        checks.between(f"weights[{name!r}]", weights[name], 0)


def combine(
    terms: Mapping[str, Array],
    weights: Mapping[str, float | Array],
    where: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Weighted sum of the means of several losses, and those means.

    `total = sum_i w_i mean(terms_i)`.

    Args:
        terms: values per example, as the kernels return them, by name.
        weights: one scalar of at least 0 for each term, traced or not.
        where: bool `[N]`, the examples that count, or with further axes of the terms
            behind it. Where none does, everything is 0.

    Returns:
        The scalar total, and the mean of each term without its weight, both in at
        least float32.

    Raises:
        ValueError: if there is no term, a term is empty, a scalar or not floating,
            terms and weights do not have the same names, or
            a weight is no finite scalar of at least 0.

    Example:
        >>> terms = {"kd": jnp.array([1.0, 3.0]), "label": jnp.array([4.0, 6.0])}
        >>> total, parts = combine(terms, {"kd": 0.9, "label": 0.1})
        >>> print(total.round(2), parts["kd"], parts["label"])
        2.3 2.0 5.0
    """
    _check(terms, weights)
    parts = {}
    for name, values in terms.items():
        keep = where
        if where is not None and 0 < jnp.ndim(where) < values.ndim:
            keep = jnp.reshape(where, where.shape + (1,) * (values.ndim - where.ndim))
        checks.mask("where", keep, values.shape)
        parts[name] = masked_mean(values, where=keep)
    means = promote_together(*parts.values())
    total = jnp.zeros((), means[0].dtype)
    for name, value in zip(parts, means, strict=True):
        total = total + jnp.asarray(weights[name], total.dtype) * value
    return total, parts
