"""Losses of maps by channel against fixtures, NumPy formulas and differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import channel_weighted_hint, cwd, ickd, nst, softmax_kl

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

# Worked with an independent float64 script: shared/reference/methods.md, 3.5.
STUDENT = np.array([[[[1.0, 0], [0, 2]], [[1, 1], [3, 0]]]])
TEACHER = np.array([[[[2.0, 1], [0, 0]], [[1, 0], [1, 2]]]])
SELECTIVITY = ["linear", "polynomial", "gaussian"]


def _random(shape=(3, 3, 4, 5), teacher_channels=None):
    rng = np.random.default_rng(1)
    channels = shape[-1] if teacher_channels is None else teacher_channels
    return rng.normal(size=shape), rng.normal(size=(*shape[:-1], channels))


def _differentiable(kernel, student, teacher):
    weights = jnp.arange(1.0, 1 + len(student))

    def loss(student, teacher):
        return (weights * kernel(student, teacher)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-6, 1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_channel_wise_against_numpy(temperature):
    student, teacher = _random()
    expected = np.zeros(3)
    for n, c in itertools.product(range(3), range(5)):
        p, q = (np.exp(x[n, ..., c] / temperature) for x in (teacher, student))
        p, q = p / p.sum(), q / q.sum()
        expected[n] += temperature**2 * (p * np.log(p / q)).sum() / 5
    values = cwd(student, teacher, temperature=temperature)
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_channel_wise_is_a_divergence_of_each_channel():
    """With one channel it is the divergence of logits; a shift changes nothing."""
    student, teacher = _random()
    values = cwd(student[..., :1], teacher[..., :1])
    flat = (student[..., 0].reshape(3, -1), teacher[..., 0].reshape(3, -1))
    np.testing.assert_allclose(values, softmax_kl(*flat, temperature=4.0), rtol=1e-10)
    shift = np.arange(5.0)
    expected = cwd(student, teacher)
    values = cwd(student + shift, teacher - shift)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    np.testing.assert_allclose(cwd(student, student), 0, atol=1e-15)


def test_inter_channel_correlation_against_numpy():
    student, teacher = _random()
    expected = np.zeros(3)
    for n in range(3):
        rows = []
        for features in (student, teacher):
            flat = features[n].reshape(-1, 5)
            gram = flat.T @ flat
            rows.append(gram / np.sqrt((gram**2).sum(axis=1, keepdims=True)))
        expected[n] = ((rows[0] - rows[1]) ** 2).sum() / 5
    values = ickd(student, teacher)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    order = np.random.default_rng(2).permutation(12)
    moved = student.reshape(3, 12, 5)[:, order]
    values = ickd(-9 * moved, 1e5 * teacher.reshape(3, 12, 5))
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def _naive_selectivity(student, teacher, kernel):
    """One example, channel by channel."""
    sides = []
    for features in (student, teacher):
        flat = features.reshape(-1, features.shape[-1])
        sides.append([v / max(np.sqrt(v @ v), 1e-12) for v in flat.T])
    pairs = [(a, b) for a in sides[0] + sides[1] for b in sides[0] + sides[1]]
    width = max(np.mean([((a - b) ** 2).sum() for a, b in pairs]), 1e-6)

    def mean(first, second):
        values = []
        for a, b in itertools.product(first, second):
            if kernel == "gaussian":
                values.append(np.exp(-((a - b) ** 2).sum() / (2 * width)))
            else:
                values.append((a @ b) ** (2 if kernel == "polynomial" else 1))
        return np.mean(values)

    s, t = sides
    return mean(t, t) + mean(s, s) - 2 * mean(s, t)


def test_selectivity_fixture():
    value = nst(STUDENT, TEACHER)
    np.testing.assert_allclose(value, [0.5409090909], atol=1e-10)


@pytest.mark.parametrize("kernel", SELECTIVITY)
@pytest.mark.parametrize("teacher_channels", [5, 3])
def test_selectivity_against_numpy(kernel, teacher_channels):
    student, teacher = _random(teacher_channels=teacher_channels)
    student[0, ..., 1] = 0
    expected = [
        _naive_selectivity(s, t, kernel) for s, t in zip(student, teacher, strict=True)
    ]
    values = nst(student, teacher, kernel=kernel)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    assert (values >= 0).all()


@pytest.mark.parametrize("kernel", SELECTIVITY)
def test_selectivity_invariances(kernel):
    student, teacher = _random()
    expected = nst(student, teacher, kernel=kernel)
    rng = np.random.default_rng(2)
    scales = rng.uniform(0.1, 10, size=5)
    values = nst(
        (scales * student)[..., rng.permutation(5)],
        teacher[..., rng.permutation(5)] * scales,
        kernel=kernel,
    )
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    values = nst(student, student[..., ::-1], kernel=kernel)
    np.testing.assert_allclose(values, 0, atol=1e-12)


@pytest.mark.parametrize("kernel", SELECTIVITY)
def test_selectivity_masks(kernel):
    """Positions of sides of unlike widths, and channels of alike ones."""
    student, teacher = _random(teacher_channels=3)
    rows = np.array([True, False, True])
    values = nst(student, teacher, kernel=kernel, where=rows[None, :, None, None])
    expected = nst(student[:, rows], teacher[:, rows], kernel=kernel)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    student, teacher = _random()
    some = np.arange(5) > 1
    values = nst(student, teacher, kernel=kernel, where=some)
    expected = nst(student[..., some], teacher[..., some], kernel=kernel)
    np.testing.assert_allclose(values, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "kernel",
    [cwd, ickd, nst],
    ids=lambda k: k.__name__,
)
def test_gradients_against_differences(kernel):
    student, teacher = _random((2, 2, 3, 3))
    _differentiable(kernel, student, teacher)
    mask = np.array([True, False])[None, :, None, None]
    _differentiable(lambda s, t: kernel(s, t, where=mask), student, teacher)


@pytest.mark.parametrize("kernel", ["linear", "gaussian"])
def test_other_kernels_gradients_against_differences(kernel):
    student, teacher = _random((2, 2, 3, 3), teacher_channels=2)
    _differentiable(lambda s, t: nst(s, t, kernel=kernel), student, teacher)


def test_bad_arguments_are_refused():
    student, teacher = _random()
    with pytest.raises(ValueError, match="^kernel: expected one of .*'rbf'"):
        nst(student, teacher, kernel="rbf")
    with pytest.raises(ValueError, match=r"^where: .*\(3, 3, 4, 2\), .*\(5,\)"):
        nst(student, teacher[..., :2], where=np.ones(5, bool))
    with pytest.raises(ValueError, match="^temperature: expected"):
        cwd(student, teacher, temperature=0)
    with pytest.raises(ValueError, match="^student_features: expected rank at least 3"):
        ickd(student[:, 0, 0], teacher[:, 0, 0])


def test_channel_weighted_hint_against_numpy():
    student, teacher = np.random.default_rng(3).normal(size=(2, 2, 3, 4, 5))
    each = np.random.default_rng(4).uniform(size=(2, 5))
    apart = ((student - teacher) ** 2).mean((1, 2))
    for weights in (each, each[0]):
        value = channel_weighted_hint(student, teacher, weights=weights)
        np.testing.assert_allclose(value, (weights * apart).sum(-1), rtol=1e-12)
    equal = channel_weighted_hint(student, teacher, weights=np.full(5, 1 / 5))
    np.testing.assert_allclose(equal, ((student - teacher) ** 2).mean((1, 2, 3)))

    def loss(s, t, w):
        return channel_weighted_hint(s, t, weights=w).sum()

    check_grads(loss, (student, teacher, each), 1, ["rev"], 1e-6, 1e-6)
    with pytest.raises(ValueError, match="^weights: expected"):
        channel_weighted_hint(student, teacher, weights=each[:, :4])
