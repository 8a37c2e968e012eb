"""Any network as a `kdjax.core.types.Model`: two pure functions of its variables."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx, traverse_util

from kdjax.core.types import Array, Model, Output, PyTree

# Names of the argument that separates training from evaluation, with its value
# in training.
_SWITCHES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def from_linen(module: nn.Module) -> Model:
    """A model from a `flax.linen.Module` called as `module(images)`.

    The module returns logits, `(logits, taps)` or `Output`. If its `__call__` has an
    argument `train`, `training`, `is_training`, `deterministic` or
    `use_running_average`, that is set by `apply`'s `train`; a module without one
    (`nn.Sequential` too) behaves the same in both. Collections other than "params" are
    mutable in training only; what the module sows is dropped. `rngs` are Linen's,
    for example `{"dropout": key}`.

    Raises TypeError for anything but a module or if the network returns anything else,
    ValueError if logits are not `[batch, classes]`.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(_expected("module", "a flax.linen.Module instance", module))

    def init(key: Array, images: Array) -> PyTree:
        variables = module.init(key, images, **_switch(module, train=False))
        return {"params": {}, **nn.meta.unbox(variables)}

    def apply(variables, images, *, train=False, rngs=None):
        state = _state(variables)
        inputs = {"rngs": rngs, **_switch(module, train)}
        if not train:
            return _output(module.apply(variables, images, **inputs)), state
        result, new = module.apply(variables, images, mutable=list(state), **inputs)
        return _output(result), {**state, **new}

    return Model(init, apply)


def from_function(
    apply_fn: Callable[[PyTree, Array], Any],
    params: PyTree = None,
    init: Callable[[Array, Array], PyTree] | None = None,
) -> Model:
    """A model from a plain function `apply_fn(params, images)`, without state.

    The function returns logits, `(logits, taps)` or `Output`. Give either `params`,
    which `init` then returns whatever the key, or `init(key, images) -> params`.

    Raises ValueError if neither or both are given, TypeError if the function returns
    anything else, ValueError if logits are not `[batch, classes]`.
    """
    if not callable(apply_fn):
        raise TypeError(_expected("apply_fn", "a function", apply_fn))
    if (params is None) == (init is None):
        which = "neither" if params is None else "both"
        raise ValueError(f"params, init: expected one of the two, got {which}")

    def start(key: Array, images: Array) -> PyTree:
        return {"params": _copy(params) if init is None else init(key, images)}

    def apply(variables, images, *, train=False, rngs=None):
        del train, rngs
        return _output(apply_fn(variables["params"], images)), _state(variables)

    return Model(start, apply)


