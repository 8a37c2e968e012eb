"""A graph of teachers: its formula, the simplex of weights, and what moves by what."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.config import ConfigError, Custom
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from tests.strategies.methods import setting
from tests.strategies.methods.setting import CLASSES
from tests.strategies.methods.several import draw_member, several_outputs


def make(**options):
    run = digits(strategy=Custom("teacher_graph", options=options), steps=7)
    return make_strategy(run, setting.network(), None, classes=CLASSES)


@pytest.fixture
def batch():
    members = [draw_member(i, width=4 + i) for i in range(3)]
    return setting.make_batch(several_outputs(*members))


def test_the_losses_are_the_formula(batch):
    weights = {"soft_weight": 0.7, "feature_weight": 2.0, "label_weight": 0.4}
    strategy = make(temperature=3.0, width=6, **weights)
    params, state = setting.start(strategy, batch)
    params["edges"] = {"logits": jnp.asarray([0.5, -1.0, 0.2])}
    values, metrics = setting.evaluate(strategy, params, state, batch)
    own = setting.doubles(params)
    embedding = np.float64(batch.inputs["image"]) @ own["student"]["hidden"]
    logits = embedding @ own["student"]["head"]
    taps = [batch.targets.taps[f"{m}/embedding"] for m in range(3)]
    predicted = [
        np.float64(x) @ own["heads"][str(m)]["kernel"]
        + own["heads"][str(m)]["bias"][None]
        for m, x in enumerate(taps)
    ]
    edges = np.exp([0.5, -1.0, 0.2]) / np.exp([0.5, -1.0, 0.2]).sum()
    soft = sum(
        w * setting.kl(p, logits, 3.0) for w, p in zip(edges, predicted, strict=True)
    )
    mapped = embedding @ own["map"]["kernel"] + own["map"]["bias"][None]
    apart = [
        losses.mmd(
            jnp.asarray(mapped, jnp.float32),
            losses.compact_bilinear(a, b, key=jax.random.key(0), width=6),
        ).mean()
        for a, b in itertools.combinations(taps, 2)
    ]
    hard = setting.cross_entropy(logits, batch.labels)
    want = 0.4 * hard + 0.7 * soft + 2 * np.mean(apart)
    np.testing.assert_allclose(values["student"], want, rtol=1e-4)
    heads = sum(setting.cross_entropy(p, batch.labels) for p in predicted)
    np.testing.assert_allclose(values["heads"], heads, rtol=1e-5)
    found = [metrics[f"weight of {m}"] for m in range(3)]
    np.testing.assert_allclose(found, edges, rtol=1e-5)


@pytest.mark.full
def test_weights_and_map_learn_from_the_student_and_heads_from_labels(batch):
    found = setting.jacobian(make(), batch)
    moved = {
        loss: {name for name, x in gradients.items() if not setting.is_zero(x)}
        for loss, gradients in found.items()
    }
    assert moved == {"student": {"student", "map", "edges"}, "heads": {"heads"}}


def test_what_does_not_fit_is_one_line(batch):
    text = "^strategy.options.width: expected at least 1, got 0$"
    with pytest.raises(ConfigError, match=text):
        make(width=0)
    text = "^strategy.options.teacher_tap: expected one of .*, got 'none'"
    with pytest.raises(ConfigError, match=text):
        setting.start(make(teacher_tap="none"), batch)
    single = batch._replace(targets=draw_member(0))
    text = "^teacher.members: expected two teachers or more, run live, got 'one"
    with pytest.raises(ConfigError, match=text):
        setting.start(make(), single)
