import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import metrics

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(64, 10)) * 3, jnp.float32)
TEACHER = LOGITS + jnp.asarray(RNG.normal(size=(64, 10)) * 2, jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, 10, 64))
EVERYONE = jnp.ones(64, bool)


def softmax(logits):
    e = np.exp(np.float64(logits) - np.float64(logits).max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def order(logits):
    """Classes from the largest logit down, the lowest class first in ties."""
    return np.argsort(-np.float64(logits), axis=-1, kind="stable")


BOTH = [
    (metrics.accuracy, LABELS, (order(LOGITS)[:, 0] == LABELS)),
    (metrics.agreement, TEACHER, order(LOGITS)[:, 0] == order(TEACHER)[:, 0]),
    (
        metrics.teacher_kl,
        TEACHER,
        (softmax(TEACHER) * np.log(softmax(TEACHER) / softmax(LOGITS))).sum(-1),
    ),
    (
        metrics.negative_log_likelihood,
        LABELS,
        -np.log(softmax(LOGITS)[np.arange(64), np.asarray(LABELS)]),
    ),
]


@pytest.mark.parametrize("metric, other, expected", BOTH)
def test_against_numpy(metric, other, expected):
    value = jax.jit(metric)(LOGITS, other)
    assert value.shape == (64,) and value.dtype == jnp.float32
    assert expected.std() > 0
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    rows = jax.vmap(lambda a, b: metric(a[None], b[None])[0])(LOGITS, other)
    np.testing.assert_allclose(rows, value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("metric, other, expected", BOTH)
def test_half_precision_and_strict_dtypes(metric, other, expected, strict_dtypes):
    low = LOGITS.astype(jnp.bfloat16)
    value = metric(low, other)
    assert value.dtype == jnp.float32
    wide = metric(low.astype(jnp.float32), other)
    np.testing.assert_allclose(value, wide, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_top_k_against_sorting(k):
    expected = (order(LOGITS)[:, :k] == LABELS[:, None]).any(-1)
    value = metrics.top_k(LOGITS, LABELS, k)
    np.testing.assert_array_equal(value, expected.astype(np.float32))
    assert value.dtype == jnp.float32 and (0 < value.mean() < 1 or k == 10)


def test_of_ties_the_lowest_class_comes_first():
    logits = jnp.array([[1.0, 2.0, 2.0, 2.0]] * 4)
    labels = jnp.arange(4)
    expected = {1: [0, 1, 0, 0], 2: [0, 1, 1, 0], 3: [0, 1, 1, 1], 4: [1, 1, 1, 1]}
    for k, hits in expected.items():
        np.testing.assert_array_equal(metrics.top_k(logits, labels, k), hits)
    np.testing.assert_array_equal(metrics.accuracy(logits, labels), expected[1])
    flat = jnp.zeros((4, 4))
    np.testing.assert_array_equal(metrics.agreement(flat, flat), [1, 1, 1, 1])
    np.testing.assert_array_equal(metrics.agreement(logits, flat), [0, 0, 0, 0])


def test_nan_is_a_miss_and_does_not_hide():
    bad = LOGITS.at[:, 0].set(jnp.nan)
    zeros = jnp.zeros(64, int)
    assert metrics.accuracy(bad, zeros).sum() == 0
    assert metrics.top_k(bad, zeros, 10).sum() == 0
    assert metrics.agreement(bad, bad).sum() == 0
    assert metrics.agreement(LOGITS, bad).sum() == 0
    assert jnp.isnan(metrics.negative_log_likelihood(bad, zeros)).all()
    assert jnp.isnan(metrics.teacher_kl(bad, TEACHER)).all()


def test_kl_of_saturated_and_masked_teachers():
    student = jnp.array([[0.0, 0.0, 0.0]] * 2)
    teacher = jnp.array([[1e4, -1e4, 0.0], [0.0, 0.0, -jnp.inf]])
    value = metrics.teacher_kl(student, teacher)
    np.testing.assert_allclose(value, np.log([3.0, 1.5]), rtol=1e-6)
    np.testing.assert_array_equal(metrics.teacher_kl(TEACHER, TEACHER), np.zeros(64))
    # The direction: a student that gives the teacher's class nothing pays without end.
    assert metrics.teacher_kl(teacher, student)[0] > 1e3


def reliability(logits, labels, where, bins):
    """Guo et al. by looping over the bins."""
    labels, where = np.asarray(labels), np.asarray(where)
    confidence, choice = softmax(logits).max(-1), order(logits)[:, 0]
    error, n = 0.0, where.sum()
    for b in range(bins):
        inside = where & (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            hits = (choice == labels)[inside].mean()
            error += inside.sum() / n * abs(hits - confidence[inside].mean())
    return error


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_against_the_loop(bins):
    where = jnp.asarray(RNG.random(64) < 0.6)
    bins_of = jax.jit(metrics.calibration_bins, static_argnames="bins")
    sums = bins_of(LOGITS, LABELS, where, bins=bins)
    assert all(s.shape == (bins,) and s.dtype == jnp.float32 for s in sums.values())
    assert sums["count"].sum() == where.sum()
    error = metrics.calibration_error(sums)
    assert isinstance(error, float) and error > 0.05
    assert error == pytest.approx(reliability(LOGITS, LABELS, where, bins), rel=1e-5)


def test_calibration_sums_add_up_over_batches():
    whole = metrics.calibration_bins(LOGITS, LABELS, EVERYONE)
    parts = [
        metrics.calibration_bins(LOGITS[i], LABELS[i], EVERYONE[i])
        for i in (slice(0, 20), slice(20, 64))
    ]
    added = jax.tree.map(lambda a, b: a + b, *parts)
    assert whole["count"].shape == (15,)
    for name, value in whole.items():
        np.testing.assert_allclose(added[name], value, rtol=1e-5)


def test_calibration_by_hand():
    # Half sure and right half of the time: calibrated. Certain and always wrong: 1.
    even = jnp.zeros((4, 2))
    everyone = jnp.ones(4, bool)
    sums = metrics.calibration_bins(even, jnp.array([0, 1, 0, 1]), everyone, 2)
    np.testing.assert_array_equal(sums["count"], [4, 0])
    assert metrics.calibration_error(sums) == 0.0
    sure = jnp.array([[100.0, 0.0]] * 4)
    sums = metrics.calibration_bins(sure, jnp.ones(4, int), everyone)
    assert metrics.calibration_error(sums) == 1.0


def test_examples_left_out_leave_nothing():
    bad = LOGITS.at[0].set(jnp.nan)
    where = EVERYONE.at[0].set(False)
    sums = metrics.calibration_bins(bad, LABELS, where)
    rest = metrics.calibration_bins(LOGITS[1:], LABELS[1:], where[1:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), sums, rest)
    nobody = metrics.calibration_bins(LOGITS, LABELS, jnp.zeros(64, bool))
    with pytest.raises(ValueError, match="sums: expected at least one example"):
        metrics.calibration_error(nobody)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: metrics.accuracy(LOGITS[0], LABELS), r"logits: .*got \(10,\)"),
        (
            lambda: metrics.accuracy(LOGITS, LABELS[:3]),
            r"labels: .*\(64,\), got .*\(3,",
        ),
        (lambda: metrics.accuracy(LOGITS, LABELS * 1.0), "labels: .*got float"),
        (lambda: metrics.top_k(LOGITS, LABELS, 11), "k: .*<= 10 classes, got 11"),
        (lambda: metrics.top_k(LOGITS, LABELS, 0), "k: .*got 0"),
        (lambda: metrics.negative_log_likelihood(LOGITS, LOGITS), "labels: "),
        (lambda: metrics.agreement(LOGITS, TEACHER[:, :9]), "teacher_logits: "),
        (lambda: metrics.teacher_kl(LOGITS, TEACHER[:1]), r"teacher_logits: .*\(1, 10"),
        (lambda: metrics.teacher_kl(LOGITS[0], TEACHER[0]), "student_logits: "),
        (lambda: metrics.calibration_bins(LOGITS, LABELS, EVERYONE[:1]), "where: "),
        (lambda: metrics.calibration_bins(LOGITS, LABELS, LABELS), "where: .*got int"),
        (
            lambda: metrics.calibration_bins(LOGITS, LABELS, EVERYONE, 0),
            "bins: .*got 0",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_label_that_names_no_class_is_a_miss():
    logits = jnp.ones((3, 4))
    for label in (-1, 4, 9):
        labels = jnp.array([0, label, 1])
        np.testing.assert_array_equal(metrics.top_k(logits, labels, 4), [1, 0, 1])
        assert float(metrics.accuracy(logits, labels)[1]) == 0.0
