"""Critic on features: values, gradient penalty, reversal, no labels, bad input."""

import chex
import jax
import numpy as np
import pytest

from kdjax.config import ConfigError, Custom
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from kdjax.strategies.methods.critic_on_features import critic_on_features
from kdjax.train import turns
from tests.strategies.methods import setting
from tests.strategies.methods.setting import CLASSES, N, softplus

WIDE = 7


@pytest.fixture
def batch():
    features = setting.draw(N, 2, 2, WIDE, seed=5)
    logits = setting.draw(N, CLASSES, seed=3)
    return setting.make_batch(setting.outputs(logits, embedding=features))


def slopes(params, x):
    """Gradient of the critic's scores, for hidden layers with ReLU."""
    first, second, last = (params[f"layers_{i}"] for i in (0, 2, 4))
    one = x @ first["kernel"] + first["bias"]
    two = np.maximum(one, 0) @ second["kernel"] + second["bias"]
    back = (two > 0) * last["kernel"][:, 0]
    return ((one > 0) * (back @ second["kernel"].T)) @ first["kernel"].T


def test_values(batch):
    strategy = critic_on_features(
        setting.network(), weight=0.3, pair_weight=0.6, label_weight=0.7, penalty=2.0
    )
    params, state = setting.start(strategy, batch)
    values, _ = setting.evaluate(strategy, params, state, batch)

    weights = setting.doubles(params)
    hidden = np.float64(batch.inputs["image"]) @ weights["student"]["hidden"]
    logits = hidden @ weights["student"]["head"]
    ours = hidden @ weights["projector"]["kernel"]
    theirs = np.float64(batch.targets.taps["embedding"]).mean((1, 2))
    fake, real = (setting.mlp(weights["critic"], x)[:, 0] for x in (ours, theirs))
    expected = 0.6 * np.square(logits - batch.targets.logits).mean()
    expected += 0.7 * setting.cross_entropy(logits, batch.labels)
    expected += 0.3 * softplus(-fake).mean()
    np.testing.assert_allclose(values["student"], expected, rtol=2e-5)
    share = np.float64(jax.random.uniform(jax.random.key(1), (N,)))[:, None]
    slope = slopes(weights["critic"], share * theirs + (1 - share) * ours)
    expected = (softplus(-real) + softplus(fake)).mean()
    expected += 2.0 * np.square(np.linalg.norm(slope, axis=-1) - 1).mean()
    np.testing.assert_allclose(values["critic"], expected, rtol=2e-5)
    assert turns.movers(strategy.turns) == [("critic",), ("student", "projector")]


def test_a_reversed_gradient_is_the_saturating_loss(batch):
    """One backward pass equals turns with -softplus(s) as the student's loss."""
    reverse = critic_on_features(
        setting.network(), weight=0.3, penalty=2.0, reverse=True
    )
    assert not reverse.turns
    once = setting.gradients(reverse, batch)
    turn = critic_on_features(setting.network(), weight=0.3, penalty=2.0)
    critic = setting.gradients(turn, batch, "critic")["critic"]
    chex.assert_trees_all_close(once["critic"], critic, rtol=1e-5)

    # Student: that of the paired loss, and minus weight that of the GAN loss.
    plain = critic_on_features(setting.network(), weight=0.3)
    pairs = critic_on_features(setting.network(), weight=0.0)
    up = setting.gradients(plain, batch, "critic")
    down = setting.gradients(pairs, batch, "student")
    for name in ("student", "projector"):
        expected = jax.tree.map(lambda d, u: d - 0.3 * u, down[name], up[name])
        chex.assert_trees_all_close(once[name], expected, rtol=1e-4, atol=1e-6)


def test_no_labels_are_read_without_their_weight(batch):
    strategy = critic_on_features(setting.network())
    assert not strategy.labels
    params, state = setting.start(strategy, batch)
    unlabeled = batch._replace(labels=None)
    values, metrics = setting.evaluate(strategy, params, state, unlabeled)
    assert np.isfinite(values["student"]) and "hard" not in metrics


def options(**given):
    run = digits(strategy=Custom("critic_on_features", options=given))
    return make_strategy(run, setting.network(), None, classes=CLASSES)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"student_steps": 0}, "student_steps: expected at least 1 step, got 0"),
        (
            {"student_steps": 2, "reverse": True},
            "student_steps: expected 1 with reverse, which trains both at every step, "
            "got 2",
        ),
        (
            {"variant": "hinges"},
            "variant: did you mean 'hinge'? expected one of ['hinge', 'least_squares', "
            "'non_saturating', 'wasserstein'], got 'hinges'",
        ),
    ],
)
def test_bad_options(given, text):
    with pytest.raises(ConfigError) as caught:
        options(**given)
    assert str(caught.value) == f"strategy.options.{text}"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"tap": "stage9"},
            "tap: expected one of ['embedding', 'logits'], got 'stage9'",
        ),
        (
            {"teacher_tap": "stage9"},
            "teacher_tap: expected one of ['embedding', 'logits'], got 'stage9'",
        ),
        (
            {"projector": False},
            "projector: expected True, as embedding and embedding differ in width, "
            "got False",
        ),
    ],
)
def test_taps_that_do_not_fit(batch, given, text):
    with pytest.raises(ConfigError) as caught:
        options(**given).init(jax.random.key(0), batch)
    assert str(caught.value) == f"strategy.options.{text}"
