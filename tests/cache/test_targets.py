"""Stored targets: what is kept of a teacher, and what comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.cache import targets
from kdjax.core.types import Output, TopTargets, View

LOGITS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32) * 3


def output():
    return Output(jnp.asarray(LOGITS), {"middle": jnp.ones((6, 2), jnp.bfloat16)})


def log_softmax(z):
    z = np.float64(z)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def test_all_classes_come_back_bit_for_bit():
    stored = targets.keep(output(), taps=("middle",))
    assert stored["logits"].dtype == np.float32
    found = targets.unpack(stored)
    assert isinstance(found, Output)
    np.testing.assert_array_equal(found.logits, LOGITS)
    np.testing.assert_array_equal(found.taps["middle"], np.ones((6, 2)))
    assert sum(x.nbytes for k, x in stored.items() if k == "logits") == 6 * (
        targets.bytes_per_view(5, 0)
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_top_k_classes(temperature):
    stored = targets.keep(output(), top_k=2, temperature=temperature)
    assert sum(x.nbytes for x in stored.values()) == 6 * (4 + 4 * 2)
    assert targets.bytes_per_view(5, 2) == 4 + 4 * 2
    found = targets.unpack(stored)
    assert isinstance(found, TopTargets)
    log_p = log_softmax(LOGITS)
    order = np.argsort(-log_p, axis=-1)[:, :2]
    np.testing.assert_array_equal(found.indices, order)
    kept = np.take_along_axis(log_p, order, -1)
    # Half precision: 11 bits.
    np.testing.assert_allclose(found.log_probs, kept, rtol=5e-4, atol=1e-6)
    normaliser = np.log(np.exp(log_p / temperature).sum(-1))
    np.testing.assert_allclose(found.log_normalizer, normaliser, atol=1e-5)


@pytest.mark.parametrize("tail", ["uniform", "bucket", "renormalize"])
@pytest.mark.parametrize("stored", [4, 0])
def test_fewer_classes_than_are_kept_have_the_divergence_of_that_many(stored, tail):
    """In double precision from the logits: what is not kept follows the tail rule."""
    stored = targets.keep(output(), top_k=stored, temperature=2.0)
    found = targets.unpack(stored, top_k=2, temperature=2.0)
    assert isinstance(found, TopTargets) and found.indices.shape == (6, 2)
    student = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    values = losses.top_k_kl(
        jnp.asarray(student),
        found.log_probs,
        teacher_indices=found.indices,
        teacher_log_normalizer=found.log_normalizer,
        temperature=2.0,
        tail=tail,
    )
    p, q = (np.exp(log_softmax(x / 2.0)) for x in (LOGITS, student))
    order = np.argsort(-LOGITS, axis=-1)
    p, q = (np.take_along_axis(x, order, -1) for x in (p, q))
    if tail == "uniform":
        p[:, 2:] = p[:, 2:].mean(-1, keepdims=True)
    elif tail == "bucket":
        p, q = (np.c_[x[:, :2], x[:, 2:].sum(-1)] for x in (p, q))
    else:
        p, q = (x[:, :2] / x[:, :2].sum(-1, keepdims=True) for x in (p, q))
    want = 4.0 * (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(values, want, rtol=5e-3, atol=2e-3)


def test_many_classes_need_wider_indices():
    many = jax.eval_shape(
        lambda z: targets.keep(Output(z, {}), top_k=3), jnp.zeros((2, 2**16 + 1))
    )
    assert many["indices"].dtype == np.uint32
    assert targets.bytes_per_view(2**16 + 1, 3) == 4 + 6 * 3


def test_replayed_targets_come_with_the_batch_and_fixed_ones_by_index():
    view = View(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))
    stored = targets.keep(output())
    found = targets.replayed_teacher().targets(
        {}, view, {"rows": {"targets": stored}}, {}
    )
    np.testing.assert_array_equal(found.logits, LOGITS)
    batch = {"rows": {"index": jnp.array([3, 0, 3])}}
    found = targets.fixed_teacher().targets({}, view, batch, {"targets": stored})
    np.testing.assert_array_equal(found.logits, LOGITS[[3, 0, 3]])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"top_k": 6}, "top_k: expected 0 to 5 classes, got 6"),
        ({"top_k": -1}, "top_k: expected 0 to 5 classes, got -1"),
        ({"taps": ("end",)}, r"taps: expected some of \['middle'\], got 'end'"),
    ],
)
def test_what_cannot_be_kept_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        targets.keep(output(), **options)
