"""Response losses against hand-worked values, NumPy formulas and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import (
    hard_cross_entropy,
    jeffreys,
    jensen_shannon,
    logit_mse,
    reverse_softmax_kl,
    soft_cross_entropy,
    softmax_kl,
)

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

# Worked with an independent float64 script: shared/reference/methods.md, 3.5.
STUDENT = np.array([[1.0, 2, 3], [0.5, 0.5, 0]])
TEACHER = np.array([[2.0, 1, 0], [0, 3, 1]])
LABELS = np.array([0, 1])

# Values of big_vision's distances: shared/reference/funmatch.md, 2.3.
BV_STUDENT = np.array([1.0, 2, 3, 0])
BV_TEACHER = np.array([4.0, 2, 1, 0])


def _softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def _random(rows=5, classes=7, scale=3.0):
    return scale * np.random.default_rng(1).normal(size=(2, rows, classes))


@pytest.mark.parametrize(
    "temperature, expected",
    [
        (1.0, 0.8206359181),
        (2.0, 0.9880456948),
        (4.0, 1.0357830812),
        (20.0, 1.0439611086),
        (1e4, 1.0416729),
    ],
)
def test_softmax_kl_fixture(temperature, expected):
    values = softmax_kl(STUDENT, TEACHER, temperature=temperature)
    np.testing.assert_allclose(values.mean(), expected, atol=1e-6)


def test_softmax_kl_tends_to_the_squared_distance_of_centered_logits():
    limit = logit_mse(STUDENT, TEACHER, center=True).mean() / 2
    np.testing.assert_allclose(limit, 1.0416666667, atol=1e-9)
    value = softmax_kl(STUDENT, TEACHER, temperature=1e4).mean()
    np.testing.assert_allclose(value, limit, atol=1e-5)


def test_softmax_kl_reversed_fixture():
    for value in (softmax_kl(TEACHER, STUDENT), reverse_softmax_kl(STUDENT, TEACHER)):
        np.testing.assert_allclose(value.mean(), 0.9311233485, atol=1e-9)
    both = jeffreys(STUDENT, TEACHER).mean()
    np.testing.assert_allclose(both, 0.8206359181 + 0.9311233485, atol=1e-9)


def test_label_and_teacher_fixture():
    soft = softmax_kl(STUDENT, TEACHER, temperature=4.0).mean()
    hard = hard_cross_entropy(STUDENT, LABELS).mean()
    np.testing.assert_allclose(hard, 1.6828130262, atol=1e-9)
    np.testing.assert_allclose(0.9 * soft + 0.1 * hard, 1.1004860757, atol=1e-9)


def test_softmax_kl_gradient_fixture():
    def loss(student):
        return softmax_kl(student, TEACHER, temperature=4.0).mean()

    expected = [
        [-0.32990748, 0, 0.32990748],
        [0.23940335, -0.26820563, 0.02880228],
    ]
    np.testing.assert_allclose(jax.grad(loss)(STUDENT), expected, atol=1e-8)


def test_logit_mse_fixture():
    np.testing.assert_allclose(logit_mse(STUDENT, TEACHER).mean(), 37 / 12, atol=1e-12)


@pytest.mark.parametrize(
    "temperature, expected",
    [(1.0, 1.665124), (2.0, 1.923880), (5.0, 1.805867), (10.0, 1.710401)],
)
def test_softmax_kl_of_big_vision(temperature, expected):
    value = softmax_kl(BV_STUDENT, BV_TEACHER, temperature=temperature)
    assert value.shape == ()
    np.testing.assert_allclose(value, expected, atol=1e-6)


def test_other_distances_of_big_vision():
    np.testing.assert_allclose(4 * logit_mse(BV_STUDENT, BV_TEACHER), 13, atol=1e-12)
    hard = hard_cross_entropy(BV_STUDENT, BV_TEACHER)
    np.testing.assert_allclose(hard, 2.440190, atol=1e-6)
    smooth = hard_cross_entropy(
        BV_STUDENT, BV_TEACHER, label_smoothing=0.1, variant="big_vision"
    )
    np.testing.assert_allclose(smooth, 1.938579, atol=1e-6)


@pytest.mark.parametrize("temperature, expected", [(1.0, 0.791208), (2.0, 1.106109)])
def test_zero_head_of_big_vision(temperature, expected):
    """A head that starts at zero costs T^2 (log C - entropy of the teacher)."""
    head = np.zeros_like(BV_TEACHER)
    value = softmax_kl(head, BV_TEACHER, temperature=temperature)
    np.testing.assert_allclose(value, expected, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_soft_losses_against_numpy(temperature):
    student, teacher = _random()
    p, q = _softmax(teacher / temperature), _softmax(student / temperature)
    scale = temperature**2
    kl = softmax_kl(student, teacher, temperature=temperature)
    np.testing.assert_allclose(kl, scale * (p * np.log(p / q)).sum(-1), rtol=1e-10)
    cross = soft_cross_entropy(student, teacher, temperature=temperature)
    np.testing.assert_allclose(cross, -scale * (p * np.log(q)).sum(-1), rtol=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_hard_cross_entropy_against_numpy(smoothing):
    student, teacher = _random()
    target = np.full(student.shape, smoothing / 7)
    labels = teacher.argmax(-1)
    target[np.arange(5), labels] += 1 - smoothing
    expected = -(target * np.log(_softmax(student))).sum(-1)
    for second in (teacher, labels, labels.astype(np.uint8)):
        values = hard_cross_entropy(student, second, label_smoothing=smoothing)
        np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_hard_cross_entropy_of_pixels_along_another_axis():
    logits = np.random.default_rng(2).normal(size=(2, 5, 3, 4))
    labels = np.random.default_rng(3).integers(5, size=(2, 3, 4))
    values = hard_cross_entropy(logits, labels, axis=1)
    last = hard_cross_entropy(np.moveaxis(logits, 1, -1), labels)
    assert values.shape == (2, 3, 4)
    np.testing.assert_allclose(values, last, rtol=1e-12)


def test_hard_cross_entropy_without_label_is_zero():
    def loss(student):
        labels = np.array([-1, -7])
        return hard_cross_entropy(student, labels, label_smoothing=0.1)

    np.testing.assert_array_equal(loss(STUDENT), 0)
    np.testing.assert_array_equal(jax.jacrev(loss)(STUDENT), 0)


def test_hard_cross_entropy_smooths_over_the_classes_that_take_part():
    keep = np.array([True, False, True])
    values = hard_cross_entropy(
        STUDENT, np.array([2, 0]), label_smoothing=0.3, where=keep
    )
    sliced = hard_cross_entropy(STUDENT[:, keep], np.array([1, 0]), label_smoothing=0.3)
    np.testing.assert_allclose(values, sliced, rtol=1e-12)
    masked_label = hard_cross_entropy(STUDENT, np.array([1, 1]), where=keep)
    np.testing.assert_array_equal(masked_label, 0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_other_divergences_against_numpy(temperature):
    student, teacher = _random()
    p, q = _softmax(teacher / temperature), _softmax(student / temperature)
    scale = temperature**2
    reverse = reverse_softmax_kl(student, teacher, temperature=temperature)
    np.testing.assert_allclose(reverse, scale * _kl(q, p), rtol=1e-9)
    both = jeffreys(student, teacher, temperature=temperature)
    np.testing.assert_allclose(both, scale * (_kl(p, q) + _kl(q, p)), rtol=1e-9)
    for beta in (0.1, 0.5, 0.9):
        m = beta * p + (1 - beta) * q
        expected = scale * (beta * _kl(p, m) + (1 - beta) * _kl(q, m))
        value = jensen_shannon(student, teacher, beta=beta, temperature=temperature)
        np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_jensen_shannon_ends_and_their_limits():
    """Its ends are divergences; next to them it is 0, in proportion to one."""
    student, teacher = _random()
    ends = {
        0.0: softmax_kl(student, teacher),
        1.0: reverse_softmax_kl(student, teacher),
    }
    for beta, expected in ends.items():
        values = jensen_shannon(student, teacher, beta=beta, temperature=1.0)
        np.testing.assert_allclose(values, expected, rtol=1e-12)
        near = abs(beta - 1e-6)
        values = jensen_shannon(student, teacher, beta=near)
        np.testing.assert_allclose(values / 1e-6, expected, rtol=1e-2)
        traced = jax.jit(lambda b: jensen_shannon(student, teacher, beta=b))
        np.testing.assert_allclose(traced(beta), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="^beta: expected a number in .*got 1.5"):
        jensen_shannon(student, teacher, beta=1.5)


def test_jensen_shannon_is_symmetric_and_bounded():
    student, teacher = _random()
    values = jensen_shannon(student, teacher)
    np.testing.assert_allclose(values, jensen_shannon(teacher, student), rtol=1e-9)
    assert (values < np.log(2)).all()
    apart = jensen_shannon(1e4 * student, -1e4 * student, temperature=2.0)
    np.testing.assert_allclose(apart, 4 * np.log(2), rtol=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_jensen_shannon_with_classes_ruled_out(beta):
    student, teacher = _random()
    student[:, 2] = teacher[:, 2] = -np.inf
    rest = np.arange(7) != 2
    expected = jensen_shannon(student[:, rest], teacher[:, rest], beta=beta)
    values = jensen_shannon(student, teacher, beta=beta)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    if beta == 0.3:
        # One side alone still finds the mixture above 0.
        teacher[:, 4] = -np.inf
        assert np.isfinite(jensen_shannon(student, teacher, beta=beta)).all()

    def loss(*pair):
        return jensen_shannon(*pair, beta=beta).sum()

    assert np.isfinite(jax.grad(loss)(student, student)).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_hard_cross_entropy_of_big_vision_against_numpy(smoothing):
    student, teacher = _random()
    target = np.full(student.shape, smoothing / 6)
    labels = teacher.argmax(-1)
    target[np.arange(5), labels] = 1 - smoothing
    entropy = -(target * np.log(np.maximum(target, 1e-300))).sum(-1)
    expected = -(target * np.log(_softmax(student))).sum(-1) - entropy
    knobs = {"label_smoothing": smoothing, "variant": "big_vision"}
    for second in (teacher, labels):
        values = hard_cross_entropy(student, second, **knobs)
        np.testing.assert_allclose(values, expected, rtol=1e-10)
    if 0 < smoothing < 1:
        at_target = hard_cross_entropy(np.log(target), labels, **knobs)
        np.testing.assert_allclose(at_target, 0, atol=1e-12)
    with pytest.raises(ValueError, match="^student_logits: .*at least 2 classes"):
        hard_cross_entropy(student[:, :1], 0 * labels, **knobs)
    without = hard_cross_entropy(student, np.full(5, -1), **knobs)
    np.testing.assert_array_equal(without, 0)


def test_unknown_smoothing_convention_is_refused():
    with pytest.raises(ValueError, match="^variant: expected one of .*got 'mine'"):
        hard_cross_entropy(STUDENT, LABELS, variant="mine")


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, np.nan])
def test_bad_smoothing_is_refused(smoothing):
    with pytest.raises(ValueError, match="^label_smoothing: expected"):
        hard_cross_entropy(STUDENT, LABELS, label_smoothing=smoothing)


@pytest.mark.parametrize("center", [False, True])
def test_logit_mse_against_numpy(center):
    student, teacher = _random()
    gap = student - teacher
    gap = gap - gap.mean(-1, keepdims=True) if center else gap
    values = logit_mse(student, teacher, center=center)
    np.testing.assert_allclose(values, (gap**2).mean(-1), rtol=1e-12)


def test_soft_losses_ignore_a_constant_on_the_logits():
    student, teacher = _random()
    shift = np.arange(5.0)[:, None]
    for kernel in (
        *(softmax_kl, soft_cross_entropy, reverse_softmax_kl, jeffreys),
        jensen_shannon,
    ):
        expected = kernel(student, teacher, temperature=2.0)
        values = kernel(student + shift, teacher - 3 * shift, temperature=2.0)
        np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_soft_losses_give_the_student_one_gradient():
    student, teacher = _random()
    gradients = [
        jax.grad(lambda s, k=kernel: k(s, teacher, temperature=3.0).sum())(student)
        for kernel in (softmax_kl, soft_cross_entropy)
    ]
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-12)


@pytest.mark.parametrize("kernel", [softmax_kl, soft_cross_entropy])
def test_a_class_may_be_ruled_out_with_minus_infinity(kernel):
    student, teacher = _random()
    student[:, 2] = teacher[:, 2] = -np.inf
    rest = np.arange(7) != 2
    expected = kernel(student[:, rest], teacher[:, rest])
    np.testing.assert_allclose(kernel(student, teacher), expected, rtol=1e-12)
    gradients = jax.grad(lambda *x: kernel(*x).sum(), (0, 1))(student, teacher)
    assert np.isfinite(gradients).all()


def test_softmax_kl_is_infinite_where_the_student_rules_out_what_the_teacher_says():
    student = np.array([0.0, -np.inf])
    assert softmax_kl(student, np.zeros(2)) == np.inf


@pytest.mark.parametrize(
    "kernel",
    [
        softmax_kl,
        lambda s, t: softmax_kl(s, t, temperature=4.0, where=MASK),
        lambda s, t: soft_cross_entropy(s, t, temperature=0.5),
        hard_cross_entropy,
        lambda s, t: hard_cross_entropy(s, t, label_smoothing=0.2, where=MASK),
        logit_mse,
        lambda s, t: logit_mse(s, t, center=True, where=MASK),
        lambda s, t: hard_cross_entropy(
            s, t, label_smoothing=0.2, variant="big_vision", where=MASK
        ),
        lambda s, t: reverse_softmax_kl(s, t, temperature=2.0, where=MASK),
        lambda s, t: jeffreys(s, t, temperature=2.0),
        lambda s, t: jensen_shannon(s, t, beta=0.3, temperature=2.0, where=MASK),
    ],
)
def test_gradients_against_differences(kernel):
    student, teacher = _random(rows=3, scale=1.0)
    weights = jnp.arange(1.0, 4)

    def loss(student, teacher):
        return (weights * kernel(student, teacher)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-7, 1e-7)


MASK = np.arange(7) % 3 != 0
