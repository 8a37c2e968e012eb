"""Projectors by name: trained maps of a student's features to a teacher's shape."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import require_known
from kdjax.core.layout import adaptive_mean
from kdjax.core.types import Array, PyTree
from kdjax.models.layers import conv, mean_pool, norm

Shape = tuple[int, ...]


class Projector(NamedTuple):
    """A small network between two models, trained with the student.

    init: `key -> variables`, `{}` without any.
    apply: `(variables, features) -> (features, state)` in training mode; `state` are
        the collections other than `"params"`, such as the statistics of a BatchNorm.
        Features are an array; those of `each` are a tuple of arrays.
    """

    init: Callable[[Array], PyTree]
    apply: Callable[[PyTree, Any], tuple[Any, PyTree]]


def make_projector(
    names: str | Sequence[str],
    student_shape: Shape,
    teacher_shape: Shape,
    axis_name: str | None = None,
) -> Projector:
    """The projector of that name, or of several names one after another.

    Args:
      names: of `PROJECTORS`. Each maps what its name says, positions or channels, to
        the teacher's. `("pool", "linear")` maps both.
      student_shape, teacher_shape: `[batch, ..., channels]` of the two activations.
      axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Raises:
      ConfigError: of `projector`, for a name that is none.
      ValueError: shapes that a projector does not fit, or a result of other positions
        than the teacher's.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    shape, theirs = tuple(student_shape), tuple(teacher_shape)
    _require(min(len(shape), len(theirs)) >= 2, "features of two or more axes", shape)
    parts = []
    for name in names:
        require_known(name, PROJECTORS, "projector")
        parts.append(PROJECTORS[name](shape, theirs, axis_name))
        shape = _shape_behind(parts[-1], shape)
    expected = f"features at the positions of the teacher's {theirs} from "
    expected += f"{' and '.join(names)} (pool and resize map positions)"
    _require(shape[:-1] == theirs[:-1], expected, shape)

    def apply(variables: PyTree, features: Array) -> tuple[Array, PyTree]:
        states = []
        own = _split(variables, len(parts))
        for part, its in zip(parts, own, strict=True):
            features, state = part.apply(its, features)
            states.append(state)
        return features, _join(states)

    return Projector(_init_all(parts), apply)


def each(projectors: Sequence[Projector]) -> Projector:
    """One projector for each of several features, which `apply` takes as a tuple."""

    def apply(variables: PyTree, features: tuple) -> tuple[tuple, PyTree]:
        own = _split(variables, len(projectors))
        triples = zip(projectors, own, features, strict=True)
        mapped, states = zip(*(p.apply(v, x) for p, v, x in triples), strict=True)
        return mapped, _join(states)

    return Projector(_init_all(projectors), apply)


def _init_all(parts: Sequence[Projector]) -> Callable[[Array], PyTree]:
    def init(key: Array) -> PyTree:
        if len(parts) == 1:
            return parts[0].init(key)
        keys = [jax.random.fold_in(key, i) for i in range(len(parts))]
        return _join([part.init(k) for part, k in zip(parts, keys, strict=True)])

    return init


def _join(variables: Sequence[PyTree]) -> PyTree:
    """Variables by number in each collection; those of one alone as they are."""
    if len(variables) == 1:
        return variables[0]
    collections = sorted({name for own in variables for name in own})
    return {
        name: {str(i): own[name] for i, own in enumerate(variables) if name in own}
        for name in collections
    }


def _split(variables: PyTree, count: int) -> list[PyTree]:
    """The inverse of `_join`."""
    if count == 1:
        return [variables]
    return [
        {name: own[str(i)] for name, own in variables.items() if str(i) in own}
        for i in range(count)
    ]


def _shape_behind(part: Projector, shape: Shape) -> Shape:
    def features(key: Array) -> Array:
        return part.apply(part.init(key), jnp.zeros(shape))[0]

    return jax.eval_shape(features, jax.random.key(0)).shape


def _require(ok: bool, expected: str, got: Shape) -> None:
    if not ok:
        raise ValueError(f"expected {expected}, got {got}")


def _linear(student: Shape, teacher: Shape, axis_name: str | None) -> Projector:
    """`y[..., t] = sum_s x[..., s] kernel[s, t]`, drawn with variance 1 / channels.

    That keeps the scale of the features. It has no bias, which weight decay and the
    normalization inside several feature losses would treat differently.
    """
    widths = student[-1], teacher[-1]

    def init(key: Array) -> PyTree:
        return {"params": {"kernel": jax.nn.initializers.lecun_normal()(key, widths)}}

    def apply(variables: PyTree, features: Array) -> tuple[Array, PyTree]:
        return jnp.dot(features, variables["params"]["kernel"]), {}

    return Projector(init, apply)


