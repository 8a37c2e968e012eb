"""Losses between two layers against fixtures, NumPy formulas and differences."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import dense_fsp, fsp, fsp_matrix, kdsvd, singular_vectors

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

# Worked with an independent float64 script: shared/reference/methods.md, 3.5.
STUDENT = np.array([[[[1.0, 0], [0, 2]], [[1, 1], [3, 0]]]])
TEACHER = np.array([[[[2.0, 1], [0, 0]], [[1, 0], [1, 2]]]])
STUDENT_END = np.array([[1.0, 2], [0, 1]])[None, ..., None]
TEACHER_END = np.array([[0.0, 1], [1, 1]])[None, ..., None]


def _random(batch=3, channels=(4, 5), positions=(3, 2)):
    """Starts and ends of both sides."""
    rng = np.random.default_rng(1)
    shapes = [(batch, *positions, c) for c in channels]
    start, end = (rng.normal(size=(2, *shape)) for shape in shapes)
    return start[0], start[1], end[0], end[1]


def _flow(student, teacher, student_end, teacher_end, **knobs):
    ends = {"student_end": student_end, "teacher_end": teacher_end}
    return jax.jit(partial(fsp, **knobs))(student, teacher, **ends)


def _singular(student, teacher, student_end, teacher_end, **knobs):
    ends = {"student_end": student_end, "teacher_end": teacher_end}
    return jax.jit(partial(kdsvd, **knobs))(student, teacher, **ends)


def _naive_matrix(start, end):
    """Of one example, entry by entry."""
    start, end = (x.reshape(-1, x.shape[-1]) for x in (start, end))
    matrix = np.zeros((start.shape[1], end.shape[1]))
    for i, j in np.ndindex(matrix.shape):
        matrix[i, j] = np.mean(start[:, i] * end[:, j])
    return matrix


def test_flow_fixture():
    matrix = fsp_matrix(STUDENT, STUDENT_END)
    np.testing.assert_allclose(matrix, [[[1], [1]]], atol=1e-12)
    matrix = fsp_matrix(TEACHER, TEACHER_END)
    np.testing.assert_allclose(matrix, [[[0.5], [0.5]]], atol=1e-12)
    arrays = (STUDENT, TEACHER, STUDENT_END, TEACHER_END)
    np.testing.assert_allclose(_flow(*arrays), [0.25], atol=1e-12)
    np.testing.assert_allclose(_flow(*arrays, variant="sum"), [0.5], atol=1e-12)


def test_flow_against_numpy():
    student, teacher, student_end, teacher_end = arrays = _random()
    expected = []
    for n in range(3):
        gap = _naive_matrix(student[n], student_end[n])
        gap -= _naive_matrix(teacher[n], teacher_end[n])
        expected.append((gap**2).mean())
    np.testing.assert_allclose(_flow(*arrays), expected, rtol=1e-10)
    total = _flow(*arrays, variant="sum")
    np.testing.assert_allclose(total, 20 * np.array(expected), rtol=1e-10)
    moved = [np.moveaxis(x, -1, 1) for x in arrays]
    np.testing.assert_allclose(_flow(*moved, axis=1), expected, rtol=1e-10)
    np.testing.assert_allclose(_flow(*moved, axis=-3), expected, rtol=1e-10)


def test_flow_invariances():
    arrays = _random()
    expected = _flow(*arrays)
    order = np.random.default_rng(2).permutation(6)
    moved = [x.reshape(3, 6, -1) for x in arrays]
    moved[0], moved[2] = moved[0][:, order], moved[2][:, order]
    np.testing.assert_allclose(_flow(*moved), expected, rtol=1e-10)
    student, teacher, student_end, teacher_end = arrays
    values = _flow(3 * student, teacher, student_end / 3, teacher_end)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    matrix = fsp_matrix(student, student_end)
    scaled = fsp_matrix(3 * student, student_end)
    np.testing.assert_allclose(scaled, 3 * matrix, rtol=1e-10)


def test_flow_mask_leaves_out_positions_of_both_ends():
    arrays = [x.reshape(3, 6, -1) for x in _random()]
    keep = np.array([True, False, True, True, False, True])
    expected = _flow(*(x[:, keep] for x in arrays))
    for x in arrays:
        x[:, ~keep] = np.nan
    values = _flow(*arrays, where=keep[:, None])
    np.testing.assert_allclose(values, expected, rtol=1e-10)

    def loss(arrays):
        return _flow(*arrays, where=keep[:, None]).sum()

    for gradient in jax.grad(loss)(arrays):
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[:, ~keep], 0)


@pytest.mark.parametrize("variant", ["mean", "sum"])
def test_flow_mask_leaves_out_channels_of_the_beginning(variant):
    student, teacher, *ends = _random()
    keep = np.array([True, False, True, True])
    values = _flow(student, teacher, *ends, variant=variant, where=keep)
    cut = student[..., keep], teacher[..., keep]
    expected = _flow(*cut, *ends, variant=variant)
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def _taps(sizes=(8, 4, 2), channels=(3, 2, 4)):
    rng = np.random.default_rng(1)
    shapes = [(2, s, s, c) for s, c in zip(sizes, channels, strict=True)]
    return [[rng.normal(size=shape) for shape in shapes] for _ in range(2)]


def test_dense_flow_is_the_mean_over_pairs():
    """Even sizes: the mean over bins is a mean over blocks."""
    student, teacher = _taps()

    def halved(x, times):
        for _ in range(times):
            x = x.reshape(2, x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
        return x

    expected = []
    for i, j in itertools.combinations(range(3), 2):
        starts = halved(student[i], j - i), halved(teacher[i], j - i)
        expected.append(_flow(*starts, student[j], teacher[j]))
    values = dense_fsp(student, teacher)
    np.testing.assert_allclose(values, np.mean(expected, axis=0), rtol=1e-10)
    first = dense_fsp(student, teacher, upto=1)
    np.testing.assert_allclose(first, expected[0], rtol=1e-10)


def test_dense_flow_of_two_equal_sizes_is_flow():
    student, teacher = _taps((4, 4), (3, 2))
    for variant in ("mean", "sum"):
        values = dense_fsp(student, teacher, variant=variant)
        ends = student[1], teacher[1]
        expected = _flow(student[0], teacher[0], *ends, variant=variant)
        np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(dense_fsp(student, student), 0, atol=1e-15)
    moved = [[np.moveaxis(x, -1, 1) for x in side] for side in (student, teacher)]
    values = dense_fsp(*moved, axis=1)
    np.testing.assert_allclose(values, dense_fsp(student, teacher), rtol=1e-12)


def test_dense_flow_upto_leaves_later_taps_out():
    student, teacher = _taps()

    def loss(student):
        return dense_fsp(student, teacher, upto=1).sum()

    gradients = jax.grad(loss)(student)
    assert (gradients[0] != 0).all() and (gradients[1] != 0).all()
    np.testing.assert_array_equal(gradients[2], 0)


def _naive_singular(student, teacher, components):
    """Of one example and the two layers of each network, by numpy's decomposition."""
    scaled = []
    for s, t in zip(student, teacher, strict=True):
        _, values, target = np.linalg.svd(t.reshape(-1, t.shape[-1]))
        target = target[:components].T
        rows = np.abs(target).argmax(axis=0)
        target = target * np.sign(target[rows, range(components)])
        found = np.linalg.svd(s.reshape(-1, s.shape[-1]))[2][: components + 3].T
        cosines = found.T @ target
        nearest = np.abs(cosines).argmax(axis=0)
        signs = np.sign(cosines[nearest, range(components)])
        size = values[:components] / np.sqrt((values[:components] ** 2).sum())
        scaled.append((found[:, nearest] * signs * size, target * size))
    kernels = []
    for side in (0, 1):
        u, v = scaled[0][side], scaled[1][side]
        kernels.append(np.exp(-((u[:, None] - v[None]) ** 2) / 8))
    return ((kernels[0] - kernels[1]) ** 2).sum()


