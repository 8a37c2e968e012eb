"""Networks of Flax Linen, and plain functions, as a `kdjax.core.types.Model`."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from kdjax.core.types import Array, Model, PyTree
from kdjax.models import module_calls as calls
from kdjax.models.module_calls import format_expected, make_output, state_of

# What modules of Flax itself keep: no value in it is sown.
_STATISTICS = "batch_stats"
_CAPTURED = "intermediates"


def from_linen(
    module: nn.Module,
    *,
    train_arg: str = "",
    taps: Collection[str] = (),
    capture_intermediates: bool | Callable[[nn.Module, str], bool] = False,
) -> Model:
    """A model from a `flax.linen.Module` called as `module(images)`.

    The module returns logits, `(logits, taps)` or `Output`. Collections other than
    "params" are mutable in training only. Sown values are no state: they are dropped,
    or become taps. `rngs` are Linen's, for example `{"dropout": key}`; streams of other
    names are derived from it. A call with an argument `rngs` receives this dict.

    Args:
      module: the network.
      train_arg: the argument of `__call__`, or the field, that is True in training;
        "not NAME" for one that is True in evaluation. By default `train`, `training`,
        `is_training`, `is_train`, `deterministic`, `inference` or
        `use_running_average`. A module without one (`nn.Sequential` too) behaves the
        same in both.
      taps: collections whose sown values become taps, for example ("intermediates",).
        A tap is named by its path, "block/features".
      capture_intermediates: outputs of submodules as taps, as in `nn.Module.apply`.

    Raises TypeError for anything but a module, an unknown `train_arg`, or a network
    that returns anything else; ValueError if logits are not `[batch, classes]`
    or a call changes the shape of a variable. Warns once if a call in training moves no
    statistics, or draws no dropout, that it has.
    """
    if not isinstance(module, nn.Module):
        expected = "a flax.linen.Module instance"
        raise TypeError(format_expected("module", expected, module))
    calls.flags(module, True, train_arg)
    sown = sorted({*taps, *([_CAPTURED] if capture_intermediates else [])})
    options: dict[str, Any] = {"capture_intermediates": capture_intermediates}
    warn = calls.make_warn_once(module)
    no_state: dict[str, bool] = {}

    def call(train: bool, rngs: Any) -> tuple[nn.Module, Callable[..., Any]]:
        return _bind(module, train, train_arg, rngs)

    def init(key: Array, images: Array) -> PyTree:
        network, method = call(False, None)
        variables = nn.meta.unbox(network.init(key, images, method=method))
        for name in [x for x in variables if x not in ("params", _STATISTICS)]:
            if name not in no_state:
                rest = {k: x for k, x in variables.items() if k != name}
                no_state[name] = _runs(network, method, rest, images)
        kept = {k: x for k, x in variables.items() if not no_state.get(k, False)}
        return {"params": {}, **_without_tuples(kept)}

    def apply(variables, images, *, train=False, rngs=None):
        state = state_of(variables)
        network, method = call(train, rngs)
        mutable = [*(state if train else ()), *sown]
        dropout = _Dropout()
        with nn.intercept_methods(dropout):
            result, new = _explain_lifting(
                lambda: network.apply(
                    variables,
                    images,
                    rngs=_streams(rngs),
                    mutable=mutable,
                    method=method,
                    **options,
                )
            )
        output = make_output(result)
        named = {k: x for c in sown for k, x in _sown_taps(new.get(c, {})).items()}
        output = output._replace(taps={**named, **output.taps})
        if not train:
            return output, state
        state_new = _like(state, {**state, **new})
        calls.check_state(state, state_new)
        still = _same(state.get(_STATISTICS, {}), state_new.get(_STATISTICS, {}))
        warn(still, dropout.is_idle)
        return output, state_new

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
        raise TypeError(format_expected("apply_fn", "a function", apply_fn))
    if (params is None) == (init is None):
        which = "neither" if params is None else "both"
        raise ValueError(f"params, init: expected one of the two, got {which}")

    def start(key: Array, images: Array) -> PyTree:
        return {"params": copy(params) if init is None else init(key, images)}

    def apply(variables, images, *, train=False, rngs=None):
        del train, rngs
        return make_output(apply_fn(variables["params"], images)), state_of(variables)

    return Model(start, apply)


def from_stateful(
    apply_fn: Callable[..., tuple[Any, PyTree]],
    init: Callable[[Array, Array], tuple[PyTree, PyTree]],
) -> Model:
    """A model from a plain function with state, random numbers or both.

    This is the form of Haiku's `transform_with_state`; other libraries need some lines
    (`kdjax/models/README.md`).

    Args:
      apply_fn: `(params, state, key, images, train) -> (output, new_state)`. The output
        is logits, `(logits, taps)` or `Output`. `key` is None in evaluation, `train` a
        Python bool. The new state counts in training alone.
      init: `(key, images) -> (params, state)`, dicts of arrays. `{}` is no state.

    Raises TypeError for anything but functions or if `apply_fn` returns anything else,
    ValueError if logits are not `[batch, classes]`.
    """
    for name, function in (("apply_fn", apply_fn), ("init", init)):
        if not callable(function):
            raise TypeError(format_expected(name, "a function", function))

    def start(key: Array, images: Array) -> PyTree:
        params, state = init(key, images)
        return copy({"params": params, **({"state": state} if state else {})})

    def apply(variables, images, *, train=False, rngs=None):
        key = next(iter(rngs.values())) if train and rngs else None
        state = variables.get("state", {})
        result = apply_fn(variables["params"], state, key, images, train)
        if not isinstance(result, tuple) or len(result) != 2:
            expected = "(output, new_state) from the network"
            raise TypeError(format_expected("apply_fn", expected, result))
        output, new = result
        kept = {"state": new} if train and "state" in variables else None
        if kept is None:
            return make_output(output), state_of(variables)
        calls.check_state({"state": state}, kept)
        return make_output(output), kept

    return Model(start, apply)


def from_host(predict: Callable[[np.ndarray], Any], classes: int) -> Model:
    """A teacher that is a function on the host: an ONNX model, a service.

    It has no variables and no gradient, and it cannot be trained. Each call transfers
    the images to the host, so a target cache (`kdjax cache-targets`) serves long runs.

    Args:
      predict: float32 images `[batch, height, width, channels]` -> `[batch, classes]`.
        It must not call JAX.
      classes: number of outputs.
    """
    if not callable(predict):
        raise TypeError(format_expected("predict", "a function", predict))

    def on_host(images: Any) -> np.ndarray:
        images = np.asarray(images, np.float32)
        lead = images.shape[:-3]
        outputs = np.asarray(predict(images.reshape(-1, *images.shape[-3:])))
        expected = (math.prod(lead), classes)
        if outputs.shape != expected:
            text = f"expected outputs of shape {expected}, got {outputs.shape}"
            raise ValueError(f"predict: {text}")
        return outputs.astype(np.float32).reshape(*lead, classes)

    def init(key: Array, images: Array) -> PyTree:
        return {"params": {}}

    def apply(variables, images, *, train=False, rngs=None):
        if train:
            raise ValueError("train: expected False, a function on the host is frozen")
        shape = jax.ShapeDtypeStruct((*images.shape[:-3], classes), jnp.float32)
        # Seeds become a first axis of one call.
        outputs = jax.pure_callback(on_host, shape, images, vmap_method="expand_dims")
        return make_output(outputs), state_of(variables)

    return Model(init, apply)


def copy(tree: PyTree) -> PyTree:
    """A copy: a step may donate what `init` returned, and the next needs it again."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def _bind(
    module: nn.Module, train: bool, train_arg: str, rngs: Any
) -> tuple[nn.Module, Callable[..., Any]]:
    """The module, and its call as a method of the images alone."""
    values: dict[str, Any] = calls.flags(module, train, train_arg)
    fields = {name: x for name, x in values.items() if calls.has_field(module, name)}
    if fields:
        module = module.clone(**fields)
    values = {name: x for name, x in values.items() if name not in fields}
    if calls.takes(module, "rngs"):
        values["rngs"] = rngs
    positional, named = calls.arguments(module, values)
    return module, lambda bound, images: bound(images, *positional, **named)


