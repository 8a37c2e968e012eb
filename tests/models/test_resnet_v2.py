import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.resnet_v2 import GroupNorm, ResNetV2, Root, StdConv, standardize


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def standardized(kernel):
    """In float64, one output at a time."""
    kernel = kernel.astype(np.float64)
    outputs = [
        (k - k.mean()) / np.sqrt(k.var() + 1e-10) for k in np.moveaxis(kernel, 3, 0)
    ]
    return np.stack(outputs, 3)


def test_kernels_are_standardized_for_each_output():
    kernel = 3 + 0.01 * noise(3, 3, 4, 5)
    np.testing.assert_allclose(
        standardize(jnp.asarray(kernel)), standardized(kernel), rtol=1e-3, atol=1e-3
    )


def test_epsilon_is_inside_the_root():
    # One kernel of variance 1e-10: 1 / sqrt(2e-10) of it is left.
    kernel = 1e-5 * np.array([-1.0, 1.0], np.float32).reshape(1, 1, 2, 1)
    got = standardize(jnp.asarray(kernel)).ravel()
    np.testing.assert_allclose(got, [-(0.5**0.5), 0.5**0.5], rtol=1e-4)


def test_a_constant_kernel_gives_zeros_and_finite_gradients():
    kernel = jnp.ones((1, 1, 2, 1))
    value, grad = jax.value_and_grad(lambda k: standardize(k).sum())(kernel)
    assert value == 0 and np.isfinite(grad).all()


def test_group_norm_has_32_groups_and_its_own_scale():
    x = 100 + noise(2, 3, 3, 64)
    scale, bias = 1 + noise(1, 1, 1, 64, seed=1), noise(1, 1, 1, 64, seed=2)
    got = GroupNorm().apply({"params": {"scale": scale, "bias": bias}}, x)
    groups = x.astype(np.float64).reshape(2, 3, 3, 32, 2)
    mean = groups.mean((1, 2, 4), keepdims=True)
    var = groups.var((1, 2, 4), keepdims=True)
    expected = ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * scale + bias
    # Far from zero: the mean of squares minus the squared mean would not do.
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_half_precision_stays_half_and_is_close():
    x = noise(2, 3, 3, 64)
    params = {"scale": np.ones((1, 1, 1, 64)), "bias": np.zeros((1, 1, 1, 64))}
    one = GroupNorm().apply({"params": params}, x)
    half = GroupNorm().apply({"params": params}, jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), one, rtol=0.02, atol=0.02)


def test_the_stem_pools_over_a_border_of_zeros():
    # All of the image gives -1: a border of minus infinity would leave -1 everywhere.
    kernel = np.zeros((7, 7, 2, 1), np.float32)
    kernel[3, 3] = [[1], [-1]]
    x = np.zeros((1, 16, 16, 2), np.float32)
    x[..., 1] = 1
    root = Root(1)
    params = {"params": {"conv_root": {"kernel": kernel}}}
    conv = standardized(kernel)[3, 3, 1, 0]
    got = np.asarray(root.apply(params, x))[0, :, :, 0]
    # The other weights are 0 after standardizing too: the mean is 0.
    assert conv < 0 and got.shape == (4, 4)
    np.testing.assert_allclose(got[0], 0)
    np.testing.assert_allclose(got[:, 0], 0)
    np.testing.assert_allclose(got[1:, 1:], conv, rtol=1e-5)


def test_convolutions_pad_every_side_also_at_stride_two():
    conv = StdConv(1, 3, 2)
    kernel = np.zeros((3, 3, 2, 1), np.float32)
    kernel[0, 0] = [[1], [-1]]
    x = noise(1, 8, 8, 2)
    got = np.asarray(conv.apply({"params": {"kernel": kernel}}, x))[0, :, :, 0]
    # Output 0 reads pixel -1, which is padding; output 1 reads pixel 1.
    assert got.shape == (4, 4) and not got[0].any()
    expected = np.einsum(
        "hwi,i->hw", x[0, 1::2, 1::2], standardized(kernel)[0, 0, :, 0]
    )
    np.testing.assert_allclose(got[1:, 1:], expected[:3, :3], rtol=1e-4, atol=1e-5)


def test_logits_start_at_zero():
    model = ResNetV2(26, 1, 5)
    head = jax.jit(lambda key, x: model.init(key, x)["params"]["head"])
    for leaf in jax.tree.leaves(head(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))):
        assert not np.asarray(leaf).any()


@pytest.mark.parametrize("field, value", [("depth", 34), ("width", 0), ("classes", 0)])
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .*, got {value!r}"):
        ResNetV2(**{field: value})
