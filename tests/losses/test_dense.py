"""Dense predictions and detection: fixtures, NumPy formulas, differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses, targets

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("float64", "strict_dtypes")]

RNG = np.random.default_rng(1)
MAPS = RNG.normal(size=(2, 3, 4, 2, 5))
POSITIONS = (RNG.uniform(size=(4, 2)) > 0.4)[:, :, None]
BOXES = np.array([[[0.0, 0.0, 1.5, 1.0], [1.2, 2.0, 2.0, 4.0]]] * 3)


def _unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def _grads(loss, *arguments):
    def weighed(*arguments):
        return (jnp.arange(1.0, 4) * loss(*arguments)).sum()

    check_grads(jax.jit(weighed), arguments, 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_affinity_against_numpy():
    student, teacher = MAPS[0], RNG.normal(size=(3, 4, 2, 7))
    rows = [_unit(x[:, POSITIONS[..., 0]]) for x in (student, teacher)]
    gap = np.subtract(*(np.einsum("npc,nqc->npq", x, x) for x in rows))
    loss = functools.partial(losses.pairwise_affinity, where=POSITIONS)
    np.testing.assert_allclose(loss(student, teacher), (gap**2).mean((1, 2)), rtol=1e-9)
    _grads(loss, student, teacher)


def test_quantizer_fixture():
    """methods.md, 3.5; F07: idempotent, within half a step, slope 1 inside only."""
    x = jnp.array([-1, -0.4, 0.1, 0.9, 1])
    knobs = {"levels": 4, "low": -1.0, "high": 1.0}
    found = losses.uniform_quantize(x, **knobs)
    np.testing.assert_allclose(found, [-1, -1 / 3, 1 / 3, 1, 1], atol=1e-12)
    np.testing.assert_allclose(losses.uniform_quantize(found, **knobs), found)
    wide = jnp.linspace(-2, 2, 41)
    error = jnp.abs(losses.uniform_quantize(wide, **knobs) - jnp.clip(wide, -1, 1))
    assert error.max() <= 1 / 3 + 1e-12
    slope = jax.grad(lambda x: losses.uniform_quantize(x, **knobs).sum())(wide)
    np.testing.assert_array_equal(slope, (np.abs(np.linspace(-2, 2, 41)) <= 1 + 1e-9))
    assert len(np.unique(losses.uniform_quantize(wide, **knobs))) == 4
    for bad in ({"levels": 1}, {"high": -1.0}):
        with pytest.raises(ValueError, match="^(levels|high - low): expected"):
            losses.uniform_quantize(x, **{**knobs, **bad})


def test_quantized_hint_against_numpy():
    student, teacher = MAPS
    knobs = {"levels": 5, "low": -1.0, "high": 1.0}
    q_s, q_t = (np.round((np.clip(x, -1, 1) + 1) * 2) / 2 - 1 for x in MAPS)
    gap = (q_s - q_t)[:, POSITIONS[..., 0]]
    values = losses.quantized_hint(student, teacher, **knobs, where=POSITIONS)
    np.testing.assert_allclose(values, (gap**2).sum(-1).mean(-1) / 2, rtol=1e-9)
    # methods.md, F04: on one level nothing is paid.
    near = losses.quantized_hint(teacher, np.asarray(q_t), **knobs)
    np.testing.assert_allclose(near, 0, atol=1e-12)


def test_bound_switches_off():
    """methods.md, J02: where the student beats the teacher by the margin."""
    student, teacher, targets = RNG.normal(size=(3, 20, 4))
    error, bound = (((x - targets) ** 2).sum(-1) for x in (student, teacher))
    for margin in (0.0, 2.0):
        counted = error + margin > bound
        assert counted.any() and not counted.all()
        values = losses.bounded_regression(
            student, teacher, targets=targets, margin=margin
        )
        np.testing.assert_allclose(values, np.where(counted, error, 0), rtol=1e-9)
    slope = jax.grad(
        lambda s: losses.bounded_regression(s, teacher, targets=targets).sum()
    )(student)
    expected = np.where((error > bound)[:, None], 2 * (student - targets), 0)
    np.testing.assert_allclose(slope, expected, rtol=1e-9)


def test_imitation_mask_on_a_grid():
    """methods.md, J03: by hand, two anchors at each of two positions."""
    anchors = np.array([[[0.0, 0, 2, 2], [0, 0, 4, 4]], [[4, 0, 6, 2], [9, 9, 10, 10]]])
    boxes = np.array([[[0.0, 0, 3, 2], [4.5, 0, 6, 2]], [[7.0, 7, 8, 8]] * 2])
    # Overlaps with the first box 4/6, 6/16, 0, 0: above half of the best is only the
    # first; with the second box only the third anchor (3/4).
    found = targets.imitation_mask(anchors, boxes)
    np.testing.assert_array_equal(found, [[True, True], [False, False]])
    first = targets.imitation_mask(anchors, boxes, where=np.array([[True, False]]))
    np.testing.assert_array_equal(first, [[True, False], [False, False]])
    lower = targets.imitation_mask(
        anchors[:1, 1:], boxes[:1, :1], threshold=0.9, where=np.ones((1, 1), bool)
    )
    np.testing.assert_array_equal(lower, [[True]])


def test_box_weights_sum_to_one_a_box():
    """methods.md, J03; the cells by hand, where boxes overlap the smaller counts."""
    weights = np.asarray(targets.box_weights(BOXES[:1], size=(4, 2)))
    expected = np.array([[0.5, 0.5], [0, 0], [0, 0.5], [0, 0.5]])
    np.testing.assert_allclose(weights[0], expected)
    np.testing.assert_allclose(weights.sum(), 2)
    both = np.array([[[0.0, 0, 2, 2], [0, 0, 1, 1]]])
    found = targets.box_weights(both, size=(2, 2))
    np.testing.assert_allclose(found[0], [[1, 0.25], [0.25, 0.25]])
    one = targets.box_weights(both, size=(2, 2), where=np.array([[True, False]]))
    np.testing.assert_allclose(one[0], np.full((2, 2), 0.25))


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_focal_imitation_against_numpy():
    student, teacher = MAPS
    objects = np.asarray(targets.box_weights(BOXES, size=(4, 2)))
    objects = objects * np.array([1.0, 1.0, 0.0])[:, None, None]
    flat = [x.reshape(3, 8, 5) for x in (student, teacher)]
    m = objects.reshape(3, 8)
    background = (m == 0) / (m == 0).sum(1, keepdims=True)
    seen = [8 * _softmax(np.abs(x).mean(2) / 0.5) for x in flat]
    lit = [5 * _softmax(np.abs(x).mean(1) / 0.5) for x in flat]
    square = (flat[0] - flat[1]) ** 2 * lit[1][:, None] * seen[1][:, :, None]
    expected = ((0.4 * m + 0.2 * background)[:, :, None] * square).sum((1, 2))
    expected += 0.3 * sum(np.abs(a[0] - a[1]).sum(1) for a in (seen, lit))
    knobs = {"alpha": 0.4, "beta": 0.2, "gamma": 0.3}
    loss = functools.partial(losses.fgd, foreground=objects, **knobs)
    np.testing.assert_allclose(loss(student, teacher), expected, rtol=1e-9)
    _grads(functools.partial(loss, where=POSITIONS), student, teacher)


def _regions():
    rng = np.random.default_rng(4)
    labels = rng.integers(-1, 3, size=(2, 4, 3))
    return rng.normal(size=(2, 4, 3, 5)), rng.normal(size=(2, 4, 3, 2)), labels


def _affinity(student, teacher, labels, regions):
    """One value per image, from moments taken one region and channel at a time."""
    values = []
    for s, t, ids in zip(student, teacher, labels, strict=True):
        present = [r for r in range(regions) if (ids == r).any()]
        gaps = []
        for moment in range(3):
            sides = []
            for x in (s, t):
                rows = []
                for r in present:
                    inside = x[ids == r]
                    mean, std = (
                        inside.mean(0),
                        np.sqrt(np.maximum(inside.var(0), 1e-12)),
                    )
                    skew = (((inside - mean) / std) ** 3).mean(0)
                    rows.append((mean, inside.var(0), skew)[moment])
                rows = np.stack(rows)
                eps = 1e-3 if moment == 2 else 1e-12
                u = rows / np.maximum(np.sqrt((rows**2).sum(-1, keepdims=True)), eps)
                sides.append(u @ u.T)
            gaps.append((sides[0] - sides[1]) ** 2)
        values.append(np.mean(gaps))
    return values


def test_region_affinity_against_numpy():
    student, teacher, labels = _regions()
    labels[1][labels[1] == 2] = 0  # a region that this image has not
    for regions in (3, 5):
        kernel = functools.partial(losses.inter_region_affinity, regions=regions)
        values = jax.jit(kernel)(student, teacher, labels=labels)
        expected = _affinity(student, teacher, labels, 3)
        np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_region_affinity_gradients_against_differences():
    student, teacher, labels = _regions()

    def loss(student, teacher):
        values = losses.inter_region_affinity(
            student, teacher, labels=labels, regions=3
        )
        return (jnp.arange(1.0, 3) * values).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-5, 1e-5)


def test_region_affinity_knows_regions_only():
    student, teacher, labels = _regions()
    kernel = jax.jit(functools.partial(losses.inter_region_affinity, regions=3))
    expected = kernel(student, teacher, labels=labels)
    rng = np.random.default_rng(5)
    shuffled = student.copy()
    for image, ids in zip(shuffled, labels, strict=True):
        for region in range(3):
            image[ids == region] = rng.permutation(image[ids == region])
    values = kernel(shuffled, teacher, labels=labels)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    values = kernel(7.5 * student, teacher, labels=labels)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    spoilt = np.where(labels[..., None] < 0, np.nan, student)
    np.testing.assert_array_equal(kernel(spoilt, teacher, labels=labels), expected)


def test_region_affinity_of_one_region_or_of_constants():
    student, teacher, labels = (x.astype(np.float32) for x in _regions())
    labels = labels.astype(np.int32)

    def loss(student, labels):
        values = losses.inter_region_affinity(
            student, teacher, labels=labels, regions=3
        )
        return values.sum(), values

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    for none in (0 * labels, 0 * labels - 1):
        slope, values = gradient(student, none)
        np.testing.assert_array_equal(values, 0)
        np.testing.assert_array_equal(slope, 0)
    for level in (0.0, 2.0):
        slope, values = gradient(0 * student + level, labels)
        assert np.isfinite(values).all() and np.isfinite(slope).all()


def test_region_affinity_refuses_bad_arguments():
    student, teacher, labels = _regions()
    with pytest.raises(ValueError, match="^teacher_features: expected shape"):
        losses.inter_region_affinity(student, teacher[:, :3], labels=labels, regions=3)
    with pytest.raises(ValueError, match="^labels: expected shape"):
        losses.inter_region_affinity(student, teacher, labels=labels[0], regions=3)
    with pytest.raises(ValueError, match="^labels: expected .*integer"):
        losses.inter_region_affinity(student, teacher, labels=1.0 * labels, regions=3)
    with pytest.raises(ValueError, match="^regions: expected"):
        losses.inter_region_affinity(student, teacher, labels=labels, regions=0)


def test_region_bands_against_slices():
    """A region reaches `band` positions further along every axis."""
    student, teacher, labels = _regions()
    labels[:] = -1
    labels[:, 0, 0], labels[:, 3, 1:] = 0, 1
    labels[:, 1:3] = 2
    # Of 4 x 3 positions: (0, 0) and its neighbors, and so on, unlabeled ones never.
    wide = np.zeros((2, 4, 3, 3), bool)
    wide[:, :2, :2, 0], wide[:, 2:, :, 1], wide[:, :, :, 2] = True, True, True
    wide &= (labels >= 0)[..., None]
    expected = []
    for n in range(2):
        gaps = []
        for moment in range(3):
            sides = []
            for x in (student[n], teacher[n]):
                rows = []
                for r in range(3):
                    inside = x[wide[n, ..., r]]
                    mean, variance = inside.mean(0), inside.var(0)
                    skew = (((inside - mean) / np.sqrt(variance)) ** 3).mean(0)
                    rows.append(_unit((mean, variance, skew)[moment]))
                sides.append(np.stack(rows) @ np.stack(rows).T)
            gaps.append((sides[0] - sides[1]) ** 2)
        expected.append(np.mean(gaps))
    knobs = {"labels": labels, "regions": 3}
    values = losses.inter_region_affinity(student, teacher, **knobs, band=1)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    narrow = losses.inter_region_affinity(student, teacher, **knobs)
    assert (np.abs(narrow - np.array(expected)) > 1e-3).all()
    _spread = functools.partial(losses.inter_region_affinity, **knobs, band=1)
    check_grads(
        lambda s, t: _spread(s, t).sum(), (student, teacher), 1, ("rev",), 1e-5, 1e-5
    )
    with pytest.raises(ValueError, match="^band: expected a whole number"):
        losses.inter_region_affinity(student, teacher, **knobs, band=-1)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int64])
def test_region_labels_may_be_of_any_integer(dtype):
    """More regions than the labels' dtype can count, and void labels."""
    features = np.random.default_rng(6).normal(size=(2, 1, 6, 3))
    labels = np.array([[0, 0, 1, 1, -1, -1]])
    value = functools.partial(losses.inter_region_affinity, *features, regions=300)
    expected = value(labels=labels.astype(np.int32))
    if dtype == np.uint8:
        labels = np.where(labels < 0, 255, labels)
        expected = value(labels=labels.astype(np.int32))
    np.testing.assert_array_equal(value(labels=labels.astype(dtype)), expected)


@pytest.mark.parametrize("size", [(2.5, 3), ("3", 3), (True, 3)])
def test_box_weights_want_whole_sizes(size):
    with pytest.raises(ValueError, match="^size: expected a whole number"):
        targets.box_weights(BOXES, size=size)
