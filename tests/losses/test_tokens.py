"""Losses of token sequences and of teachers of whom the top K was kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import (
    per_sequence,
    sequence_nll,
    softmax_kl,
    token_jsd,
    token_kl,
    top_k_kl,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# shared/reference/methods.md, 3.5: two examples, here two tokens of a sequence.
STUDENT = np.array([[1.0, 2, 3], [0.5, 0.5, 0]])
TEACHER = np.array([[2.0, 1, 0], [0, 3, 1]])
REAL = np.arange(5)[None, :] < np.array([[5], [2], [3]])


def _logits(seed=0, shape=(3, 5, 4)):
    return np.random.default_rng(seed).normal(size=(2, *shape))


def _probs(x, temperature=1.0):
    e = np.exp(x / temperature)
    return e / e.sum(-1, keepdims=True)


def _kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def _reduced(values, variant):
    sums = (values * REAL).sum(1)
    if variant == "sequence":
        return sums / REAL.sum(1)
    return sums if variant == "sum" else sums * len(sums) / REAL.sum()


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, 0.8206359181), (2.0, 0.9880456948), (4.0, 1.0357830812)],
)
def test_fixture(temperature, expected, float64):
    value = token_kl(STUDENT[None], TEACHER[None], temperature=temperature)
    np.testing.assert_allclose(value, [expected], atol=1e-9)


def test_reverse_and_nll_fixtures(float64):
    value = token_kl(STUDENT[None], TEACHER[None], direction="reverse")
    np.testing.assert_allclose(value, [0.9311233485], atol=1e-9)
    value = sequence_nll(STUDENT[None], np.array([[0, 1]]))
    np.testing.assert_allclose(value, [1.6828130262], atol=1e-9)


@pytest.mark.parametrize("variant", ["tokens", "sequence", "sum"])
def test_token_kl_is_the_formula(variant, float64):
    student, teacher = _logits()
    p, q = _probs(teacher, 2.0), _probs(student, 2.0)
    for direction, values in (("forward", _kl(p, q)), ("reverse", _kl(q, p))):
        value = token_kl(
            *(student, teacher),
            temperature=2.0,
            direction=direction,
            variant=variant,
            where=REAL,
        )
        np.testing.assert_allclose(value, _reduced(4 * values, variant), rtol=1e-9)


def test_the_plain_mean_of_tokens_is_the_mean_over_real_tokens():
    student, teacher = _logits().astype(np.float32)
    value = token_kl(student, teacher, where=REAL).mean()
    np.testing.assert_allclose(value, softmax_kl(student, teacher)[REAL].mean(), 1e-5)
    whole = token_kl(student, teacher)
    alike = token_kl(student, teacher, variant="sequence")
    np.testing.assert_allclose(whole, alike, rtol=1e-5)


def test_masks_of_tokens_and_of_the_vocabulary():
    student, teacher = _logits().astype(np.float32)
    value = token_kl(student, teacher, where=REAL)
    np.testing.assert_array_equal(
        value, token_kl(student, teacher, where=REAL[..., None])
    )
    words = np.array([True, True, False, True])
    cut = token_kl(student[..., words], teacher[..., words], where=REAL)
    both = token_kl(student, teacher, where=REAL[..., None] & words)
    np.testing.assert_allclose(both, cut, rtol=1e-5)
    tokens = np.where(REAL, 1, -100)
    nll = sequence_nll(student, tokens)
    np.testing.assert_allclose(
        nll, sequence_nll(student, np.abs(tokens) % 3, where=REAL)
    )


@pytest.mark.parametrize("kernel", [token_kl, token_jsd])
def test_padding_does_not_leak(kernel):
    student, teacher = _logits().astype(np.float32)
    dirty = np.where(REAL[..., None], student, np.nan)
    loss = jax.value_and_grad(lambda s: kernel(s, teacher, where=REAL).mean())
    value, gradient = loss(dirty)
    np.testing.assert_array_equal(value, loss(student)[0])
    assert np.isfinite(gradient).all() and (gradient[~REAL] == 0).all()
    nothing = kernel(dirty * np.nan, teacher, where=np.zeros((3, 5), bool))
    np.testing.assert_array_equal(nothing, 0)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_jsd_is_the_formula(beta, float64):
    student, teacher = _logits()
    p, q = _probs(teacher), _probs(student)
    mixed = beta * p + (1 - beta) * q
    expected = beta * _kl(p, mixed) + (1 - beta) * _kl(q, mixed)
    expected = {0.0: _kl(p, q), 1.0: _kl(q, p)}.get(beta, expected)
    value = token_jsd(student, teacher, beta=beta, where=REAL)
    np.testing.assert_allclose(value, _reduced(expected, "tokens"), rtol=1e-8)


def test_jsd_is_symmetric_bounded_and_traced():
    student, teacher = 30 * _logits().astype(np.float32)
    value = token_jsd(student, teacher)
    np.testing.assert_allclose(value, token_jsd(teacher, student), rtol=1e-5)
    assert (value <= np.log(2) + 1e-6).all()
    traced = jax.jit(lambda b: token_jsd(student, teacher, beta=b))(0.5)
    np.testing.assert_allclose(traced, value, rtol=1e-5)
    with pytest.raises(ValueError, match="^beta: expected"):
        token_jsd(student, teacher, beta=1.5)


@pytest.mark.parametrize("variant", ["tokens", "sequence", "sum"])
def test_nll_is_the_formula(variant, float64):
    student, _ = _logits()
    tokens = np.random.default_rng(3).integers(4, size=(3, 5))
    log_probs = np.log(_probs(student))
    expected = -np.take_along_axis(log_probs, tokens[..., None], -1)[..., 0]
    value = sequence_nll(student, np.where(REAL, tokens, -1), variant=variant)
    np.testing.assert_allclose(value, _reduced(expected, variant), rtol=1e-9)
    turned = sequence_nll(
        np.swapaxes(student, 1, 2), tokens, axis=1, where=REAL, variant=variant
    )
    np.testing.assert_allclose(turned, value, rtol=1e-9)


def test_a_sure_teacher_s_divergence_is_the_likelihood_of_its_choice():
    student, teacher = _logits().astype(np.float32)
    tokens = teacher.argmax(-1)
    sure = np.where(np.arange(4) == tokens[..., None], 1e3, 0).astype(np.float32)
    np.testing.assert_allclose(
        token_kl(student, sure), sequence_nll(student, tokens), rtol=1e-5
    )


def _top(teacher, k, temperature=1.0):
    log_probs = np.log(_probs(teacher))
    indices = np.argsort(-log_probs, -1)[..., :k]
    normalizer = np.log(np.exp(log_probs / temperature).sum(-1))
    return np.take_along_axis(log_probs, indices, -1), indices, normalizer


def _numpy_top_k(student, log_top, indices, tail, temperature, normalizer):
    """One example, by building what stands for the teacher's distribution."""
    classes = len(student)
    q = _probs(student, temperature)
    if tail == "renormalize":
        p = _probs(log_top, temperature)
        return temperature**2 * _kl(p, q[indices] / q[indices].sum())
    rest = np.setdiff1d(np.arange(classes), indices)
    if normalizer is None:
        p = np.full(classes, (1 - np.exp(log_top).sum()) / len(rest))
        p[indices] = np.exp(log_top)
        p = _probs(np.log(p), temperature)
    else:
        p = np.zeros(classes)
        p[indices] = np.exp(log_top / temperature - normalizer)
        p[rest] = (1 - p.sum()) / len(rest)
    if tail == "bucket":
        p, q = (np.append(x[indices], x[rest].sum()) for x in (p, q))
    return temperature**2 * _kl(p, q)