def _streams(rngs: Mapping[str, Array] | None) -> dict[str, Array] | None:
    """Keys by stream; Linen takes streams that are missing from "params"."""
    if not rngs or "params" in rngs:
        return None if rngs is None else dict(rngs)
    return {**rngs, "params": jax.random.fold_in(next(iter(rngs.values())), 1)}


def _runs(
    module: nn.Module, method: Callable[..., Any], variables: PyTree, images: Array
) -> bool:
    """True where a network needs no more than these variables.

    A value that was sown is not needed; a variable is, and Linen raises without it.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    image = jax.ShapeDtypeStruct(images.shape, images.dtype)
    try:
        jax.eval_shape(lambda v, x: module.apply(v, x, method=method), shapes, image)
    except Exception:
        return False
    return True


def _without_tuples(variables: PyTree) -> PyTree:
    """Variables without sown values, which Linen keeps in tuples."""
    flat = traverse_util.flatten_dict(variables, keep_empty_nodes=True)
    kept = {path: x for path, x in flat.items() if not isinstance(x, tuple)}
    return traverse_util.unflatten_dict(kept)


def _like(template: PyTree, tree: PyTree) -> PyTree:
    """The entries of `tree` that `template` has."""
    if not isinstance(template, Mapping):
        return tree
    return {name: _like(x, tree[name]) for name, x in template.items()}


def _same(old: PyTree, new: PyTree) -> bool:
    """True where there are leaves, and all are the very same objects."""
    pairs = list(zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True))
    return bool(pairs) and all(a is b for a, b in pairs)


def _sown_taps(collection: Mapping[str, Any]) -> dict[str, Array]:
    """Sown values by path; the outputs of a submodule have the path of that."""
    taps = {}
    for path, value in traverse_util.flatten_dict(dict(collection)).items():
        names = [name for name in path if name != "__call__"]
        value = value[0] if isinstance(value, tuple) and len(value) == 1 else value
        for inner, leaf in jax.tree_util.tree_leaves_with_path(value):
            last = jax.tree_util.keystr(inner, simple=True, separator="/")
            if names:  # The output of the whole network is no tap.
                taps["/".join([*names, last] if last else names)] = leaf
    return taps


class _Dropout:
    """Interceptor of Linen's calls: whether dropout there is, and none is drawn."""

    def __init__(self) -> None:
        self._modes: list[bool] = []

    def __call__(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, nn.Dropout) and context.method_name == "__call__":
            bound = dict(zip(("inputs", "deterministic"), args, strict=False)) | kwargs
            own, passed = module.deterministic, bound.get("deterministic")
            if module.rate:
                self._modes.append(bool(own if passed is None else passed))
        return call(*args, **kwargs)

    @property
    def is_idle(self) -> bool:
        """True if every dropout of the call was deterministic."""
        return bool(self._modes) and all(self._modes)


def _explain_lifting(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except jax.errors.TracerBoolConversionError as error:
        text = str(error)
        if "checkpoint" not in text and "flax/linen/transforms" not in text:
            raise
        name = "nn.remat" if "checkpoint" in text else "nn.jit"
        text = f"module: {name} traces the flag of training; give its position, as in"
        raise TypeError(f"{text} {name}(Net, static_argnums=(2,))") from error
