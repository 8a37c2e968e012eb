"""ReviewKD: the fusion in float64, its warm-up, what learns, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import Custom
from kdjax.strategies.methods.review_kd import Fusion, nearest, review_kd
from tests.strategies.methods.tapped import (
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

TAPS = ("stage1", "stage2", "embedding")
NOW = {"weight": jnp.float32(0.7)}


def normalized(x, params):
    """BatchNorm with the statistics of the batch."""
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    x = (x - mean) / np.sqrt(variance + 1e-5)
    return x * params["scale"] + params["bias"]


def convolved(x, kernel):
    """3x3 with zeros around, as a sum over the 9 pixels."""
    high, wide = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + high, j : j + wide] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


def context_loss(gap):
    """Maps of 4, 2 or 1 pixels a side, and their means of halves, down to 1x1."""
    total, weight, weights = np.square(gap).mean(), 1.0, 1.0
    while gap.shape[1] > 1:
        n, side, _, channels = gap.shape
        gap = gap.reshape(n, side // 2, 2, side // 2, 2, channels).mean((2, 4))
        weight /= 2
        weights += weight
        total += weight * np.square(gap).mean()
    return total / weights


def test_the_loss_in_float64():
    """Three blocks from the embedding to the first stage, with attention in two."""
    batch = batch_of()
    strategy = made("review_kd", taps=TAPS)
    params, state = start(strategy, batch)
    total, (new, metrics) = loss_of(strategy, params, state, batch, NOW)

    weights, images = wide(params), wide(batch.inputs["image"])
    own, fusion = weights["student"], weights["fusion"]
    first = images @ own["first"]
    second = first.reshape(5, 2, 2, 2, 2, 2).mean((2, 4)) @ own["second"]
    embedding = second.mean((1, 2))
    maps = [embedding[:, None, None], second, first]
    # The order of the calls: a block has two convolutions, from the second on three.
    convs, fused, want = iter(range(8)), None, 0.0
    for number, (x, tap) in enumerate(zip(maps, TAPS[::-1], strict=True)):
        kernel = fusion[f"Conv_{next(convs)}"]["kernel"][0, 0]
        x = normalized(x @ kernel, fusion[f"BatchNorm_{2 * number}"])
        if fused is not None:
            later = fused.repeat(2, 1).repeat(2, 2)
            attention = fusion[f"Conv_{next(convs)}"]
            both = np.concatenate([x, later], -1)
            z = both @ attention["kernel"][0, 0] + attention["bias"]
            share = 1 / (1 + np.exp(-z))
            x = share[..., :1] * x + share[..., 1:] * later
        fused = x
        result = convolved(x, fusion[f"Conv_{next(convs)}"]["kernel"])
        result = normalized(result, fusion[f"BatchNorm_{2 * number + 1}"])
        target = wide(batch.targets.taps[tap])
        want += context_loss(result - target.reshape(result.shape))
    np.testing.assert_allclose(metrics["review"], want, rtol=1e-4)
    task = cross_entropy(embedding @ own["last"], batch.labels).mean()
    np.testing.assert_allclose(total, task + 0.7 * want, rtol=1e-4)
    moved = new["fusion"]["batch_stats"], state["fusion"]["batch_stats"]
    assert jax.tree.structure(moved[0]) == jax.tree.structure(moved[1])


def test_each_map_has_all_later_ones_and_no_earlier():
    """The first result reaches every block, and the last one its own alone."""
    fusion = Fusion(((2, 2, 3), (1, 1, 3)), 512, None)
    rng = np.random.default_rng(0)
    shapes = ((5, 2, 2, 2), (5, 1, 1, 2))
    maps = [jnp.asarray(rng.normal(size=x), jnp.float32) for x in shapes]
    variables = jax.jit(fusion.init)(jax.random.key(0), maps)

    @jax.jit
    def reached(maps):
        def results(maps):
            found, _ = fusion.apply(variables, maps, mutable=["batch_stats"])
            return [jnp.sum(x**3) for x in found]

        return jax.jacrev(results)(maps)

    first, last = reached(maps)
    assert all(jnp.abs(x).max() > 1e-3 for x in first)
    assert not last[0].any() and jnp.abs(last[1]).max() > 1e-3


def test_the_weight_rises():
    strategy = review_kd(tapped(), steps=240, axis_name=None, weight=0.6, warmup=0.25)
    found = [strategy.schedules(step)["weight"] for step in (0, 30, 60, 239)]
    np.testing.assert_allclose(found, [0, 0.3, 0.6, 0.6])
    at_once = review_kd(tapped(), steps=240, axis_name=None, weight=0.6, warmup=0.0)
    assert at_once.schedules(0)["weight"] == 0.6


def test_nearest_pixels():
    """Larger, smaller and uneven, by torch's rule."""
    x = jnp.arange(3.0)[None, :, None, None] * jnp.ones((1, 3, 1, 1))
    assert nearest(x, 6, 1)[0, :, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert nearest(x, 2, 1)[0, :, 0, 0].tolist() == [0, 1]
    assert nearest(x, 4, 2)[0, :, 1, 0].tolist() == [0, 0, 1, 2]


def test_what_does_not_fit_is_one_line():
    batch, at = batch_of(), "strategy.options"

    def begin(**options):
        return start(made("review_kd", **options), batch)

    error = refused(begin, taps=("stage1",))
    assert error.startswith(f"{at}.taps: expected at least 2 taps, from early to late")
    error = refused(begin, taps=TAPS, teacher_taps=TAPS[:2])
    assert error.startswith(f"{at}.teacher_taps: expected 3 taps")
    assert refused(begin).startswith(f"{at}.taps: ")
    error = refused(begin, taps=TAPS, warmup=2.0)
    assert error == f"{at}.warmup: expected a share in [0, 1], got 2.0"
    error = refused(begin, taps=TAPS, most_channels=0)
    assert error == f"{at}.most_channels: expected at least 1, got 0"


@pytest.mark.full
def test_a_run_resumes_bitwise(tiny_run, tmp_path, monkeypatch):
    strategy = Custom("review_kd", options={"taps": TAPS, "warmup": 0.5})
    end = check_resumes(strategy, tiny_run, tmp_path, monkeypatch)
    assert any("fusion" in name and "batch_stats" in name for name in end)
