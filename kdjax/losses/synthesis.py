"""More losses of a generator, or of images: variety, disagreement, many labels.

As in `kdjax.losses.generator`, the gradient goes through the networks to their input:
stop their parameters, not their outputs.
"""

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import embeddings
from kdjax.core.numerics import safe_abs, tempered_log_softmax, widen
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._logits import divergence, tempered_pair

COMPETITION_FORMS = ("described", "released")
DISAGREEMENT_CONVENTIONS = ("mean", "sum")


def generator_diversity(
    images: Array, noise: Array, *, where: Array | None = None
) -> Array:
    """How near to each other the images of different noise are (KegNet).

    `exp(-1/N^2 sum_ij a_ij b_ij)` with `a_ij` the mean absolute difference of two
    images and `b_ij` the mean squared difference of their noise: 1 where all images
    coincide, nearer to 0 the more they differ where their noise does.

    Its value belongs to the whole batch: every example is given the same one, so
    that the mean is the loss, and the batch is the global one. Time grows with
    `N^2`; memory does not.

    Args:
        images: `[N, ...]`, generated.
        noise: `[N, ...]`, what they were generated from.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, the same value in (0, 1] for all examples that take part, at least
        float32. The released weight is 0 (MNIST, tables), 1 (SVHN) or 10 (Fashion),
        beside 1 for the decoder's `hint_l2` on the noise.

    Raises:
        ValueError: if an array is empty, of rank below 2 or not floating, or the
            numbers of examples differ.

    Example:
        >>> noise = jnp.array([[0.0, 0.0], [1.0, 1.0]])
        >>> images = jnp.array([[0.0, 0.0], [2.0, 0.0]])
        >>> print(f"{generator_diversity(images, noise).mean():.4f}")
        0.6065

    Reference:
        Yoo, Cho, Kim, Kang, "Knowledge Extraction with No Observable Data", NeurIPS
        2019 (no arXiv version).
    """
    for name, x in (("images", images), ("noise", noise)):
        checks.floating(name, x)
        checks.rank(name, x, 2, at_least=True)
        checks.not_empty(name, x)
    checks.shape("noise", noise, (images.shape[0], *noise.shape[1:]))
    images, noise = (x.reshape(x.shape[0], -1) for x in (images, noise))
    names = ("images", "noise")
    rows, noise, valid = embeddings(images, noise, where=where, names=names)

    @jax.checkpoint
    def apart(one: tuple[Array, Array, Array]) -> Array:
        image, code, takes_part = one
        far = jnp.mean(safe_abs(rows - image[None]), 1)
        far = far * jnp.mean(jnp.square(noise - code[None]), 1)
        return masked_mean(far, where=valid & takes_part)

    mean = masked_mean(lax.map(apart, (rows, noise, valid)), where=valid)
    return jnp.where(valid, jnp.exp(-mean), 0)


