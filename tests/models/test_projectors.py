import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ConfigError
from kdjax.models import PROJECTORS, make_projector, projectors

N = 4


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def projected(names, x, teacher_shape, seed=0):
    """The result, and the variables and new state of a projector, in float64."""
    projector = make_projector(names, x.shape, teacher_shape)
    variables = projector.init(jax.random.key(seed))
    out, state = projector.apply(variables, jnp.asarray(x))
    return jax.tree.map(lambda a: np.asarray(a, np.float64), (out, variables, state))


def close(got, want):
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def convolved(x, kernel, stride=1, pad=0):
    """`[n, h, w, c]` by sums over the pixels of the kernel, as in torch."""
    x = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    high, wide = (
        (a - k) // stride + 1 for a, k in zip(x.shape[1:3], kernel.shape, strict=False)
    )
    return sum(
        x[:, i : i + stride * high : stride, j : j + stride * wide : stride]
        @ kernel[i, j]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )


def transposed(x, kernel):
    """Every pixel adds the turned 4x4 kernel at twice its position, less one."""
    n, high, wide, _ = x.shape
    out = np.zeros((n, 2 * high + 2, 2 * wide + 2, kernel.shape[-1]))
    for i in range(high):
        for j in range(wide):
            for k in range(4):
                for m in range(4):
                    out[:, 2 * i + k, 2 * j + m] += x[:, i, j] @ kernel[3 - k, 3 - m]
    return out[:, 1:-1, 1:-1]


def normalized(x):
    """BatchNorm of scale 1 and bias 0 with the statistics of the batch."""
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)


@pytest.mark.parametrize("shape", [(N, 4, 5, 3), (N, 3)])
def test_linear_is_the_matrix_product_at_every_position(shape):
    x = draw(*shape)
    out, variables, state = projected("linear", x, (*shape[:-1], 7))
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (3, 7) and [*variables["params"]] == ["kernel"]
    assert not state
    close(out, x @ kernel)


def test_linear_keeps_the_scale_of_the_features():
    out, _, _ = projected("linear", 3 * draw(256, 64), (256, 128))
    assert 2.7 < out.std() < 3.3


@pytest.mark.parametrize(
    "ours, theirs, params",
    [((8, 6), (4, 3), (3, 3)), ((3, 2), (6, 4), (4, 4)), ((5, 4), (3, 3), (3, 2))],
)
def test_the_regressor_of_repdistiller(ours, theirs, params):
    """Stride 2, transposed and valid convolutions; BatchNorm and ReLU behind."""
    x = draw(N, *ours, 2)
    out, variables, state = projected("regressor", x, (N, *theirs, 5))
    layer = variables["params"]["layers_0"]
    assert layer["kernel"].shape == (*params, 2, 5)
    if params == (4, 4):
        y = transposed(x, layer["kernel"])
    elif params == (3, 3):
        y = convolved(x, layer["kernel"], 2, 1)
    else:
        y = convolved(x, layer["kernel"])
    close(out, np.maximum(normalized(y), 0))
    # PyTorch's momentum of 0.1.
    mean = state["batch_stats"]["layers_1"]["mean"]
    close(mean, 0.1 * y.mean((0, 1, 2)))


def test_the_other_maps_with_parameters():
    x = draw(N, 5, 4, 2)
    out, variables, state = projected("valid", x, (N, 3, 3, 6))
    close(out, convolved(x, variables["params"]["kernel"]))
    assert variables["params"]["kernel"].shape == (3, 2, 2, 6) and not state
    out, variables, state = projected("conv_bn", x, (N, 5, 4, 6))
    close(out, normalized(x @ variables["params"]["layers_0"]["kernel"]))
    assert [*variables["params"]["layers_0"]] == ["kernel"] and state
    out, variables, _ = projected("mlp", x, (N, 5, 4, 6))
    one, two = (variables["params"][f"layers_{i}"] for i in (0, 2))
    hidden = np.maximum(x @ one["kernel"], 0)
    assert hidden.shape[-1] == 6
    close(out, hidden @ two["kernel"])


def test_pooling_has_the_bins_of_torch():
    """For 7 to 4: [0, 2), [1, 4), [3, 6), [5, 7)."""
    x = draw(N, 7, 4, 3)
    out, variables, state = projected("pool", x, (N, 4, 2, 3))
    assert not variables and not state
    rows = [x[:, a:b].mean(1) for a, b in ((0, 2), (1, 4), (3, 6), (5, 7))]
    want = np.stack([np.stack([r[:, :2].mean(1), r[:, 2:].mean(1)], 1) for r in rows])
    close(out, np.swapaxes(want, 0, 1))
    close(projected("pool", x, (N, 8))[0], x.mean((1, 2)))


