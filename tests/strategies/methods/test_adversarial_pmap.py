"""Adversarial strategies under pmap: losses and gradients are those of one device."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.strategies.methods.acgan import acgan
from kdjax.strategies.methods.critic_on_features import critic_on_features
from kdjax.strategies.methods.generated import generated
from kdjax.strategies.methods.kdgan import kdgan
from tests.strategies.methods import setting
from tests.strategies.methods.setting import CLASSES, N
from tests.strategies.methods.test_generated import (
    SIZE,
    classifier,
    linear_generator,
)


def on_features(axis_name):
    network = setting.network(width=CLASSES)
    return critic_on_features(network, penalty=1.0, axis_name=axis_name)


def three_players(axis_name):
    networks = [setting.network() for _ in range(3)]
    return kdgan(*networks, steps=2, axis_name=axis_name)


def gan(axis_name):
    networks = classifier(), linear_generator()
    return acgan(*networks, classes=CLASSES, axis_name=axis_name)


def on_generated(axis_name):
    networks = classifier(), classifier(), linear_generator()
    return generated(*networks, classes=CLASSES, axis_name=axis_name)


MAKERS = (on_features, three_players, gan, on_generated)


@pytest.mark.full
@pytest.mark.parametrize("make", MAKERS)
def test_two_devices_are_one(make):
    logits = jnp.asarray(setting.draw(N, CLASSES))
    vectors = setting.make_batch(setting.outputs(logits, embedding=logits))
    image = jnp.asarray(setting.draw(N, SIZE, SIZE, 1))
    frozen = {
        "teacher": classifier().init(jax.random.key(5), image),
        "generator": linear_generator().init(jax.random.key(6), image),
    }
    inputs = {"image": image, "teacher_image": image}
    batch = vectors
    if make in (gan, on_generated):
        batch = vectors._replace(inputs=inputs)
    one = make(None)
    params, state = setting.start(one, batch._replace(frozen=frozen))
    schedules, key = one.schedules(0), jax.random.key(1)

    def grade(strategy, params, batch):
        def total(params):
            args = state, batch._replace(frozen=frozen), schedules, key
            values, (_, metrics) = strategy.loss(params, *args)
            return sum(values.values()), (values, metrics)

        return jax.grad(total, has_aux=True)(params)

    def split(x):
        return x.reshape(2, N // 2, *x.shape[1:])

    expected = jax.jit(lambda p, b: grade(one, p, b))(params, batch)
    mapped = jax.pmap(
        lambda p, b: jax.lax.pmean(grade(make("batch"), p, b), "batch"),
        "batch",
        in_axes=(None, 0),
        devices=jax.devices()[:2],
    )
    got = mapped(params, jax.tree.map(split, batch))
    got, expected = jax.device_get((got, expected))
    got = jax.tree.map(lambda x: np.asarray(x)[0], got)
    chex.assert_trees_all_close(got, expected, rtol=2e-4, atol=1e-5)