def _of_module(module: nn.Module, shape: Shape) -> Projector:
    def init(key: Array) -> PyTree:
        return module.init(key, jnp.zeros(shape))

    def apply(variables: PyTree, features: Array) -> tuple[Array, PyTree]:
        return module.apply(variables, features, mutable=["batch_stats"])

    return Projector(init, apply)


def _conv_bn(student: Shape, teacher: Shape, axis_name: str | None) -> Projector:
    """A 1x1 convolution without bias, and BatchNorm; the connector of overhaul."""
    width = teacher[-1]
    layers = [nn.Dense(width, False), norm("batch", width, True, axis_name)]
    return _of_module(nn.Sequential(layers), student)


def _mlp(student: Shape, teacher: Shape, axis_name: str | None) -> Projector:
    """Two linear maps of the channels, with ReLU between them."""
    width = teacher[-1]
    layers = [nn.Dense(width), nn.relu, nn.Dense(width)]
    return _of_module(nn.Sequential(layers), student)


def _valid(student: Shape, teacher: Shape, axis_name: str | None) -> Projector:
    """A convolution without padding, of as many pixels as maps the one size to the
    other; the regressor of FitNets."""
    return _of_module(_valid_conv("valid", student, teacher), student)


def _valid_conv(name: str, student: Shape, teacher: Shape) -> nn.Conv:
    ok = len(student) == len(teacher) == 4
    ok = ok and student[1] >= teacher[1] and student[2] >= teacher[2]
    expected = f"maps for {name} of at least the teacher's size {teacher}"
    _require(ok, expected, student)
    sides = [a - b + 1 for a, b in zip(student[1:3], teacher[1:3], strict=True)]
    return nn.Conv(teacher[-1], tuple(sides), padding="VALID")


def _regressor(student: Shape, teacher: Shape, axis_name: str | None) -> Projector:
    """The regressor of RepDistiller, with BatchNorm and ReLU.

    For maps of twice the teacher's size a 3x3 convolution of stride 2, of half its size
    a transposed 4x4 one of stride 2, else a convolution without padding.
    """
    width, ours, theirs = teacher[-1], student[1:-1], teacher[1:-1]
    if len(student) == len(teacher) == 4 and ours == tuple(2 * x for x in theirs):
        layer: nn.Module = conv(width, 3, 2, bias=True)
    elif len(student) == len(teacher) == 4 and theirs == tuple(2 * x for x in ours):
        layer = nn.ConvTranspose(width, (4, 4), (2, 2), padding="SAME")
    else:
        layer = _valid_conv("regressor", student, teacher)
    layers = [layer, norm("batch", width, True, axis_name), nn.relu]
    return _of_module(nn.Sequential(layers), student)


def _fixed(function: Callable[[Array], Array]) -> Projector:
    """A map without parameters."""
    return Projector(lambda key: {}, lambda variables, x: (function(x), {}))


def _pool(student: Shape, teacher: Shape, axis_name: str | None) -> Projector:
    """Adaptive average pooling to the teacher's positions, in torch's bins."""
    if len(teacher) == 2:
        return _fixed(mean_pool)
    _require(len(student) == len(teacher), f"features like {teacher} for pool", student)
    sizes, axes = teacher[1:-1], tuple(range(1, len(teacher) - 1))
    return _fixed(lambda x: adaptive_mean(x, sizes, axes))


def _resize(student: Shape, teacher: Shape, axis_name: str | None) -> Projector:
    """Linear interpolation to the teacher's positions."""
    ok = len(student) == len(teacher)
    _require(ok, f"features like {teacher} for resize", student)

    def resize(x: Array) -> Array:
        shape = (len(x), *teacher[1:-1], x.shape[-1])
        # As `interpolate` of torch: each pixel from its two neighbors alone.
        return jax.image.resize(x, shape, "linear", antialias=False)

    return _fixed(resize)


def _pad(student: Shape, teacher: Shape, axis_name: str | None) -> Projector:
    """Channels of zeros behind the student's."""
    more = teacher[-1] - student[-1]
    _require(more >= 0, f"at most {teacher[-1]} channels for pad", student)
    return _fixed(lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)]))


def _slice(student: Shape, teacher: Shape, axis_name: str | None) -> Projector:
    """The first channels of the student, as many as the teacher has."""
    width = teacher[-1]
    _require(student[-1] >= width, f"at least {width} channels for slice", student)
    return _fixed(lambda x: x[..., :width])


PROJECTORS: dict[str, Callable[[Shape, Shape, str | None], Projector]] = {
    "linear": _linear,
    "conv_bn": _conv_bn,
    "mlp": _mlp,
    "valid": _valid,
    "regressor": _regressor,
    "pool": _pool,
    "resize": _resize,
    "pad": _pad,
    "slice": _slice,
}
"""Name -> `(student_shape, teacher_shape, axis_name) -> projector`."""
