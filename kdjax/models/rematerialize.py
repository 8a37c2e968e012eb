"""Networks whose blocks are computed again for the gradient, which saves memory.

A block is a Flax Linen module that repeats within its network and has several modules
in it: a residual block, a layer of a transformer.
"""

import collections
from collections.abc import Callable, Collection
from typing import Any

import jax
from flax import linen as nn

from kdjax.config import ConfigError
from kdjax.core.types import Model

_PRODUCTS = ("dot_general", "conv_general_dilated")
Path = tuple[str, ...]


def rematerialize(
    model: Model, keep: str = "nothing", *, field: str = "model"
) -> Model:
    """The same model; a gradient computes again what is inside of its blocks.

    Values and gradients are equal up to rounding. Only calls in training are changed.

    Args:
      model: of `from_linen`, or a network of kdjax.
      keep: "nothing" inside a block, or the outputs of "products": convolutions and
        matrix products, which take the most time.
      field: the name in an error.

    Raises:
      ValueError: another `keep`.
      ConfigError: a model without blocks, when it is first applied in training.

    Reference:
      Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost", 2016,
      arXiv 1604.06174.
    """
    policies = {"nothing": None, "products": _is_product}
    if keep not in policies:
        raise ValueError(f"keep: expected one of {sorted(policies)}, got {keep!r}")
    policy = policies[keep]

    def apply(variables, images, *, train=False, rngs=None):
        def call():
            return model.apply(variables, images, train=train, rngs=rngs)

        if not train:
            return call()
        blocks = find_blocks(call)
        expected = "a Flax Linen network with blocks that repeat"
        if not blocks:
            raise ConfigError(field, expected, shown="one without")
        with nn.intercept_methods(_Again(blocks, policy)):
            return call()

    return model._replace(apply=apply)


def find_blocks(call: Callable[[], Any]) -> set[Path]:
    """Paths of the blocks of the network that `call` applies; empty without any.

    Of blocks within blocks the outer or the inner ones are taken, whichever keep fewer
    outputs: those of all blocks, and those inside the largest.
    """
    seen = _Calls()
    with nn.intercept_methods(seen):
        jax.eval_shape(call)
    count = collections.Counter(kind for kind, _ in seen.found.values())
    repeated = {path for path, (kind, _) in seen.found.items() if count[kind] > 1}
    outer = {x for x in repeated if not any(_within(x, y) for y in repeated)}
    inner = {x for x in repeated if not any(_within(y, x) for y in repeated)}

    def outputs(blocks: Collection[Path]) -> int:
        return len(blocks) + max((seen.found[x][1] for x in blocks), default=0)

    return min((outer, inner), key=outputs)


def _within(path: Path, other: Path) -> bool:
    """True for the path of a module inside of another."""
    return len(path) > len(other) and path[: len(other)] == other


class _Calls:
    """An interceptor that counts the calls inside of each module but the network.

    found: class and number of calls by path, of modules that call several others.
    """

    def __init__(self) -> None:
        self.found: dict[Path, tuple[type, int]] = {}
        self._inside = [0]
        self._direct = [0]

    def __call__(self, call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        self._direct[-1] += 1
        self._direct.append(0)
        self._inside.append(0)
        result = call(*args, **kwargs)
        direct, inside = self._direct.pop(), self._inside.pop()
        self._inside[-1] += 1 + inside
        if direct > 1 and context.module.path:
            self.found[context.module.path] = type(context.module), inside
        return result


class _Again:
    """An interceptor that puts blocks under `flax.linen.remat`."""

    def __init__(self, blocks: Collection[Path], policy: Callable | None) -> None:
        self._blocks, self._policy = blocks, policy
        self._is_inside = False

    def __call__(self, call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        is_block = context.method_name == "__call__" and not self._is_inside
        if not is_block or context.module.path not in self._blocks:
            return call(*args, **kwargs)
        leaves, structure = jax.tree.flatten((args, kwargs))
        traced = [isinstance(x, jax.Array) for x in leaves]
        # Flags, such as `train`, must stay Python values.
        fixed = [x for x, is_array in zip(leaves, traced, strict=True) if not is_array]

        def block(module: nn.Module, *arrays: Any) -> Any:
            a, b = iter(arrays), iter(fixed)
            merged = [next(a if is_array else b) for is_array in traced]
            args, kwargs = jax.tree.unflatten(structure, merged)
            return module(*args, **kwargs)

        arrays = [x for x in leaves if isinstance(x, jax.Array)]
        self._is_inside = True
        try:
            return nn.remat(block, policy=self._policy)(context.module, *arrays)
        finally:
            self._is_inside = False


def _is_product(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in _PRODUCTS
