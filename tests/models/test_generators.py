"""Generators and critics of images: shapes, range, statistics, spectral norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ConfigError, ModelConfig
from kdjax.models import generators, make_model

AT = "kdjax.models.generators"


def named(name, size=8, **options):
    return make_model(ModelConfig(f"{AT}:{name}", resolution=size, **options), 10)


def test_a_generator_has_the_size_and_channels_of_the_images():
    """Any size, with values in [-1, 1]; BatchNorm moves in training alone."""
    for size, channels in ((8, 1), (7, 3)):
        model = named("image_generator", size, width=1)
        images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        codes = jax.ShapeDtypeStruct((5, generators.LATENT), jnp.float32)
        output, _ = jax.eval_shape(model.apply, variables, codes)
        assert output.taps["image"].shape == (5, size, size, channels)
        assert output.logits.shape == (5, size * size * channels)


def test_a_generator_in_training_and_evaluation():
    model = named("class_generator", width=1)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    codes = generators.class_codes(jax.random.key(1), jnp.arange(6) % 3, 10)
    assert codes.shape == (6, generators.LATENT + 10)
    np.testing.assert_array_equal(codes[:, -10:].argmax(-1), [0, 1, 2, 0, 1, 2])
    apply = jax.jit(model.apply, static_argnames="train")
    output, new = apply(variables, 9 * codes, train=True)
    images = np.asarray(output.taps["image"])
    assert np.abs(images).max() <= 1 and np.abs(images).max() > 0.3
    old = variables["batch_stats"]
    assert not np.array_equal(new["batch_stats"]["norm0"]["mean"], old["norm0"]["mean"])
    _, same = apply(variables, codes, train=False)
    np.testing.assert_array_equal(
        same["batch_stats"]["norm0"]["mean"], old["norm0"]["mean"]
    )


def test_another_size_is_refused():
    with pytest.raises(ConfigError, match=r"^model\.resolution: expected 8, as the"):
        named("image_generator", 16).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


def test_a_critic_with_spectral_norm():
    """After many power iterations each kernel is divided by its largest singular value.

    A plain critic of the divided kernels then has the same outputs.
    """
    spectral = named("spectral_critic", width=1)
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    variables = jax.jit(spectral.init)(jax.random.key(0), images)

    def iterate(_, stats):
        state = {"params": variables["params"], **stats}
        return spectral.apply(state, images, train=True)[1]

    stats = {"batch_stats": variables["batch_stats"]}
    stats = jax.jit(lambda s: jax.lax.fori_loop(0, 200, iterate, s))(stats)
    output, _ = jax.jit(spectral.apply)({**variables, **stats}, images)

    def divide(path, kernel):
        if path[-1].key != "kernel":
            return kernel
        matrix = np.float64(kernel).reshape(-1, kernel.shape[-1])
        return kernel / np.linalg.norm(matrix, 2)

    divided = jax.tree_util.tree_map_with_path(divide, variables["params"])
    plain = named("image_critic", width=1)
    plain, _ = jax.jit(plain.apply)({"params": divided}, images)
    np.testing.assert_allclose(output.logits, plain.logits, atol=1e-4)
    np.testing.assert_allclose(output.taps["score"], plain.taps["score"], atol=1e-4)
    assert output.taps["score"].shape == (4,)