@pytest.mark.parametrize("tail", ["uniform", "bucket", "renormalize"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("normalized", [False, True])
def test_top_k_is_the_formula(tail, temperature, normalized, float64):
    student, teacher = _logits(shape=(4, 7))
    log_top, indices, normalizer = _top(teacher, 3, temperature)
    if tail == "bucket" and temperature == 1:
        normalized = True  # at temperature 1 it is 0
    given = {"teacher_log_normalizer": normalizer} if normalized else {}
    options = {"tail": tail, "temperature": temperature, "teacher_indices": indices}
    if tail == "bucket" and not given:
        with pytest.raises(ValueError, match="^teacher_log_normalizer: expected"):
            top_k_kl(student, log_top, **options)
        return
    value = top_k_kl(student, log_top, **options, **given)
    expected = [
        _numpy_top_k(s, p, i, tail, temperature, n if normalized else None)
        for s, p, i, n in zip(student, log_top, indices, normalizer, strict=True)
    ]
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    if tail == "bucket":
        full = softmax_kl(student, teacher, temperature=temperature)
        assert (value <= full + 1e-12).all()


@pytest.mark.parametrize("tail", ["uniform", "bucket", "renormalize"])
def test_all_classes_kept_is_softmax_kl(tail, float64):
    student, teacher = _logits(shape=(2, 3, 7))
    log_top, indices, _ = _top(teacher, 7)

    def sparse(s, p):
        options = {"teacher_indices": indices, "tail": tail, "temperature": 2.0}
        return top_k_kl(s, p, **options).mean()

    def full(s):
        return softmax_kl(s, teacher, temperature=2.0).mean()

    value, gradient = jax.value_and_grad(sparse)(student, log_top)
    expected, expected_gradient = jax.value_and_grad(full)(student)
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-12)


@pytest.mark.full
def test_rows_may_keep_fewer():
    student, teacher = _logits(shape=(4, 7)).astype(np.float32)
    log_top, indices, _ = _top(teacher, 3)
    log_top, indices = log_top.astype(np.float32), indices.astype(np.int16)
    pad = np.full((4, 2), -np.inf, np.float32)
    more = np.concatenate([log_top, pad], -1)
    for tail in ("uniform", "bucket", "renormalize"):
        options = {"tail": tail, "teacher_indices": indices}
        expected = top_k_kl(student, log_top, **options)
        places = np.concatenate([indices, np.full((4, 2), -1, np.int16)], -1)

        def loss(s, p, places=places, tail=tail):
            return top_k_kl(s, p, tail=tail, teacher_indices=places)

        np.testing.assert_allclose(loss(student, more), expected, rtol=1e-5)
        gradients = jax.grad(lambda *x: loss(*x).sum(), (0, 1))(student, more)
        assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.full
@pytest.mark.parametrize("tail", ["uniform", "renormalize"])
def test_a_row_may_keep_nothing(tail):
    student = jnp.array([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]])
    kept = jnp.array([[-jnp.inf, -jnp.inf], [-0.5, -1.0]])
    indices = jnp.array([[-1, -1], [1, 2]])

    def values(student):
        return top_k_kl(student, kept, teacher_indices=indices, tail=tail)

    found, slope = values(student), jax.grad(lambda s: values(s).sum())(student)
    assert np.isfinite(found).all() and np.isfinite(slope).all()
    if tail == "renormalize":
        assert found[0] == 0 and not slope[0].any()