@pytest.mark.parametrize("components", [1, 2])
def test_singular_value_against_numpy(components):
    arrays = _random(channels=(4, 5), positions=(4, 3))
    expected = [
        _naive_singular((arrays[0][n], arrays[2][n]), (arrays[1][n], arrays[3][n]), k)
        for n, k in zip(range(3), [components] * 3, strict=True)
    ]
    values = _singular(*arrays, components=components)
    np.testing.assert_allclose(values, expected, rtol=1e-7)
    moved = [np.moveaxis(x, -1, 1) for x in arrays]
    values = _singular(*moved, components=components, axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-7)


def test_singular_value_invariances():
    """Scale and sign of a map do not count, nor how its positions are turned."""
    arrays = [x.reshape(3, 6, -1) for x in _random()]
    expected = _singular(*arrays)
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))
    moved = [1e6 * arrays[0], -1e-12 * arrays[1], turn @ arrays[2], turn @ arrays[3]]
    np.testing.assert_allclose(_singular(*moved), expected, rtol=1e-7)
    same = _singular(arrays[0], 3 * arrays[0], arrays[2], -arrays[2])
    np.testing.assert_allclose(same, 0, atol=1e-15)


def test_singular_vectors_against_svd():
    """methods.md, C09: the leading vectors, unit, the student's turned to fit."""
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(size=(2, 4, 3, 3, 6))
    found = jax.jit(singular_vectors)(student, teacher)
    for n in range(4):
        right = [np.linalg.svd(x[n].reshape(9, 6))[2] for x in (student, teacher)]
        target = right[1][0] * np.sign(right[1][0][np.argmax(np.abs(right[1][0]))])
        cosines = right[0][:4] @ target
        nearest = np.argmax(np.abs(cosines))
        turned = right[0][nearest] * np.sign(cosines[nearest])
        np.testing.assert_allclose(found[1][n, :, 0], target, atol=1e-9)
        np.testing.assert_allclose(found[0][n, :, 0], turned, atol=1e-9)
    none = singular_vectors(student, 0 * teacher)
    np.testing.assert_array_equal(none, 0)
    for components in (0, 7, 1.0):
        with pytest.raises(ValueError, match="^components: expected a whole number"):
            singular_vectors(student, teacher, components=components)


