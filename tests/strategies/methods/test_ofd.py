"""OFD: margins from the teacher's norms, the loss in float64, what learns, refusals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm as normal

from kdjax import from_linen
from kdjax.config import Custom, ModelConfig
from kdjax.models import make_model
from kdjax.strategies.norms import ending_norms
from tests.strategies.methods.tapped import (
    batch_of,
    check_resumes,
    cross_entropy,
    loss_of,
    made,
    refused,
    start,
    wide,
)

TAPS = ("stage1", "stage2")


class Normed(nn.Module):
    """Two stages that end in a norm, the second in the sum of two."""

    width: int = 3
    classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        def normed(y, name):
            return nn.BatchNorm(use_running_average=not train, name=name)(y)

        first = normed(nn.Dense(self.width, use_bias=False)(x), "norm1")
        half = nn.avg_pool(nn.relu(first), (2, 2), (2, 2))
        main = normed(nn.Dense(2 * self.width, use_bias=False)(half), "norm2")
        shortcut = normed(nn.Dense(2 * self.width)(half), "shortcut")
        second = main + shortcut
        taps = {"stage1": first, "stage2": second, "stage2_relu": nn.relu(second)}
        return nn.Dense(self.classes)(taps["stage2_relu"].mean((1, 2))), taps


def teacher_and_batch(classes=3):
    """With scales and biases that differ from channel to channel."""
    teacher = from_linen(Normed(classes=classes))
    rng = np.random.default_rng(3)
    images = jnp.zeros((1, 4, 4, 1))
    shapes = jax.eval_shape(teacher.init, jax.random.key(0), images)

    def draw(path, x):
        positive = path[-1].key in ("scale", "var")
        value = rng.uniform(0.3, 0.9, x.shape) if positive else rng.normal(size=x.shape)
        return jnp.asarray(value, jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return teacher, batch_of(teacher, variables)


def expected_margin(scale, bias):
    """E[x | x < 0] of a normal variable; not one of its channels is rare here."""
    ratio = bias / np.abs(scale)
    assert np.all(normal.cdf(-ratio) > 0.001)
    return bias - np.abs(scale) * normal.pdf(ratio) / normal.cdf(-ratio)


def test_the_loss_in_float64():
    teacher, batch = teacher_and_batch()
    strategy = made("ofd", teacher=teacher, taps=TAPS, weight=0.3)
    params, state = start(strategy, batch)
    total, (new, metrics) = loss_of(strategy, params, state, batch)

    own, theirs = wide(params), wide(batch.frozen["teacher"]["params"])
    images = wide(batch.inputs["image"])
    first = images @ own["student"]["first"]
    second = first.reshape(5, 2, 2, 2, 2, 2).mean((2, 4)) @ own["student"]["second"]
    both = [theirs[name] for name in ("norm2", "shortcut")]
    norms = [
        (theirs["norm1"]["scale"], theirs["norm1"]["bias"]),
        (
            np.sqrt(sum(x["scale"] ** 2 for x in both)),
            sum(x["bias"] for x in both),
        ),
    ]
    want = 0.0
    for i, x in enumerate((first, second)):
        y = x @ own["connectors"][str(i)]["layers_0"]["kernel"]
        mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
        y = (y - mean) / np.sqrt(variance + 1e-5)
        target = wide(batch.targets.taps[TAPS[i]])
        margin = expected_margin(*norms[i])
        assert np.any(target < margin) and np.any((target < 0) & (target > margin))
        clipped = np.maximum(target, margin)
        counts = (y > clipped) | (target > 0)
        value = np.where(counts, (y - clipped) ** 2, 0).sum((1, 2, 3)).mean()
        want += value * (0.5, 1.0)[i]
        moved = new["connectors"]["batch_stats"][str(i)]["layers_1"]["mean"]
        np.testing.assert_allclose(moved, 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["ofd"], want, rtol=1e-4)
    logits = second.mean((1, 2)) @ own["student"]["last"]
    task = cross_entropy(logits, batch.labels).mean()
    np.testing.assert_allclose(total, task + 0.3 * want, rtol=1e-4)


def test_a_norm_by_its_path():
    """Of the sum of two, the main one alone, as in the authors' code."""
    teacher, batch = teacher_and_batch()
    options = {"teacher": teacher, "taps": TAPS}
    strategies = [
        made("ofd", **options),
        made("ofd", **options, norms=("norm1", "norm2")),
        made("ofd", **options, norms=("norm1", "shortcut")),
    ]
    found = []
    for strategy in strategies:
        params, state = start(strategy, batch)
        found.append(float(loss_of(strategy, params, state, batch)[1][1]["ofd"]))
    assert len({round(x, 3) for x in found}) == 3


@pytest.mark.parametrize(
    "name, norms",
    [
        ("resnet20", ["BasicBlock_2/{}Norm_1"]),
        ("resnet8x4", ["BasicBlock_0/{}Norm_1", "BasicBlock_0/{}Norm_2"]),
        ("wrn_16_1", ["stage2_block0/norm1"]),
        ("resnet18_cifar", ["stage1_block2/norm2"]),
        ("vgg8", ["stage1_norm0"]),
    ],
)
@pytest.mark.parametrize("kind", ["batch", "group"])
def test_the_norms_of_known_networks(name, norms, kind):
    model = make_model(ModelConfig(name, norm=kind, resolution=32), 10)
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)

    def read(params):
        variables = {**blank, "params": params}
        output, _ = model.apply(variables, images, train=False, rngs=None)
        return output.taps["stage1_pre"]

    expected = tuple(x.format(kind.capitalize()) for x in norms)
    assert ending_norms(read, shapes["params"]) == expected


def test_what_does_not_fit_is_one_line():
    teacher, batch = teacher_and_batch()
    at = "strategy.options"

    def begin(batch=batch, **options):
        return start(made("ofd", teacher=teacher, **{"taps": TAPS, **options}), batch)

    error = refused(begin, taps=())
    assert error.startswith(f"{at}.taps: expected one tap or several different ones")
    error = refused(begin, teacher_taps=("stage1",))
    assert error.startswith(f"{at}.teacher_taps: expected 2, as many as taps, or none")
    error = refused(begin, norms=("norm1",))
    assert error.startswith(f"{at}.norms: expected 2, as many as taps, or none")
    error = refused(begin, norms=("norm1", "norm3"))
    assert error.startswith(f"{at}.norms: did you mean 'norm")
    error = refused(begin, teacher_taps=("stage1", "stage2_relu"))
    assert error == (
        f"{at}.norms: expected the norm before each tap, as none ends at stage2_relu, "
        "got ()"
    )
    error = refused(begin, teacher_taps=("stage2", "stage2"))
    assert error.startswith(f"{at}.taps: expected features at the positions of the")
    error = refused(begin, batch=batch._replace(frozen={}))
    assert error.startswith("teacher: expected one teacher that runs live")
    error = refused(begin, teacher_taps=("stage1", "stage9"))
    assert error.startswith(f"{at}.teacher_taps: ")


@pytest.mark.full
def test_a_run_resumes_bitwise(tiny_run, tmp_path, monkeypatch):
    teacher, batch = teacher_and_batch(classes=10)
    variables = batch.frozen["teacher"]
    strategy = Custom("ofd", options={"taps": TAPS})
    end = check_resumes(
        strategy, tiny_run, tmp_path, monkeypatch, teacher=(teacher, variables)
    )
    assert any("connectors" in name and "batch_stats" in name for name in end)
