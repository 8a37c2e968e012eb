"""Offline distillation against hand-made sums, schedules and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import from_function, losses
from kdjax.config import HARD, SOFT, ConfigError, Scalar, Term
from kdjax.core.types import Batch, Output, TopTargets
from kdjax.strategies.offline import offline

N, C = 6, 4
rng = np.random.default_rng(0)
IMAGES = jnp.asarray(rng.normal(size=(N, 2, 2, 1)), jnp.float32)
LABELS = jnp.asarray([0, 1, 2, 3, 1, 0])
TARGETS = Output(
    jnp.asarray(rng.normal(size=(N, C)), jnp.float32),
    {"hidden": jnp.asarray(rng.normal(size=(N, 5)), jnp.float32)},
)


def init(key, images):
    a, b = jax.random.split(key)
    return {"w": jax.random.normal(a, (4, 3)), "v": jax.random.normal(b, (3, C))}


def apply(params, images):
    hidden = images.reshape(len(images), -1) @ params["w"]
    return hidden @ params["v"], {"hidden": hidden}


STUDENT = from_function(apply, init=init)
PLAIN = Batch({"image": IMAGES, "teacher_image": IMAGES}, LABELS)
MIXED = PLAIN._replace(partner_labels=jnp.roll(LABELS, 1), mix_weight=jnp.float32(0.3))


def value(terms, batch=PLAIN, step=0, steps=11, targets=TARGETS):
    """(total, metrics, gradient) of a strategy at one step."""
    strategy = offline(STUDENT, terms, steps=steps)
    batch = batch._replace(targets=targets)
    variables = strategy.init(jax.random.key(0), batch)
    params = {p: v["params"] for p, v in variables.items()}
    state = {p: {} for p in params}
    schedules = strategy.schedules(step)

    def total(params):
        by_network, (_, metrics) = strategy.loss(
            params, state, batch, schedules, jax.random.key(1)
        )
        assert set(by_network) == {"student"}
        return by_network["student"], metrics

    (loss, metrics), grads = jax.value_and_grad(total, has_aux=True)(params)
    return float(loss), metrics, grads, params


def student_logits(params):
    return apply(params["student"], IMAGES)[0]


def test_the_total_is_the_weighted_sum_of_the_named_terms():
    terms = {
        "soft": Term("softmax_kl", Scalar(0.9), Scalar(4.0)),
        "hard": Term("hard_cross_entropy", Scalar(0.1), teacher="labels"),
    }
    loss, metrics, _, params = value(terms)
    logits = np.asarray(student_logits(params), np.float64)

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    t, s = (
        log_softmax(np.asarray(x, np.float64) / 4) for x in (TARGETS.logits, logits)
    )
    soft = 16 * (np.exp(t) * (t - s)).sum(-1).mean()
    hard = -log_softmax(logits)[np.arange(N), np.asarray(LABELS)].mean()
    np.testing.assert_allclose(metrics["soft"], soft, rtol=1e-5)
    np.testing.assert_allclose(metrics["hard"], hard, rtol=1e-5)
    np.testing.assert_allclose(loss, 0.9 * soft + 0.1 * hard, rtol=1e-5)
    agree = (logits.argmax(-1) == np.asarray(TARGETS.logits).argmax(-1)).mean()
    np.testing.assert_allclose(metrics["agreement"], agree, rtol=1e-6)


def test_mixed_labels_weigh_both_labels():
    _, metrics, _, params = value({"hard": HARD}, MIXED)
    logits = student_logits(params)
    one = losses.hard_cross_entropy(logits, LABELS).mean()
    other = losses.hard_cross_entropy(logits, jnp.roll(LABELS, 1)).mean()
    np.testing.assert_allclose(metrics["hard"], 0.3 * one + 0.7 * other, rtol=1e-5)


def test_mixup_does_not_weigh_the_teacher_twice():
    np.testing.assert_allclose(value({"s": SOFT}, MIXED)[0], value({"s": SOFT})[0])


def test_a_projector_is_a_network_and_learns():
    hint = Term("hint_l2", student="hidden", teacher="hidden", projector=True)
    _, metrics, grads, params = value({"hint": hint})
    assert set(params) == {"student", "hint connector"}
    hidden = apply(params["student"], IMAGES)[1]["hidden"]
    kernel = params["hint connector"]["kernel"]
    want = ((hidden @ kernel - TARGETS.taps["hidden"]) ** 2).mean()
    np.testing.assert_allclose(metrics["hint"], want, rtol=1e-5)
    assert np.abs(grads["hint connector"]["kernel"]).max() > 0
    # The head lies above the tap and has no part in the hint.
    assert (np.asarray(grads["student"]["v"]) == 0).all()


def test_relation_terms_take_widths_that_differ():
    terms = {"d": Term("rkd_distance", student="hidden", teacher="hidden")}
    _, metrics, _, params = value(terms)
    hidden = apply(params["student"], IMAGES)[1]["hidden"]
    want = losses.rkd_distance(hidden, TARGETS.taps["hidden"]).mean()
    np.testing.assert_allclose(metrics["d"], want, rtol=1e-5)


def test_a_term_of_too_few_rows_is_named():
    terms = {"d": Term("rkd_angle", student="hidden", teacher="hidden")}
    two = jax.tree.map(lambda x: x[:2], (PLAIN, TARGETS))
    with pytest.raises(ConfigError, match=r"^terms\.d: .*at least 3 examples .* got 2"):
        value(terms, two[0], targets=two[1])


def test_a_config_may_have_the_former_name_of_a_loss():
    taps = {"student": "hidden", "teacher": "hidden"}
    terms = {
        name: Term(name, **taps)
        for name in ("sp", "similarity_preserving", "rkd_distance")
    }
    _, metrics, _, _ = value(terms)
    assert metrics["sp"] == metrics["similarity_preserving"] != 0


def test_the_tail_of_the_cache_reaches_the_loss():
    log_probs = jax.nn.log_softmax(TARGETS.logits)
    kept, indices = jax.lax.top_k(log_probs, 2)
    batch = PLAIN._replace(targets=TopTargets(kept, indices, jnp.zeros(N), {}))
    totals = []
    for tail in ("renormalize", "bucket", "uniform"):
        strategy = offline(STUDENT, {"soft": SOFT}, steps=11, tail=tail)
        variables = strategy.init(jax.random.key(0), batch)
        params = {name: v["params"] for name, v in variables.items()}
        state = {name: {} for name in params}
        numbers, key = strategy.schedules(0), jax.random.key(1)
        total, _ = strategy.loss(params, state, batch, numbers, key)
        totals.append(float(total["student"]))
    assert len(set(totals)) == 3


@pytest.mark.parametrize("loss", ["reverse_softmax_kl", "jensen_shannon"])
def test_top_k_targets_have_their_divergence(loss):
    """All classes kept, and so the dense divergence; the option reaches it."""
    options = {"beta": 0.3} if loss == "jensen_shannon" else {}
    terms = {"soft": Term(loss, temperature=Scalar(2.0), options=options)}
    log_probs = jax.nn.log_softmax(TARGETS.logits)
    kept, indices = jax.lax.top_k(log_probs, log_probs.shape[-1])
    sparse = value(terms, targets=TopTargets(kept, indices, jnp.zeros(N), {}))
    dense = value(terms)
    np.testing.assert_allclose(sparse[0], dense[0], rtol=1e-5)
    kernel = getattr(losses, loss)
    expected = kernel(
        student_logits(dense[3]), TARGETS.logits, temperature=2.0, **options
    )
    np.testing.assert_allclose(dense[0], expected.mean(), rtol=1e-5)


def test_top_k_targets_have_no_other_loss():
    targets = TopTargets(jnp.zeros((N, 1)), LABELS[:, None], jnp.zeros(N), {})
    with pytest.raises(
        ConfigError, match="terms.soft.loss: expected one of softmax_kl"
    ):
        value({"soft": Term("logit_mse")}, targets=targets)


def test_a_loss_with_labels_is_mixed():
    """The weighted sum of its values for the two labels of each image."""
    terms = {"dkd": Term("dkd", options={"beta": 2.0})}
    _, metrics, _, params = value(terms, MIXED)
    first, second = (
        losses.dkd(student_logits(params), TARGETS.logits, labels=labels, beta=2.0)
        for labels in (LABELS, MIXED.partner_labels)
    )
    expected = 0.3 * first.mean() + 0.7 * second.mean()
    np.testing.assert_allclose(metrics["dkd"], expected, rtol=1e-5)
    assert abs(expected - first.mean()) > 1e-3


def test_a_term_of_weight_zero_is_not_computed():
    """Its tap need not exist, and its network is not made."""
    off = Term("hint_l2", Scalar(0.0), student="nowhere", teacher="x", projector=True)
    loss, metrics, _, params = value({"soft": SOFT, "off": off})
    assert set(params) == {"student"} and "off" not in metrics
    np.testing.assert_allclose(loss, value({"soft": SOFT})[0])
    with pytest.raises(ConfigError, match="terms: expected one term with a weight"):
        value({"off": off})


@pytest.mark.parametrize(
    "scalar, want",
    [
        (Scalar(4.0), [4, 4, 4]),
        (Scalar(4.0, 1.0, "linear"), [4, 2.5, 1]),
        (Scalar(4.0, 1.0, "cosine"), [4, 2.5, 1]),
        (Scalar(0.0, 2.0, "cosine"), [0, 1, 2]),
        (Scalar(0.0, 2.0, "linear", (0.0, 0.5)), [0, 2, 2]),
        (Scalar(0.0, 2.0, "linear", (0.5, 1.0)), [0, 0, 2]),
        (Scalar(0.0, 2.0, "linear", (0.25, 0.75)), [0, 1, 2]),
        (Scalar(1.0, 3.0, "linear", (0.5, 0.5)), [1, 3, 3]),
    ],
)
def test_weights_and_temperatures_follow_their_schedules(scalar, want):
    """At the first, middle and last of 11 steps."""
    terms = {"soft": Term("softmax_kl", weight=scalar)}
    numbers = offline(STUDENT, terms, steps=11).schedules
    got = [numbers(step)["soft"]["weight"] for step in (0, 5, 10)]
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert all(isinstance(k, np.float32) for k in got)


def test_cosine_is_not_linear():
    terms = {"soft": Term("softmax_kl", Scalar(1.0, 0.0, "cosine"))}
    got = offline(STUDENT, terms, steps=11).schedules(2)["soft"]["weight"]
    np.testing.assert_allclose(got, 0.5 * (1 + np.cos(np.pi * 0.2)), rtol=1e-6)


def test_different_numbers_of_classes_are_refused():
    three = Output(TARGETS.logits[:, :3], {})
    with pytest.raises(
        ConfigError, match=r"as many classes as the student \(4\), got 3"
    ):
        value({"soft": SOFT}, targets=three)


@pytest.mark.parametrize(
    "term, message",
    [
        (Term("cosine_of_dreams"), "terms.x.loss: expected the name of a loss"),
        (
            Term("decoupled_kdd"),
            r"terms.x.loss: did you mean 'dkd'\? expected the name of a loss "
            r"\(`kdjax losses` lists all\) or file.py:function, got 'decoupled_kdd'",
        ),
        (
            Term("dkd", options={"temprature": 2.0}),
            r"terms.x.options.temprature: did you mean terms.x.temperature\? expected "
            r"one of \['alpha', 'axis', 'beta'\], got 'temprature'",
        ),
        (
            Term("dkd", options={"bta": 2.0}),
            r"terms.x.options.bta: did you mean 'beta'\?",
        ),
        (
            Term("logit_mse", options={"temperature": 2.0}),
            r"terms.x.options.temperature: expected one of \['axis', 'center'\]",
        ),
        (Term("hint_l"), "terms.x.loss: did you mean 'hint_l2' or 'hint_l1'"),
        (
            Term("crd"),
            r"terms.x.loss: crd is a loss, but no term can supply memory "
            r"\(student_memory, .*; call kdjax.losses.crd in a loss, a strategy "
            r"or .*, or train by --strategy.function crd",
        ),
        (Term("variational_information"), "vid is a loss, but no term can supply"),
        (Term("mhgd"), r"no term can supply several taps, attention heads \(.*sender"),
        (Term("fsp_matrix"), "terms.x.loss: fsp_matrix is a helper and no loss"),
        (Term("ensemble_logits"), "is no loss: it is kdjax.targets.ensemble_logits"),
        (
            Term("hint_l2"),
            "terms.x.student: expected a tap of the student, such as stage2, as "
            "hint_l2 compares features, got 'logits'",
        ),
        (
            Term("rkd_distance", student="hidden"),
            "terms.x.teacher: expected a tap of the teacher, such as embedding, as",
        ),
        (
            Term("hint_l2", student="hidden", teacher="labels"),
            "terms.x.teacher: expected taps of the teacher, which hint_l2 compares",
        ),
        (Term("fsp", student=("logits", "hidden")), "expected a tap of the student"),
        (
            Term(teacher="lables"),
            r"terms.x.teacher: did you mean 'labels'\? expected logits, labels or one "
            r"of \['hidden'\], got 'lables'",
        ),
        (Term("tf_kd"), "terms.x.teacher: expected labels for"),
        (
            Term("hint_l2", student="deep", teacher="hidden"),
            r"terms.x.student: .*\['hidden'\], got 'deep'",
        ),
        (
            Term("hint_l2", student="hidden", teacher="deep"),
            "terms.x.teacher: expected",
        ),
        (
            Term("hint_l2", student="hidden", teacher="hidden"),
            "terms.x: teacher_features: expected the shape of student_features",
        ),
        (Term("softmax_kl", teacher="hidden"), "terms.x: teacher_logits: expected"),
    ],
)
def test_terms_that_do_not_fit_are_named(term, message):
    with pytest.raises(ConfigError, match=message):
        value({"x": term})


def test_a_term_that_asks_an_absent_teacher_is_refused():
    with pytest.raises(ConfigError, match="terms.s.teacher: expected a teacher"):
        value({"s": SOFT}, targets=None)


def test_gradient_norms_are_those_of_each_weighted_term():
    """By themselves, in the student's parameters; the loss does not change."""
    terms = {
        "soft": Term("softmax_kl", weight=0.5),
        "hint": Term("hint_l2", student="hidden", teacher="hidden", projector=True),
    }
    strategy = offline(STUDENT, terms, steps=11, gradient_norms=True)
    batch = PLAIN._replace(targets=TARGETS)
    variables = strategy.init(jax.random.key(0), batch)
    params = {p: v["params"] for p, v in variables.items()}
    state = {p: {} for p in params}
    schedules = strategy.schedules(0)

    def loss(params):
        values, (_, metrics) = strategy.loss(
            params, state, batch, schedules, jax.random.key(1)
        )
        return values["student"], metrics

    (total, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
    want, _, plain, _ = value(terms)
    np.testing.assert_allclose(total, want, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, grads, plain)
    for name, term in terms.items():
        _, _, alone, _ = value({name: term})
        norm = np.sqrt(sum(np.sum(np.square(x)) for x in alone["student"].values()))
        np.testing.assert_allclose(metrics[f"gradient of {name}"], norm, rtol=1e-5)
