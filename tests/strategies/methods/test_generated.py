"""AC-GAN and distillation on generated images: values, shares, gradients, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import from_function
from kdjax.config import ConfigError
from kdjax.models.generators import LATENT
from kdjax.strategies.critics import draw_codes
from kdjax.strategies.methods.acgan import acgan
from kdjax.strategies.methods.generated import generated
from kdjax.train import turns
from tests.strategies.methods import setting
from tests.strategies.methods.setting import CLASSES, N, cross_entropy, kl, softplus

SIZE = 3


def classifier(side=SIZE):
    """A linear classifier of images, with a linear tap "score"."""

    def apply(params, x):
        rows = x.reshape(len(x), -1)
        return rows @ params["w"], {"score": (rows @ params["score"])[:, 0]}

    def init(key, x):
        one, two = jax.random.split(key)
        return {
            "w": jax.random.normal(one, (side * side, CLASSES)),
            "score": jax.random.normal(two, (side * side, 1)),
        }

    return from_function(apply, init=init)


def plain():
    """A classifier without taps."""
    return from_function(
        lambda params, x: x.reshape(len(x), -1) @ params,
        init=lambda key, x: jnp.zeros((x[0].size, CLASSES)),
    )


def linear_generator(side=SIZE):
    def apply(params, codes):
        rows = jnp.tanh(codes @ params["w"])
        return rows, {"image": rows.reshape(len(rows), side, side, 1)}

    def init(key, x):
        return {"w": 0.3 * jax.random.normal(key, (LATENT + CLASSES, side * side))}

    return from_function(apply, init=init)


def rows(images):
    return np.float64(images).reshape(len(images), -1)


@pytest.fixture
def batch():
    """Real images, with a frozen teacher of images twice as large, and a generator."""
    image = jnp.asarray(setting.draw(N, SIZE, SIZE, 1))
    large = jnp.asarray(setting.draw(N, 2 * SIZE, 2 * SIZE, 1, seed=4))
    teacher = classifier(2 * SIZE).init(jax.random.key(5), large)
    return setting.make_batch(
        setting.outputs(setting.draw(N, CLASSES)),
        inputs={"image": image, "teacher_image": large},
        frozen={
            "teacher": teacher,
            "generator": linear_generator().init(jax.random.key(6), image),
        },
    )


def make(**options):
    models = classifier(), classifier(2 * SIZE), linear_generator()
    return generated(*models, classes=CLASSES, **options)


def drawn(key):
    """Labels and codes of the generated images of a step."""
    return draw_codes(jax.random.split(key, 3)[0], N, CLASSES, None)


def test_acgan(batch):
    strategy = acgan(
        classifier(), linear_generator(), classes=CLASSES, class_weight=0.4
    )
    params, state = setting.start(strategy, batch)
    values, _ = setting.evaluate(strategy, params, state, batch)
    weights = setting.doubles(params)
    key = jax.random.split(jax.random.key(1))[0]
    labels, codes = draw_codes(key, N, CLASSES, None)
    codes = np.float64(codes)
    fake = np.tanh(codes @ weights["generator"]["w"])
    real = rows(batch.inputs["image"])
    logits, scores = (
        [x @ weights["student"][name] for x in (real, fake)] for name in ("w", "score")
    )
    classes = cross_entropy(logits[0], batch.labels), cross_entropy(logits[1], labels)
    expected = (softplus(-scores[0]) + softplus(scores[1])).mean() + 0.4 * sum(classes)
    np.testing.assert_allclose(values["student"], expected, rtol=2e-5)
    expected = softplus(-scores[1]).mean() + 0.4 * classes[1]
    np.testing.assert_allclose(values["generator"], expected, rtol=2e-5)
    assert turns.movers(strategy.turns) == [("student",), ("generator",)]


def test_share_0_is_hintons_distillation(batch):
    """Real images alone, whatever the generator makes."""
    strategy = make(share=0.0, weight=0.8, label_weight=0.3, temperature=3.0)
    params, state = setting.start(strategy, batch)
    values, metrics = setting.evaluate(strategy, params, state, batch)
    logits = rows(batch.inputs["image"]) @ np.float64(params["student"]["w"])
    teacher = batch.frozen["teacher"]["params"]["w"]
    theirs = rows(batch.inputs["teacher_image"]) @ np.float64(teacher)
    expected = 0.8 * kl(theirs, logits, 3.0)
    expected += 0.3 * cross_entropy(logits, batch.labels)
    np.testing.assert_allclose(values["student"], expected, rtol=2e-5)
    assert metrics["generated"] == metrics["coverage"] == 0


def test_share_1_replaces_all_images(batch):
    """Student and teacher get the same generated images, and their drawn labels."""
    strategy = make(share=1.0, weight=0.8, label_weight=0.3, temperature=3.0)
    params, state = setting.start(strategy, batch)
    values, metrics = setting.evaluate(strategy, params, state, batch)
    labels, codes = drawn(jax.random.key(1))
    made = jnp.tanh(codes @ batch.frozen["generator"]["params"]["w"])
    made = made.reshape(N, SIZE, SIZE, 1)
    logits = rows(made) @ np.float64(params["student"]["w"])
    shape = batch.inputs["teacher_image"].shape
    large = rows(jax.image.resize(made, shape, "linear"))
    theirs = large @ np.float64(batch.frozen["teacher"]["params"]["w"])
    expected = 0.8 * kl(theirs, logits, 3.0) + 0.3 * cross_entropy(logits, labels)
    np.testing.assert_allclose(values["student"], expected, rtol=5e-5)
    assert metrics["generated"] == 1
    mean = np.exp(setting.log_softmax(theirs)).mean(0)
    expected = np.exp(-(mean * np.log(mean)).sum()) / CLASSES
    np.testing.assert_allclose(metrics["coverage"], expected, rtol=1e-4)


def test_the_share_of_generated_images(batch):
    """Over 60 steps of 6 images, within four standard errors of the option."""
    strategy = make(share=0.3)
    params, state = setting.start(strategy, batch)

    def share(key):
        return strategy.loss(params, state, batch, {}, key)[1][1]["generated"]

    keys = jax.random.split(jax.random.key(0), 60)
    got = float(jax.jit(lambda keys: jax.lax.map(share, keys))(keys).mean())
    assert abs(got - 0.3) < 4 * (0.3 * 0.7 / (60 * N)) ** 0.5


def test_frozen_networks_have_no_parameters_in_the_step(batch):
    strategy = make(label_weight=0.0)
    params, _ = setting.start(strategy, batch)
    assert params.keys() == {"student"} and not strategy.labels
    unlabeled = batch._replace(labels=None)
    state = {"student": {}}
    values, _ = setting.evaluate(strategy, params, state, unlabeled)
    assert np.isfinite(values["student"])


def test_bad_input(batch):
    with pytest.raises(ConfigError) as caught:
        make(share=2.0)
    expected = "strategy.options.share: expected a number from 0 to 1, got 2.0"
    assert str(caught.value) == expected
    with pytest.raises(ConfigError, match="^teacher: expected a live teacher, got"):
        generated(classifier(), None, linear_generator(), classes=CLASSES)
    learning = batch._replace(frozen={"teacher": batch.frozen["teacher"]})
    with pytest.raises(ConfigError, match=r"^networks\.generator\.frozen: expected Tr"):
        make().init(jax.random.key(0), learning)
    with pytest.raises(ConfigError, match=r"^strategy\.options\.generator_steps: "):
        acgan(classifier(), linear_generator(), classes=CLASSES, generator_steps=0)
    wide = acgan(classifier(), linear_generator(4), classes=CLASSES)
    with pytest.raises(ConfigError) as caught:
        wide.init(jax.random.key(0), batch)
    assert str(caught.value) == (
        "networks.generator.model.resolution: expected images of shape (3, 3, 1), "
        "got (4, 4, 1)"
    )
    for networks, text in (
        ((plain(), linear_generator()), "model.name: expected a critic with the tap"),
        (
            (classifier(), classifier()),
            "networks.generator.model.name: expected a generator with the tap image",
        ),
    ):
        strategy = acgan(*networks, classes=CLASSES)
        with pytest.raises(ConfigError) as caught:
            strategy.init(jax.random.key(0), batch)
        assert str(caught.value).startswith(text)
