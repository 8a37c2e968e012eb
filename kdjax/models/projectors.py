"""Maps from a student's activations to the width of a teacher's."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.core.types import Array, PyTree


class Projector(NamedTuple):
    """A small network between two models, trained with the student.

    init: `key -> params`.
    apply: `(params, features) -> features`.
    """

    init: Callable[[Array], PyTree]
    apply: Callable[[PyTree, Array], Array]


def linear_projector(
    student_shape: tuple[int, ...], teacher_shape: tuple[int, ...]
) -> Projector:
    """A 1x1 convolution from student channels to teacher channels, without bias.

    `y[..., t] = sum_s x[..., s] * kernel[s, t]`, the kernel drawn with variance
    1 / student channels, which keeps the scale of the features. It maps channels and
    nothing else: it does not resize, and has no bias, which weight decay and the
    normalization inside several feature losses would treat differently.

    student_shape, teacher_shape: `[batch, ..., channels]` of the two activations.

    Raises ValueError if batch or positions differ, or if features have another
    number of channels.

    The regressor of FitNets: Romero et al. 2015, arXiv 1412.6550.
    """
    student_shape, teacher_shape = tuple(student_shape), tuple(teacher_shape)
    if len(student_shape) < 2 or student_shape[:-1] != teacher_shape[:-1]:
        raise ValueError(
            "student_shape, teacher_shape: expected [batch, ..., channels] that differ "
            f"in channels only, got {student_shape} and {teacher_shape}"
        )
    widths = student_shape[-1], teacher_shape[-1]

    def init(key: Array) -> PyTree:
        return {"kernel": jax.nn.initializers.lecun_normal()(key, widths)}

    def apply(params: PyTree, features: Array) -> Array:
        if features.shape[-1] != widths[0]:
            expected = f"features: expected {widths[0]} channels"
            raise ValueError(f"{expected}, got shape {features.shape}")
        return jnp.dot(features, params["kernel"])

    return Projector(init, apply)
