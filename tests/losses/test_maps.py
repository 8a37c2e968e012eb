"""Losses of maps by position against fixtures, NumPy formulas and differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.core.layout import adaptive_mean
from kdjax.losses import (
    attention_transfer,
    cat_kd,
    factor_transfer,
    fine_grained_imitation,
    hint_l2,
    review_kd,
)

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

# Worked with an independent float64 script: shared/reference/methods.md, 3.5.
STUDENT = np.array([[[[1.0, 0], [0, 2]], [[1, 1], [3, 0]]]])
TEACHER = np.array([[[[2.0, 1], [0, 0]], [[1, 0], [1, 2]]]])


def _random(shape=(3, 5, 4, 6), seed=1):
    return np.random.default_rng(seed).normal(size=(2, *shape))


def _maps(features, power=2.0, over="mean"):
    """Normalized attention, one example and position at a time."""
    maps = np.zeros((len(features), features[0, ..., 0].size))
    for n, example in enumerate(features):
        flat = np.abs(example.reshape(-1, example.shape[-1])) ** power
        for p, vector in enumerate(flat):
            maps[n, p] = vector.max() if over == "max" else vector.sum()
        maps[n] /= np.sqrt(sum(maps[n] ** 2))
    return maps


def _differentiable(kernel, *arrays):
    """Whether the gradients of a weighted sum are those of differences."""
    weights = jnp.arange(1.0, 1 + len(arrays[0]))

    def loss(*arrays):
        return (weights * kernel(*arrays)).sum()

    check_grads(jax.jit(loss), arrays, 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_attention_fixture():
    value = attention_transfer(STUDENT, TEACHER)
    np.testing.assert_allclose(value, [0.1395141900], atol=1e-10)
    expected = [0.09901475, 0.39605902, 0.19802951, 0.89113279]
    np.testing.assert_allclose(_maps(STUDENT)[0], expected, atol=1e-8)


@pytest.mark.parametrize("power", [1, 2, 2.5, 4.0])
@pytest.mark.parametrize("over", ["mean", "max"])
def test_attention_against_numpy(power, over):
    student, teacher = _random()
    teacher = np.concatenate([teacher, teacher[..., :2] + 1], -1)
    gap = _maps(student, power, over) - _maps(teacher, power, over)
    knobs = {"power": power, "over": over}
    values = attention_transfer(student, teacher, **knobs)
    np.testing.assert_allclose(values, (gap**2).mean(axis=1), rtol=1e-9)
    values = attention_transfer(student, teacher, variant="paper", **knobs)
    np.testing.assert_allclose(values, np.sqrt((gap**2).sum(axis=1)) / 2, rtol=1e-9)


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_attention_invariances(variant):
    student, teacher = _random()
    expected = attention_transfer(student, teacher, variant=variant)
    order = np.random.default_rng(2).permutation(6)
    for pair in (
        (100 * student, teacher),
        (student, 0.25 * teacher),
        (student[..., order], teacher),
        (-student, teacher[..., order]),
    ):
        values = attention_transfer(*pair, variant=variant)
        np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_single_positions_and_dead_maps_agree():
    student, teacher = _random((3, 1, 1, 6))
    np.testing.assert_allclose(attention_transfer(student, teacher), 0, atol=1e-30)
    zero = np.zeros((1, 2, 2, 3))
    np.testing.assert_array_equal(attention_transfer(zero, zero), 0)
    value = attention_transfer(zero, zero + 1)
    np.testing.assert_allclose(value, [0.25], rtol=1e-12)


def test_attention_of_large_maps_does_not_overflow():
    student, teacher = (x.astype(np.float32) for x in _random())
    expected = attention_transfer(student, teacher, power=4.0)
    value = attention_transfer(1e6 * student, 1e6 * teacher, power=4.0)
    np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "knobs",
    [{}, {"variant": "paper"}, {"power": 3.0}, {"power": 1}, {"over": "max"}],
    ids=str,
)
def test_attention_gradients_against_differences(knobs):
    student, teacher = _random((2, 3, 2, 3))
    mask = np.array([True, True, False])[:, None, None]
    _differentiable(
        lambda s, t: attention_transfer(s, t, where=mask, **knobs), student, teacher
    )


def test_attention_power_may_be_traced():
    student, teacher = _random()
    values = jax.jit(lambda p: attention_transfer(student, teacher, power=p))(3.0)
    expected = attention_transfer(student, teacher, power=3.0)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_factor_against_numpy():
    student, teacher = _random()
    expected = []
    for s, t in zip(student, teacher, strict=True):
        gap = s / np.sqrt((s**2).sum()) - t / np.sqrt((t**2).sum())
        expected.append(np.abs(gap).mean())
    values = factor_transfer(student, teacher)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    values = factor_transfer(5 * student, teacher / 3)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    gap = np.abs(_maps(student) - _maps(teacher)).mean(axis=1)
    values = factor_transfer(student, teacher, variant="attention")
    np.testing.assert_allclose(values, gap, rtol=1e-10)


@pytest.mark.parametrize("variant", ["factor", "attention"])
def test_factors_that_agree_have_no_gradient(variant):
    """Not even where one of the two is scaled, which may change its last digit."""
    student = _random()[0].astype(np.float32)

    def loss(student, teacher):
        return factor_transfer(student, teacher, variant=variant).sum()

    for scale in (1, 3):
        teacher = np.float32(scale) * student
        value, gradient = jax.jit(jax.value_and_grad(loss))(student, teacher)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("variant", ["factor", "attention"])
def test_factor_gradients_against_differences(variant):
    student, teacher = _random((2, 3, 2, 3))
    _differentiable(
        lambda s, t: factor_transfer(s, t, variant=variant), student, teacher
    )


def _pool(image, size):
    """Torch's bins, entry by entry, of `[height, width, channels]`."""
    height, width, channels = image.shape
    result = np.zeros((size, size, channels))
    for i, j in itertools.product(range(size), repeat=2):
        rows = range(i * height // size, -(-(i + 1) * height // size))
        columns = range(j * width // size, -(-(j + 1) * width // size))
        result[i, j] = np.mean([image[a, b] for a in rows for b in columns], axis=0)
    return result


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_adaptive_mean_has_torch_s_bins(size):
    """Of 5 in 2: 0 1 2 and 2 3 4, which overlap."""
    image = _random((5, 7, 2))[0]
    pooled = adaptive_mean(jnp.asarray(image), (size, size), (0, 1))
    np.testing.assert_allclose(pooled, _pool(image, size), rtol=1e-12)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_class_attention_against_numpy(size, normalize):
    student, teacher = _random()
    expected = []
    for pair in zip(student, teacher, strict=True):
        maps = [_pool(x, size).reshape(-1, 6) for x in pair]
        if normalize:
            maps = [x / np.sqrt((x**2).sum(axis=0)) for x in maps]
        expected.append(((maps[0] - maps[1]) ** 2).mean())
    values = cat_kd(student, teacher, size=size, normalize=normalize)
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_class_attention_scale_and_classes():
    student, teacher = _random()
    scales = np.arange(1.0, 7)
    expected = cat_kd(student, teacher)
    values = cat_kd(scales * student, teacher / scales)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    few = np.array([True, False, True, True, False, False])
    values = cat_kd(student, teacher, where=few)
    expected = cat_kd(student[..., few], teacher[..., few])
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    _differentiable(cat_kd, student[..., :2], teacher[..., :2])


@pytest.mark.parametrize("shape", [(8, 8, 2), (4, 6, 2), (2, 3, 2), (1, 1, 2)])
def test_context_against_numpy(shape):
    """A level that is not smaller than the map does not use up a half."""
    student, teacher = _random((2, *shape))
    expected = []
    for s, t in zip(student, teacher, strict=True):
        total, weights, weight = ((s - t) ** 2).mean(), 1.0, 1.0
        for size in (4, 2, 1):
            if size >= shape[0]:
                continue
            weight /= 2
            total += weight * ((_pool(s, size) - _pool(t, size)) ** 2).mean()
            weights += weight
        expected.append(total / weights)
    values = review_kd(student, teacher)
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_context_levels():
    student, teacher = _random()
    shifted = review_kd(student, student + 3)
    np.testing.assert_allclose(shifted, 9, rtol=1e-12)
    values = review_kd(student, teacher, sizes=())
    np.testing.assert_allclose(values, hint_l2(student, teacher), rtol=1e-12)
    _differentiable(review_kd, student[..., :2], teacher[..., :2])
    # One channel for the first example, two others for the rest.
    mask = np.zeros((3, 1, 1, 6), bool)
    mask[0, ..., 0] = mask[1:, ..., 2:4] = True
    values = review_kd(student, teacher, where=mask)
    expected = review_kd(student[:1, ..., :1], teacher[:1, ..., :1])
    np.testing.assert_allclose(values[0], expected[0], rtol=1e-12)


def test_imitation_against_numpy():
    student, teacher = _random()
    mask = np.random.default_rng(3).uniform(size=student.shape[:-1])
    mask[mask < 0.4] = 0
    mask[2] = 0
    square = ((student - teacher) ** 2).sum(axis=-1)
    expected = (mask * square)[:2].sum(axis=(1, 2)) / (2 * mask[:2].sum(axis=(1, 2)))
    values = fine_grained_imitation(student, teacher, importance=mask)
    np.testing.assert_allclose(values, [*expected, 0], rtol=1e-10)
    values = fine_grained_imitation(student, teacher, importance=7 * mask)
    np.testing.assert_allclose(values, [*expected, 0], rtol=1e-10)
    values = fine_grained_imitation(student, teacher, importance=np.ones_like(mask))
    hint = hint_l2(student, teacher, variant="fitnets")
    np.testing.assert_allclose(values, hint, rtol=1e-12)


def test_imitation_does_not_see_what_has_no_weight():
    student, teacher = _random((2, 2, 2, 3))
    mask = np.array([[[1, 0], [0, 1]], [[0, 0], [0, 0]]], bool)
    expected = fine_grained_imitation(student, teacher, importance=mask)
    student[~mask] = np.nan

    def loss(student, teacher):
        values = fine_grained_imitation(student, teacher, importance=mask)
        return values.sum(), values

    gradients, values = jax.grad(loss, (0, 1), has_aux=True)(student, teacher)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[~mask], 0)
        assert (gradient[mask] != 0).all()


def test_imitation_gradients_against_differences():
    student, teacher = _random((2, 2, 3, 3))
    mask = np.random.default_rng(3).uniform(size=student.shape[:-1])
    _differentiable(
        lambda s, t: fine_grained_imitation(s, t, importance=mask), student, teacher
    )


def test_bad_arguments_are_refused():
    student, teacher = _random()
    with pytest.raises(ValueError, match="^variant: expected one of .*'other'"):
        attention_transfer(student, teacher, variant="other")
    with pytest.raises(ValueError, match="^over: expected one of .*'sum'"):
        attention_transfer(student, teacher, over="sum")
    with pytest.raises(ValueError, match=r"^power: expected a number in \[1"):
        attention_transfer(student, teacher, power=0.5)
    with pytest.raises(
        ValueError, match=r"^teacher_features: expected shape .*5, 4, 2"
    ):
        attention_transfer(student, teacher[:, :3, :, :2])
    with pytest.raises(ValueError, match="^student_features: expected rank at least 3"):
        attention_transfer(student[:, 0, 0], teacher[:, 0, 0])
    with pytest.raises(ValueError, match="^variant: expected one of"):
        factor_transfer(student, teacher, variant="paper")
    with pytest.raises(
        ValueError, match=r"^size: expected a whole number in \[1, 4\], got 5"
    ):
        cat_kd(student, teacher, size=5)
    with pytest.raises(ValueError, match="^student_features: expected rank 4"):
        cat_kd(student[0], teacher[0])
    with pytest.raises(ValueError, match=r"^where: .*\(3, 1, 1, 6\), .*\(5, 1, 1\)"):
        review_kd(student, teacher, where=np.ones((5, 1, 1), bool))
    with pytest.raises(ValueError, match="^sizes: expected a whole number of"):
        review_kd(student, teacher, sizes=(2, 0))
    with pytest.raises(ValueError, match=r"^importance: expected shape \(3, 5, 4\)"):
        fine_grained_imitation(student, teacher, importance=np.ones((3, 5)))
    with pytest.raises(ValueError, match="^importance: expected .*floating.*int"):
        fine_grained_imitation(student, teacher, importance=np.ones((3, 5, 4), int))
