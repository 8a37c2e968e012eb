"""Gray levels and edges of an image as the input of one network of a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import setup
from kdjax.cache import manifest
from kdjax.config import ConfigError, ModelConfig
from kdjax.core.types import BoundModel
from kdjax.models import from_function, zoo
from kdjax.models.modality import to_edges, to_gray, view_modality
from tests.strategies.methods.setting import draw


def echo():
    """A model whose logits are its images."""
    return from_function(lambda params, x: x.reshape(len(x), -1), params={})


def test_gray_is_the_luminance():
    images = draw(2, 3, 4, 3)
    want = np.float64(images) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(to_gray(jnp.asarray(images))[..., 0], want, rtol=1e-5)
    np.testing.assert_array_equal(to_gray(images[..., :1]), images[..., :1])
    # White stays 1, and black -1.
    for level in (1.0, -1.0):
        white = to_gray(jnp.full((1, 1, 1, 3), level))
        np.testing.assert_allclose(white, level, atol=1e-6)


def test_edges_by_hand():
    """A step from -1 to 1: a difference of 1 on both sides of it."""
    row = jnp.array([-1.0, -1, 1, 1])
    image = jnp.tile(row, (4, 1))[None, :, :, None]
    want = np.tile([-1, 2**0.5 - 1, 2**0.5 - 1, -1], (4, 1))
    np.testing.assert_allclose(to_edges(image)[0, ..., 0], want, atol=1e-6)
    # On both axes at once the edge is as steep as it can be.
    corner = jnp.array([[-1.0, -1, -1], [-1, 0, 1], [1, 1, 1]])[None, :, :, None]
    np.testing.assert_allclose(to_edges(corner)[0, 1, 1, 0], 1, atol=1e-6)
    flat = jnp.full((1, 3, 3, 1), 0.3)
    np.testing.assert_array_equal(to_edges(flat), -1)
    assert np.isfinite(jax.grad(lambda x: to_edges(x).sum())(flat)).all()


@pytest.mark.parametrize("name", ["gray", "edges"])
def test_a_network_of_one_modality_never_reads_color(name):
    """No change of color at one luminance reaches it, nor a gradient of it."""
    model, images = view_modality(echo(), name), jnp.asarray(draw(2, 4, 4, 3))
    # 0.299 * 0.114 - 0.114 * 0.299 = 0: red for blue.
    color = jnp.asarray(draw(2, 4, 4, 1, seed=1) * np.float32([0.114, 0, -0.299]))
    apply = jax.jit(lambda x: model.apply({"params": {}}, x)[0].logits)
    np.testing.assert_allclose(apply(images + color), apply(images), atol=1e-5)
    moved = jax.jvp(apply, (images,), (color,))[1]
    np.testing.assert_allclose(moved, 0, atol=1e-5)


def test_teacher_and_student_of_one_view_are_paired():
    """The student's input is the edges of the very pixels that the teacher gets."""
    config = ModelConfig("resnet", resolution=8)
    edges = dataclasses.replace(config, modality="edges")
    image, key = jnp.asarray(draw(2, 8, 8, 3)), jax.random.key(0)
    one = zoo.make_model(edges, 10)
    variables = one.init(key, image)
    plain = zoo.make_model(config, 10)
    got = one.apply(variables, image, train=False, rngs=None)[0]
    want = plain.apply(variables, to_edges(image), train=False, rngs=None)[0]
    np.testing.assert_array_equal(got.logits, want.logits)
    kernel = variables["params"]["Conv_0"]["kernel"]
    assert kernel.shape[2] == 1


def test_scale_and_modality_fit_or_are_refused():
    config = ModelConfig("resnet", resolution=8, modality="gray")
    image = jnp.zeros((1, 8, 8, 3))
    scaled = dataclasses.replace(config, normalization="cifar10")
    text = "^model.normalization: expected images of 3 channels for 'cifar10', got 1$"
    with pytest.raises(ConfigError, match=text):
        zoo.make_model(scaled, 10).init(jax.random.key(0), image)
    text = "^model.modality: expected images of 1 or 3 channels for 'gray', got 2$"
    with pytest.raises(ConfigError, match=text):
        zoo.make_model(config, 10).init(jax.random.key(0), image[..., :2])
    with pytest.raises(ValueError, match="^images: expected 1 or 3 channels, got 2$"):
        to_gray(image[..., :2])


def test_a_cache_of_another_modality_is_another(tiny_run):
    """Its manifest has scale and modality; without one it is as before."""

    def pixels(modality):
        run, config = tiny_run(), ModelConfig("resnet", resolution=8, modality=modality)
        bound = BoundModel(echo(), {}, None, 8, (config.input_scale,))
        source = setup.load_source(run, "train")
        return manifest.make_manifest(run, source, bound)["teacher"]["pixels"]

    assert pixels("image") == ["half"]
    assert pixels("edges") == ["symmetric of edges"]
