"""Critic on logits: values, the critic at chance, gradients, bad input."""

import jax
import numpy as np
import pytest

from kdjax.config import ConfigError, Custom
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from kdjax.strategies.methods.critic_on_logits import critic_on_logits
from kdjax.train import turns
from tests.strategies.methods import setting
from tests.strategies.methods.setting import CLASSES, N, cross_entropy, softplus


def standardize(x):
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + 1e-7)


@pytest.fixture
def batch():
    return setting.make_batch(setting.outputs(setting.draw(N, CLASSES, seed=3)))


def test_values(batch):
    strategy = critic_on_logits(
        setting.network(), weight=0.3, label_weight=0.7, class_weight=0.4, width=8
    )
    params, state = setting.start(strategy, batch)
    values, metrics = setting.evaluate(strategy, params, state, batch)

    weights, own = setting.doubles(params), np.float64(batch.inputs["image"])
    logits = own @ weights["student"]["hidden"] @ weights["student"]["head"]
    teacher = np.float64(batch.targets.logits)
    ours, theirs = (
        setting.mlp(weights["critic"], standardize(x)) for x in (logits, teacher)
    )
    our_class, their_class = (
        cross_entropy(x[:, 1:], batch.labels) for x in (ours, theirs)
    )
    pairs = np.abs(logits - teacher).sum(-1).mean()
    against = softplus(-ours[:, 0]).mean()
    expected = 0.7 * cross_entropy(logits, batch.labels) + pairs
    expected += 0.3 * (against + 0.4 * our_class)
    np.testing.assert_allclose(values["student"], expected, rtol=2e-5)
    expected = (softplus(-theirs[:, 0]) + softplus(ours[:, 0])).mean()
    expected += 0.4 * (our_class + their_class)
    np.testing.assert_allclose(values["critic"], expected, rtol=2e-5)
    np.testing.assert_allclose(metrics["against critic"], against, rtol=2e-5)
    assert turns.movers(strategy.turns) == [("critic",), ("student",)]


def test_a_critic_at_chance_gives_log_2(batch):
    strategy = critic_on_logits(setting.network(), class_weight=0.0)
    params, state = setting.start(strategy, batch)
    params["critic"] = jax.tree.map(np.zeros_like, params["critic"])
    values, metrics = setting.evaluate(strategy, params, state, batch)
    np.testing.assert_allclose(metrics["against critic"], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(values["critic"], 2 * np.log(2), rtol=1e-6)


def test_the_labels_of_mixed_images_are_weighted(batch):
    strategy = critic_on_logits(setting.network(), class_weight=0.5)
    params, state = setting.start(strategy, batch)

    def value(batch):
        return setting.evaluate(strategy, params, state, batch)[0]["student"]

    partner = (batch.labels + 1) % CLASSES
    mixed = batch._replace(partner_labels=partner, mix_weight=0.25)
    expected = 0.25 * value(batch) + 0.75 * value(batch._replace(labels=partner))
    np.testing.assert_allclose(value(mixed), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"student_steps": 0},
            "strategy.options.student_steps: expected at least 1 step, got 0",
        ),
        ({"weight": "much"}, "strategy.options.weight: expected a number, got 'much'"),
    ],
)
def test_bad_options(options, text):
    run = digits(strategy=Custom("critic_on_logits", options=options))
    with pytest.raises(ConfigError) as caught:
        make_strategy(run, setting.network(), None, classes=CLASSES)
    assert str(caught.value) == text


def test_a_teacher_of_other_classes_is_refused(batch):
    strategy = critic_on_logits(setting.network(classes=CLASSES + 1))
    text = r"^teacher: expected as many classes as the student \(5\), got 4$"
    with pytest.raises(ConfigError, match=text):
        strategy.init(jax.random.key(0), batch)
    text = "^teacher: expected a teacher with the logits of all classes, got 'none'$"
    with pytest.raises(ConfigError, match=text):
        strategy.init(jax.random.key(0), batch._replace(targets=None))
