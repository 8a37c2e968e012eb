"""Divergences from a sparse teacher against its distribution written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

pytestmark = pytest.mark.usefixtures("strict_dtypes")
TAILS = ("uniform", "bucket", "renormalize")
STUDENT, TEACHER = np.random.default_rng(0).normal(size=(2, 4, 7))
JUMPS = {"top_k_kl": {"direction": "reverse"}, "top_k_jsd": {"beta": 0.3}}


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def _divergence(name, p, q, beta=0.3):
    if name == "top_k_kl":
        return _kl(q, p)
    m = beta * p + (1 - beta) * q
    return beta * _kl(p, m) + (1 - beta) * _kl(q, m)


def _kept(k, temperature):
    log_probs = np.log(_softmax(TEACHER))
    indices = np.argsort(-log_probs, -1)[:, :k]
    normalizer = np.log(np.exp(log_probs / temperature).sum(-1))
    return np.take_along_axis(log_probs, indices, -1), indices, normalizer


def _expected(name, tail, temperature, log_top, indices, normalizer):
    values = []
    for s, log_p, kept, z in zip(STUDENT, log_top, indices, normalizer, strict=True):
        q = _softmax(s / temperature)
        rest = np.setdiff1d(np.arange(7), kept)
        p = np.zeros(7)
        p[kept] = np.exp(log_p / temperature - z)
        p[rest] = (1 - p.sum()) / len(rest)
        if tail == "bucket":
            p, q = (np.append(x[kept], x[rest].sum()) for x in (p, q))
        elif tail == "renormalize":
            p, q = (x[kept] / x[kept].sum() for x in (p, q))
        values.append(temperature**2 * _divergence(name, p, q))
    return values


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("name", JUMPS)
def test_against_the_distribution_written_out(name, tail, float64):
    log_top, indices, normalizer = _kept(3, 2.0)
    found = getattr(losses, name)(
        *(STUDENT, log_top),
        teacher_indices=indices,
        teacher_log_normalizer=normalizer,
        temperature=2.0,
        tail=tail,
        **JUMPS[name],
    )
    expected = _expected(name, tail, 2.0, log_top, indices, normalizer)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("name, dense", [
    ("top_k_kl", losses.reverse_softmax_kl),
    ("top_k_jsd", lambda s, t, **k: losses.jensen_shannon(s, t, beta=0.3, **k)),
])  # fmt: skip
def test_all_classes_kept_is_the_dense_divergence(name, dense, float64):
    log_top, indices, _ = _kept(7, 1.0)
    back = np.argsort(indices, -1)

    def sparse(student, log_probs):
        kernel = getattr(losses, name)
        options = {"teacher_indices": indices, "temperature": 2.0, **JUMPS[name]}
        return kernel(student, log_probs, **options).mean()

    def full(student, log_probs):
        log_probs = jnp.take_along_axis(log_probs, back, -1)
        return dense(student, log_probs, temperature=2.0).mean()

    for f in (0, 1):
        found, expected = (
            jax.jit(jax.value_and_grad(g, f))(STUDENT, log_top) for g in (sparse, full)
        )
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-10)


def test_the_ends_of_beta_are_both_directions():
    log_top, indices, _ = (x.astype(np.float32) for x in _kept(3, 1.0))
    student, indices = STUDENT.astype(np.float32), indices.astype(np.int32)
    jsd = jax.jit(
        lambda b: losses.top_k_jsd(student, log_top, teacher_indices=indices, beta=b)
    )
    for beta, direction in ((0.0, "forward"), (1.0, "reverse")):
        expected = losses.top_k_kl(
            student, log_top, teacher_indices=indices, direction=direction
        )
        np.testing.assert_allclose(jsd(beta), expected, rtol=1e-5)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("name", JUMPS)
def test_rows_that_keep_fewer_and_all_the_mass_are_finite(name, tail):
    """Two entries that are not there, whatever their index, and a sum of 1."""
    kept = np.log(np.array([[0.75, 0.25], [0.6, 0.3]], np.float32))
    log_top = np.pad(kept, ((0, 0), (0, 2)), constant_values=-np.inf)
    few = np.array([[2, 0], [1, 6]])
    student = STUDENT[:2].astype(np.float32)

    def loss(student, log_probs, indices):
        kernel, options = getattr(losses, name), {"tail": tail, **JUMPS[name]}
        values = kernel(student, log_probs, teacher_indices=indices, **options)
        return values.sum(), values

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    slopes, expected = gradient(student, kept, few)
    assert all(np.isfinite(x).all() for x in (*slopes, expected))
    for filler in (-1, 4):
        indices = np.concatenate([few, np.full((2, 2), filler)], -1)
        padded, found = gradient(student, log_top, indices)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_allclose(padded[0], slopes[0], rtol=1e-4, atol=1e-6)
        assert np.isfinite(padded[1]).all()


def test_the_least_mass_of_a_tail():
    """Kept mass 1, so that the rest has the rounding of 1, on 5 classes."""
    log_top = np.log(np.array([[0.75, 0.25]]))
    q = _softmax(STUDENT[:1])
    eps = np.float64(np.finfo(np.float32).eps)
    p = np.full((1, 7), eps / 5)
    p[0, :2] = 0.75, 0.25
    found = losses.top_k_kl(
        STUDENT[:1].astype(np.float32),
        log_top.astype(np.float32),
        teacher_indices=np.array([[0, 1]]),
        direction="reverse",
    )
    np.testing.assert_allclose(found, _kl(q, p), rtol=1e-5)


def test_padding_of_the_student_has_no_part_in_the_reverse():
    padded = np.where(np.arange(7) > 4, -np.inf, STUDENT).astype(np.float32)
    log_top = np.log(np.full((4, 1), 0.7, np.float32))
    options = {"teacher_indices": np.zeros((4, 1), np.int32)}
    for name, more in JUMPS.items():
        kernel = getattr(losses, name)
        loss = jax.jit(
            jax.value_and_grad(
                lambda s, kernel=kernel, more=more: kernel(
                    s, log_top, **options, **more
                ).mean()
            )
        )
        value, slope = loss(padded)
        expected, cut = loss(padded[:, :5])
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(slope[:, :5], cut, rtol=1e-4, atol=1e-7)
        assert (slope[:, 5:] == 0).all()


def test_a_count_of_tokens_from_outside():
    """Two microbatches with the count of both are the mean over all their tokens."""
    student, teacher = np.random.default_rng(1).normal(size=(2, 4, 3, 5)).astype("f")
    real = np.arange(3) < np.array([[3], [1], [2], [0]])
    tokens = teacher.argmax(-1)
    half = slice(0, 2), slice(2, 4)
    for name, other in (
        *(("token_kl", teacher), ("token_jsd", teacher), ("sequence_nll", tokens)),
    ):
        kernel = jax.jit(getattr(losses, name))
        whole = kernel(student, other, where=real).mean()
        parts = [
            kernel(student[i], other[i], where=real[i], denominator=6).mean()
            for i in half
        ]
        np.testing.assert_allclose(sum(parts), whole, rtol=1e-6)
        alone = [kernel(student[i], other[i], where=real[i]).mean() for i in half]
        assert abs(sum(alone) / 2 - whole) > 1e-3
    values = student[..., 0]
    traced = jax.jit(lambda n: losses.per_sequence(values, denominator=n, where=real))
    expected = (values * real).sum(1) * 4 / 5
    np.testing.assert_allclose(traced(5), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="^denominator: expected .*above 0, got 0"):
        losses.per_sequence(values, denominator=0)
    with pytest.raises(ValueError, match=r"^variant: expected one of \['tokens'\]"):
        losses.per_sequence(values, denominator=3, variant="sum")
