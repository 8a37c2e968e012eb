"""Relations of predictions: worked values, NumPy formulas, differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

# Worked with an independent float64 script: shared/reference/methods.md, 3.5.
STUDENT_4 = np.array([[1.0, 2, 3], [0.5, 0.5, 0], [2, 0, 1], [0, 1, 0]])
TEACHER_4 = np.array([[2.0, 1, 0], [0, 3, 1], [3, 0, 1], [0, 2, 1]])

MASK = np.arange(7) % 3 != 0
ROWS = np.arange(4) != 1


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def draw(rows=5, classes=7, scale=2.0):
    return scale * np.random.default_rng(1).normal(size=(2, rows, classes))


def test_dist_fixtures():
    pair = (STUDENT_4, TEACHER_4)
    inter = losses.dist_inter(*pair).mean()
    intra = losses.dist_intra(*pair).mean()
    np.testing.assert_allclose(inter, 0.6224956557, atol=1e-9)
    np.testing.assert_allclose(intra, 0.7891016898, atol=1e-9)
    np.testing.assert_allclose(losses.dist(*pair).mean(), 1.4115973457, atol=1e-9)


def correlation(a, b, eps):
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    length = np.sqrt((a**2).sum(-1)) * np.sqrt((b**2).sum(-1))
    return (a * b).sum(-1) / (length + eps)


@pytest.mark.parametrize("eps", [1e-8, 0.3])
def test_dist_against_numpy(eps):
    """A large eps tells a product of lengths from a product of clamped ones."""
    student, teacher = draw()
    q, p = softmax(student / 4), softmax(teacher / 4)
    inter = 16 * (1 - correlation(q, p, eps))
    intra = 16 * (1 - correlation(q.T, p.T, eps).mean())
    knobs = {"temperature": 4.0, "eps": eps}
    values = losses.dist_inter(student, teacher, **knobs)
    np.testing.assert_allclose(values, inter, rtol=1e-9)
    values = losses.dist_intra(student, teacher, **knobs)
    np.testing.assert_allclose(values.mean(), intra, rtol=1e-9)
    values = losses.dist(student, teacher, beta=0.3, gamma=1.7, **knobs)
    expected = 0.3 * inter.mean() + 1.7 * intra
    np.testing.assert_allclose(values.mean(), expected, rtol=1e-9)


def test_dist_inter_ignores_scale_and_shift_of_probabilities_and_is_bounded():
    _, teacher = draw()
    p = softmax(teacher)
    rescale = np.log(0.3 * p + 0.7 / 7)
    np.testing.assert_allclose(losses.dist_inter(rescale, teacher), 0, atol=1e-6)
    opposed = np.log((1 - p) / 6)
    np.testing.assert_allclose(losses.dist_inter(opposed, teacher), 2, atol=1e-6)


def test_classes_that_both_rule_out_are_no_columns():
    """By hand: both columns of equal networks have r = 1, those of exchanged rows -1.

    A third column, constant at 0, would have r = 0 and count in the mean.
    """
    pair = np.log(np.array([[0.75, 0.25], [0.25, 0.75]]))
    padded = np.concatenate([pair, np.full((2, 1), -np.inf)], 1)
    for kernel in (losses.dist_intra, losses.dist_inter):
        np.testing.assert_allclose(kernel(padded, padded).mean(), 0, atol=1e-6)
        np.testing.assert_allclose(kernel(padded, padded[::-1]).mean(), 2, rtol=1e-6)
    both = losses.dist(padded, padded[::-1])
    np.testing.assert_allclose(both, [4, 4], rtol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("name", ["dist", "dist_intra", "mlld", "mlld_class"])
def test_ruled_out_classes_are_as_if_cut(name):
    student, teacher = draw()
    gone = np.where(np.arange(7) % 3 == 1, -np.inf, 0.0)
    kept = np.isfinite(gone)

    def mean(s, t):
        return getattr(losses, name)(s, t).mean()

    loss = jax.value_and_grad(mean, (0, 1))
    value, slopes = loss(student + gone, teacher + gone)
    expected, cut = loss(student[:, kept], teacher[:, kept])
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    for x, y in zip(slopes, cut, strict=True):
        np.testing.assert_allclose(x[:, kept], y, atol=1e-12)
        assert (x[:, ~kept] == 0).all()


def test_dist_intra_ignores_scale_and_shift_of_a_class_and_wants_two_examples():
    student, teacher = draw()
    values = losses.dist_intra(student, teacher, where=np.arange(5) < 4)
    assert values[4] == 0
    sliced = losses.dist_intra(student[:4], teacher[:4])
    np.testing.assert_allclose(values[:4], sliced, rtol=1e-9)
    # Each row moved towards the mean over the batch: every column shrinks alike.
    p = softmax(teacher)
    rescale = np.log(0.4 * p + 0.6 * p.mean(0))
    np.testing.assert_allclose(losses.dist_intra(rescale, teacher), 0, atol=3e-6)
    for kernel in (losses.dist_intra, losses.dist):
        with pytest.raises(ValueError, match="^student_logits: .*at least 2.*got 1"):
            kernel(student[:1], teacher[:1])
        with pytest.raises(ValueError, match="^eps: expected .*above 0, got 0"):
            kernel(student, teacher, eps=0.0)
    alone = losses.dist_intra(student, teacher, where=np.arange(5) == 2)
    np.testing.assert_allclose(alone, np.where(np.arange(5) == 2, 1, 0), atol=1e-12)


def test_relations_of_predictions_want_a_matrix():
    maps = np.zeros((2, 3, 4))
    for kernel in (
        losses.dist,
        losses.dist_intra,
        losses.mlld,
    ):
        with pytest.raises(ValueError, match="^student_logits: expected rank 2"):
            kernel(maps, maps)


def level(student, teacher, temperature):
    """The three blocks of one temperature, in the reductions of the released code."""
    q, p = softmax(student / temperature), softmax(teacher / temperature)
    classes = ((p.T @ p - q.T @ q) ** 2).sum() / p.shape[1]
    batch = ((p @ p.T - q @ q.T) ** 2).sum() / p.shape[0]
    return temperature**2 * kl(p, q).mean(), classes + batch


@pytest.mark.parametrize("middle", [4.0, 1.0])
def test_multi_level_logit_against_numpy(middle):
    student, teacher = draw()
    at = [level(student, teacher, t) for t in (2.0, 3.0, middle, 5.0, 6.0)]
    alone, grams = (np.array(x) for x in zip(*at, strict=True))
    expected = {
        ("described", "weak"): alone.sum() + grams.sum(),
        ("described", "strong"): alone.sum() + grams.sum(),
        ("released", "weak"): alone.sum() / 2 + alone[0] + alone[4] + grams.sum() / 2,
        ("released", "strong"): alone[1:4].sum(),
    }
    for (variant, view), value in expected.items():
        values = losses.mlld(
            student, teacher, temperature=middle, variant=variant, view=view
        )
        np.testing.assert_allclose(values.mean(), value, rtol=1e-9)


def test_multi_level_logit_shares_the_classes_alike_and_knows_its_forms():
    student, teacher = draw()
    # A row on which both agree bears the part of the batch as a whole, and its pairs.
    student[0] = teacher[0]
    values = losses.mlld(student, teacher, variant="described")
    grams = classes = 0.0
    for t in (2.0, 3.0, 4.0, 5.0, 6.0):
        q, p = softmax(student / t), softmax(teacher / t)
        classes += ((p.T @ p - q.T @ q) ** 2).sum() / 7
        grams += ((p @ p[0] - q @ q[0]) ** 2).sum()
    np.testing.assert_allclose(values[0], grams + classes, rtol=1e-9)
    with pytest.raises(ValueError, match="^variant: expected one of .*got 'paper'"):
        losses.mlld(student, teacher, variant="paper")
    with pytest.raises(ValueError, match="^view: expected one of"):
        losses.mlld(student, teacher, view="none")


@pytest.mark.parametrize(
    "kernel",
    [
        functools.partial(losses.dist_inter, where=MASK, eps=0.1),
        losses.dist_intra,
        functools.partial(losses.dist, where=ROWS, eps=0.1, gamma=2.0),
        functools.partial(losses.mlld, where=ROWS),
    ],
)
def test_gradients_against_differences(kernel):
    student, teacher = draw(rows=4, scale=1.0)
    weights = jnp.arange(1.0, 5)

    def loss(student, teacher):
        return (weights * kernel(student, teacher)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("rev",), 1e-6, 1e-6)