def generator_disagreement(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    convention: str = "mean",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Minus the divergence of the student from the teacher: what its teacher seeks.

    `-T^2 KL(p || q)`, divided by the number of classes for `"mean"`: the generator of
    adversarial belief matching looks for images on which the student is furthest from
    the teacher, and the student then minimises `softmax_kl` on them (over K, too) and
    `attention_transfer`. The published weights, 1 here and 250 for the attention, go
    with `"mean"`: the default. `"sum"` is minus `softmax_kl`.

    Args:
        student_logits: `[..., classes]` of generated images.
        teacher_logits: the same shape. Both networks pass the gradient to the images.
        temperature: a scalar above 0.
        convention: `"mean"` or `"sum"`.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, never positive, at least float32.

    Raises:
        ValueError: as in `softmax_kl`, or if the convention is unknown.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> print(f"{generator_disagreement(student, teacher).mean():.4f}")
        -0.2735

    Reference:
        Micaelli, Storkey, "Zero-shot Knowledge Transfer via Adversarial Belief
        Matching", 2019, arXiv 1905.09768.
    """
    checks.one_of("convention", convention, DISAGREEMENT_CONVENTIONS)
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    if convention == "sum":
        return -scale * divergence(log_teacher, log_student, axis, where)
    share = jnp.exp(log_teacher)
    gap = jnp.where(share == 0, 0, log_teacher - log_student)
    return -scale * masked_mean(share * gap, axis, where)


def _competition(student: Array, teacher: Array, form: str) -> Array:
    """Jensen-Shannon divergence of log-probabilities, or what the released code has."""
    if form == "described":
        middle = jnp.logaddexp(student, teacher) - jnp.log(
            jnp.asarray(2, student.dtype)
        )
        return (divergence(student, middle) + divergence(teacher, middle)) / 2
    sides = [jnp.exp(x) for x in (student, teacher)]
    sides.append((sides[0] + sides[1]) / 2)
    p, q, m = (jnp.log(jnp.clip(x, 0.01, 0.99)) for x in sides)
    return (divergence(m, p) + divergence(m, q)) / 2


def generator_competition(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 3.0,
    form: str = "described",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """What images pay for being the same to student and teacher (Adaptive DI).

    `1 - J_i`, the mean clipped to [0, 1], where for the example i

    - `"described"`: `J` is the Jensen-Shannon divergence of the predictions at `T`, at
      most log 2. The default: it has a gradient everywhere.
    - `"released"`: `(KL(m || p) + KL(m || q)) / 2`, in the other direction, with `p`,
      `q` and their mean `m` clipped to [0.01, 0.99]. A prediction beyond that has no
      gradient, and a mean of `J` above 1 gives 0 throughout.

    There is no `T^2`. Add `DeepInversion`'s other terms.

    Args:
        student_logits: `[N, classes]` of the images in the making.
        teacher_logits: the same shape.
        temperature: `T`, a scalar above 0.
        form: `"described"` or `"released"`.
        axis: the axis of the classes.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, at least float32. Its mean is 1 where the two
        agree. The weight of the README is 0.2.

    Raises:
        ValueError: as in `softmax_kl`, or if the logits are not of rank 2 or the form
            is unknown.

    Example:
        >>> student, teacher = jnp.array([[9.0, 0.0]]), jnp.array([[0.0, 9.0]])
        >>> print(f"{generator_competition(student, teacher).mean():.4f}")
        0.4977

    Reference:
        Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via
        DeepInversion", 2020, arXiv 1912.08795.
    """
    checks.one_of("form", form, COMPETITION_FORMS)
    checks.positive("temperature", temperature)
    checks.matching_pair("logits", student_logits, teacher_logits)
    names = ("student_logits", "teacher_logits")
    student, teacher, valid = embeddings(
        student_logits, teacher_logits, axis, where, names
    )
    log_student, log_teacher = (
        tempered_log_softmax(x, temperature) for x in (student, teacher)
    )
    apart = _competition(log_student, log_teacher, form)
    mean = masked_mean(apart, where=valid)
    clipped = jnp.where(mean >= 1, 0, jnp.where(mean <= 0, 1, 1 - apart))
    return jnp.where(valid, clipped, 0)


def _check_labels_logits(logits: Array, axis: int, where: Array | None) -> Array:
    checks.floating("teacher_logits", logits)
    checks.not_empty("teacher_logits", logits)
    checks.axis(axis, "teacher_logits", logits)
    checks.mask("where", where, logits.shape)
    logits = widen(logits)
    if where is None:
        return logits
    return jnp.where(jnp.broadcast_to(where, logits.shape), logits, 0)


def generator_multi_label(
    teacher_logits: Array, *, axis: int = -1, where: Array | None = None
) -> Array:
    """Binary cross-entropy of a teacher of many labels against its own decisions.

    `-1/K sum_k [t_k log y_k + (1 - t_k) log(1 - y_k)]` with `y = sigmoid(z)` and
    `t_k = 1` where `y_k >= 1/2`: it should be sure of every label.

    Args:
        teacher_logits: `[..., labels]` of generated examples, before any sigmoid.
        axis: the axis of the labels.
        where: bool, broadcastable to the logits; the labels that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32; with weight 1.

    Raises:
        ValueError: if the logits are empty or not floating.

    Example:
        >>> print(f"{generator_multi_label(jnp.array([[0.0, 9.0]])).mean():.4f}")
        0.3466

    Reference:
        Ye et al., "Data-Free Knowledge Amalgamation via Group-Stack Dual-GAN", 2020,
        arXiv 2003.09088.
    """
    logits = _check_labels_logits(teacher_logits, axis, where)
    # At 0 the decision is yes, and the gradient that of yes.
    cost = -jax.nn.log_sigmoid(jnp.where(logits >= 0, logits, -logits))
    return masked_mean(cost, axis, where)


def generator_sparsity(
    teacher_logits: Array, *, axis: int = -1, where: Array | None = None
) -> Array:
    """Mean probability of the labels: an image has few of them.

    `1/K sum_k sigmoid(z_k)`.

    Args:
        teacher_logits: `[..., labels]` of generated examples, before any sigmoid.
        axis: the axis of the labels.
        where: bool, broadcastable to the logits; the labels that take part.

    Returns:
        `[...]`, one value per example in [0, 1], at least float32. Its weight is not
        in our references.

    Raises:
        ValueError: if the logits are empty or not floating.

    Example:
        >>> print(generator_sparsity(jnp.array([[0.0, 0.0], [-99.0, 99.0]])))
        [0.5 0.5]

    Reference:
        Ye et al., "Data-Free Knowledge Amalgamation via Group-Stack Dual-GAN", 2020,
        arXiv 2003.09088.
    """
    logits = _check_labels_logits(teacher_logits, axis, where)
    return masked_mean(jax.nn.sigmoid(logits), axis, where)
