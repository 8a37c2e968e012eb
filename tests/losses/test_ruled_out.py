"""Inputs at the edge of what is legal: each with its right value, worked by hand."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

pytestmark = pytest.mark.full

STUDENT = np.array([[[1.0, 2, 3, 0]]], np.float32)
TEACHER = np.array([[[2.0, 1, 0, 0]]], np.float32)
PADDING = np.arange(4) == 3
S, T = (np.where(PADDING, -np.inf, x).astype(np.float32) for x in (STUDENT, TEACHER))


def softmax(x):
    x = np.exp(np.float64(x) - np.max(x, -1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def kl(p, q):
    return float((p * np.log(p / q)).sum())


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("name", ["token_jsd", "jensen_shannon"])
def test_a_traced_end_is_the_number(name, beta):
    """KL(p || q) for 0, KL(q || p) for 1: 1.084 and 1.135."""
    q, p = softmax(STUDENT[0, 0]), softmax(TEACHER[0, 0])
    expected = kl(p, q) if beta == 0 else kl(q, p)
    kernel = getattr(losses, name)

    def value(beta, student):
        return kernel(student, TEACHER, beta=beta).mean()

    traced = jax.jit(jax.value_and_grad(value, 1))
    found, gradient = traced(beta, STUDENT)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    _, plain = jax.value_and_grad(value, 1)(beta, STUDENT)
    np.testing.assert_allclose(gradient, plain, rtol=1e-5)
    assert np.abs(gradient).max() > 0.1


def test_one_side_rules_a_class_out():
    """The teacher alone: that class has p = 0 and costs through the mixture only."""
    student, teacher = STUDENT[0, 0], np.array([1.0, 0, 0, -np.inf], np.float32)
    q, p = softmax(student), softmax(teacher)
    m = (p + q) / 2
    expected = 0.5 * kl(p[:3], m[:3]) + 0.5 * kl(q, m)
    loss = jax.value_and_grad(lambda s: losses.jensen_shannon(s, teacher))
    value, gradient = loss(student)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all()


# Losses that are finite where the teacher alone has probability 0.
TEACHER_ALONE = (
    *("softmax_kl", "soft_cross_entropy", "class_weighted_cross_entropy"),
    *("jensen_shannon", "sigmoid_kl", "sigmoid_cross_entropy", "policy_distillation"),
    *("probability_mse", "probability_l1", "lwf", "dist", "mlld_batch", "mlld_class"),
    *("token_kl", "token_jsd", "generator_disagreement"),
)


# A program for each: those whose formula has a rule of its own, for the gate.
_GATE = ("softmax_kl", "sigmoid_kl", "sigmoid_cross_entropy")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=() if x in _GATE else pytest.mark.full)
        for x in TEACHER_ALONE
    ],
)
def test_minus_infinity_of_the_teacher_is_the_limit(name):
    """Value and gradients are those of a logit of -1e4, of a probability of 0."""
    student, teacher = np.random.default_rng(2).normal(size=(2, 3, 5)).astype("f")
    options = {}
    if name == "class_weighted_cross_entropy":
        options = {"class_weights": np.ones(5, np.float32)}
    shape = (1, 3, 5) if name.startswith("token") else (3, 5)
    kernel = getattr(losses, name)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
    def loss(student, teacher, temperature):
        if "temperature" in inspect.signature(kernel).parameters:
            options["temperature"] = temperature
        pair = (x.reshape(shape) for x in (student, teacher))
        return kernel(*pair, **options).mean()

    gone = np.arange(5) == 3
    value, found = loss(student, np.where(gone, -np.inf, teacher), 2.0)
    expected, limits = loss(student, np.where(gone, -1e4, teacher), 2.0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for slope, limit in zip(found, limits, strict=True):
        np.testing.assert_allclose(slope, limit, rtol=1e-4, atol=1e-6)


def test_minus_infinity_of_the_student_alone_is_an_infinite_cost():
    student = np.array([[0.0, -np.inf, 1.0]], np.float32)
    teacher = np.array([[0.0, 3.0, 1.0]], np.float32)
    for kernel in (
        *(losses.softmax_kl, losses.soft_cross_entropy, losses.sigmoid_kl),
        *(losses.sigmoid_cross_entropy, losses.standardized_kl),
    ):
        assert kernel(student, teacher) == np.inf
    for variant in ("szegedy", "big_vision"):
        hard = functools.partial(losses.hard_cross_entropy, variant=variant)
        for smoothing in (0.0, 0.1):
            # The label is the class that the student rules out.
            assert hard(student, teacher, label_smoothing=smoothing) == np.inf
        # Of another label, that class has no share of the smoothing.
        cut = hard(student[:, ::2], np.array([1]), label_smoothing=0.1)
        found = hard(student, np.array([2]), label_smoothing=0.1)
        np.testing.assert_allclose(found, cut, rtol=1e-6)


def test_the_gradient_in_the_temperature():
    """Of T^2 KL at the three classes left, by a difference in float64."""

    def exact(t):
        q, p = (softmax(np.float64(x[0, 0, :3]) / t) for x in (STUDENT, TEACHER))
        return t * t * kl(p, q)

    slope = jax.grad(lambda t: losses.softmax_kl(S, T, temperature=t).mean())(2.0)
    difference = (exact(2.0 + 1e-4) - exact(2.0 - 1e-4)) / 2e-4
    np.testing.assert_allclose(slope, difference, rtol=1e-3)


def test_top_k_of_all_classes_is_the_whole_divergence():
    """Stored in float16, two of four are minus infinity: 0.804, as `softmax_kl`."""
    from kdjax.cache.targets import keep
    from kdjax.core.types import Output

    teacher = jnp.array([[2.0, 1.0, -1e9, -1e9]])
    student = STUDENT[0]
    expected = losses.softmax_kl(student, teacher)
    for k in (2, 3, 4):
        kept = keep(Output(teacher, {}), top_k=k)
        found = losses.top_k_kl(
            student,
            kept["log_probs"].astype(jnp.float32),
            teacher_indices=kept["indices"].astype(jnp.int32),
            teacher_log_normalizer=kept["log_normaliser"],
        )
        np.testing.assert_allclose(found, expected, rtol=2e-3)
    q, p = softmax(student[0]), softmax([2.0, 1.0])
    np.testing.assert_allclose(expected, kl(p, q[:2]), rtol=1e-5)


def test_the_temperature_of_top_k_targets_with_all_the_mass():
    log_probs = jnp.log(jnp.array([[0.75, 0.25]]))
    slope = jax.grad(
        lambda t: losses.top_k_kl(
            STUDENT[0], log_probs, teacher_indices=jnp.array([[0, 1]]), temperature=t
        ).sum()
    )(2.0)
    assert np.isfinite(slope) and abs(slope) > 1e-3


def test_padding_of_the_student_has_no_part_in_the_tail():
    """A vocabulary of three with one entry of padding, against the three alone."""
    log_probs, indices = jnp.log(jnp.array([[0.7]])), jnp.array([[0]])
    padded = losses.top_k_kl(S[0], log_probs, teacher_indices=indices)
    alone = losses.top_k_kl(STUDENT[0, :, :3], log_probs, teacher_indices=indices)
    np.testing.assert_allclose(padded, alone, rtol=1e-6)


def test_a_mask_of_the_tokens_binds_to_the_tokens():
    """Four sequences of four tokens: [4, 1] masks sequences, not the first token."""
    student, teacher = np.random.default_rng(0).normal(size=(2, 4, 4, 9)).astype("f")
    mask = np.array([[True], [True], [True], [False]])
    values = losses.token_kl(student, teacher, where=mask, variant="sum")
    full = losses.token_kl(student, teacher, variant="sum")
    np.testing.assert_allclose(values, np.where(mask[:, 0], full, 0), rtol=1e-6)


SQUARE = np.random.default_rng(1).normal(size=(2, 4, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "name", ["softmax_kl", "logit_mse", "dist_inter", "hint_l2", "sigmoid_kl"]
)
def test_a_mask_of_examples_or_of_classes_is_one_of_both(name):
    """Four examples of four classes: `[4]` may be either, `[4, 1]` and `[1, 4]` not."""
    kernel, mask = getattr(losses, name), np.array([True, True, True, False])
    with pytest.raises(
        ValueError, match=r"^where: expected rank 2, .*got shape \(4,\)"
    ):
        kernel(*SQUARE, where=mask)
    values = kernel(*SQUARE, where=mask[:, None])
    np.testing.assert_allclose(values[:3], kernel(*SQUARE)[:3], rtol=1e-5)
    assert values[3] == 0
    cut = kernel(*SQUARE[..., :3])
    np.testing.assert_allclose(kernel(*SQUARE, where=mask[None]), cut, rtol=1e-5)
    three = kernel(*SQUARE[:, :3], where=mask)
    np.testing.assert_allclose(three, cut[:3], rtol=1e-5)


ONE = jnp.ones((2, 1))


@pytest.mark.parametrize(
    "loss",
    [
        lambda: losses.softmax_kl(ONE, ONE),
        lambda: losses.dkd(ONE, ONE, labels=jnp.zeros(2, int)),
        lambda: losses.hard_cross_entropy(ONE, jnp.zeros(2, int)),
        lambda: losses.soft_label_cross_entropy(ONE, ONE),
        lambda: losses.tf_kd(ONE, jnp.zeros(2, int)),
        lambda: losses.token_kl(ONE[None], ONE[None]),
        lambda: losses.dist_inter(ONE, ONE),
        lambda: losses.standardized_kl(ONE, ONE),
        lambda: losses.log_softmax_l2(ONE, ONE),
        lambda: losses.policy_distillation(ONE, ONE),
        lambda: losses.mlld(ONE, ONE),
        lambda: losses.mlld_batch(ONE, ONE),
        lambda: losses.mlld_class(ONE, ONE),
        lambda: losses.sequence_nll(ONE[None], jnp.zeros((1, 2), int)),
        lambda: losses.top_k_kl(ONE, 0 * ONE, teacher_indices=jnp.zeros((2, 1), int)),
    ],
)
def test_one_logit_has_another_loss(loss):
    with pytest.raises(ValueError, match="^student_logits: .*`sigmoid_kl`.*got 1"):
        loss()
    assert losses.sigmoid_kl(ONE, 2 * ONE).shape == (2,)


def test_soft_labels_have_their_own_cross_entropy():
    labels = np.array([[0.25, 0.75, 0.0, 0.0]], np.float32)
    with pytest.raises(ValueError, match="^teacher: .*soft_label_cross_entropy"):
        losses.hard_cross_entropy(STUDENT[0], labels)
    right = -(labels[0] * np.log(softmax(STUDENT[0, 0]))).sum()
    found = losses.soft_label_cross_entropy(STUDENT[0], labels)
    np.testing.assert_allclose(found, [right], rtol=1e-6)
    with pytest.raises(ValueError, match=r"^teacher: expected probabilities in \[0, 1"):
        losses.soft_label_cross_entropy(STUDENT[0], 2 * labels)
    expected = "^teacher: expected probabilities with a sum .* at most 1, got 1.75"
    spoilt = np.array([[0.25, 0.75, 0.75, 0.0]], np.float32)
    with pytest.raises(ValueError, match=expected):
        losses.soft_label_cross_entropy(STUDENT[0], spoilt)
    # Less than 1 lowers the weight of an example; a class left out counts for nothing.
    found = losses.soft_label_cross_entropy(STUDENT[0], labels / 2)
    np.testing.assert_allclose(found, [right / 2], rtol=1e-6)
    kept = np.array([[True, True, False, True]])
    assert np.isfinite(losses.soft_label_cross_entropy(STUDENT[0], spoilt, where=kept))
    # One-hot rows name a class, and are labels for both.
    losses.hard_cross_entropy(STUDENT[0], np.eye(4, dtype=np.float32)[:1])


def test_log_probabilities_above_0_are_refused():
    with pytest.raises(ValueError, match="^teacher_log_probs: .*at most 0, got 9.0"):
        losses.top_k_kl(
            STUDENT[0], jnp.array([[9.0, 5.0]]), teacher_indices=jnp.array([[0, 1]])
        )


def test_a_map_is_no_list_of_taps():
    with pytest.raises(ValueError, match="^student_features: expected a sequence of t"):
        losses.dense_fsp(jnp.ones((4, 8, 8, 3)), jnp.ones((4, 8, 8, 3)))  # type: ignore


def test_the_memory_of_crd_can_be_donated():
    memory = losses.crd_memory_init(jax.random.key(0), 10, 16)
    step = jax.jit(lambda m: jax.tree.map(lambda x: x + 1, m), donate_argnums=0)
    assert float(step(memory).student_constant) == 1.0


def test_standardized_logits_with_classes_ruled_out():
    """Two of eight; mean and deviation are of the six that are left."""
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 1, 8)).astype(np.float32)
    gone = np.arange(8) >= 6
    pair = (np.where(gone, -np.inf, x).astype(np.float32) for x in (student, teacher))
    alone = losses.standardized_kl(student[:, :6], teacher[:, :6])
    np.testing.assert_allclose(losses.standardized_kl(*pair), alone, rtol=1e-5)


def test_standardized_logits_with_a_class_that_the_teacher_rules_out():
    """The teacher's mean and deviation are of its other classes."""
    student, teacher = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    q = (student - student.mean()) / student.std(ddof=1)
    p = (teacher[:7] - teacher[:7].mean()) / teacher[:7].std(ddof=1)
    expected = 4 * kl(softmax(p / 2), softmax(q / 2)[:7])
    gone = np.where(np.arange(8) == 7, -np.inf, teacher).astype(np.float32)
    loss = jax.value_and_grad(losses.standardized_kl, (0, 1))
    value, slopes = loss(student, gone)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert all(np.isfinite(x).all() for x in slopes)


@pytest.mark.parametrize(
    "view", [pytest.param("weak", marks=pytest.mark.full), "strong"]
)
def test_standardized_levels_with_classes_ruled_out(view):
    pair = np.random.default_rng(3).normal(size=(2, 4, 6)).astype(np.float32)
    gone = np.where(np.arange(6) >= 4, -np.inf, pair).astype(np.float32)
    loss = jax.jit(
        jax.value_and_grad(
            lambda s, t: losses.mlld(s, t, standardize=True, view=view).mean()
        )
    )
    value, slope = loss(*gone)
    expected, cut = loss(*pair[..., :4])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope[:, :4], cut, rtol=1e-4, atol=1e-6)
    assert (slope[:, 4:] == 0).all()