def test_resizing_has_the_values_of_torch():
    """`interpolate(mode="bilinear", align_corners=False)` of torch 2.13."""
    x = np.array([1.0, 2.0, 4.0, 8.0, 16.0], np.float32).reshape(1, 5, 1, 1)
    for size, want in (
        (2, [1.75, 10.0]),
        (8, [1.0, 1.4375, 2.125, 3.375, 5.25, 7.75, 12.5, 16.0]),
    ):
        out, variables, _ = projected("resize", x, (1, size, 1, 1))
        assert not variables
        close(out[0, :, 0, 0], np.array(want))


def test_channels_are_padded_or_left_out():
    x = draw(N, 2, 2, 3)
    padded, variables, _ = projected("pad", x, (N, 2, 2, 5))
    close(padded[..., :3], x)
    assert not padded[..., 3:].any() and not variables
    close(projected("slice", x, (N, 2, 2, 2))[0], x[..., :2])
    for name in ("pad", "slice", "pool", "resize"):
        close(projected(name, x, x.shape)[0], x)


def test_several_follow_one_another():
    x = draw(N, 8, 8, 3)
    out, variables, _ = projected(("pool", "linear"), x, (N, 4, 4, 5))
    pooled = x.reshape(N, 4, 2, 4, 2, 3).mean((2, 4))
    assert [*variables["params"]] == ["1"]
    close(out, pooled @ variables["params"]["1"]["kernel"])
    out, variables, state = projected(("resize", "conv_bn"), x, (N, 2, 2, 5))
    assert [*state["batch_stats"]] == ["1"] and out.shape == (N, 2, 2, 5)
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(
        variables["batch_stats"]
    )


def test_each_of_several_features_has_its_own():
    shapes = ((N, 4, 4, 3), (N, 2, 2, 5))
    both = projectors.each([make_projector("conv_bn", s, (*s[:-1], 6)) for s in shapes])
    variables = both.init(jax.random.key(0))
    features = tuple(jnp.asarray(draw(*s)) for s in shapes)
    out, state = both.apply(variables, features)
    for i, x in enumerate(features):
        kernel = variables["params"][str(i)]["layers_0"]["kernel"]
        close(out[i], normalized(np.asarray(x, np.float64) @ np.asarray(kernel)))
        assert state["batch_stats"][str(i)]


def test_they_are_differentiable_and_stack():
    projector = make_projector("linear", (4, 3), (4, 2))
    x = jnp.asarray(draw(4, 3))
    keys = jax.random.split(jax.random.key(0), 5)
    variables = jax.vmap(projector.init)(keys)
    grad = jax.grad(lambda v: projector.apply(v, x)[0][:, 0].sum())
    gradient = jax.jit(jax.vmap(grad))(variables)["params"]["kernel"]
    expected = np.stack([np.asarray(x).sum(0), np.zeros(3)], -1)
    np.testing.assert_allclose(
        gradient, np.broadcast_to(expected, (5, 3, 2)), atol=1e-6
    )


@pytest.mark.parametrize(
    "names, student, teacher, expected",
    [
        ("linear", (2, 4, 4, 3), (2, 8, 8, 3), "positions of the teacher's (2, 8, 8,"),
        ("linear", (2, 3), (3, 3), "positions of the teacher's (3, 3)"),
        ("linear", (2, 3), (2, 1, 3), "positions of the teacher's (2, 1, 3)"),
        ("linear", (3,), (3,), "features of two or more axes"),
        ("valid", (2, 4, 4, 3), (2, 8, 8, 3), "of at least the teacher's size"),
        ("valid", (2, 3), (2, 3), "maps for valid"),
        ("regressor", (2, 4, 2, 3), (2, 3, 3, 3), "maps for regressor"),
        ("pool", (2, 3), (2, 4, 4, 3), "features like (2, 4, 4, 3) for pool"),
        ("resize", (2, 4, 4, 3), (2, 3), "features like (2, 3) for resize"),
        ("pad", (2, 4), (2, 3), "at most 3 channels for pad"),
        ("slice", (2, 3), (2, 4), "at least 4 channels for slice"),
    ],
)
def test_shapes_that_do_not_fit_are_one_line(names, student, teacher, expected):
    with pytest.raises(ValueError) as error:
        make_projector(names, student, teacher)
    text = str(error.value)
    assert text.startswith("expected ") and "\n" not in text
    assert expected in text and text.endswith(f"got {student}")


def test_a_wrong_name_has_a_near_one():
    with pytest.raises(ConfigError, match="did you mean 'linear'?"):
        make_projector("linar", (2, 3), (2, 4))
    assert set(PROJECTORS) >= {"linear", "regressor", "mlp", "pool"}
