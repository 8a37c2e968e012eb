"""Online distillation: the large network trains as if it were alone."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.config import HARD, Custom, ModelConfig, Network, Optim
from kdjax.core.types import Batch, View
from kdjax.models import from_function
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from kdjax.strategies.offline import offline
from kdjax.train import optimizer
from kdjax.train.state import create_state
from kdjax.train.step import make_train_step

CLASSES, STEPS = 3, 4
# Every gradient is clipped, so that one clipped with another's would show.
OPTIM = Optim("sgd", lr=10.0, wd=1e-2, warmup=0, clip=0.01)


def linear(features):
    """Logits of the first features of an image."""

    def init(key, x):
        return jax.random.normal(key, (features, CLASSES))

    return from_function(lambda params, x: x[:, :features] @ params, init=init)


def make(**options):
    strategy = Custom("online", options=options)
    networks = {"large": Network(ModelConfig("resnet"))}
    run = digits(strategy=strategy, steps=STEPS, networks=networks)
    models = {"large": linear(6)}
    return make_strategy(run, linear(2), None, classes=CLASSES, networks=models)


def images_of(step):
    x = jax.random.normal(jax.random.fold_in(jax.random.key(5), step), (8, 6))
    return View(x, x, jnp.arange(8) % CLASSES)


def trained(strategy, variables):
    """The parameters of all networks after each step."""
    each = {name: optimizer.make_optimizer(OPTIM, name) for name in variables}
    update = optimizer.by_network(each)
    rates = optimizer.network_rates(dict.fromkeys(variables, OPTIM), STEPS)
    step = jax.jit(
        make_train_step(
            strategy, update, view=lambda number, inputs, constants: images_of(number)
        )
    )
    state, path = create_state(variables, update), []
    for number in range(STEPS):
        inputs = {
            "seed": np.int32(0),
            "rates": rates(number),
            "schedules": strategy.schedules(number),
        }
        state, _ = step(state, inputs, {})
        path.append(jax.device_get(state.params))
    return path


def test_the_path_of_the_large_network_is_that_of_training_it_alone():
    strategy = make(weight=5.0)
    first = images_of(0)
    start = strategy.init(
        jax.random.key(1), Batch({"image": first.student}, first.labels)
    )
    together = trained(strategy, start)
    alone = offline(linear(6), {"hard": HARD}, steps=STEPS)
    path = trained(alone, {"student": start["large"]})
    for ours, want in zip(together, path, strict=True):
        np.testing.assert_allclose(ours["large"], want["student"], rtol=1e-6)
    moved = np.abs(path[-1]["student"] - start["large"]["params"]).max()
    assert moved > 0.1


def test_the_student_learns_from_the_large_network_as_a_constant():
    """L = l CE + w T^2 KL, whose gradient in the large network is zero."""
    strategy = make(weight=2.0, label_weight=0.5, temperature=3.0)
    view = images_of(0)
    batch = Batch({"image": view.student}, view.labels)
    start = strategy.init(jax.random.key(1), batch)
    params = {name: v["params"] for name, v in start.items()}
    state = {name: {} for name in params}

    def student(params):
        return strategy.loss(params, state, batch, {}, jax.random.key(0))[0]["student"]

    value, grads = jax.jit(jax.value_and_grad(student))(params)
    assert not np.any(grads["large"]) and np.any(grads["student"])
    x = np.asarray(view.student, np.float64)
    ours, theirs = x[:, :2] @ params["student"], x @ params["large"]

    def log_softmax(z):
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    p, q = log_softmax(theirs / 3), log_softmax(ours / 3)
    soft = 9 * (np.exp(p) * (p - q)).sum(-1).mean()
    hard = -log_softmax(ours)[np.arange(8), np.arange(8) % CLASSES].mean()
    np.testing.assert_allclose(value, 0.5 * hard + 2.0 * soft, rtol=1e-5)