def test_singular_value_with_equal_singular_values_is_finite():
    """The textbook derivative of the vectors divides by zero here."""
    eye = np.broadcast_to(np.eye(4), (2, 4, 4))
    zero = np.zeros((2, 4, 4))
    ones = np.ones((2, 4, 4))

    @jax.jit
    def both(s, t):
        def loss(s, t):
            return _singular(s, t, ones, eye, components=2).sum()

        return jax.value_and_grad(loss, (0, 1))(s, t)

    for s, t in itertools.product((eye, zero, ones), repeat=2):
        value, gradients = both(s, t)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize(
    "kernel, knobs",
    [
        (_flow, {}),
        (_flow, {"variant": "sum"}),
        (_flow, {"where": np.array([True, True, False, True])}),
        (_singular, {}),
        (_singular, {"components": 2}),
    ],
    ids=["mean", "sum", "masked", "one vector", "two vectors"],
)
def test_gradients_against_differences(kernel, knobs):
    arrays = _random(2)
    weights = jnp.arange(1.0, 3)

    def loss(*arrays):
        return (weights * kernel(*arrays, **knobs)).sum()

    check_grads(jax.jit(loss), arrays, 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_bad_arguments_are_refused():
    student, teacher, student_end, teacher_end = arrays = _random()
    with pytest.raises(
        ValueError, match=r"^student_end: expected shape \(3, 3, 2, 5\)"
    ):
        _flow(student, teacher, student_end[:, :2], teacher_end)
    with pytest.raises(ValueError, match="^teacher_end: expected the shape of student"):
        _flow(student, teacher, student_end, teacher_end[..., :2])
    with pytest.raises(ValueError, match="^variant: expected one of"):
        _flow(*arrays, variant="half")
    with pytest.raises(ValueError, match="^end: expected an array of floating"):
        fsp_matrix(student, student_end.astype(int))
    with pytest.raises(ValueError, match="^where: expected"):
        fsp_matrix(student, student_end, where=np.ones(7, bool))
    with pytest.raises(
        ValueError, match=r"^components: expected a whole number in \[1, 4\]"
    ):
        _singular(*arrays, components=5)
    with pytest.raises(ValueError, match="^student_end: expected 3 examples, got 2"):
        _singular(student, teacher, student_end[:2], teacher_end[:2])
    with pytest.raises(ValueError, match="^teacher_features: expected as many taps"):
        dense_fsp([student], [teacher])
    with pytest.raises(ValueError, match=r"^upto: expected a whole .*\[1, 1\], got 2"):
        dense_fsp([student, student_end], [teacher, teacher_end], upto=2)


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="LAPACK is serial there")
def test_eigenvectors_on_cpu_are_of_one_matrix_at_a_time():
    """Batches of several calls wait for each other for ever in jaxlib below 0.11."""
    maps = jnp.ones((6, 4, 3, 5))
    ends = {"student_end": maps, "teacher_end": maps}
    lowered = jax.jit(lambda x: kdsvd(x, x, **ends)).lower(maps)
    calls = [x for x in lowered.as_text().splitlines() if "syevd" in x]
    assert calls and all("(tensor<5x5x" in x for x in calls)