def test_an_index_out_of_range_is_seen():
    student, teacher = _logits(shape=(2, 7)).astype(np.float32)
    log_top, indices, _ = _top(teacher, 3)
    log_top = log_top.astype(np.float32)
    for tail in ("uniform", "bucket", "renormalize"):
        loss = jax.jit(
            lambda i, tail=tail: top_k_kl(
                student, log_top, teacher_indices=i, tail=tail
            )
        )
        for wrong in (7, -1):
            bad = indices.copy()
            bad[0, 2] = wrong
            value = loss(bad)
            assert np.isnan(value[0]) and np.isfinite(value[1])


def test_log_probs_that_sum_to_more_than_one_are_scaled():
    student = _logits(shape=(2, 5))[0].astype(np.float32)
    log_top = np.log(np.full((2, 2), 0.51, np.float32))
    indices = np.array([[0, 1], [2, 3]])
    value = top_k_kl(student, log_top, teacher_indices=indices, tail="bucket")
    half = np.log(np.full((2, 2), 0.5, np.float32))
    expected = top_k_kl(student, half, teacher_indices=indices, tail="renormalize")
    q = np.take_along_axis(_probs(student), indices, -1).sum(-1)
    np.testing.assert_allclose(value, expected - np.log(q), rtol=1e-4)


@pytest.mark.full
def test_gradients_are_those_of_finite_differences(float64):
    student, teacher = _logits(shape=(2, 3, 4))
    log_top, indices, normalizer = _top(teacher, 2, 2.0)
    real = REAL[:2, :3]
    arrays = {"teacher_indices": indices, "temperature": 2.0}
    given = {"teacher_log_normalizer": normalizer, **arrays}
    for kernel, other in (
        (lambda s, t: token_kl(s, t, temperature=2.0, where=real), teacher),
        (lambda s, t: token_kl(s, t, direction="reverse"), teacher),
        (lambda s, t: token_jsd(s, t, beta=0.3, where=real), teacher),
        (lambda s, t: top_k_kl(s, t, **arrays), log_top),
        (lambda s, t: top_k_kl(s, t, tail="bucket", **given), log_top),
        (lambda s, t: top_k_kl(s, t, tail="renormalize", **arrays), log_top),
    ):
        pair = jnp.asarray(student), jnp.asarray(other)
        check_grads(jax.jit(kernel), pair, order=1, modes="rev", rtol=1e-5)
    tokens = teacher.argmax(-1)
    loss = jax.jit(lambda s: sequence_nll(s, tokens, where=real))
    check_grads(loss, (jnp.asarray(student),), order=1, modes="rev", rtol=1e-5)


def test_errors_name_the_argument():
    logits = np.ones((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="^variant: expected one of"):
        token_kl(logits, logits, variant="mean")
    with pytest.raises(ValueError, match="^direction: expected one of"):
        token_kl(logits, logits, direction="both")
    with pytest.raises(ValueError, match="^student_logits: expected rank 3"):
        token_kl(logits[0], logits[0])
    with pytest.raises(ValueError, match="^teacher_tokens: expected .*integer"):
        sequence_nll(logits, logits[..., 0])
    with pytest.raises(ValueError, match=r"^teacher_tokens: expected shape \(2, 3\)"):
        sequence_nll(logits, np.zeros((2, 4), np.int32))
    with pytest.raises(ValueError, match="^values: expected rank 2"):
        per_sequence(logits)
    indices = np.zeros((2, 3, 2), np.int32)
    with pytest.raises(ValueError, match="^teacher_indices: expected shape"):
        top_k_kl(logits, logits[..., :3], teacher_indices=indices)
    with pytest.raises(ValueError, match="^teacher_log_probs: expected shape"):
        top_k_kl(logits[..., :1], logits[..., :2], teacher_indices=indices)
    with pytest.raises(ValueError, match="^tail: expected one of"):
        top_k_kl(logits, logits[..., :2], teacher_indices=indices, tail="none")
