"""Factor transfer: both stages in float64, what moves, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.config import Custom, ModelConfig, Network, Optim
from kdjax.models.paraphraser import paraphraser as make_paraphraser
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from tests.strategies.methods.tapped import (
    CLASSES,
    batch_of,
    cross_entropy,
    loss_of,
    refused,
    start,
    tapped,
    wide,
)

# The teacher's `stage2`, of tapped(width=3), has 6 channels.
NETWORK = make_paraphraser(ModelConfig("a:b", width=6), CLASSES)


def made(name, student=None, **options):
    own = ModelConfig("a:b", width=6)
    network = Network(own, frozen=name == "factor_transfer")
    strategy = Custom(name, options={"tap": "stage2", **options})
    run = digits(strategy=strategy, networks={"paraphraser": network})
    models = {"networks": {"paraphraser": NETWORK}}
    student = student or tapped()
    return make_strategy(run, student, tapped(width=3), CLASSES, **models)


def convolved(x, kernel):
    """3x3 with zeros around, as a sum over the 9 pixels."""
    high, wide = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + high, j : j + wide] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


def convolutions(x, variables, statistics=None):
    """3x3 convolutions with BatchNorm and leaky ReLU, of the batch or stored."""
    for i in range(3):
        x = convolved(x, variables[f"Conv_{i}"]["kernel"])
        if statistics is None:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        else:
            own = statistics[f"BatchNorm_{i}"]
            mean, var = own["mean"], own["var"]
        norm = variables[f"BatchNorm_{i}"]
        x = (x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
        x = np.where(x > 0, x, 0.1 * x)
    return x


def features_of(images, params):
    first = images @ params["first"]
    n, side = first.shape[:2]
    halves = first.reshape(n, side // 2, 2, side // 2, 2, -1).mean((2, 4))
    return halves @ params["second"]


def with_paraphraser():
    """A batch with a frozen paraphraser of random statistics."""
    variables = NETWORK.init(jax.random.key(3), None)
    rng = np.random.default_rng(0)
    stats = jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), jnp.float32),
        variables["batch_stats"],
    )
    frozen = {**variables, "batch_stats": stats}
    batch = batch_of()
    return batch._replace(frozen={**batch.frozen, "paraphraser": frozen})


def test_the_paraphraser_learns_to_make_the_map():
    strategy = made("paraphraser", student=tapped(width=3))
    batch = batch_of(targets=None)
    params, state = start(strategy, batch)
    total, (new, metrics) = loss_of(strategy, params, state, batch)
    own, images = wide(params), wide(batch.inputs["image"])
    features = features_of(images, own["student"])
    factor = convolutions(features, own["paraphraser"]["encoder"])
    assert factor.shape[-1] == 3
    error = np.square(convolutions(factor, own["paraphraser"]["decoder"]) - features)
    np.testing.assert_allclose(total, error.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["reconstruction"], total)
    assert not strategy.labels
    moved = new["paraphraser"]["batch_stats"]["encoder"]["BatchNorm_0"]["mean"]
    assert np.abs(moved).max() > 0

    def value(params):
        return strategy.loss(params, state, batch, {}, jax.random.key(0))[0]

    gradient = jax.jit(jax.grad(lambda p: value(p)["paraphraser"]))(params)
    assert not any(np.any(x) for x in jax.tree.leaves(gradient["student"]))
    still = strategy.optim["student"]
    assert (still.lr, still.wd) == (0.0, 0.0) and Optim().lr > 0


def test_the_student_learns_the_factors():
    batch = with_paraphraser()
    strategy = made("factor_transfer", weight=7.0)
    params, state = start(strategy, batch)
    total, (new, metrics) = loss_of(strategy, params, state, batch)
    own, frozen = wide(params), wide(batch.frozen["paraphraser"])
    ours = features_of(wide(batch.inputs["image"]), own["student"])
    translated = convolutions(ours, own["translator"])
    factor = convolutions(
        wide(batch.targets.taps["stage2"]),
        frozen["params"]["encoder"],
        statistics=frozen["batch_stats"]["encoder"],
    )
    units = [
        x / np.sqrt(np.square(x).sum((1, 2, 3), keepdims=True))
        for x in (translated, factor)
    ]
    want = np.abs(units[0] - units[1]).mean()
    np.testing.assert_allclose(metrics["factors"], want, rtol=1e-4)
    logits = ours.mean((1, 2)) @ own["student"]["last"]
    task = cross_entropy(logits, batch.labels).mean()
    np.testing.assert_allclose(total, task + 7 * want, rtol=1e-4)
    assert set(params) == {"student", "translator"}
    assert jax.tree.structure(new) == jax.tree.structure(state)


def test_the_factors_reach_the_layers_below_the_tap_alone():
    batch = with_paraphraser()
    strategy = made("factor_transfer", label_weight=0.0)
    params, state = start(strategy, batch)

    def value(params):
        losses, _ = strategy.loss(params, state, batch, {}, jax.random.key(0))
        return losses["student"]

    gradient = jax.jit(jax.grad(value))(params)
    assert np.abs(gradient["student"]["second"]).max() > 0
    assert not np.any(gradient["student"]["last"])
    assert np.abs(gradient["translator"]["Conv_2"]["kernel"]).max() > 0
    assert not strategy.labels


def test_what_does_not_fit_is_one_line():
    batch, at = with_paraphraser(), "strategy.options"

    def begin(name="factor_transfer", batch=batch, **options):
        return start(made(name, **options), batch)

    error = refused(begin, batch=batch_of())
    assert error.startswith("networks.paraphraser.frozen: expected True, with the")
    error = refused(begin, tap="embedding")
    assert error == f"{at}.tap: expected a map, such as stage3, got 'embedding'"
    error = refused(begin, tap="stage1", teacher_tap="stage2")
    assert (
        error == f"{at}.tap: expected a map of the teacher's size (2, 2), got 'stage1'"
    )
    error = refused(begin, teacher_tap="stage1")
    expected = "networks.paraphraser.model.width: expected 3, the channels of the "
    assert error == f"{expected}teacher's map, got 6"
    error = refused(begin, "paraphraser")
    assert error.startswith("networks.paraphraser.model.width: expected 4, the ")
    error = refused(begin, "paraphraser", tap="stage4")
    assert error.startswith(f"{at}.tap: did you mean ")
