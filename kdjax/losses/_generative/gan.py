"""Losses of a critic that separates teacher from student, and of generators of data.

A critic (discriminator) gives scores before any sigmoid: high for what it takes for
the teacher's, low for the student's. Throughout, "teacher" is the real side and
"student" the fake one; for a generator of images put the real images' scores in the
teacher's place. `adversarial_critic` and `gradient_penalty` train the critic,
`adversarial_student` the student; the caller stops the gradient of the other.

Scores are `[batch]`, or `[batch, ...]` for a critic that judges positions one by one.
These kernels have no `axis`: every axis but the first is averaged.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import promote, promote_together, safe_norm
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

CRITIC_VARIANTS = ("hinge", "least_squares", "non_saturating", "wasserstein")


STUDENT_VARIANTS = (*CRITIC_VARIANTS, "saturating")


def _softplus(x: Array) -> Array:
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def _hinge(x: Array) -> Array:
    return jnp.where(x <= 0, 0, x)


def _per_example(values: Array, where: Array | None) -> Array:
    return masked_mean(values, range(1, values.ndim), where)


def adversarial_critic(
    student_scores: Array,
    teacher_scores: Array,
    *,
    variant: str = "non_saturating",
    where: Array | None = None,
) -> Array:
    """GAN critic loss: teacher scores high, student scores low.

    - `"non_saturating"`: `softplus(-t) + softplus(s)`, the negative log-likelihood of
      which is which; `2 log 2` for a critic that cannot tell.
    - `"least_squares"`: `(t - 1)^2 / 2 + s^2 / 2`; `1/4` for a constant score of 1/2.
    - `"hinge"`: `max(0, 1 - t) + max(0, 1 + s)`; 2 for scores of 0.
    - `"wasserstein"`: `s - t`; needs a Lipschitz critic, see `gradient_penalty`.

    With three networks (KDGAN), true labels in the teacher's place, the critic's
    loss is `a` times this with the classifier's labels as the student's, plus `1 - a`
    times this with the teacher's: `-2 log(1/2)` for a critic at chance.

    Args:
        student_scores: `[batch]` or `[batch, ...]`, before any sigmoid.
        teacher_scores: the same shape. Rows need not belong together.
        variant: one of the four above.
        where: bool, broadcastable to the scores; the positions that take part.

    Returns:
        `[batch]`, one value per example, at least float32; the critic minimizes its
        plain mean.

    Raises:
        ValueError: if shapes differ or are empty, a dtype is not floating, or the
            variant is unknown.

    Example:
        >>> student, teacher = jnp.array([0.0, -1.0]), jnp.array([0.0, 2.0])
        >>> print(adversarial_critic(student, teacher, variant="hinge"))
        [2. 0.]

    Reference:
        Goodfellow et al., 2014, arXiv 1406.2661; Mao et al. (least squares), 2017,
        arXiv 1611.04076; Lim, Ye (hinge), 2017, arXiv 1705.02894; Arjovsky et al.
        (Wasserstein), 2017, arXiv 1701.07875. As a distillation loss: Xu et al.,
        2018, arXiv 1709.00513.
    """
    checks.one_of("variant", variant, CRITIC_VARIANTS)
    checks.matching_pair("scores", student_scores, teacher_scores)
    checks.rank("student_scores", student_scores, 1, at_least=True)
    checks.mask("where", where, student_scores.shape)
    student, teacher = promote_together(student_scores, teacher_scores)
    if where is not None:
        where = jnp.broadcast_to(where, student.shape)
        student, teacher = (jnp.where(where, x, 0) for x in (student, teacher))
    if variant == "non_saturating":
        values = _softplus(-teacher) + _softplus(student)
    elif variant == "least_squares":
        values = (jnp.square(teacher - 1) + jnp.square(student)) / 2
    elif variant == "hinge":
        values = _hinge(1 - teacher) + _hinge(1 + student)
    else:
        values = student - teacher
    return _per_example(values, where)


def adversarial_student(
    student_scores: Array,
    *,
    variant: str = "non_saturating",
    where: Array | None = None,
) -> Array:
    """GAN student (generator) loss against a critic of outputs or features.

    `"non_saturating"`: `softplus(-s)`, `log 2` for a critic at chance.
    `"least_squares"`: `(s - 1)^2 / 2`. `"hinge"` and `"wasserstein"`: `-s`.
    `"saturating"`: `-softplus(s)`, minus the student's part of the critic's loss,
    as with a reversed gradient.

    Args:
        student_scores: `[batch]` or `[batch, ...]`, before any sigmoid.
        variant: that of the critic, or `"saturating"` for a non-saturating one.
        where: bool, broadcastable to the scores; the positions that take part.

    Returns:
        `[batch]`, one value per example, at least float32. It stands with a
        loss that pairs examples; MEAL gives it weight 1.

    Raises:
        ValueError: if the scores are empty or not floating, or the variant is unknown.

    Example:
        >>> scores = jnp.array([0.0, 2.0])
        >>> print(adversarial_student(scores, variant="least_squares"))
        [0.5 0.5]

    Reference:
        As in `adversarial_critic`; Chung et al. (least squares between peers), 2020,
        arXiv 2002.01775; Shen et al. (MEAL), 2019, arXiv 1812.02425.
    """
    checks.one_of("variant", variant, STUDENT_VARIANTS)
    checks.floating("student_scores", student_scores)
    checks.rank("student_scores", student_scores, 1, at_least=True)
    checks.not_empty("student_scores", student_scores)
    checks.mask("where", where, student_scores.shape)
    scores = promote(student_scores)
    if where is not None:
        scores = jnp.where(jnp.broadcast_to(where, scores.shape), scores, 0)
    if variant == "non_saturating":
        values = _softplus(-scores)
    elif variant == "least_squares":
        values = jnp.square(scores - 1) / 2
    elif variant == "saturating":
        values = -_softplus(scores)
    else:
        values = -scores
    return _per_example(values, where)


def gradient_penalty(
    critic: Callable[[Array], Array],
    student_features: Array,
    teacher_features: Array,
    *,
    share: Array,
    target: float | Array = 1.0,
    one_sided: bool = False,
) -> Array:
    """Gradient penalty (WGAN-GP): distance of the critic's slope from a target.

    `(|grad_x critic(x)| - target)^2` at `x = share * teacher + (1 - share) * student`,
    the norm taken over all axes but the first; `one_sided` counts only slopes above
    the target. With `share` 1 and `target` 0 it is the R1 penalty on the teacher.

    Args:
        critic: `[batch, ...] -> [batch]` or `[batch, ...]` scores, each example by
            itself: no batch statistics. Scores of positions are summed.
        student_features: `[batch, ...]`, whatever the critic judges.
        teacher_features: the same shape.
        share: `[batch]` numbers in [0, 1], drawn uniformly by the caller.
        target: the slope wanted, not negative.
        one_sided: whether smaller slopes are free.

    Returns:
        `[batch]`, one value per example, at least float32. Its weight is 10.

    Raises:
        ValueError: if shapes do not match or are empty, a dtype is not floating, or a
            share or the target is out of its range.

    Example:
        >>> student, teacher = jnp.zeros((2, 4)), jnp.ones((2, 4))
        >>> share = jnp.array([0.25, 0.75])
        >>> critic = lambda x: jnp.sum(x, axis=1)
        >>> print(gradient_penalty(critic, student, teacher, share=share))
        [1. 1.]

    Reference:
        Gulrajani et al., "Improved Training of Wasserstein GANs", 2017,
        arXiv 1704.00028; Mescheder et al. (R1), 2018, arXiv 1801.04406.
    """
    checks.matching_pair("features", student_features, teacher_features)
    checks.rank("student_features", student_features, 2, at_least=True)
    checks.floating("share", share)
    checks.shape("share", share, student_features.shape[:1])
    checks.holds("share", lambda np, x: (x >= 0) & (x <= 1), "numbers in [0, 1]", share)
    checks.between("target", target, 0.0)
    checks.boolean("one_sided", one_sided)
    student, teacher, weight = promote_together(
        student_features, teacher_features, jnp.asarray(share)
    )
    weight = lax.expand_dims(weight, range(1, student.ndim))
    mixed = weight * teacher + (1 - weight) * student
    slope = jax.grad(lambda x: jnp.sum(promote(critic(x))))(mixed)
    size = safe_norm(slope.reshape(slope.shape[0], -1))
    gap = size - jnp.asarray(target, size.dtype)
    return jnp.square(_hinge(gap) if one_sided else gap)


@jax.custom_vjp
def reverse_gradient(x: Array, scale: float | Array = 1.0) -> Array:
    """Gradient reversal (DANN): identity, with the gradient times minus `scale`.

    Put between the student and the critic, one backward pass of the critic's loss
    trains both: the critic down it, the student up. `scale` is not differentiated.

    Args:
        x: any floating array.
        scale: how much of the gradient goes on.

    Returns:
        `x`.

    Example:
        >>> print(jax.grad(lambda x: 3 * reverse_gradient(x, 0.5))(1.0))
        -1.5

    Reference:
        Ganin, Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", 2015,
        arXiv 1409.7495; used by MEAL, arXiv 1812.02425.
    """
    return x


def _reverse_forward(x, scale=1.0):
    return x, scale


def _reverse_backward(scale, gradient):
    slope = -jnp.asarray(scale, gradient.dtype) * gradient
    return slope, jax.tree.map(jnp.zeros_like, scale)


reverse_gradient.defvjp(_reverse_forward, _reverse_backward)
