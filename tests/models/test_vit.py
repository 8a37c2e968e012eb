import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.vit import Size, ViT

SIZE = Size(8, 2, 2)
PLAIN = ViT(SIZE, 4, 3)
WITH_MAPS = ViT(SIZE, 4, 3, attention=True)
DEIT = ViT(SIZE, 4, 3, distilled=True)


def images(seed=0):
    return jax.random.normal(jax.random.key(seed), (2, 8, 12, 3))


@functools.cache
def weights(module):
    """Random in every leaf, so that no bias or token is zero."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), images())
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes)


@functools.partial(jax.jit, static_argnums=0)
def run(module, variables, x):
    return module.apply(variables, x)


def test_taps_are_named_and_shaped():
    logits, taps = run(PLAIN, weights(PLAIN), images())
    assert logits.shape == (2, 3)
    assert {name: tap.shape for name, tap in taps.items()} == {
        "stem": (2, 7, 8),
        "block0": (2, 7, 8),
        "block1": (2, 7, 8),
        "embedding": (2, 8),
    }


def test_attention_maps_are_tapped_when_asked_and_change_nothing():
    plain, taps = run(PLAIN, weights(PLAIN), images())
    logits, more = run(WITH_MAPS, weights(PLAIN), images())
    np.testing.assert_allclose(logits, plain, rtol=1e-3, atol=1e-4)
    assert set(more) - set(taps) == {"attention0", "attention1"}
    for name in ("attention0", "attention1"):
        assert more[name].shape == (2, 2, 7, 7)
        np.testing.assert_allclose(more[name].sum(-1), 1, rtol=1e-5)


def test_attention_maps_are_the_softmax_over_keys_by_hand():
    variables = weights(PLAIN)
    _, taps = run(WITH_MAPS, variables, images())
    layer = variables["params"]["Transformer"]["encoderblock_0"]
    x = np.asarray(taps["stem"], np.float64)
    norm = layer["LayerNorm_0"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * norm["scale"] + norm["bias"]
    part = layer["MultiHeadDotProductAttention_0"]
    q, k = (
        np.einsum("btd,dhs->bths", x, part[name]["kernel"]) + part[name]["bias"]
        for name in ("query", "key")
    )
    scores = np.einsum("bqhs,bkhs->bhqk", q, k) / np.sqrt(4)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    expected = scores / scores.sum(-1, keepdims=True)
    np.testing.assert_allclose(taps["attention0"], expected, rtol=1e-3, atol=1e-5)


def test_tokens_come_first_class_then_distillation():
    variables = weights(DEIT)
    _, taps = run(DEIT, variables, images())
    params = variables["params"]
    assert taps["stem"].shape == (2, 8, 8)
    for i, name in enumerate(("cls", "dist")):
        expected = params[name][0, 0] + params["pos_embedding"][0, i]
        np.testing.assert_allclose(taps["stem"][0, i], expected, rtol=1e-5)


def test_deit_says_the_mean_of_its_two_heads():
    variables = weights(DEIT)
    logits, taps = run(DEIT, variables, images())
    two = np.stack([taps["class_logits"], taps["distillation_logits"]])
    np.testing.assert_allclose(logits, two.mean(0), rtol=1e-5)
    head = variables["params"]["head"]
    expected = taps["embedding"] @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(taps["class_logits"], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(two[0] - two[1]).max() > 0.1


def test_patches_are_read_row_by_row():
    variables = weights(PLAIN)
    one = np.zeros((1, 8, 12, 3), np.float32)
    one[0, 4:, 8:] = 1  # The last of 2 x 3 patches.
    _, taps = run(PLAIN, variables, one)
    _, blank = run(PLAIN, variables, np.zeros_like(one))
    changed = np.abs(taps["stem"] - blank["stem"]).max((0, 2)) > 0
    assert changed.tolist() == [False] * 6 + [True]


@pytest.mark.parametrize("exact", [False, True])
def test_both_forms_of_gelu(exact):
    module = ViT(Size(8, 1, 2), 4, 3, exact_gelu=exact)
    text = str(jax.make_jaxpr(module.apply)(weights(module), images()))
    assert ("erf" in text) == exact and ("tanh" in text) != exact


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"images: expected .* multiples of 4, got"):
        run(PLAIN, weights(PLAIN), jnp.zeros((1, 8, 9, 3)))
    with pytest.raises(ValueError, match="size: expected .*, got 'XL'"):
        ViT("XL")
    with pytest.raises(ValueError, match="size: expected a width that heads divide"):
        ViT(Size(8, 1, 3))
    for field in ("patch", "classes"):
        with pytest.raises(ValueError, match=f"{field}: expected at least 1, got 0"):
            ViT(**{field: 0})
