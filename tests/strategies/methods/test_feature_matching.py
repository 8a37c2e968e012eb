"""Feature matching: heads, running statistics, two teachers, teachers without heads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax
from kdjax import setup
from kdjax.config import ConfigError, Custom, Data, Ensemble, FromWeights, ModelConfig
from kdjax.core.types import BoundModel
from kdjax.presets import digits
from kdjax.setup.load_teachers import take_embedding
from kdjax.strategies import make_strategy
from kdjax.strategies.methods.feature_matching import standardize
from tests.e2e.linear_runs import linear
from tests.strategies.methods import setting
from tests.strategies.methods.setting import CLASSES
from tests.strategies.methods.several import draw_member, several_outputs
from tests.strategies.methods.tapped import check_resumes


def make(**options):
    run = digits(strategy=Custom("feature_matching", options=options), steps=7)
    return make_strategy(run, setting.network(), None, classes=CLASSES)


def batch_of(*members):
    targets = several_outputs(*members) if len(members) > 1 else members[0]
    return setting.make_batch(targets)


def distance(ours, theirs, weight):
    """Of rows, in float64: cosine distance and smooth L1."""
    norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    cosine = 1 - (ours * theirs).sum(-1) / norms
    gap = np.abs(ours - theirs)
    smooth = np.where(gap < 1, gap**2 / 2, gap - 0.5)
    return weight * cosine.mean() + (1 - weight) * smooth.mean()


@pytest.mark.parametrize("widths", [(5,), (4, 7)])
def test_the_first_step_is_the_formula(widths):
    """Its statistics are those of the batch: each teacher counts alike."""
    members = [draw_member(i, width=w) for i, w in enumerate(widths)]
    # A teacher of large features is standardized.
    large = {"embedding": 50 * members[0].taps["embedding"] + 3}
    members[0] = members[0]._replace(taps=large)
    strategy, batch = make(cosine_weight=0.7), batch_of(*members)
    assert not strategy.labels
    params, state = setting.start(strategy, batch)
    values, metrics = setting.evaluate(strategy, params, state, batch)
    own = setting.doubles(params)
    ours = np.float64(batch.inputs["image"]) @ own["student"]["hidden"]
    parts = []
    for m, member in enumerate(members):
        head = own[f"head {m}"]["layers_0"]
        x = np.float64(member.taps["embedding"])
        theirs = (x - x.mean(0)) / x.std(0)
        parts.append(distance(ours @ head["kernel"] + head["bias"][None], theirs, 0.7))
        np.testing.assert_allclose(metrics[f"match {m}"], parts[-1], rtol=2e-4)
    np.testing.assert_allclose(values["student"], np.mean(parts), rtol=2e-4)


def test_statistics_run_over_the_steps():
    """A plain mean of the batches, then an exponential one; no other state moves."""
    strategy, batches = make(momentum=0.5), [batch_of(draw_member(i)) for i in range(3)]
    params, state = setting.start(strategy, batches[0])
    means = []
    for batch in batches:
        _, (state, _) = strategy.loss(params, state, batch, {}, jax.random.key(0))
        means.append(np.float64(batch.targets.taps["embedding"]).mean(0))
    want = (means[0] + means[1]) / 4 + means[2] / 2
    np.testing.assert_allclose(state["statistics"]["0"]["mean"], want, rtol=1e-5)
    assert state["statistics"]["steps"] == 3


def test_a_constant_channel_is_finite():
    x = jnp.full((3, 2), 7.0)
    got = standardize(x, {"mean": x[0], "square": jnp.square(x[0])})
    np.testing.assert_array_equal(got, 0)


def test_heads_move_and_the_classifier_does_not():
    strategy, batch = make(hidden=3), batch_of(draw_member(0), draw_member(1))
    found = setting.gradients(strategy, batch)
    assert setting.is_zero(found["student"]["head"])
    assert not setting.is_zero(found["student"]["hidden"])
    for m in range(2):
        assert not setting.is_zero(found[f"head {m}"])


def test_maps_beside_vectors_are_averaged():
    """A teacher's map of one value everywhere is that vector."""
    member = draw_member(0)
    rows = member.taps["embedding"]
    tiled = {"embedding": jnp.tile(rows[:, None, None], (1, 2, 3, 1))}
    params, state = setting.start(make(), batch_of(member))
    got, want = (
        setting.evaluate(make(), params, state, batch_of(x))[0]["student"]
        for x in (member._replace(taps=tiled), member)
    )
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cosine_weight": 2.0}, "strategy.options.cosine_weight: expected in"),
        ({"hidden": -1}, "strategy.options.hidden: expected 0"),
        ({"momentum": 1.0}, "strategy.options.momentum: expected a number in"),
        ({"tap": "none"}, "strategy.options.tap: expected"),
        ({"teacher_taps": ("none",)}, "strategy.options.teacher_taps: expected"),
        ({"teacher_taps": ("a", "b")}, "strategy.options.teacher_taps: expected one"),
    ],
)
def test_bad_options_are_one_line(options, text):
    with pytest.raises(ConfigError, match=f"^{text}") as caught:
        setting.start(make(**options), batch_of(draw_member(0)))
    assert "\n" not in str(caught.value)


