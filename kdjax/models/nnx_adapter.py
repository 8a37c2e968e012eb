"""Networks of Flax NNX as a `kdjax.core.types.Model`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx, traverse_util

from kdjax.core.types import Array, Model, PyTree
from kdjax.models import module_calls as calls
from kdjax.models.adapters import copy
from kdjax.models.module_calls import format_expected, make_output, state_of

Name = tuple[str, ...]


def from_nnx(
    model_or_factory: nnx.Module | Callable[[nnx.Rngs], nnx.Module],
    *,
    train_arg: str = "",
) -> Model:
    """A model from a `flax.nnx.Module`, or from a function that makes one.

    A factory `(rngs: nnx.Rngs) -> nnx.Module` (a module class is one) draws new weights
    in every `init`; from an instance `init` returns that instance's weights as they are
    now, whatever the key. The instance itself is never changed. The module returns
    logits, `(logits, taps)` or `Output`; training and evaluation are `module.train()`
    and `module.eval()`, and an argument of `__call__` as in `from_linen`.

    Variables are `{"params": dict, "state": dict}`: every `nnx.Param`, and everything
    else (BatchStat, random streams, arrays that are attributes; left out if empty).
    Keys of the dicts are strings, also for indices of lists; random keys are kept as
    their uint32 data. Sown values (`nnx.Intermediate`) are dropped.

    `rngs`, a dict of keys, seeds the module's random streams for this one call: each
    takes the key of its own name, or that of "default", or the only one there is, with
    its index folded in. The streams in the state are then left as they were, so that
    devices with different keys keep one state. Without `rngs` the streams in the state
    are used, and move on. A call with an argument `rngs` receives an `nnx.Rngs`.

    Raises TypeError for anything but a module or factory, an unknown `train_arg`, or a
    network that returns anything else; ValueError if logits are not `[batch, classes]`
    or `rngs` has no key for a stream or a call changes the shape of a variable. Warns
    once as `from_linen`.
    """
    factory = _make_factory(model_or_factory)
    template = nnx.eval_shape(factory)
    graph, entries = nnx.graphdef(template), _find_leaves(template)
    calls.flags(template, True, train_arg)
    is_module = isinstance(model_or_factory, nnx.Module)
    weights = _values(factory(), entries) if is_module else None
    warn = calls.make_warn_once(template)

    def init(key: Array, images: Array) -> PyTree:
        del images
        if weights is None:
            return _variables(_values(factory(nnx.Rngs(key)), entries))
        return copy(_variables(weights))

    def apply(variables, images, *, train=False, rngs=None):
        values = traverse_util.flatten_dict(variables)
        streams = {} if rngs is None else _seed_streams(entries, rngs)
        module = _merge(graph, entries, {**values, **streams})
        module.train() if train else module.eval()
        arguments: dict[str, Any] = calls.flags(module, train, train_arg)
        passed = None
        if calls.takes(module, "rngs") and rngs:
            passed = nnx.Rngs(next(iter(rngs.values())), **rngs)
            arguments["rngs"] = passed
        positional, named = calls.arguments(module, arguments)
        before, unused = _find_leaves(module), _counts(passed)
        output = make_output(module(images, *positional, **named))
        if not train:
            return output, state_of(variables)
        _mark_arrays(module)
        stands_still, draws_nothing = _idle(module, before, _find_leaves(module))
        drawn = any(a is not b for a, b in zip(unused, _counts(passed), strict=True))
        warn(stands_still, draws_nothing and not drawn)
        new = {**_values(module, entries), **{name: values[name] for name in streams}}
        state = state_of(_variables(new))
        calls.check_state(state_of(variables), state)
        return output, state

    return Model(init, apply)


def _make_factory(source: Any) -> Callable[..., nnx.Module]:
    """`(rngs) -> module`, ready to be split."""
    is_module = isinstance(source, nnx.Module)
    if not is_module and (not callable(source) or isinstance(source, nn.Module)):
        expected = "a flax.nnx.Module instance or a factory (rngs) -> nnx.Module"
        raise TypeError(format_expected("model_or_factory", expected, source))

    def factory(rngs: nnx.Rngs | None = None) -> nnx.Module:
        if is_module:
            module = nnx.clone(source)
        else:
            module = source(nnx.Rngs(0) if rngs is None else rngs)
        if not isinstance(module, nnx.Module):
            expected = "a factory that returns a flax.nnx.Module"
            raise TypeError(format_expected("model_or_factory", expected, module))
        _mark_arrays(module)
        nnx.pop(module, nnx.Intermediate)
        return module

    return factory


def _mark_arrays(module: nnx.Module) -> None:
    """Mark arrays that are attributes as data.

    Flax 0.12 takes those made inside a transformation for static ones.
    """
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Module):
            for name, value in list(vars(node).items()):
                if isinstance(value, jax.Array):
                    setattr(node, name, nnx.data(value))


class _Leaf(NamedTuple):
    """One array of a module.

    path: in its state.
    value: array or shape.
    variable: the `nnx.Variable` with it, or the array itself.
    """

    path: tuple
    value: Any
    variable: Any


def _find_leaves(module: nnx.Module | nnx.Rngs) -> dict[Name, _Leaf]:
    """The arrays of a module by name, ("params" or "state", *names)."""
    _, params, state = nnx.split(module, nnx.Param, ...)
    leaves = {}
    for collection, part in (("params", params), ("state", state)):
        for path, variable in nnx.to_flat_state(part):
            tree = _content(variable)
            for inner, leaf in jax.tree_util.tree_leaves_with_path(tree):
                names = (jax.tree_util.keystr((key,), simple=True) for key in inner)
                name = (collection, *map(str, path), *names)
                leaves[name] = _Leaf(path, leaf, variable)
    return leaves


def _content(variable: Any) -> Any:
    """The value of a variable: an array, or a tree of them."""
    is_variable = isinstance(variable, nnx.Variable)
    return variable.get_value() if is_variable else variable


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _values(module: nnx.Module, entries: Mapping[Name, _Leaf]) -> dict[Name, Array]:
    """The module's arrays by name; later additions to the module are left out."""
    leaves = _find_leaves(module)
    values = {name: leaves[name].value for name in entries}
    return {
        name: jax.random.key_data(x) if _is_key(x) else jnp.asarray(x)
        for name, x in values.items()
    }


