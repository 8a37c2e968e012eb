"""Deep mutual learning: fixtures, identical peers, and peers in one mapped call."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import jobs
from kdjax.config import ConfigError, Custom, ModelConfig, Network, labels_only
from kdjax.core.types import Batch
from kdjax.models import from_function, from_linen
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from kdjax.strategies.networks import apply_copies, apply_networks, init_networks
from kdjax.train import turns
from tests.e2e.linear_runs import linear
from tests.e2e.saved import saved
from tests.strategies.methods.resumption import check_resumes_bitwise

# Logits of two examples, their labels, and losses computed in float64 apart from kdjax.
FIRST, SECOND = [[1.0, 2, 3], [0.5, 0.5, 0]], [[2.0, 1, 0], [0, 3, 1]]
LABELS = (0, 1)
FROM_SECOND, FROM_FIRST = 0.8206359181, 0.9311233485
LABELS_OF_FIRST = 1.6828130262


def constant():
    """A network whose logits are its parameters."""
    return from_function(
        lambda params, x: params, init=lambda key, x: jnp.zeros((2, 3))
    )


def make(student, networks=None, **options):
    networks = networks or {}
    configs = dict.fromkeys(networks, Network(ModelConfig("resnet")))
    run = digits(strategy=Custom("mutual", options=options), steps=7, networks=configs)
    return make_strategy(run, student, None, classes=3, networks=networks)


def batch(**mixing):
    return Batch({"image": jnp.zeros((2, 1))}, jnp.array(LABELS), **mixing)


def losses_of(strategy, params, **mixing):
    state = {name: {} for name in params}
    call = jax.jit(lambda p, b: strategy.loss(p, state, b, {}, jax.random.key(0))[0])
    return call(params, batch(**mixing))


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def kl(teacher, student, temperature=1.0):
    p, q = (log_softmax(np.asarray(x) / temperature) for x in (teacher, student))
    return temperature**2 * (np.exp(p) * (p - q)).sum(-1).mean()


def cross_entropy(logits, labels=LABELS):
    return -log_softmax(logits)[np.arange(2), list(labels)].mean()


def test_two_peers_are_the_fixtures():
    """Each learns from the labels, and by the KL from the other."""
    params = {"student": jnp.array(FIRST), "peer1": jnp.array(SECOND)}
    values = losses_of(make(constant()), params)
    want = LABELS_OF_FIRST + FROM_SECOND
    np.testing.assert_allclose(values["student"], want, rtol=1e-6)
    want = cross_entropy(SECOND) + FROM_FIRST
    np.testing.assert_allclose(values["peer1"], want, rtol=1e-6)


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_three_peers_are_the_formula(named, in_turn):
    """The mean over the peers, copies of the student or networks of their own."""
    rng = np.random.default_rng(0)
    names = ["student", "a", "b"] if named else ["student", "peer1", "peer2"]
    logits = {name: rng.normal(size=(2, 3)) for name in names}
    networks = {name: constant() for name in names[1:]} if named else None
    options = {"weight": 0.5, "temperature": 2.0, "in_turn": in_turn}
    if not named:
        options["peers"] = 3
    strategy = make(constant(), networks, **options)
    params = {k: jnp.asarray(x, jnp.float32) for k, x in logits.items()}
    values = losses_of(strategy, params)
    for name, own in logits.items():
        soft = [kl(x, own, 2.0) for peer, x in logits.items() if peer != name]
        want = cross_entropy(own) + 0.5 * np.mean(soft)
        np.testing.assert_allclose(values[name], want, rtol=1e-5)
    moving = [(name,) for name in names] if in_turn else []
    assert turns.movers(strategy.turns) == moving


def test_identical_peers_exchange_nothing():
    """KL 0, and no gradient but that of the labels."""
    strategy = make(constant(), weight=3.0)
    params = {"student": jnp.array(FIRST), "peer1": jnp.array(FIRST)}
    values = losses_of(strategy, params)
    for value in values.values():
        np.testing.assert_allclose(value, LABELS_OF_FIRST, rtol=1e-6)
    grads = jax.grad(lambda p: sum(losses_of(strategy, p).values()))(params)
    want = (np.exp(log_softmax(FIRST)) - np.eye(3)[list(LABELS)]) / 2
    for grad in grads.values():
        np.testing.assert_allclose(grad, want, atol=1e-7)


def test_a_peer_is_a_constant_for_the_others():
    """The gradient of the sum is, for each network, that of its own loss."""
    strategy = make(constant())
    params = {"student": jnp.array(FIRST), "peer1": jnp.array(SECOND)}
    both = jax.grad(lambda p: sum(losses_of(strategy, p).values()))(params)
    own = jax.grad(lambda p: losses_of(strategy, p)["student"])(params)
    np.testing.assert_allclose(both["student"], own["student"], rtol=1e-6)
    assert not np.any(own["peer1"])


def test_mixed_labels_are_of_both_images():
    mixing = {"partner_labels": jnp.array([2, 2]), "mix_weight": jnp.float32(0.25)}
    params = {"student": jnp.array(FIRST), "peer1": jnp.array(SECOND)}
    got = losses_of(make(constant()), params, **mixing)["student"]
    labels = 0.25 * LABELS_OF_FIRST + 0.75 * cross_entropy(FIRST, (2, 2))
    np.testing.assert_allclose(got, labels + FROM_SECOND, rtol=1e-5)


class Normed(nn.Module):
    """A network with state, dropout and a tap."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(3)(x), {"hidden": x}


