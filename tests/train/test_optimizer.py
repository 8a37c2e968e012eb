"""The recipes' optimizers against hand-worked values (funmatch.md 2.5)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.config import ConfigError, Optim
from kdjax.train import optimizer

CONSTANT = Optim(lr=0.01, wd=1e-3, warmup=0, schedule="constant")


def one_update(optim, params, grads, steps=100):
    tx, rates = optimizer.make_optimizer(optim), optimizer.make_rates(optim, steps)
    updates, _ = tx.update(grads, tx.init(params), params, rates=rates(0))
    return optax.apply_updates(params, updates)


def test_one_step_of_the_paper():
    """w = 1, g = 0.5, lr 0.01, wd 1e-3, m = 1: kernel 0.989, bias 0.990."""
    params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    grads = {"kernel": jnp.full((1, 1), 0.5), "bias": jnp.full(1, 0.5)}
    new = one_update(CONSTANT, params, grads)
    np.testing.assert_allclose(new["kernel"], 0.989, atol=1e-6)
    np.testing.assert_allclose(new["bias"], 0.990, atol=1e-6)


def test_the_first_step_of_a_warm_up_changes_nothing():
    params = {"kernel": jnp.ones((2, 2))}
    warm = dataclasses.replace(CONSTANT, warmup=5)
    new = one_update(warm, params, {"kernel": jnp.full((2, 2), 0.5)})
    np.testing.assert_array_equal(new["kernel"], params["kernel"])


@pytest.mark.parametrize(
    "step, want", [(0, 0), (750, 0.5), (1500, 1), (3984, 0.500158), (6469, 0)]
)
def test_cosine_with_warm_up(step, want):
    m = optimizer.multiplier(Optim(warmup=1500), 6469)
    np.testing.assert_allclose(m(step), want, atol=1e-6)


@pytest.mark.parametrize(
    "epoch, want", [(0, 1), (149, 1), (151, 0.1), (181, 0.01), (211, 0.001)]
)
def test_steps_of_the_cifar_recipe(epoch, want):
    """x 0.1 after epochs 150, 180 and 210 of 240, here 10 updates an epoch."""
    m = optimizer.multiplier(Optim(schedule="steps", warmup=0), 2400)
    np.testing.assert_allclose(m(epoch * 10), want, rtol=1e-6)


def test_steps_count_from_the_start_of_the_run_whatever_the_warm_up():
    m = optimizer.multiplier(Optim(schedule="steps", warmup=100), 2400)
    np.testing.assert_allclose([m(50), m(1499), m(1501)], [0.5, 1, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    "optim",
    [
        Optim(lr=0.3, wd=0.2, warmup=3),
        Optim(warmup=0),
        Optim(schedule="steps", warmup=2),
        Optim(schedule="constant", warmup=0),
    ],
)
def test_the_rates_of_an_update_are_those_of_the_schedule(optim):
    rates, m = optimizer.make_rates(optim, 20), optimizer.multiplier(optim, 20)
    for step in range(20):
        found = rates(step)
        assert all(x.dtype == np.float32 for x in found.values())
        assert (found["lr"], found["wd"]) == (
            np.float32(optim.lr),
            np.float32(optim.wd),
        )
        np.testing.assert_allclose(found["m"], m(step), rtol=1e-6, atol=1e-7)


def adam(grads, lr, wd, decayed, mu_dtype):
    """Independent float64 Adam with the paper's decay.

    The first moment is rounded where optax, and so the paper's trainer, rounds it: as
    stored, and once more when it is multiplied by b1.
    """
    rounded = lambda x: float(jnp.asarray(x, mu_dtype))  # noqa: E731
    w, mu, nu = 1.0, 0.0, 0.0
    for t, g in enumerate(grads, 1):
        exact = rounded(rounded(0.9) * mu) + 0.1 * g
        nu = 0.999 * nu + 0.001 * g * g
        direction = (exact / (1 - 0.9**t)) / (np.sqrt(nu / (1 - 0.999**t)) + 1e-8)
        mu = rounded(exact)
        w -= lr * direction + (wd * w if decayed else 0.0)
    return w


def test_adam_over_several_steps_with_a_bfloat16_first_moment():
    grads = [0.5, -0.1, 0.3, 0.02, -0.4]
    tx = optimizer.make_optimizer(CONSTANT)
    rates = optimizer.make_rates(CONSTANT, 100)
    params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    state = tx.init(params)
    moments = [x for x in jax.tree.leaves(state) if x.dtype == jnp.bfloat16]
    assert len(moments) == 2
    for step, g in enumerate(grads):
        like = jax.tree.map(lambda x, g=g: x * 0 + g, params)
        updates, state = tx.update(like, state, params, rates=rates(step))
        params = optax.apply_updates(params, updates)
    for name, decayed in (("kernel", True), ("bias", False)):
        want = adam(grads, 0.01, 1e-3, decayed, jnp.bfloat16)
        np.testing.assert_allclose(params[name].item(), want, atol=2e-5)


def test_gradients_are_clipped_at_global_norm_one():
    """SGD shows it: a gradient of norm 5 moves as far as one of norm 1."""
    plain = Optim(name="sgd", lr=1.0, wd=0, momentum=0, warmup=0, schedule="constant")
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    grads = {"a": jnp.full(1, 3.0), "b": jnp.full(1, 4.0)}
    new = one_update(plain, params, grads)
    np.testing.assert_allclose([new["a"][0], new["b"][0]], [-0.6, -0.8], rtol=1e-6)
    free = one_update(dataclasses.replace(plain, clip=0.0), params, grads)
    np.testing.assert_allclose([free["a"][0], free["b"][0]], [-3, -4], rtol=1e-6)


def test_sgd_with_momentum_and_coupled_decay():
    """v = 0.9 v + g + wd w; w -= lr v, on biases too. Two steps by hand."""
    optim = Optim(name="sgd", lr=0.1, wd=0.5, clip=0, warmup=0, schedule="constant")
    tx, rates = optimizer.make_optimizer(optim), optimizer.make_rates(optim, 10)
    params = {"bias": jnp.ones(1)}
    state = tx.init(params)
    for step, g in enumerate((1.0, 2.0)):
        grads = {"bias": jnp.full(1, g)}
        updates, state = tx.update(grads, state, params, rates=rates(step))
        params = optax.apply_updates(params, updates)
    # v1 = 1.5, w1 = 0.85; v2 = 1.35 + 2 + 0.425 = 3.775, w2 = 0.4725
    np.testing.assert_allclose(params["bias"], [0.4725], rtol=1e-6)


def test_sgd_clips_the_gradient_alone_and_decays_after():
    """(3, 4) is clipped to (0.6, 0.8); then half of w = (2, -1) is added."""
    optim = Optim(name="sgd", lr=1.0, wd=0.5, momentum=0, warmup=0, schedule="constant")
    params = {"w": jnp.array([2.0, -1.0])}
    new = one_update(optim, params, {"w": jnp.array([3.0, 4.0])})
    np.testing.assert_allclose(new["w"], [2 - 1.6, -1 - 0.3], rtol=1e-6)


def test_kernels_only_and_matrices_where_nothing_is_called_kernel():
    named = {"conv": {"kernel": jnp.ones((3, 3)), "scale": jnp.ones((1, 1, 4))}}
    mask = optimizer.kernel_mask(named)
    assert mask == {"conv": {"kernel": True, "scale": False}}
    plain = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    assert optimizer.kernel_mask(plain) == {"w": True, "b": False}


def test_networks_are_optimized_apart():
    """One network's huge gradient does not clip another's; each has its own rates."""
    plain = Optim(name="sgd", lr=1.0, wd=0, momentum=0, warmup=0, schedule="constant")
    slow = dataclasses.replace(plain, lr=0.25)
    one = optimizer.make_optimizer(plain)
    rates = optimizer.network_rates({"student": plain, "critic": slow}, 10)
    tx = optimizer.by_network({"student": one, "critic": one})
    params = {"student": {"w": jnp.zeros(1)}, "critic": {"w": jnp.zeros(1)}}
    grads = {"student": {"w": jnp.full(1, 0.5)}, "critic": {"w": jnp.full(1, 1e6)}}
    updates, _ = tx.update(grads, tx.init(params), params, rates=rates(0))
    np.testing.assert_allclose(updates["student"]["w"], [-0.5], rtol=1e-6)
    np.testing.assert_allclose(updates["critic"]["w"], [-0.25], rtol=1e-6)


def test_one_step_of_muon():
    """A kernel's momentum orthogonalised by five Newton-Schulz iterations, as long as
    Adam's update, and decayed; the rest by Adam with Nesterov's momentum."""
    rng = np.random.RandomState(0)
    weight, grad = rng.randn(2, 3, 3, 4), 0.01 * rng.randn(2, 3, 3, 4)
    params = {"kernel": jnp.asarray(weight, "f"), "bias": jnp.ones(1)}
    grads = {"kernel": jnp.asarray(grad, "f"), "bias": jnp.full(1, 0.5)}
    muon = dataclasses.replace(CONSTANT, name="muon", clip=0.0)
    new = one_update(muon, params, grads)
    x = grad.reshape(18, 4) / np.linalg.norm(grad)
    for _ in range(5):
        a = x.T @ x
        x = 3.4445 * x + x @ (-4.7750 * a + 2.0315 * a @ a)
    want = weight - 0.01 * 0.2 * np.sqrt(18) * x.reshape(weight.shape) - 1e-3 * weight
    np.testing.assert_allclose(new["kernel"], want, atol=2e-5)
    # (0.9 * 0.05 / 0.19 + 0.1 * 0.5 / 0.1) / 0.5
    np.testing.assert_allclose(new["bias"], 1 - 0.01 * (0.09 / 0.19 + 1), atol=1e-6)


PARAMS = {
    "stage1": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.ones((2, 1))},
}


@pytest.mark.parametrize("name", ["adam", "sgd", "muon"])
def test_parameters_outside_the_patterns_do_not_move_nor_decay(name):
    """The others move as if they were alone: the gradient is clipped without them."""
    optim = dataclasses.replace(CONSTANT, name=name, wd=0.1)
    grads = jax.tree.map(lambda x: 3.0 * x, PARAMS)
    some = dataclasses.replace(optim, parameters=("stage1/*",))
    new = one_update(some, PARAMS, grads)
    np.testing.assert_array_equal(new["head"]["kernel"], PARAMS["head"]["kernel"])
    alone = {"stage1": PARAMS["stage1"]}, {"stage1": grads["stage1"]}
    want = one_update(optim, *alone)
    for leaf in ("kernel", "bias"):
        np.testing.assert_array_equal(new["stage1"][leaf], want["stage1"][leaf])
        assert not np.array_equal(new["stage1"][leaf], PARAMS["stage1"][leaf])


def test_patterns_leave_out_the_name_of_the_network():
    labels = optimizer.label_parameters({"student": PARAMS}, ("head/*",), "student")
    assert labels["student"]["head"]["kernel"] == "moves"
    assert set(jax.tree.leaves(labels["student"]["stage1"])) == {"stays"}


def test_a_pattern_of_no_parameter_is_refused():
    text = (
        "^optim.parameters: expected a pattern of parameters, which are head/kernel, "
        "stage1/bias, stage1/kernel, got 'stage2/\\*'$"
    )
    with pytest.raises(ConfigError, match=text):
        one_update(dataclasses.replace(CONSTANT, parameters=("stage2/*",)), PARAMS, {})
