"""Relation losses against hand-worked values, NumPy formulas and differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses

pytestmark = pytest.mark.usefixtures("strict_dtypes")
rkd_distance = jax.jit(losses.rkd_distance)
rkd_angle = jax.jit(losses.rkd_angle, static_argnames="chunk")
KERNELS = pytest.mark.parametrize(
    "kernel", [rkd_distance, rkd_angle], ids=["distance", "angle"]
)

# Worked with an independent float64 script: shared/reference/methods.md, 3.5.
STUDENT = np.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
TEACHER = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1]])


def _random(rows=6):
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 3)), rng.normal(size=(rows, 5))


def _huber(x):
    return np.where(np.abs(x) <= 1, x * x / 2, np.abs(x) - 0.5)


def _numpy_distance(student, teacher):
    relative = []
    for f in (student, teacher):
        d = np.array(
            [[np.sqrt(max(((a - b) ** 2).sum(), 1e-12)) for b in f] for a in f]
        )
        np.fill_diagonal(d, 0)
        relative.append(d / d[d > 0].mean())
    return _huber(relative[1] - relative[0]).mean(axis=1)


def _numpy_angle(student, teacher):
    rows = len(student)
    cosines = np.zeros((2, rows, rows, rows))
    for side, f in enumerate((student, teacher)):
        for j, i, k in itertools.product(range(rows), repeat=3):
            u, v = f[i] - f[j], f[k] - f[j]
            size = max(np.sqrt(u @ u), 1e-12) * max(np.sqrt(v @ v), 1e-12)
            cosines[side, j, i, k] = u @ v / size
    return _huber(cosines[1] - cosines[0]).mean(axis=(1, 2))


def test_fixture(float64):
    distance = rkd_distance(STUDENT, TEACHER).mean()
    angle = rkd_angle(STUDENT, TEACHER).mean()
    np.testing.assert_allclose(distance, 0.0665681208, atol=1e-9)
    np.testing.assert_allclose(angle, 0.0666722113, atol=1e-9)
    np.testing.assert_allclose(25 * distance + 50 * angle, 4.9978135880, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_against_numpy(float64, scale):
    """The larger scale, on one row, reaches the linear branch of the Huber loss."""
    student, teacher = _random()
    student[0] *= scale**3
    expected = _numpy_distance(student, teacher)
    assert (scale == 1) or expected.max() > 0.5
    np.testing.assert_allclose(rkd_distance(student, teacher), expected, rtol=1e-9)
    expected = _numpy_angle(student, teacher)
    np.testing.assert_allclose(rkd_angle(student, teacher), expected, rtol=1e-9)


def test_duplicates_against_numpy(float64):
    """Equal rows are 1e-6 apart and enter the mean distance."""
    student, teacher = _random()
    student[3] = student[0]
    expected = _numpy_distance(student, teacher)
    np.testing.assert_allclose(rkd_distance(student, teacher), expected, rtol=1e-9)
    expected = _numpy_angle(student, teacher)
    np.testing.assert_allclose(rkd_angle(student, teacher), expected, rtol=1e-9)


def test_float32_beside_near_neighbors():
    """Pairs of rows a thousandth apart, far from the origin: what is lost is little."""
    rng = np.random.default_rng(3)
    half = rng.normal(size=(6, 8))
    near = half + 1e-3 * rng.normal(size=half.shape)
    student = (10 + np.concatenate([half, near])).astype(np.float32)
    teacher = rng.normal(size=(12, 5)).astype(np.float32)
    wide = student.astype(np.float64), teacher.astype(np.float64)
    actual = rkd_distance(student, teacher)
    np.testing.assert_allclose(actual, _numpy_distance(*wide), rtol=5e-6)
    actual = rkd_angle(student, teacher)
    np.testing.assert_allclose(actual, _numpy_angle(*wide), rtol=1e-3)


def test_gradient_of_one_side_is_that_of_both(float64):
    """The side that is not asked for is left out of the backward pass."""
    student, teacher = _random()

    def loss(student, teacher):
        return (jnp.arange(1.0, 7) * losses.rkd_angle(student, teacher)).sum()

    both = jax.jit(jax.grad(loss, (0, 1)))(student, teacher)
    for side in (0, 1):
        alone = jax.jit(jax.grad(loss, side))(student, teacher)
        np.testing.assert_allclose(alone, both[side], rtol=1e-9, atol=1e-12)


@KERNELS
def test_a_turn_a_shift_and_a_scale_change_nothing(float64, kernel):
    student, teacher = _random()
    rng = np.random.default_rng(2)
    expected = kernel(student, teacher)
    for side, width in ((0, 3), (1, 5)):
        turn, _ = np.linalg.qr(rng.normal(size=(width, width)))
        moved = [student, teacher]
        moved[side] = 7.5 * moved[side] @ turn + rng.normal(size=width)
        np.testing.assert_allclose(kernel(*moved), expected, rtol=1e-9)


@KERNELS
def test_gradients_against_differences(float64, kernel):
    student, teacher = _random(5)
    weights = jnp.arange(1.0, 6)
    for where in (None, np.array([True, True, False, True, True])):

        def loss(student, teacher, where=where):
            return (weights * kernel(student, teacher, where=where)).sum()

        check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_gradient_flows_through_the_mean_distance(float64):
    """Scaling the student changes nothing, so the gradient along it is zero."""
    student, teacher = _random()
    gradient = jax.jit(jax.grad(lambda s: rkd_distance(s, teacher).mean()))(student)
    assert np.abs(gradient).max() > 1e-3
    np.testing.assert_allclose((gradient * student).sum(), 0, atol=1e-12)


@KERNELS
def test_masked_mean_is_the_loss_of_the_slice(float64, kernel):
    student, teacher = _random()
    keep = np.array([True, False, True, True, False, True])
    values = kernel(student, teacher, where=keep)
    np.testing.assert_array_equal(values[~keep], 0)
    expected = kernel(student[keep], teacher[keep]).mean()
    np.testing.assert_allclose(values.sum() / 4, expected, rtol=1e-9)


@KERNELS
def test_a_single_valid_row_and_collapsed_batches_give_zero(kernel):
    student, teacher = (x.astype(np.float32) for x in _random())
    point = np.ones((6, 3), np.float32)
    np.testing.assert_allclose(kernel(point, 2 * point), 0, atol=1e-12)
    only = np.arange(6) == 2
    np.testing.assert_array_equal(kernel(student, teacher, where=only), 0)
    # A student that has collapsed has not learnt the teacher's geometry.
    assert (kernel(point, teacher) > 0.01).all()


@KERNELS
def test_duplicates_do_not_blow_the_gradient_up(kernel):
    student, teacher = (x.astype(np.float32) for x in _random())
    student[3] = student[0]
    gradient = jax.jit(jax.grad(lambda s: kernel(s, teacher).mean()))(student)
    assert 1e-4 < np.abs(gradient).max() < 10


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_change_nothing(float64, chunk):
    student, teacher = _random()
    where = np.arange(6) != 4

    def loss(student, teacher, chunk):
        values = rkd_angle(student, teacher, chunk=chunk, where=where)
        return values.sum(), values

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True), static_argnums=2)
    actual, expected = (gradient(student, teacher, c) for c in (chunk, None))
    for ours, whole in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-10, atol=1e-14)


def _peak_bytes(kernel, rows, width):
    shape = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    gradient = jax.grad(lambda *x: kernel(*x).mean(), (0, 1))
    compiled = jax.jit(gradient).lower(shape, shape).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_angle_of_a_large_batch_fits():
    """Well below the 4 GiB of all cosines of 1024 rows, let alone the gradient's."""
    assert 0 < _peak_bytes(rkd_angle, 1024, 64) < 1024**3 * 4 / 16


def test_distance_of_a_large_batch_fits():
    """Below the 256 MiB of all differences of 1024 rows of width 64."""
    assert 0 < _peak_bytes(rkd_distance, 1024, 64) < 1024**2 * 64 * 4 / 4


@KERNELS
def test_bad_arguments_are_refused(kernel):
    student, teacher = _random()
    with pytest.raises(ValueError, match="^student_features: expected rank 2"):
        kernel(np.ones((2, 3, 4)), teacher)
    with pytest.raises(ValueError, match=r"^teacher_features: .*\(6, 5\).*\(4, 5\)"):
        kernel(student, teacher[:4])
    with pytest.raises(ValueError, match=r"^where: expected .*\(6,\)"):
        kernel(student, teacher, where=np.ones(1, bool))


def test_bad_chunk_is_refused():
    with pytest.raises(ValueError, match="^chunk: expected"):
        rkd_angle(*_random(), chunk=0)
