"""Input gradients of linear networks in closed form, equal networks, and refusals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import Custom
from kdjax.models import from_function, from_linen
from tests.strategies.methods.tapped import (
    CLASSES,
    SIDE,
    batch_of,
    check_resumes,
    cross_entropy,
    loss_of,
    made,
    refused,
    start,
    tapped,
    wide,
)

NAMES = ("attention_transfer_gradient", "jacobian_matching")


def linear():
    return from_function(
        lambda w, x: x.reshape(len(x), -1) @ w,
        init=lambda key, x: jax.random.normal(key, (x[0].size, CLASSES)),
    )


def smooth():
    """A network with a second derivative."""
    layers = [lambda x: x.reshape(len(x), -1), nn.Dense(4), nn.tanh, nn.Dense(CLASSES)]
    return from_linen(nn.Sequential(layers))


class Normed(nn.Module):
    """A layer with BatchNorm."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(4)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(CLASSES)(nn.tanh(x))


def begin(name, model, batch, **options):
    strategy = made(name, student=model, teacher=model, **options)
    return strategy, *start(strategy, batch)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_attention_of_linear_networks():
    """J = W (p - onehot), and the mean of the distances is halved."""
    batch = batch_of(linear())
    strategy, params, state = begin(NAMES[0], linear(), batch, weight=3.0)
    total, _ = loss_of(strategy, params, state, batch)
    images = wide(batch.inputs["image"]).reshape(len(batch.labels), -1)
    onehot = np.eye(CLASSES)[np.asarray(batch.labels)]
    ours, theirs = wide(params["student"]), wide(batch.frozen["teacher"]["params"])
    gaps = [(softmax(images @ w) - onehot) @ w.T for w in (ours, theirs)]
    distance = np.linalg.norm(gaps[0] - gaps[1], axis=-1)
    want = cross_entropy(images @ ours, batch.labels) + 3.0 / 2 * distance
    np.testing.assert_allclose(total, want.mean(), rtol=1e-5)


def test_attention_of_mixed_labels():
    """The cross-entropy has the weighted mean of both labels, and so has J."""
    batch = batch_of(linear(), partner_labels=jnp.zeros(5, int), mix_weight=0.3)
    strategy, params, state = begin(NAMES[0], linear(), batch, label_weight=0.0)
    total, _ = loss_of(strategy, params, state, batch)
    images = wide(batch.inputs["image"]).reshape(len(batch.labels), -1)
    eye = np.eye(CLASSES)
    mixed = 0.3 * eye[np.asarray(batch.labels)] + 0.7 * eye[np.zeros(5, int)]
    ours, theirs = wide(params["student"]), wide(batch.frozen["teacher"]["params"])
    gaps = [(softmax(images @ w) - mixed) @ w.T for w in (ours, theirs)]
    want = np.linalg.norm(gaps[0] - gaps[1], axis=-1).mean() / 2
    np.testing.assert_allclose(total, want, rtol=1e-5)


@pytest.mark.parametrize("logit", ["label", "teacher"])
@pytest.mark.parametrize("variant", ["sum", "mean"])
def test_jacobians_of_linear_networks(logit, variant):
    """2 - 2 cos of the columns of the class; the mean is over the pixels."""
    batch = batch_of(linear())
    options = {"logit": logit, "variant": variant, "weight": 2.0}
    options |= {"label_weight": 0.0, "soft_weight": 0.0}
    strategy, params, state = begin(NAMES[1], linear(), batch, **options)
    assert strategy.labels == (logit == "label")
    total, _ = loss_of(strategy, params, state, batch)
    chosen = np.asarray(batch.labels)
    if logit == "teacher":
        chosen = np.asarray(batch.targets.logits).argmax(-1)
    ours, theirs = wide(params["student"]), wide(batch.frozen["teacher"]["params"])
    unit = [w / np.linalg.norm(w, axis=0) for w in (ours, theirs)]
    values = 2 - 2 * (unit[0] * unit[1]).sum(0)[chosen]
    entries = 1 if variant == "sum" else SIDE * SIDE
    np.testing.assert_allclose(total, 2.0 * values.mean() / entries, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_equal_networks(name):
    """Distance and gradient are 0."""
    batch, weights = batch_of(smooth()), {"label_weight": 0.0, "soft_weight": 0.0}
    strategy, _, state = begin(name, smooth(), batch, **weights)
    same = {"student": batch.frozen["teacher"]["params"]}
    call = jax.value_and_grad(lambda p: loss_of(strategy, p, state, batch)[0])
    total, grads = call(same)
    assert abs(total) < 1e-12
    assert max(jnp.abs(x).max() for x in jax.tree.leaves(grads)) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_the_student(name, float64):
    """Central differences in float64, through the gradient in the input."""
    batch = batch_of(smooth())
    to64 = lambda x: x.astype(float) if x.dtype == jnp.float32 else x  # noqa: E731
    batch = jax.tree.map(to64, batch)
    strategy, params, state = begin(name, smooth(), batch, label_weight=0.0)
    params = jax.tree.map(to64, params)
    call = jax.jit(lambda p: loss_of(strategy, p, state, batch)[0])
    grads = jax.grad(call)(params)
    rng = np.random.default_rng(0)
    way = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
    ends = [call(jax.tree.map(lambda x, d, h=h: x + h * d, params, way)) for h in H]
    slope = jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, grads, way))
    np.testing.assert_allclose((ends[0] - ends[1]) / (H[0] - H[1]), slope, rtol=1e-6)


H = (1e-5, -1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_examples_do_not_touch_each_other(name):
    """With BatchNorm too, the distance of a batch is the mean of its examples'."""
    model = from_linen(Normed())
    batch = batch_of(model)
    options = {"label_weight": 0.0, "soft_weight": 0.0}
    strategy, params, state = begin(name, model, batch, **options)
    call = jax.jit(lambda b: loss_of(strategy, params, state, b)[0])
    rows = batch._replace(frozen={})
    each = [
        call(
            jax.tree.map(lambda x, i=i: x[i : i + 1], rows)._replace(
                frozen=batch.frozen
            )
        )
        for i in range(len(batch.labels))
    ]
    np.testing.assert_allclose(call(batch), np.mean(each), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_must_run_live(name):
    expected = "teacher: expected one teacher that runs live, for the gradient in its "
    batch = batch_of()
    error = refused(start, made(name), batch._replace(frozen={}))
    assert error == f"{expected}input, got 'cached targets'"
    images = batch.inputs["image"]
    for other, text in (
        ((images, images), "'several'"),
        (images[:, :2], f"{(2, SIDE, 1)}"),
    ):
        inputs = {"image": images, "teacher_image": other}
        error = refused(start, made(name), batch._replace(inputs=inputs))
        assert error.startswith("teacher: expected") and error.endswith(text)


def test_options_that_are_none():
    error = refused(made, NAMES[1], logit="top")
    assert error == "strategy.options.logit: expected label or teacher, got 'top'"
    error = refused(made, NAMES[1], variant="max")
    assert error == "strategy.options.variant: expected sum or mean, got 'max'"


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_a_run_resumes_bitwise(name, tiny_run, tmp_path, monkeypatch):
    check_resumes(Custom(name), tiny_run, tmp_path, monkeypatch)


def test_student_and_teacher_of_other_widths():
    """Both see the same images; their features may differ."""
    batch = batch_of()
    strategy = made(NAMES[0], student=tapped(width=2))
    params, state = start(strategy, batch)
    assert np.isfinite(loss_of(strategy, params, state, batch)[0])
