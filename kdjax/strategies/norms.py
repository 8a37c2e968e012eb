"""Norms of a network by the paths of their parameters, and those that end at a tap."""

from collections.abc import Callable, Mapping

import jax
from jax.extend.core import Literal

from kdjax.core.types import Array, PyTree

# Operations between a norm's bias and the sum that it enters.
_SUMS = {"add", "reshape", "broadcast_in_dim", "convert_element_type"}


def norm_params(params: PyTree) -> dict[str, Mapping[str, Array]]:
    """The norms with scale and bias, by path."""
    flat = _by_path(params)
    paths = {path.rpartition("/")[0] for path in flat if path.endswith("/scale")}
    return {
        path: {name: flat[f"{path}/{name}"] for name in ("scale", "bias")}
        for path in sorted(paths)
        if f"{path}/bias" in flat
    }


def _by_path(params: PyTree) -> dict[str, Array]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    name = jax.tree_util.keystr
    return {name(path, simple=True, separator="/"): x for path, x in leaves}


def ending_norms(read: Callable[[PyTree], Array], params: PyTree) -> tuple[str, ...]:
    """Paths of the norms whose outputs are added up to what a function returns."""
    jaxpr = jax.make_jaxpr(read)(params).jaxpr
    paths = _by_path(params)
    inputs = dict(zip(jaxpr.invars, paths, strict=True))
    made_by = {out: eqn for eqn in jaxpr.eqns for out in eqn.outvars}
    found, front = set(), [*jaxpr.outvars]
    while front:
        value = front.pop()
        if value in inputs:
            path, _, name = inputs[value].rpartition("/")
            found |= {path} if name == "bias" and f"{path}/scale" in paths else set()
        elif value in made_by and made_by[value].primitive.name in _SUMS:
            inner = made_by[value].invars
            front += [x for x in inner if not isinstance(x, Literal)]
    return tuple(sorted(found))