def test_a_network_without_a_head_has_a_tap_and_no_logits():
    model, variables = linear(seed=3, classes=7)
    bound = take_embedding(BoundModel(model, variables, None, 8))
    images = jnp.asarray(setting.draw(2, 8, 8, 1))
    got, _ = bound.model.apply(variables, images, train=False, rngs=None)
    want, _ = model.apply(variables, images, train=False, rngs=None)
    assert not bound.has_logits and got.logits.shape == (2, 0)
    np.testing.assert_array_equal(got.taps["embedding"], want.logits)


def test_such_a_teacher_has_no_cache_and_no_teachers_with_heads():
    config = FromWeights(ModelConfig("file.py:f", resolution=8), outputs="embedding")
    cache = dataclasses.replace(config.cache, path="store")
    with pytest.raises(ConfigError, match="^teacher.cache.path: expected none with"):
        dataclasses.replace(config, cache=cache).check("teacher")
    mixed = Ensemble((config, dataclasses.replace(config, outputs="logits")))
    text = "^teacher.members: expected outputs embedding of all or of none"
    with pytest.raises(ConfigError, match=text):
        mixed.check("teacher")
    with pytest.raises(ConfigError, match="^teacher.cache.path: expected none with"):
        Ensemble((config, config), cache=cache).check("teacher")


def test_a_term_of_its_logits_is_refused(tiny_run):
    model, variables = linear(seed=3, classes=7)
    bound = take_embedding(BoundModel(model, variables, None, 8))
    run = tiny_run()
    train = setup.load_source(run, "train")
    text = r"^teacher: expected as many classes as the student \(10\), got 0"
    with pytest.raises(ConfigError, match=text):
        setup.check_fit(run, train=train, student=linear(), teacher=bound)


def backbone(config, classes):
    """Features of width 3, fewer than the classes, with weights of its own."""
    model, variables = linear(seed=3, classes=3)
    return model._replace(init=lambda key, images: variables)


@pytest.mark.full
def test_a_run_on_unlabeled_images_of_two_headless_teachers(tiny_run):
    member = FromWeights(
        ModelConfig(f"{__name__}:backbone", resolution=8), outputs="embedding"
    )
    run = tiny_run(
        strategy=Custom("feature_matching"),
        data=Data("digits", train="train[:50]", train_name="digits"),
        teacher=Ensemble((member, member)),
        steps=4,
    )
    folder = kdjax.distill(run)
    metrics = kdjax.evaluate(folder)
    assert "accuracy" in metrics and "agreement" not in metrics


@pytest.mark.full
def test_a_run_resumes_bitwise(tiny_run, tmp_path, monkeypatch):
    strategy = Custom("feature_matching")
    end = check_resumes(strategy, tiny_run, tmp_path, monkeypatch)
    assert [x for name, x in end.items() if "statistics" in name]
