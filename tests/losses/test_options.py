"""Options that are no default, each against its formula in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses
from tests.lawbook import relation

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("float64", "strict_dtypes")]

RNG = np.random.default_rng(5)
STUDENT, TEACHER = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 4))
KEEP = np.array([True, True, False, True, True])


def _huber(x, delta=1.0):
    size = np.abs(x)
    return np.where(size <= delta, x**2 / 2, delta * (size - delta / 2))


def _squared(x):
    return ((x[:, None] - x[None, :]) ** 2).sum(-1)


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _masked(loss, expected):
    """Values with an example left out are those of the others alone, and 0."""
    values = loss(STUDENT, TEACHER, where=KEEP)
    np.testing.assert_allclose(values[KEEP], expected(STUDENT[KEEP], TEACHER[KEEP]))
    assert values[2] == 0


def test_rkd_distance_of_squares():
    def expected(student, teacher):
        s, t = _squared(student), _squared(teacher)
        return _huber(t / t[t > 0].mean() - s / s[s > 0].mean()).mean(1)

    def loss(student, teacher, **more):
        return losses.rkd_distance(student, teacher, squared=True, **more)

    np.testing.assert_allclose(loss(STUDENT, TEACHER), expected(STUDENT, TEACHER))
    _masked(loss, expected)
    # The line 0, 1, 3: squares 1, 4, 9 of mean 14/3 beside 1, 1, 1.
    line = jnp.array([[0.0], [1.0], [3.0]])
    apart = jnp.eye(3)
    gap = np.array([[0, 1, 9], [1, 0, 4], [9, 4, 0]]) * 3 / 14 - (1 - np.eye(3))
    np.testing.assert_allclose(loss(apart, line), _huber(gap).mean(1))


@pytest.mark.full
@pytest.mark.parametrize("normalize", [False, True])
def test_rkd_of_pairs_is_the_mean_over_different_examples(normalize):
    def potential(a, b):
        return jnp.sum(a) * (1 + jnp.sum(b * b))

    def expected(student, teacher):
        sides = []
        for x in (student, teacher):
            size = (x**2).sum(1)
            psi = x.sum(1)[:, None] * (1 + size[None, :])
            other = ~np.eye(len(x), dtype=bool)
            mean = np.abs(psi[other]).mean()
            sides.append(psi / mean if normalize else psi)
        gaps = _huber(sides[1] - sides[0], 0.7)
        return (gaps - np.diag(np.diag(gaps))).sum(1) / (len(student) - 1)

    def loss(student, teacher, **more):
        options = {"potential": potential, "normalize": normalize, "delta": 0.7}
        return losses.rkd(student, teacher, **options, **more)

    np.testing.assert_allclose(loss(STUDENT, TEACHER), expected(STUDENT, TEACHER))
    _masked(loss, expected)
    check_grads(lambda s, t: loss(s, t).sum(), (STUDENT, TEACHER), 1, ["rev"])


@pytest.mark.full
def test_rkd_of_triples_is_rkd_angle_but_for_repeated_examples():
    def cosine(j, i, k):
        a, b = (x - j for x in (i, k))
        return a @ b / jnp.sqrt((a @ a) * (b @ b))

    n = len(STUDENT)
    values = losses.rkd(STUDENT, TEACHER, potential=cosine, order=3)
    # Of equal ends both cosines are 1, at the vertex both are 0: no gap.
    share = (n - 1) * (n - 2) / n**2
    expected = losses.rkd_angle(STUDENT, TEACHER)
    np.testing.assert_allclose(share * values, expected, rtol=1e-9)
    for chunk in (1, 2, 100):
        again = losses.rkd(
            STUDENT, TEACHER, potential=cosine, order=3, chunk=chunk, where=KEEP
        )
        alone = losses.rkd(STUDENT[KEEP], TEACHER[KEEP], potential=cosine, order=3)
        np.testing.assert_allclose(again[KEEP], alone, rtol=1e-12)

    def total(student):
        loss = losses.rkd(student, TEACHER, potential=cosine, order=3, where=KEEP)
        return loss.sum()

    gradient = jax.grad(total)(STUDENT)
    assert np.isfinite(gradient).all() and (gradient[2] == 0).all()


def test_rkd_of_distances_is_rkd_distance_but_for_repeated_examples():
    def distance(a, b):
        return jnp.sqrt(jnp.sum((a - b) ** 2))

    values = losses.rkd(STUDENT, TEACHER, potential=distance, normalize=True)
    expected = losses.rkd_distance(STUDENT, TEACHER)
    np.testing.assert_allclose(values * 4 / 5, expected, rtol=1e-9)


def test_rkd_refuses_what_is_no_potential():
    with pytest.raises(ValueError, match="^potential: expected a function of 2 emb"):
        losses.rkd(STUDENT, TEACHER, potential="distance")
    with pytest.raises(ValueError, match="^potential: expected a floating scalar, got"):
        losses.rkd(STUDENT, TEACHER, potential=lambda a, b: a[:2] - b[:2])
    with pytest.raises(ValueError, match="^order: expected .* at least 2, got 1"):
        losses.rkd(STUDENT, TEACHER, potential=relation.PAIR, order=1)
    with pytest.raises(ValueError, match=r"^student_features: expected .* 3 examples"):
        losses.rkd(STUDENT[:2], TEACHER[:2], potential=relation.TRIPLE, order=3)
    with pytest.raises(ValueError, match="^delta: expected"):
        losses.rkd(STUDENT, TEACHER, potential=relation.PAIR, delta=0.0)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("order", [None, 2, 3])
def test_cc_of_other_rows_and_of_the_gaussian_itself(normalize, order):
    gamma = 0.3

    def kernel(x):
        if normalize:
            x = x / np.sqrt((x**2).sum(1, keepdims=True))
        if order is None:
            return np.exp(-gamma * _squared(x))
        inner = 2 * gamma * x @ x.T
        powers = [inner**p / math.factorial(p) for p in range(order + 1)]
        return np.exp(-2 * gamma) * np.sum(powers, 0)

    def expected(student, teacher):
        return ((kernel(teacher) - kernel(student)) ** 2).mean(1)

    def loss(student, teacher, **more):
        options = {"gamma": gamma, "order": order, "normalize": normalize}
        return losses.cc(student, teacher, **options, **more)

    np.testing.assert_allclose(loss(STUDENT, TEACHER), expected(STUDENT, TEACHER))
    _masked(loss, expected)


def test_cc_bilinear_and_mmd_of_rows_as_they_are():
    for kernel, matrix in (
        ("bilinear", lambda x: x @ x.T),
        ("mmd", lambda x: np.abs(x.mean(1)[:, None] - x.mean(1)[None, :])),
    ):
        values = losses.cc(STUDENT, TEACHER, kernel=kernel, normalize=False)
        expected = ((matrix(TEACHER) - matrix(STUDENT)) ** 2).mean(1)
        np.testing.assert_allclose(values, expected)


def test_sp_with_rows_of_sum_one():
    def rows(x):
        gram = x @ x.T
        return gram / np.abs(gram).sum(1, keepdims=True)

    def expected(student, teacher):
        return ((rows(teacher) - rows(student)) ** 2).mean(1)

    def loss(student, teacher, **more):
        return losses.sp(student, teacher, norm="l1", **more)

    np.testing.assert_allclose(loss(STUDENT, TEACHER), expected(STUDENT, TEACHER))
    _masked(loss, expected)
    with pytest.raises(ValueError, match="^norm: expected one of"):
        losses.sp(STUDENT, TEACHER, norm="max")


def test_factor_transfer_of_attention_takes_other_widths():
    student, teacher = RNG.normal(size=(2, 3, 2, 4)), RNG.normal(size=(2, 3, 2, 7))

    def attention(x, keep=slice(None)):
        a = (x[..., keep] ** 2).mean(-1).reshape(2, -1)
        return a / np.sqrt((a**2).sum(1, keepdims=True))

    values = losses.factor_transfer(student, teacher, variant="attention")
    gap = attention(student) - attention(teacher)
    np.testing.assert_allclose(values, np.abs(gap).mean(1))
    with pytest.raises(ValueError, match="^teacher_features: expected"):
        losses.factor_transfer(student, teacher)


def test_fsp_norm_is_the_root_of_the_sum():
    maps = RNG.normal(size=(2, 3, 6, 4))
    ends = RNG.normal(size=(2, 3, 6, 5))
    options = {"student_end": ends[0], "teacher_end": ends[1]}
    values = losses.fsp(maps[0], maps[1], variant="norm", **options)
    flows = [
        np.einsum("npc,npd->ncd", m, e) / 6 for m, e in zip(maps, ends, strict=True)
    ]
    np.testing.assert_allclose(values, np.linalg.norm(flows[0] - flows[1], axis=(1, 2)))
    taps = [(maps[i], ends[i]) for i in range(2)]
    dense = losses.dense_fsp(*taps, variant="norm")
    np.testing.assert_allclose(dense, values)
    same = {"student_end": ends[0], "teacher_end": ends[0]}
    gradient = jax.grad(lambda x: losses.fsp(x, maps[0], variant="norm", **same).sum())(
        maps[0]
    )
    np.testing.assert_array_equal(gradient, 0)


def test_total_variation_l1_is_the_sum_of_four_means():
    images = RNG.normal(size=(3, 4, 5, 2))
    expected = (
        np.abs(images[:, :, 1:] - images[:, :, :-1]).mean((1, 2, 3))
        + np.abs(images[:, 1:] - images[:, :-1]).mean((1, 2, 3))
        + np.abs(images[:, 1:, 1:] - images[:, :-1, :-1]).mean((1, 2, 3))
        + np.abs(images[:, 1:, :-1] - images[:, :-1, 1:]).mean((1, 2, 3))
    )
    total = losses.image_total_variation(images, variant="l1")
    np.testing.assert_allclose(total, expected)
    keep = np.array([True, False, True])
    masked = losses.image_total_variation(
        np.where(keep[:, None, None, None], images, np.nan), variant="l1", where=keep
    )
    np.testing.assert_allclose(masked, np.where(keep, expected, 0))
    one = losses.image_total_variation(images[:, :1, :1], variant="l1")
    np.testing.assert_array_equal(one, 0)
    flat = jax.grad(lambda x: losses.image_total_variation(x, variant="l1").sum())(
        np.ones((1, 3, 3, 1))
    )
    np.testing.assert_array_equal(flat, 0)


def test_parts_of_mlld():
    student, teacher = RNG.normal(size=(2, 5, 3))

    def parts(student, teacher, temperature):
        q, p = _softmax(student / temperature), _softmax(teacher / temperature)
        batch = ((p @ p.T - q @ q.T) ** 2).sum(1)
        return batch, ((p.T @ p - q.T @ q) ** 2).sum() / 3 + 0 * batch

    for temperature in (1.0, 4.0):
        options = {"temperature": temperature}
        batch, classes = parts(student, teacher, temperature)
        values = losses.mlld_batch(student, teacher, **options)
        np.testing.assert_allclose(values, batch)
        np.testing.assert_allclose(
            losses.mlld_class(student, teacher, **options), classes
        )
        where = {"where": KEEP, **options}
        batch, classes = parts(student[KEEP], teacher[KEEP], temperature)
        values = losses.mlld_batch(student, teacher, **where)
        np.testing.assert_allclose(values[KEEP], batch)
        values = losses.mlld_class(student, teacher, **where)
        np.testing.assert_allclose(values[KEEP], classes)
        assert values[2] == 0
    # With the divergences they are the loss of the paper.
    levels = (2.0, 3.0, 4.0, 5.0, 6.0)
    kernels = (losses.softmax_kl, losses.mlld_batch, losses.mlld_class)
    whole = sum(f(student, teacher, temperature=t) for f in kernels for t in levels)
    described = losses.mlld(student, teacher, variant="described")
    np.testing.assert_allclose(described, whole)