def from_nnx(model_or_factory: nnx.Module | Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """A model from a `flax.nnx.Module`, or from a function that makes one.

    A factory `(rngs: nnx.Rngs) -> nnx.Module` (a module class is one) draws new weights
    in every `init`; from an instance `init` returns that instance's weights as they are
    now, whatever the key. The instance itself is never changed. The module returns
    logits, `(logits, taps)` or `Output`; training and evaluation are `module.train()`
    and `module.eval()`, and an argument of `__call__` as in `from_linen`.

    Variables are `{"params": dict, "state": dict}`: every `nnx.Param`, and everything
    else (BatchStat, random streams; left out if empty). Keys of the dicts are strings,
    also for indices of lists; random keys are kept as their uint32 data.

    `rngs`, a dict of keys, seeds the module's random streams for this one call: each
    takes the key of its own name, or that of "default", or the only one there is, with
    its index folded in. The streams in the state are then left as they were, so that
    devices with different keys keep one state. Without `rngs` the streams in the state
    are used, and move on.

    Raises TypeError for anything but a module or factory or if the network returns
    anything else, ValueError if logits are not `[batch, classes]` or `rngs` has no key
    for a stream.
    """
    factory = _nnx_factory(model_or_factory)
    template = nnx.eval_shape(factory)
    graph, entries = nnx.graphdef(template), _name_variables(template)
    is_module = isinstance(model_or_factory, nnx.Module)
    weights = _values(model_or_factory, entries) if is_module else None

    def init(key: Array, images: Array) -> PyTree:
        del images
        if weights is None:
            return _variables(_values(factory(nnx.Rngs(key)), entries))
        return _copy(_variables(weights))

    def apply(variables, images, *, train=False, rngs=None):
        values = traverse_util.flatten_dict(variables)
        streams = {} if rngs is None else _seed_streams(entries, rngs)
        module = _merge(graph, entries, {**values, **streams})
        module.train() if train else module.eval()
        output = _output(module(images, **_switch(module, train)))
        if not train:
            return output, _state(variables)
        new = {**_values(module, entries), **{name: values[name] for name in streams}}
        return output, _state(_variables(new))

    return Model(init, apply)


def _nnx_factory(source: Any) -> Callable[..., nnx.Module]:
    if isinstance(source, nnx.Module):
        return lambda rngs=None: source
    if not callable(source) or isinstance(source, nn.Module):
        expected = "a flax.nnx.Module instance or a factory (rngs) -> nnx.Module"
        raise TypeError(_expected("model_or_factory", expected, source))

    def factory(rngs: nnx.Rngs | None = None) -> nnx.Module:
        module = source(nnx.Rngs(0) if rngs is None else rngs)
        if not isinstance(module, nnx.Module):
            expected = "a factory that returns a flax.nnx.Module"
            raise TypeError(_expected("model_or_factory", expected, module))
        return module

    return factory


def _name_variables(
    module: nnx.Module,
) -> dict[tuple[str, ...], tuple[tuple, nnx.Variable]]:
    """{("params" or "state", *names): (path in the module, variable)}"""
    _, params, state = nnx.split(module, nnx.Param, ...)
    parts = {"params": params, "state": state}
    return {
        (collection, *map(str, path)): (path, variable)
        for collection, part in parts.items()
        for path, variable in nnx.to_flat_state(part)
    }


def _values(module: nnx.Module, entries: Mapping) -> dict[tuple[str, ...], Array]:
    """The module's arrays by name; later additions to the module are left out."""
    values = {}
    for name, (_, variable) in _name_variables(module).items():
        value = variable.get_value()
        if name in entries:
            is_key = isinstance(variable, nnx.RngKey)
            values[name] = jax.random.key_data(value) if is_key else value
    return values


def _variables(values: Mapping[tuple[str, ...], Array]) -> PyTree:
    return {"params": {}, **traverse_util.unflatten_dict(values)}


def _merge(graph: Any, entries: Mapping, values: Mapping) -> nnx.Module:
    """The inverse of `_values`: a new module, of this trace."""
    parts = {"params": {}, "state": {}}
    for name, (path, variable) in entries.items():
        value = values[name]
        if isinstance(variable, nnx.RngKey):
            dtype = variable.get_value().dtype
            kind = jax.random.key_impl(jnp.empty((), dtype))
            value = jax.random.wrap_key_data(value, impl=kind)
        parts[name[0]][path] = value
    return nnx.merge(
        graph, *map(traverse_util.unflatten_dict, parts.values()), copy=True
    )


def _seed_streams(entries: Mapping, rngs: Mapping[str, Array]) -> dict[tuple, Array]:
    """Every random stream, at the start of its key from `rngs`."""
    streams = {}
    for index, (name, (_, variable)) in enumerate(entries.items()):
        shape = variable.get_value().shape
        if isinstance(variable, nnx.RngCount):
            streams[name] = jnp.zeros(shape, variable.get_value().dtype)
        elif isinstance(variable, nnx.RngKey):
            key = jax.random.fold_in(_stream_key(rngs, variable.tag), index)
            key = jax.random.split(key, shape) if shape else key
            streams[name] = jax.random.key_data(key)
    return streams


def _stream_key(rngs: Mapping[str, Array], stream: str) -> Array:
    names = [name for name in (stream, "default") if name in rngs]
    names += list(rngs) if len(rngs) == 1 else []
    if not names:
        raise ValueError(_expected("rngs", f"a key for {stream!r}", sorted(rngs)))
    return rngs[names[0]]


def _state(variables: PyTree) -> PyTree:
    return {name: part for name, part in variables.items() if name != "params"}


def _copy(tree: PyTree) -> PyTree:
    # A step may donate what `init` returned; the next `init` must still have it.
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def _switch(module: Any, train: bool) -> dict[str, Any]:
    arguments = inspect.signature(type(module).__call__).parameters
    return {k: v == train for k, v in _SWITCHES.items() if k in arguments}


def _output(result: Any) -> Output:
    """Logits, `(logits, taps)` or Output as a checked Output."""
    logits: Any = result
    taps: Any = {}
    if isinstance(result, tuple) and len(result) == 2:
        logits, taps = result
    if not hasattr(logits, "shape") or not isinstance(taps, Mapping):
        expected = "logits, (logits, taps) or Output from the network"
        raise TypeError(_expected("apply", expected, result))
    for name, tap in taps.items():
        if not hasattr(tap, "shape"):
            raise TypeError(_expected(f"taps[{name!r}]", "an array", tap))
    if len(logits.shape) != 2:
        shape = tuple(logits.shape)
        raise ValueError(f"logits: expected shape [batch, classes], got {shape}")
    return Output(logits, dict(taps))


def _expected(argument: str, expected: str, got: Any) -> str:
    shown = repr(got) if isinstance(got, list) else type(got).__name__
    return f"{argument}: expected {expected}, got {shown}"
