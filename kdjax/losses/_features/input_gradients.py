"""Losses between the gradients that two networks have in their inputs.

The kernels compare gradients that are given; `input_gradient` makes them, and can be
differentiated again.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import map_pair
from kdjax.core.numerics import l2_normalize, safe_norm
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array

JACOBIAN_VARIANTS = ("sum", "mean")


def input_gradient(score: Callable[[Array], Array], inputs: Array) -> Array:
    """Input gradient: gradient of one score per example in that example's input.

    Taken as the gradient of the sum of the scores, which is the same only as long as
    no example influences the score of another: run BatchNorm with its stored
    statistics, or accept the coupling knowingly. The student's gradient is
    differentiated a second time by the loss: about 2 to 3 times the memory.

    Args:
        score: `[batch, ...]` inputs to `[batch]` scores: the loss of each example
            (for `attention_transfer_gradient`) or the logit of its class (for
            `jacobian_matching`).
        inputs: `[batch, ...]` floating.

    Returns:
        An array like the inputs.

    Raises:
        ValueError: if the inputs are not floating or the scores not one per example.

    Example:
        >>> weights = jnp.array([[1.0, 0.0], [2.0, 3.0]])
        >>> images = jnp.ones((3, 2))
        >>> print(input_gradient(lambda x: (x @ weights)[:, 1], images)[0])
        [0. 3.]
    """
    checks.floating("inputs", inputs)
    checks.rank("inputs", inputs, 1, at_least=True)

    def total(inputs: Array) -> Array:
        scores = score(inputs)
        checks.shape("score(inputs)", scores, inputs.shape[:1])
        return jnp.sum(scores)

    return jax.grad(total)(inputs)


def attention_transfer_gradient(
    student_gradients: Array,
    teacher_gradients: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Gradient-based attention transfer: distance between input gradients of losses.

    `|J^s - J^t| / 2` for each example, the norm itself, with the half of the paper's
    `beta / 2`; `J` is the gradient of the cross-entropy with the label. Where the two
    are equal the gradient is 0. No code was released: the objective is that of the
    paper as we remember it, and our references have no weight.

    Args:
        student_gradients: `[batch, ...]`, from `input_gradient`.
        teacher_gradients: the same shape.
        axis: the axis of the channels; not the first, and of no effect.
        where: bool, broadcastable to the gradients; the pixels and channels that take
            part.

    Returns:
        `[batch]`, one value per example in units of the loss per unit of the input,
        at least float32.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than two axes, or a
            dtype is not floating.

    Example:
        >>> student = jnp.array([[[3.0, 0.0]], [[0.0, 0.0]]])
        >>> teacher = jnp.array([[[0.0, 4.0]], [[0.0, 0.0]]])
        >>> print(attention_transfer_gradient(student, teacher))
        [2.5 0. ]

    Reference:
        Zagoruyko, Komodakis, "Paying More Attention to Attention", 2017,
        arXiv 1612.03928.
    """
    student, teacher, _ = _flat(student_gradients, teacher_gradients, axis, where)
    return safe_norm(student - teacher) / 2


def jacobian_matching(
    student_gradients: Array,
    teacher_gradients: Array,
    *,
    variant: str = "sum",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Jacobian matching: squared distance between normalized input gradients.

    With the gradients of each example divided by their norms: `"sum"` is
    `|J^s - J^t|^2 = 2 - 2 cos`, as in the paper; `"mean"` divides that by the number
    of entries, as KD-Zoo does, and so depends on the resolution. The default is
    `"sum"`, which is the published loss. Scaling student or teacher by a positive
    number changes nothing; a gradient of zeros has no direction and gets gradient 0.

    Args:
        student_gradients: `[batch, ...]`, the gradient of the logit of the label, or
            of the teacher's choice, in the input: `input_gradient`.
        teacher_gradients: the same shape, of the same class.
        variant: `"sum"` or `"mean"`.
        axis: the axis of the channels; not the first, and of no effect.
        where: bool, broadcastable to the gradients; the pixels and channels that take
            part.

    Returns:
        `[batch]`, one value per example, at most 4 as a sum, at least float32. No
        weight is in common use; with other terms, not alone, which is unstable.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than two axes, a dtype
            is not floating, or the variant is unknown.

    Example:
        >>> student = jnp.array([[[3.0, 4.0]]])
        >>> teacher = jnp.array([[[2.0, 0.0]]])
        >>> values = jacobian_matching(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 0.8000

    Reference:
        Srinivas, Fleuret, "Knowledge Transfer with Jacobian Matching", 2018,
        arXiv 1803.00443.
    """
    checks.one_of("variant", variant, JACOBIAN_VARIANTS)
    student, teacher, keep = _flat(student_gradients, teacher_gradients, axis, where)
    error = jnp.square(l2_normalize(student) - l2_normalize(teacher))
    reduce = masked_sum if variant == "sum" else masked_mean
    return reduce(error, 1, keep)


def _flat(student, teacher, axis, where) -> tuple[Array, Array, Array | None]:
    """Student, teacher and mask as `[batch, entries]`."""
    pair = map_pair(student, teacher, axis, where, kind="gradients", rank=2)
    rows = pair.student.shape[0]
    keep = None if pair.keep is None else pair.keep.reshape(rows, -1)
    return pair.student.reshape(rows, -1), pair.teacher.reshape(rows, -1), keep
