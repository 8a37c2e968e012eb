"""Split, weighed and rescaled logits: worked values, NumPy formulas, differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

# Worked with an independent float64 script: shared/reference/methods.md, 3.5.
STUDENT = np.array([[1.0, 2, 3], [0.5, 0.5, 0]])
TEACHER = np.array([[2.0, 1, 0], [0, 3, 1]])
LABELS = np.array([0, 1])
SURE = np.array([[1e3, 0.0, 0], [0, 1e3, 0]])


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def draw(rows=5, classes=7, scale=2.0):
    return scale * np.random.default_rng(1).normal(size=(2, rows, classes))


CLASSES = np.random.default_rng(2).integers(7, size=5)


def test_decoupled_fixtures():
    target = losses.dkd_target(STUDENT, TEACHER, labels=LABELS)
    rest = losses.dkd_non_target(STUDENT, TEACHER, labels=LABELS)
    both = losses.dkd(STUDENT, TEACHER, labels=LABELS)
    np.testing.assert_allclose(target.mean(), 0.8187856918, atol=1e-9)
    np.testing.assert_allclose(8 * rest.mean(), 3.1080994377, atol=1e-9)
    np.testing.assert_allclose(both.mean(), 3.9268851295, atol=1e-9)
    sure = softmax(TEACHER / 4)[np.arange(2), LABELS]
    np.testing.assert_allclose(
        (target + (1 - sure) * rest).mean(), 1.0357830812, atol=1e-9
    )


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_decoupled_against_numpy(temperature):
    student, teacher = draw()
    rows = np.arange(5)
    q, p = softmax(student / temperature), softmax(teacher / temperature)
    c, b = q[rows, CLASSES], p[rows, CLASSES]
    target = kl(np.stack([b, 1 - b], -1), np.stack([c, 1 - c], -1))
    other = np.arange(7) != CLASSES[:, None]
    rest = kl(
        softmax(teacher[other].reshape(5, 6) / temperature),
        softmax(student[other].reshape(5, 6) / temperature),
    )
    knobs = {"labels": CLASSES, "temperature": temperature}
    np.testing.assert_allclose(
        losses.dkd_target(student, teacher, **knobs),
        temperature**2 * target,
        rtol=1e-9,
    )
    np.testing.assert_allclose(
        losses.dkd_non_target(student, teacher, **knobs),
        temperature**2 * rest,
        rtol=1e-9,
    )
    np.testing.assert_allclose(
        losses.dkd(student, teacher, alpha=0.3, beta=1.7, **knobs),
        temperature**2 * (0.3 * target + 1.7 * rest),
        rtol=1e-9,
    )
    plain = losses.softmax_kl(student, teacher, temperature=temperature)
    np.testing.assert_allclose(
        plain, temperature**2 * (target + (1 - b) * rest), rtol=1e-9
    )


@pytest.mark.full
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_student_sure_of_the_label_costs_no_more_than_its_logits(dtype):
    def loss(student, teacher):
        values = losses.dkd(student, teacher, labels=LABELS, temperature=1.0)
        return values.sum(), values

    for pair in ((SURE, TEACHER), (TEACHER, SURE), (SURE, SURE), (-SURE, SURE)):
        pair = [x.astype(dtype) for x in pair]
        gradients, values = jax.grad(loss, (0, 1), has_aux=True)(*pair)
        assert np.isfinite(values).all() and np.isfinite(gradients).all()
    values = losses.dkd_target(SURE, TEACHER, labels=LABELS, temperature=1.0)
    doubt = 1 - softmax(TEACHER)[np.arange(2), LABELS]
    entropy = doubt * np.log(doubt) + (1 - doubt) * np.log(1 - doubt)
    np.testing.assert_allclose(values, doubt * (1e3 - np.log(2)) + entropy, rtol=1e-9)


def test_two_classes_have_no_others_and_one_is_refused():
    student, teacher = draw(classes=2)
    labels = CLASSES % 2
    rest = losses.dkd_non_target(student, teacher, labels=labels)
    np.testing.assert_array_equal(rest, 0)
    target = losses.dkd_target(student, teacher, labels=labels)
    plain = losses.softmax_kl(student, teacher, temperature=4.0)
    np.testing.assert_allclose(target, plain, rtol=1e-9)
    with pytest.raises(ValueError, match="^student_logits: .*at least 2 classes"):
        losses.dkd(student[:, :1], teacher[:, :1], labels=0 * labels)


LABELED = [
    losses.dkd_target,
    losses.dkd_non_target,
    losses.dkd,
    losses.wsld,
    functools.partial(losses.wsld, variant="described"),
    lambda s, t, labels, **knobs: losses.tf_kd(s, labels, **knobs),
    lambda s, t, labels, **knobs: losses.tf_kd(s, labels, variant="described", **knobs),
]


@pytest.mark.parametrize("kernel", LABELED)
def test_an_example_without_label_is_zero(kernel):
    student, teacher = draw()
    labels = np.where(np.arange(5) == 3, -1, CLASSES)

    def loss(student, teacher):
        values = kernel(student, teacher, labels=labels)
        return values.sum(), values

    gradients, values = jax.grad(loss, (0, 1), has_aux=True)(student, teacher)
    expected = kernel(student, teacher, labels=CLASSES)
    assert (expected > 0).all()
    np.testing.assert_allclose(values, np.where(labels < 0, 0, expected), rtol=1e-12)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[3], 0)
    masked = kernel(student, teacher, labels=CLASSES, where=np.arange(7) != CLASSES[0])
    assert masked[0] == 0


@pytest.mark.parametrize("kernel", LABELED)
def test_labels_of_pixels_along_another_axis(kernel):
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(size=(2, 2, 5, 3))
    labels = rng.integers(5, size=(2, 3))
    values = kernel(student, teacher, labels=labels, axis=1)
    last = [np.moveaxis(x, 1, -1) for x in (student, teacher)]
    assert values.shape == (2, 3)
    np.testing.assert_allclose(values, kernel(*last, labels=labels), rtol=1e-12)


@pytest.mark.parametrize("kernel", LABELED)
def test_bad_labels_are_refused_by_name(kernel):
    student, teacher = draw()
    with pytest.raises(ValueError, match="^labels: expected .*integer.*float64"):
        kernel(student, teacher, labels=CLASSES.astype(float))
    with pytest.raises(ValueError, match=r"^labels: expected .*\(5,\).*got .*\(4,\)"):
        kernel(student, teacher, labels=CLASSES[:4])


@pytest.mark.parametrize("variant", ["described", "released"])
def test_weighted_soft_label_against_numpy(variant):
    student, teacher = draw()
    rows = np.arange(5)
    behind = -np.log(softmax(student)[rows, CLASSES])
    behind /= -np.log(softmax(teacher)[rows, CLASSES]) + 1e-7
    soft = -(softmax(teacher / 2) * np.log(softmax(student / 2))).sum(-1)
    values = losses.wsld(student, teacher, labels=CLASSES, variant=variant)
    np.testing.assert_allclose(values, 4 * (1 - np.exp(-behind)) * soft, rtol=1e-9)


@pytest.mark.parametrize("sure", [11.0, 14.0, 17.0, 40.0])
@pytest.mark.parametrize("eps", [1e-7, 1e-12])
@pytest.mark.parametrize("variant", ["described", "released"])
def test_weighted_soft_label_is_exact_where_both_are_sure(variant, eps, sure):
    """In float32; the cross-entropy of a label of odds `e^a` to five others is
    `log1p(5 e^-a)`."""
    unit = np.eye(4, 6, dtype=np.float32)

    def loss(student, teacher):
        values = losses.wsld(
            student, teacher, labels=np.arange(4), eps=eps, variant=variant
        )
        return values.sum(), values

    slopes, values = jax.grad(loss, (0, 1), has_aux=True)(
        (sure - 1) * unit, sure * unit
    )
    behind = np.log1p(5 * np.exp(1 - sure)) / (np.log1p(5 * np.exp(-sure)) + eps)
    student, teacher = (softmax(a / 2 * np.eye(1, 6)) for a in (sure - 1, sure))
    soft = -(teacher * np.log(student)).sum()
    expected = 4 * (1 - np.exp(-behind)) * soft
    np.testing.assert_allclose(values, np.full(4, expected), rtol=2e-5, atol=1e-10)
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_released_weight_is_a_constant_to_the_gradient():
    student, teacher = draw(scale=1.0)
    knobs = {"labels": CLASSES, "temperature": 3.0}

    def frozen(student, teacher):
        soft = losses.soft_cross_entropy(student, teacher, temperature=3.0)
        return (weight * soft).sum()

    def loss(student, teacher, variant):
        return losses.wsld(student, teacher, variant=variant, **knobs).sum()

    values = losses.wsld(student, teacher, **knobs)
    weight = values / losses.soft_cross_entropy(student, teacher, temperature=3.0)
    expected = jax.grad(frozen, (0, 1))(student, teacher)
    released = jax.grad(loss, (0, 1))(student, teacher, "released")
    described = jax.grad(loss, (0, 1))(student, teacher, "described")
    for e, r, d in zip(expected, released, described, strict=True):
        np.testing.assert_allclose(r, e, atol=1e-12)
        assert np.abs(d - e).max() > 1e-3


def test_weighted_soft_label_forgets_what_the_student_has_learned():
    teacher = np.array([[2.0, 0, 0]])
    label = np.array([0])
    weights = [
        losses.wsld(s, teacher, labels=label)
        / losses.soft_cross_entropy(s, teacher, temperature=2.0)
        for s in (teacher * 10, teacher, -teacher * 10)
    ]
    np.testing.assert_allclose(np.ravel(weights), [0, 1 - np.exp(-1), 1], atol=1e-6)


def test_teacher_free_against_numpy():
    student, _ = draw()
    u = np.full((5, 7), 0.01 / 6)
    u[np.arange(5), CLASSES] = 0.99
    released = losses.tf_kd(student, CLASSES)
    np.testing.assert_allclose(
        released, kl(softmax(u / 20), softmax(student)), rtol=1e-9
    )
    described = losses.tf_kd(student, CLASSES, variant="described", temperature=3.0)
    p = u ** (1 / 3) / (u ** (1 / 3)).sum(-1, keepdims=True)
    np.testing.assert_allclose(described, 9 * kl(p, softmax(student / 3)), rtol=1e-9)
    through = losses.softmax_kl(student, np.log(u), temperature=3.0)
    np.testing.assert_allclose(described, through, rtol=1e-9)


def test_teacher_free_is_zero_for_its_teacher_and_takes_sure_ones():
    student = np.log(np.where(np.arange(7) == CLASSES[:, None], 0.99, 0.01 / 6))
    values = losses.tf_kd(student, CLASSES, variant="described")
    np.testing.assert_allclose(values, 0, atol=1e-10)
    for variant in ("described", "released"):

        def loss(student, variant=variant):
            knobs = {"correct": 1.0, "variant": variant}
            return losses.tf_kd(student, CLASSES, **knobs).sum()

        value, gradient = jax.value_and_grad(loss)(student)
        assert np.isfinite(value) and np.isfinite(gradient).all()
    with pytest.raises(ValueError, match="^student_logits: .*at least 2 classes"):
        losses.tf_kd(student[:, :1], 0 * CLASSES)


@pytest.mark.parametrize("ddof", [0, 1])
def test_standardized_kl_against_numpy(ddof):
    student, teacher = draw()
    q, p = (
        softmax((x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=ddof)[:, None]) / 3)
        for x in (student, teacher)
    )
    values = losses.standardized_kl(
        student, teacher, temperature=3.0, ddof=ddof, eps=0.0
    )
    np.testing.assert_allclose(values, 9 * kl(p, q), rtol=1e-9)
    usual = losses.standardized_kl(student, teacher, temperature=3.0, ddof=ddof)
    np.testing.assert_allclose(usual, values, rtol=1e-5)


def test_standardized_kl_ignores_shift_and_scale_and_takes_constants():
    student, teacher = draw()
    expected = losses.standardized_kl(student, teacher)
    values = losses.standardized_kl(5 * student + 1, 0.2 * teacher - 3)
    np.testing.assert_allclose(values, expected, rtol=1e-5)

    def loss(student):
        return losses.standardized_kl(student, teacher).sum()

    value, gradient = jax.value_and_grad(loss)(0 * student + 2)
    assert value > 0
    np.testing.assert_array_equal(gradient, 0)
    with pytest.raises(ValueError, match="^ddof: expected one of .*got 2"):
        losses.standardized_kl(student, teacher, ddof=2)
    with pytest.raises(ValueError, match="^eps: expected"):
        losses.standardized_kl(student, teacher, eps=-1.0)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.1])
def test_lwf_against_numpy(eps):
    student, teacher = draw()
    q, p = (np.sqrt(softmax(x)) for x in (student, teacher))
    q, p = (x / x.sum(-1, keepdims=True) for x in (q, p))
    q = (q + eps / 7) / (1 + eps)
    values = losses.lwf(student, teacher, eps=eps)
    np.testing.assert_allclose(values, -(p * np.log(q)).sum(-1), rtol=1e-9)
    if eps == 0:
        soft = losses.soft_cross_entropy(student, teacher, temperature=2.0)
        np.testing.assert_allclose(values, soft / 4, rtol=1e-12)
    keep = np.arange(7) < 4
    values = losses.lwf(student, teacher, eps=eps, where=keep)
    sliced = losses.lwf(student[:, :4], teacher[:, :4], eps=eps)
    np.testing.assert_allclose(values, sliced, rtol=1e-12)


MASK = np.arange(7) % 3 != 0
SOME = np.array([1, 2, 4, 5])


@pytest.mark.parametrize(
    "kernel",
    [
        functools.partial(losses.dkd, labels=SOME),
        functools.partial(losses.dkd, labels=SOME, where=MASK),
        functools.partial(losses.standardized_kl, where=MASK),
        functools.partial(losses.standardized_kl, ddof=0),
        functools.partial(losses.lwf, eps=0.1, where=MASK),
        functools.partial(losses.lwf),
        functools.partial(losses.wsld, labels=SOME, variant="described", where=MASK),
    ],
)
def test_gradients_against_differences(kernel):
    student, teacher = draw(rows=4, scale=1.0)
    weights = jnp.arange(1.0, 5)

    def loss(student, teacher):
        return (weights * kernel(student, teacher)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("rev",), 1e-6, 1e-6)


@pytest.mark.parametrize("variant", ("described", "released"))
def test_teacher_free_gradient_against_differences(variant):
    student, _ = draw(rows=4, scale=1.0)

    def loss(student):
        values = losses.tf_kd(student, SOME, variant=variant, where=MASK)
        return (jnp.arange(1.0, 5) * values).sum()

    check_grads(jax.jit(loss), (student,), 1, ("rev",), 1e-6, 1e-6)


def test_unknown_forms_are_refused():
    student, teacher = draw()
    with pytest.raises(ValueError, match="^variant: expected one of .*got 'mine'"):
        losses.wsld(student, teacher, labels=CLASSES, variant="mine")
    with pytest.raises(ValueError, match="^variant: expected one of .*got 'mine'"):
        losses.tf_kd(student, CLASSES, variant="mine")
