"""Similarity losses against hand-worked values, NumPy formulas and differences."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import cc, pkt, representational_similarity, sp
from kdjax.losses._relations.pkt import _neighborhoods

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# Worked with an independent float64 script: shared/reference/methods.md, 3.5.
STUDENT = np.array([[0.0, 0], [1, 0], [0, 2], [2, 1]]) + 1
TEACHER = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1]]) + 1

KERNELS = {
    "similarity": sp,
    "kernel": cc,
    "order 5": functools.partial(cc, order=5, gamma=0.7),
    "consecutive": functools.partial(cc, variant="consecutive"),
    "reference": pkt,
    "paper": functools.partial(pkt, variant="paper"),
}
kernels = pytest.mark.parametrize("name", KERNELS)
turnable = pytest.mark.parametrize("name", [k for k in KERNELS if k != "consecutive"])


def _random(name, rows=6):
    rng = np.random.default_rng(1)
    width = 3 if name == "consecutive" else 5
    return rng.normal(size=(rows, 3)), rng.normal(size=(rows, width))


def _call(name, *arguments, **knobs):
    return np.asarray(jax.jit(functools.partial(KERNELS[name], **knobs))(*arguments))


def _unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def _numpy(name, student, teacher):
    """Values `[N]` written with loops and float64."""
    n = len(student)
    if name == "consecutive":
        gap = np.abs(student - teacher)
        return [sum(gap[i] * gap[i + 1]) * n / (n - 1) for i in range(n - 1)] + [0]
    sides = []
    for f in (teacher, student):
        if name == "similarity":
            sides.append(_unit(f @ f.T))
        elif name in ("kernel", "order 5"):
            gamma, order = (0.4, 2) if name == "kernel" else (0.7, 5)
            powers = [(2 * gamma) ** p / math.factorial(p) for p in range(order + 1)]
            cosine = _unit(f) @ _unit(f).T
            series = sum(c * cosine**p for p, c in enumerate(powers))
            sides.append(np.exp(-2 * gamma) * series)
        else:
            u = f / (np.sqrt((f * f).sum(-1, keepdims=True)) + 1e-7)
            k = (u @ u.T + 1) / 2
            if name == "paper":
                np.fill_diagonal(k, 0)
            sides.append(k / k.sum(1, keepdims=True))
    p, q = sides
    if name not in ("reference", "paper"):
        return ((p - q) ** 2).mean(1)
    h = p * np.log((p + 1e-7) / (q + 1e-7))
    return h.mean(1) if name == "reference" else n * h.sum(1)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("similarity", 0.0420651611),
        ("kernel", 0.0093123391),
        ("reference", 0.0004404547),
    ],
)
def test_fixture(float64, name, expected):
    value = _call(name, STUDENT, TEACHER).mean()
    np.testing.assert_allclose(value, expected, atol=1e-10)


@kernels
def test_against_numpy(float64, name):
    student, teacher = _random(name)
    values = _call(name, student, teacher)
    np.testing.assert_allclose(values, _numpy(name, student, teacher), rtol=1e-9)


@kernels
def test_masked_values_against_numpy_of_the_slice(float64, name):
    student, teacher = _random(name)
    keep = np.array([True, False, True, True, False, True])
    values = _call(name, student, teacher, where=keep)
    np.testing.assert_array_equal(values[~keep], 0)
    expected = _numpy(name, student[keep], teacher[keep])
    np.testing.assert_allclose(values[keep], expected, rtol=1e-9)


@pytest.mark.full
@kernels
def test_gradients_against_differences(float64, name):
    student, teacher = _random(name, 5)
    weights = jnp.arange(1.0, 6)
    where = np.array([True, True, False, True, True])

    def loss(student, teacher):
        return (weights * KERNELS[name](student, teacher, where=where)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-6, 1e-6)


@turnable
def test_a_turn_and_a_scale_change_nothing(float64, name):
    student, teacher = _random(name)
    rng = np.random.default_rng(2)
    expected = _call(name, student, teacher)
    for side, width in ((0, 3), (1, 5)):
        turn, _ = np.linalg.qr(rng.normal(size=(width, width)))
        moved = [student, teacher]
        moved[side] = 7.5 * moved[side] @ turn
        np.testing.assert_allclose(_call(name, *moved), expected, rtol=1e-5)


def test_similarity_is_the_mean_square_of_whole_maps(float64):
    """The value does not depend on the layout of a map, and equals the MSE form."""
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(size=(2, 4, 3, 2, 5))
    flat = [x.reshape(4, -1) for x in (student, teacher)]
    gap = _unit(flat[0] @ flat[0].T) - _unit(flat[1] @ flat[1].T)
    value = _call("similarity", *flat).mean()
    np.testing.assert_allclose(value, np.mean(gap**2), rtol=1e-9)
    other = student.transpose(0, 3, 1, 2).reshape(4, -1)
    again = _call("similarity", other, flat[1]).mean()
    np.testing.assert_allclose(again, value, rtol=1e-9)


def test_a_long_series_is_the_gaussian(float64):
    student, teacher = _random("kernel")
    kernel = functools.partial(_call, "kernel", gamma=0.4, order=12)
    gaussians = []
    for f in (student, teacher):
        u = _unit(f)
        squared = ((u[:, None] - u[None]) ** 2).sum(-1)
        gaussians.append(np.exp(-0.4 * squared))
    expected = ((gaussians[1] - gaussians[0]) ** 2).mean(1)
    np.testing.assert_allclose(kernel(student, teacher), expected, atol=1e-8)


def test_neighborhoods_sum_to_one(float64):
    features = jnp.asarray(_random("reference")[0])
    for diagonal in (True, False):
        counted = jnp.asarray(diagonal | ~np.eye(6, dtype=bool))
        share = _neighborhoods(features, counted, jnp.asarray(1e-7))
        np.testing.assert_allclose(share.sum(1), 1, rtol=1e-12)
        assert (np.diagonal(share) > 0).all() == diagonal


@turnable
def test_opposed_equal_and_zero_rows_are_finite(name):
    row = np.array([[1.0, 2, 3]], np.float32)
    for student in (np.concatenate([row, -row, row]), np.zeros((3, 3), np.float32)):
        loss = jax.value_and_grad(lambda *x: KERNELS[name](*x).mean(), (0, 1))
        for pair in ((student, -student), (student, np.repeat(row, 3, 0))):
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(loss(*pair)))


def _flops(kernel, rows, width):
    shape = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    return jax.jit(kernel).lower(shape, shape).compile().cost_analysis()["flops"]


@turnable
def test_costs_little_more_than_its_two_gram_matrices(name):
    rows, width = 64, 1024
    grams = 2 * (2 * rows**2 * width)
    assert grams <= _flops(KERNELS[name], rows, width) < 1.25 * grams


def test_bad_arguments_are_refused():
    student, teacher = _random("kernel")
    with pytest.raises(ValueError, match="^variant: expected one of"):
        cc(student, teacher, variant="gaussian")
    with pytest.raises(ValueError, match="^variant: expected one of"):
        pkt(student, teacher, variant="code")
    for knob in ("gamma", "order"):
        with pytest.raises(ValueError, match=f"^{knob}: expected"):
            cc(student, teacher, **{knob: 0})
    with pytest.raises(ValueError, match="^eps: expected"):
        pkt(student, teacher, eps=0.0)
    with pytest.raises(ValueError, match="^teacher_features: expected the shape"):
        cc(student, teacher, variant="consecutive")
    with pytest.raises(ValueError, match="^student_features: .*least 2 examples"):
        cc(student[:1], student[:1], variant="consecutive")
    with pytest.raises(ValueError, match="^student_features: .*least 3 examples"):
        pkt(student[:2], teacher[:2], variant="paper")


@pytest.mark.full
@pytest.mark.parametrize("where", [None, np.array([True, True, False, True, True])])
def test_representational_similarity_against_numpy(float64, where):
    """The Pearson correlation of the upper triangles, from `np.corrcoef`."""
    rng = np.random.default_rng(7)
    student, teacher = rng.normal(size=(5, 6)), rng.normal(size=(5, 4))
    values = np.asarray(representational_similarity(student, teacher, where=where))
    rows = slice(None) if where is None else where
    upper = np.triu_indices(len(student[rows]), 1)
    tables = [1 - np.corrcoef(x[rows])[upper] for x in (student, teacher)]
    expected = 1 - np.corrcoef(*tables)[0, 1]
    np.testing.assert_allclose(values[rows].mean(), expected, rtol=1e-9)

    def loss(s, t):
        return representational_similarity(s, t, where=where).mean()

    check_grads(loss, (student, teacher), 1, ["rev"], 1e-6, 1e-6)


@pytest.mark.full
def test_representational_similarity_of_equals_and_of_flat_tables(float64):
    rng = np.random.default_rng(8)
    features = rng.normal(size=(4, 5))
    moved = features * rng.uniform(1, 3, (4, 1)) + rng.normal(size=(4, 1))
    value = functools.partial(representational_similarity, teacher_features=features)
    np.testing.assert_allclose(value(moved), 0, atol=1e-12)
    np.testing.assert_allclose(value(np.ones((4, 5))).mean(), 0.5)
    slope = jax.grad(lambda s: value(s).mean())(np.ones((4, 5)))
    np.testing.assert_array_equal(slope, 0)
    with pytest.raises(ValueError, match="^student_features: expected at least 3"):
        representational_similarity(features[:2], features[:2])
