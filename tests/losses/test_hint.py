"""Feature losses against hand-worked values, NumPy formulas and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import hint_cosine, hint_l1, hint_l2, hint_norm

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")


def _random(shape=(3, 2, 4, 5)):
    return np.random.default_rng(1).normal(size=(2, *shape))


def test_features_one_apart():
    """methods.md, A03: C / 2 in the original's variant, 1 in the mean's."""
    student = np.zeros((2, 4, 4, 6))
    np.testing.assert_allclose(hint_l2(student, student + 1), 1)
    original = hint_l2(student, student + 1, variant="fitnets")
    np.testing.assert_allclose(original, 3)


def test_hand_worked():
    student = np.array([[[1.0, 2], [3, 4]], [[0, 0], [0, 0]]])
    teacher = np.array([[[1.0, 0], [0, 0]], [[2, 0], [0, 0]]])
    np.testing.assert_allclose(hint_l2(student, teacher), [29 / 4, 1])
    original = hint_l2(student, teacher, variant="fitnets")
    np.testing.assert_allclose(original, [29 / 4, 1])
    across = hint_l2(student[:1, :, :1], teacher[:1, :, :1], variant="fitnets")
    np.testing.assert_allclose(across, [9 / 4])


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_against_numpy(axis):
    student, teacher = _random()
    square = (student - teacher) ** 2
    values = hint_l2(student, teacher, axis=axis)
    np.testing.assert_allclose(values, square.mean(axis=(1, 2, 3)), rtol=1e-12)
    values = hint_l2(student, teacher, axis=axis, variant="fitnets")
    expected = 0.5 * square.sum(axis=axis).mean(axis=(1, 2))
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_vectors_have_one_position():
    student, teacher = _random((3, 5))
    expected = 2.5 * hint_l2(student, teacher)
    values = hint_l2(student, teacher, variant="fitnets")
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.parametrize("variant", ["mean", "fitnets"])
def test_where_selects_positions_and_channels(variant):
    student, teacher = _random()
    columns = np.array([True, False, True, True])
    channels = np.array([True, True, False, False, True])
    mask = columns[:, None] & channels
    values = hint_l2(student, teacher, variant=variant, where=mask)
    expected = hint_l2(
        student[:, :, columns][..., channels],
        teacher[:, :, columns][..., channels],
        variant=variant,
    )
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_where_may_differ_between_examples():
    student, teacher = _random((2, 3, 4))
    mask = np.array([[True, False, False], [False, False, False]])[..., None]
    values = hint_l2(student, teacher, where=mask)
    expected = ((student - teacher)[0, 0] ** 2).mean()
    np.testing.assert_allclose(values, [expected, 0], rtol=1e-12)


@pytest.mark.parametrize("variant", ["mean", "fitnets"])
def test_gradients_against_differences(variant):
    student, teacher = _random((2, 3, 4))
    weights = jnp.arange(1.0, 3)
    mask = np.arange(4) != 1

    def loss(student, teacher):
        values = hint_l2(student, teacher, variant=variant, where=mask)
        return (weights * values).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-7, 1e-7)


def test_bad_arguments_are_refused():
    student, teacher = _random()
    with pytest.raises(ValueError, match="^variant: expected one of .*'sum'"):
        hint_l2(student, teacher, variant="sum")
    with pytest.raises(ValueError, match="^student_features: expected rank at least 2"):
        hint_l2(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="^axis: expected the axis of the channels"):
        hint_l2(student, teacher, axis=0)


def test_hint_l1_against_numpy():
    student, teacher = _random()
    expected = np.abs(student - teacher).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(hint_l1(student, teacher), expected, rtol=1e-12)
    np.testing.assert_allclose(hint_l1(student, student - 3), 3, rtol=1e-12)
    gradient = jax.grad(lambda s: hint_l1(s, student).sum())(student)
    np.testing.assert_array_equal(gradient, 0)
    mask = np.array([True, False, True, True])[:, None]
    expected = np.abs(student - teacher)[:, :, mask[:, 0]].mean(axis=(1, 2, 3))
    values = hint_l1(student, teacher, where=mask)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.parametrize("axis", [1, -1])
def test_hint_cosine_against_numpy(axis):
    student, teacher = _random()
    dot = (student * teacher).sum(axis)
    norms = np.sqrt((student**2).sum(axis) * (teacher**2).sum(axis))
    expected = (1 - dot / norms).mean(axis=(1, 2))
    values = hint_cosine(student, teacher, axis=axis)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    values = hint_cosine(7 * student, teacher / 3, axis=axis)
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_hint_cosine_extremes():
    """Opposite costs 2, orthogonal 1, as does a vector without direction."""
    vector = np.array([[[3.0, 4.0]]])
    np.testing.assert_allclose(hint_cosine(vector, -vector), 2, rtol=1e-12)
    np.testing.assert_allclose(hint_cosine(vector, np.array([[[-4.0, 3]]])), 1)
    for pair in ((0 * vector, vector), (vector, 0 * vector), (0 * vector, 0 * vector)):
        value, gradients = jax.value_and_grad(_total, (0, 1))(*pair)
        assert value == 1
        np.testing.assert_array_equal(gradients, 0)


def _total(student, teacher):
    return hint_cosine(student, teacher).sum()


def test_hint_cosine_keeps_the_digits_of_small_angles():
    student = np.array([[[1.0, 0.0]]], np.float32)
    teacher = np.array([[[1.0, 1e-4]]], np.float32)
    np.testing.assert_allclose(hint_cosine(student, teacher), 0.5e-8, rtol=1e-3)


def test_hint_cosine_leaves_out_positions():
    student, teacher = _random()
    rows = np.array([True, False])
    values = hint_cosine(student, teacher, where=rows[:, None, None])
    expected = hint_cosine(student[:, rows], teacher[:, rows])
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.parametrize("kernel", [hint_l1, hint_cosine])
def test_l1_and_cosine_gradients_against_differences(kernel):
    student, teacher = _random((2, 3, 4))
    weights = jnp.arange(1.0, 3)

    def loss(student, teacher):
        return (weights * kernel(student, teacher, where=np.arange(4) != 1)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-7, 1e-7)


@pytest.mark.parametrize("kernel", [hint_l1, hint_cosine])
def test_l1_and_cosine_refuse_bad_arguments(kernel):
    student, teacher = _random()
    with pytest.raises(ValueError, match="^axis: expected the axis of the channels"):
        kernel(student, teacher, axis=0)
    with pytest.raises(ValueError, match="^student_features: expected rank at least 2"):
        kernel(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="^teacher_features: expected the shape of"):
        kernel(student, teacher[..., :2])


def test_hint_norm_is_the_norm_of_the_whole_difference():
    student, teacher = np.random.default_rng(5).normal(size=(2, 4, 7))
    keep = np.array([True, False, True, True])
    for where in (None, keep):
        rows = slice(None) if where is None else where
        values = np.asarray(hint_norm(student, teacher, where=where))
        norm = np.linalg.norm((student - teacher)[rows])
        np.testing.assert_allclose(values[rows].mean(), norm, rtol=1e-12)
        slope = jax.grad(lambda s, w=where: hint_norm(s, teacher, where=w).sum())
        expected = np.zeros_like(student)
        expected[rows] = (student - teacher)[rows] / norm * len(student[rows])
        np.testing.assert_allclose(slope(student), expected, rtol=1e-9)
    assert hint_norm(student, teacher, where=keep)[1] == 0


def test_hint_norm_at_equality_and_what_it_refuses():
    same = np.ones((2, 3))
    np.testing.assert_array_equal(jax.grad(lambda s: hint_norm(s, same).sum())(same), 0)
    with pytest.raises(ValueError, match="^teacher_features: expected"):
        hint_norm(same, same[:, :2])
    with pytest.raises(ValueError, match="^student_features: expected"):
        hint_norm(np.ones((2, 3, 3)), np.ones((2, 3, 3)))


def test_a_nan_that_counts_is_seen():
    broken, fine = np.array([[np.nan, 1.0]]), np.array([[-1.0, 1.0]])
    for pair in ((broken, fine), (fine, broken)):
        assert np.isnan(hint_l2(*pair, variant="partial")).all()
