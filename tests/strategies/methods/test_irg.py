"""IRG: all parts in float64, batches without distances, devices, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import Custom
from kdjax.strategies.methods.irg import irg
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


def edges(x):
    """Squared distances of all pairs over the largest."""
    x = x.reshape(len(x), -1)
    squares = np.square(x[:, None] - x[None]).sum(-1)
    return squares / squares.max()


def way(early, late):
    """Squared distances of 2x2 means and means of neighboring channels."""
    early = early.reshape(len(early), 2, 2, 2, 2, -1).mean((2, 4))
    late = (late[..., ::2] + late[..., 1::2]) / 2
    squares = np.square(early - late).sum((1, 2, 3))
    return squares / squares.max()


def test_the_loss_in_float64():
    batch = batch_of()
    options = {"vertex_weight": 0.2, "edge_weight": 3.0, "transformation_weight": 4.0}
    strategy = made("irg", taps=TAPS, **options)
    params, state = start(strategy, batch)
    total, _ = loss_of(strategy, params, state, batch)
    own, images = wide(params["student"]), wide(batch.inputs["image"])
    first = images @ own["first"]
    second = first.reshape(5, 2, 2, 2, 2, 2).mean((2, 4)) @ own["second"]
    ours = [first, second, second.mean((1, 2))]
    logits = ours[2] @ own["last"]
    theirs = [wide(batch.targets.taps[tap]) for tap in TAPS]
    want = cross_entropy(logits, batch.labels).mean()
    want += 0.2 * np.square(logits - wide(batch.targets.logits)).mean()
    pairs = zip(ours, theirs, strict=True)
    want += 3.0 * np.mean([np.square(edges(x) - edges(y)).mean() for x, y in pairs])
    want += 4.0 * np.square(way(*ours[:2]) - way(*theirs[:2])).mean()
    np.testing.assert_allclose(total, want, rtol=1e-5)


def test_images_that_are_all_the_same():
    """No distances: the edges are 0, and the gradient is finite."""
    batch = batch_of()
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), batch.targets)
    images = jnp.broadcast_to(batch.inputs["image"][:1], batch.inputs["image"].shape)
    batch = batch._replace(inputs={**batch.inputs, "image": images}, targets=same)
    strategy = made("irg", taps=TAPS)
    params, state = start(strategy, batch)
    graded = jax.value_and_grad(
        lambda p: loss_of(strategy, p, state, batch), has_aux=True
    )
    (_, (_, metrics)), grads = graded(params)
    np.testing.assert_allclose(metrics["edges"], 0, atol=1e-6)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.full
def test_devices_compare_the_whole_batch():
    """Under pmap each of two devices has half of the batch, and value and gradient
    are those of the whole."""
    whole = jax.tree.map(lambda x: x[:4], batch_of()._replace(frozen={}))
    one = irg(tapped(), axis_name=None, taps=TAPS)
    params, state = start(one, whole)

    def graded(batch, strategy):
        return jax.value_and_grad(
            lambda p: loss_of(strategy, p, state, batch)[0],
        )(params)

    want = graded(whole, one)
    halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), whole)
    several = irg(tapped(), axis_name="batch", taps=TAPS)
    found = jax.pmap(
        lambda batch: jax.lax.pmean(graded(batch, several), "batch"),
        "batch",
        devices=jax.devices()[:2],
    )(halves)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(
            a, jnp.broadcast_to(b, a.shape), rtol=1e-4, atol=1e-5
        )


def test_what_does_not_fit_is_one_line():
    batch, at = batch_of(), "strategy.options"

    def begin(**options):
        return start(made("irg", **options), batch)

    error = refused(begin, taps=("stage1",))
    assert error.startswith(f"{at}.taps: expected at least 2 taps, from early to late")
    error = refused(begin, taps=TAPS, teacher_taps=TAPS[:2])
    assert error.startswith(f"{at}.teacher_taps: expected 3 taps")
    expected = f"{at}.taps: expected two layers, the channels of the later a multiple"
    assert refused(begin, taps=("stage2", "stage1")).startswith(expected)
    assert refused(begin).startswith(f"{at}.taps: ")


@pytest.mark.full
def test_a_run_resumes_bitwise(tiny_run, tmp_path, monkeypatch):
    strategy = Custom("irg", options={"taps": TAPS})
    check_resumes(strategy, tiny_run, tmp_path, monkeypatch)