def _variables(values: Mapping[Name, Array]) -> PyTree:
    return {"params": {}, **traverse_util.unflatten_dict(values)}


def _merge(graph: Any, entries: Mapping[Name, _Leaf], values: Mapping) -> nnx.Module:
    """The inverse of `_values`: a new module, of this trace."""
    new: dict[str, dict[tuple, list[Array]]] = {"params": {}, "state": {}}
    entries_by_path = {leaf.path: leaf.variable for leaf in entries.values()}
    for name, leaf in entries.items():
        value = values[name]
        if _is_key(leaf.value):
            kind = jax.random.key_impl(jnp.empty((), leaf.value.dtype))
            value = jax.random.wrap_key_data(value, impl=kind)
        new[name[0]].setdefault(leaf.path, []).append(value)
    parts = (
        nnx.from_flat_state(
            (path, _filled(entries_by_path[path], leaves))
            for path, leaves in part.items()
        )
        for part in new.values()
    )
    return nnx.merge(graph, *parts, copy=True)


def _filled(variable: Any, leaves: list[Array]) -> Any:
    """A variable, or an array by itself, with other values."""
    value = jax.tree.unflatten(jax.tree.structure(_content(variable)), leaves)
    is_variable = isinstance(variable, nnx.Variable)
    return variable.replace(value) if is_variable else value


def _seed_streams(
    entries: Mapping[Name, _Leaf], rngs: Mapping[str, Array]
) -> dict[Name, Array]:
    """Every random stream, at the start of its key from `rngs`."""
    streams = {}
    for index, (name, leaf) in enumerate(entries.items()):
        shape = leaf.value.shape
        if isinstance(leaf.variable, nnx.RngCount):
            streams[name] = jnp.zeros(shape, leaf.value.dtype)
        elif isinstance(leaf.variable, nnx.RngKey):
            key = jax.random.fold_in(_stream_key(rngs, leaf.variable.tag), index)
            key = jax.random.split(key, shape) if shape else key
            streams[name] = jax.random.key_data(key)
    return streams


def _stream_key(rngs: Mapping[str, Array], stream: str) -> Array:
    names = [name for name in (stream, "default") if name in rngs]
    names += list(rngs) if len(rngs) == 1 else []
    if not names:
        expected = f"a key for {stream!r}"
        raise ValueError(format_expected("rngs", expected, sorted(rngs)))
    return rngs[names[0]]


def _counts(rngs: nnx.Rngs | None) -> list[Array]:
    """The numbers of keys that were drawn from each stream."""
    streams = {} if rngs is None else _find_leaves(rngs)
    return [x.value for x in streams.values() if isinstance(x.variable, nnx.RngCount)]


def _idle(
    module: nnx.Module, before: Mapping[Name, _Leaf], after: Mapping[Name, _Leaf]
) -> tuple[bool, bool]:
    """Statistics that a call in training did not move; dropout that it did not draw."""

    def unmoved(kind: Any) -> bool:
        names = [k for k, x in before.items() if isinstance(x.variable, kind)]
        pairs = [(before[k].value, after[k].value) for k in names if k in after]
        return bool(pairs) and all(a is b for a, b in pairs)

    nodes = [node for _, node in nnx.iter_graph(module)]
    drops = any(isinstance(x, nnx.Dropout) and x.rate and x.rngs for x in nodes)
    return unmoved(nnx.BatchStat), drops and unmoved(nnx.RngCount)
