"""VID: values in float64, the optimum of the variances, decay, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import Custom, Optim
from kdjax.train import optimizer
from tests.strategies.methods.tapped import (
    SIDE,
    batch_of,
    check_resumes,
    cross_entropy,
    loss_of,
    made,
    refused,
    start,
    wide,
)

TAPS = ("stage1", "embedding")


def test_the_loss_in_float64():
    """Cross-entropy, and the likelihoods of a map and a vector."""
    batch = batch_of()
    strategy = made("vid", taps=TAPS, weight=0.7)
    params, state = start(strategy, batch)
    total, (_, metrics) = loss_of(strategy, params, state, batch)

    weights, images = wide(params), wide(batch.inputs["image"])
    first = images @ weights["student"]["first"]
    second = first.mean((1, 2)) @ weights["student"]["second"]
    want = cross_entropy(second @ weights["student"]["last"], batch.labels).mean()
    for tap, x in (("stage1", first), ("embedding", second)):
        layers = weights["regressors"][tap]
        for i in (0, 2, 4):
            x = np.maximum(x, 0) if i else x
            x = x @ layers[f"layers_{i}"]["kernel"]
        a = weights["log variances"][tap]
        np.testing.assert_allclose(np.log1p(np.exp(a)) + 1e-5, 5.0, rtol=1e-6)
        gap = np.square(wide(batch.targets.taps[tap]) - x)
        value = (gap / 5 + np.log(5)).mean() / 2
        np.testing.assert_allclose(metrics[f"vid {tap}"], value, rtol=1e-5)
        want += 0.7 * value
    np.testing.assert_allclose(total, want, rtol=1e-5)


def test_zero_and_unit_residuals():
    """(log 5) / 2 where the regressor is exact, and 0.1 more at a distance of 1."""
    batch = batch_of()
    taps = {k: jnp.zeros_like(x) for k, x in batch.targets.taps.items()}
    strategy = made("vid", taps=("stage1",), label_weight=0.0)
    params, state = start(strategy, batch)
    for kernel in jax.tree.leaves(params["regressors"]):
        assert kernel.shape[-1] == 3
    params["regressors"] = jax.tree.map(jnp.zeros_like, params["regressors"])
    for shift, want in ((0.0, 0.8047189562), (1.0, 0.9047189562)):
        moved = {k: x + shift for k, x in taps.items()}
        shifted = batch._replace(targets=batch.targets._replace(taps=moved))
        total, _ = loss_of(strategy, params, state, shifted)
        np.testing.assert_allclose(total, want, rtol=1e-6)


def test_the_variance_moves_to_the_residual():
    """The gradient of `a` is 0 where v is the mean squared residual of the channel,
    and has the sign of v less that."""
    batch = batch_of()
    strategy = made("vid", taps=("stage1",), label_weight=0.0)
    params, state = start(strategy, batch)
    params["regressors"] = jax.tree.map(jnp.zeros_like, params["regressors"])
    best = jnp.square(batch.targets.taps["stage1"]).mean((0, 1, 2))

    def slope(variance):
        a = jnp.log(jnp.expm1(variance - 1e-5))
        moved = {**params, "log variances": {"stage1": a}}
        graded = jax.grad(lambda p: loss_of(strategy, p, state, batch)[0])
        return graded(moved)["log variances"]["stage1"]

    np.testing.assert_allclose(slope(best), 0, atol=1e-6)
    assert (slope(2 * best) > 0).all() and (slope(best / 2) < 0).all()


def test_the_larger_map_is_averaged():
    """A teacher's map of half the side: the student's is averaged to it."""
    batch = batch_of()
    strategy = made("vid", taps=("stage1",), teacher_taps=("stage2",), label_weight=0.0)
    params, state = start(strategy, batch)
    total, _ = loss_of(strategy, params, state, batch)
    weights = wide(params)
    x = wide(batch.inputs["image"]) @ weights["student"]["first"]
    x = x.reshape(len(x), SIDE // 2, 2, SIDE // 2, 2, -1).mean((2, 4))
    for i in (0, 2, 4):
        x = np.maximum(x, 0) if i else x
        x = x @ weights["regressors"]["stage1"][f"layers_{i}"]["kernel"]
    gap = np.square(wide(batch.targets.taps["stage2"]) - x)
    want = (gap / 5 + np.log(5)).mean() / 2
    np.testing.assert_allclose(total, want, rtol=1e-5)


def test_no_decay_of_the_variances():
    """SGD decays every parameter of the other networks, and no variance."""
    own = Optim("sgd", lr=0.1, wd=0.5, clip=0.0, warmup=0, parameters=("*",))
    strategy = made("vid", optim=own)
    assert {*strategy.optim} == {"log variances"}
    config = strategy.optim["log variances"]
    update, rates = optimizer.make_optimizer(config), optimizer.make_rates(config, 4)
    values = {"stage1": jnp.array([4.0, -1.0])}
    zeros = jax.tree.map(jnp.zeros_like, values)
    moved, _ = update.update(zeros, update.init(values), values, rates=rates(0))
    np.testing.assert_array_equal(moved["stage1"], 0)
    assert (config.name, config.lr) == ("sgd", 0.1)


def test_what_does_not_fit_is_one_line():
    batch = batch_of()

    def begin(given=batch, **options):
        return start(made("vid", **options), given)

    at = "strategy.options"
    assert refused(begin, taps=()).startswith(f"{at}.taps: expected one tap or several")
    want = f"{at}.teacher_taps: expected 2 taps, as many as of the student, or none"
    assert refused(begin, taps=TAPS, teacher_taps=("stage1",)).startswith(want)
    want = f"{at}.taps: expected one of"
    assert refused(begin, taps=("none",)).startswith(want)
    want = f"{at}.teacher_taps: expected one of"
    assert refused(begin, taps=("stage1",), teacher_taps=("x",)).startswith(want)
    want = "teacher: expected a teacher with the logits of all classes, got 'none'"
    assert refused(begin, batch._replace(targets=None)) == want


@pytest.mark.full
def test_a_run_resumes_bitwise(tiny_run, tmp_path, monkeypatch):
    strategy = Custom("vid", options={"taps": TAPS})
    end = check_resumes(strategy, tiny_run, tmp_path, monkeypatch)
    variances = [x for name, x in end.items() if "log variances" in name]
    assert variances
