"""Networks of a run beside student and teacher: learning, frozen, started, refused."""

import dataclasses

import jax
import numpy as np
import pytest

import kdjax
from kdjax import setup
from kdjax.config import (
    HARD,
    Compute,
    ConfigError,
    Custom,
    ModelConfig,
    Network,
    Optim,
)
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from kdjax.train import sharding
from kdjax.train.checkpoint import Checkpoints

CODE = """
import jax
import jax.numpy as jnp

from kdjax import from_function, losses
from kdjax.strategies import Strategy, apply_network, init_networks


def linear(config, classes):
    return from_function(
        lambda params, x: x.reshape(len(x), -1) @ params["w"],
        init=lambda key, x: {"w": 0.1 * jax.random.normal(key, (x[0].size, classes))},
    )


def fixed(config, classes):
    return from_function(
        lambda params, x: x.reshape(len(x), -1) @ params["w"],
        init=lambda key, x: {"w": jnp.full((x[0].size, classes), 0.25)},
    )


def pair(student, peer, sensor, *, weight: float = 1.0):
    networks = {"student": student, "peer": peer}

    def init(key, batch):
        return init_networks(networks, key, batch.inputs["image"])

    def loss(params, state, batch, schedules, key):
        image, values = batch.inputs["image"], {}
        seen = sensor.apply(batch.frozen["sensor"], image, train=False)[0].logits
        for name, model in networks.items():
            out, state = apply_network(name, model, params, state, image, key)
            hard = losses.hard_cross_entropy(out.logits, batch.labels).mean()
            values[name] = hard + weight * (out.logits * seen).mean()
        return values, (state, {"seen": seen.mean()})

    return Strategy(init, loss)
"""


@pytest.fixture
def run(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    size = {"resolution": 8}
    return tiny_run(
        teacher=None,
        terms={"hard": HARD},
        model=ModelConfig("mine.py:linear", **size),
        strategy=Custom("mine.py:pair"),
        networks={
            "peer": Network(ModelConfig("mine.py:linear", **size)),
            "sensor": Network(ModelConfig("mine.py:fixed", **size), frozen=True),
        },
    )


def variables_of(folder, network):
    like = {"params": {"w": jax.ShapeDtypeStruct((1, 64, 10), np.float32)}}
    mesh = sharding.make_mesh(Compute(data=1), 1)
    like = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        like,
        sharding.state_sharding(mesh, like),
    )
    checkpoints = Checkpoints(folder)
    try:
        restored = checkpoints.restore_network(like, network)
    finally:
        checkpoints.close()
    return np.asarray(restored["params"]["w"])


def parts_of(run):
    return setup.make_parts(run, train=setup.load_source(run, "train"))


def test_a_frozen_network_is_a_constant_of_the_step(run):
    parts = parts_of(run)
    assert parts.frozen == ("teacher", "sensor")
    np.testing.assert_array_equal(parts.constants["sensor"]["params"]["w"], 0.25)
    state = parts.make_state(np.arange(1), parts.start)
    assert state.params.keys() == {"student", "peer"}


def test_each_network_has_its_own_optimizer_or_that_of_the_run(run):
    peer = dataclasses.replace(run.networks["peer"], optim=Optim(lr=0.5, warmup=0))
    run = dataclasses.replace(run, networks={**run.networks, "peer": peer})
    rates = parts_of(run).rates(1)
    assert rates["peer"]["lr"] == np.float32(0.5)
    assert rates["student"]["lr"] == np.float32(run.optim.lr)


@pytest.mark.full
def test_networks_train_and_a_later_run_starts_from_one(run, tmp_path):
    folder = kdjax.jobs.train(run)
    trained = {name: variables_of(folder, name) for name in ("student", "peer")}
    assert not np.array_equal(*trained.values())
    started = dataclasses.replace(
        run.networks["peer"],
        model=dataclasses.replace(run.model, weights=str(folder)),
        optim=Optim(lr=0.0, wd=0.0, warmup=0),
    )
    later = dataclasses.replace(
        run,
        workdir=str(tmp_path / "later"),
        networks={**run.networks, "peer": started},
    )
    again = variables_of(kdjax.jobs.train(later), "peer")
    np.testing.assert_array_equal(again, trained["student"])
    # Other weights of a network are another run.
    changed = dataclasses.replace(later, networks=run.networks)
    with pytest.raises(ValueError, match="networks.peer"):
        kdjax.jobs.train(changed)


def refused(run, **changes):
    run = dataclasses.replace(run, **changes)
    with pytest.raises(ConfigError) as error:
        run.check()
        setup.check_names(run)
        networks = dict.fromkeys(run.networks)
        make_strategy(run, None, None, classes=10, networks=networks)
    return str(error.value)


def test_networks_that_do_not_fit_the_strategy_are_refused(run):
    peer = run.networks["peer"]
    text = refused(run, networks={"peer": peer, "x": peer})
    assert text.startswith("networks.x: expected a network that mine.py:pair takes: ")
    text = refused(digits(teacher=None, terms={"hard": HARD}), networks={"x": peer})
    assert text.startswith("networks.x: expected none, without a strategy")
    text = refused(run, networks={**run.networks, "student": peer})
    assert text.startswith("networks.student: expected another name")
    text = refused(run, strategy=Custom("online"), networks={})
    assert text == (
        "networks.large: expected a network, as online trains it beside the student, "
        "got 'none'"
    )
    frozen = Network(ModelConfig("resnet20"), frozen=True)
    text = refused(run, networks={**run.networks, "sensor": frozen})
    assert text.startswith("networks.sensor.model.weights: expected weights, as it is")
    text = refused(run, networks={"peer": Network(ModelConfig("resnett"))})
    assert text.startswith("networks.peer.model.name: did you mean 'resnet'")
    text = refused(run, strategy=Custom("mutal"))
    assert text.startswith("strategy.function: did you mean 'mutual'?")