@pytest.mark.parametrize("unroll", [True, False])
def test_copies_in_one_call_have_the_values_of_the_loop(unroll):
    """Outputs, taps, statistics, dropout and gradients."""
    model, names = from_linen(Normed()), ["student", "peer1", "peer2"]
    networks = dict.fromkeys(names, model)
    x, key = jax.random.normal(jax.random.key(1), (5, 6)), jax.random.key(2)
    variables = init_networks(networks, jax.random.key(0), x)
    params = {name: v["params"] for name, v in variables.items()}
    state = {name: {"batch_stats": v["batch_stats"]} for name, v in variables.items()}
    state["memory"] = {"rows": jnp.ones(3)}

    def total(apply):
        def call(params):
            outputs, new = apply(params)
            weights = [(k + 1) * jnp.sum(outputs[n].logits ** 2) for k, n in numbered]
            return sum(weights), (outputs, new)

        numbered = list(enumerate(names))
        return jax.jit(jax.grad(call, has_aux=True))(params)

    loop = total(lambda p: apply_networks(networks, p, state, x, key))
    one = total(lambda p: apply_copies(names, model, p, state, x, key, unroll=unroll))
    assert jax.tree.structure(loop) == jax.tree.structure(one)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, loop, one)
    hidden = [np.asarray(loop[1][0][name].taps["hidden"]) == 0 for name in names]
    assert not np.array_equal(hidden[0], hidden[1])


def test_a_wrong_number_of_peers_is_refused():
    with pytest.raises(ConfigError, match="^strategy.options.peers: .*at least 2"):
        make(constant(), peers=1)
    with pytest.raises(
        ConfigError, match="^strategy.options.peers: .*0, as `networks`"
    ):
        make(constant(), {"other": constant()}, peers=2)


@pytest.mark.full
@pytest.mark.parametrize("in_turn", [False, True])
def test_a_run_of_three_peers_resumes_bitwise(tiny_run, tmp_path, in_turn):
    strategy = Custom("mutual", options={"peers": 3, "in_turn": in_turn})
    run = tiny_run(checkpoint_every=4, evaluate_every=4, seeds=2)
    run = labels_only(run, teacher=None, strategy=strategy)
    job = functools.partial(jobs.train, model=linear())
    folder = check_resumes_bitwise(job, run, tmp_path / "begun", crash_at=6)
    weights = [x for key, x in saved(folder).items() if "['params']" in key]
    assert len(weights) == 3 and len({x.tobytes() for x in weights}) == 3
