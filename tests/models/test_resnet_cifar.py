import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import ResNetCifar, count_parameters, from_linen
from kdjax.models.resnet_cifar import BasicBlock
from kdjax.models.weights import load_weights, save_weights
from tests.models import torch_cifar


def images(batch=4, side=8, seed=0):
    return jax.random.normal(jax.random.key(seed), (batch, side, side, 3))


NETS = {norm: from_linen(ResNetCifar(8, 2, 3, norm)) for norm in ("batch", "group")}


@functools.cache
def start(norm):
    """Weights serve images of any size, so every test has the same."""
    return jax.jit(NETS[norm].init)(jax.random.key(0), images())


@functools.partial(jax.jit, static_argnames=("norm", "train"))
def run(norm, variables, x, train=False):
    return NETS[norm].apply(variables, x, train=train)


def parameters_of(depth, width, classes):
    """By hand: a norm has two numbers a channel, no convolution has a bias."""
    n = (depth - 2) // 6
    w = width
    stem = 3 * 3 * 3 * w + 2 * w
    stage1 = n * (2 * 9 * w * w + 2 * 2 * w)
    total = stem + stage1
    for c in (2 * w, 4 * w):
        first = 9 * (c // 2) * c + 9 * c * c + 2 * 2 * c
        projection = (c // 2) * c + 2 * c
        total += first + projection + (n - 1) * (18 * c * c + 2 * 2 * c)
    return total + 4 * w * classes + classes


@pytest.mark.parametrize("depth, width", [(8, 2), (14, 4), (20, 16), (56, 16)])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_parameters_are_those_counted_by_hand(depth, width, norm):
    model = from_linen(ResNetCifar(depth, width, 10, norm))
    variables = jax.eval_shape(model.init, jax.random.key(0), images(1, 32))
    assert count_parameters(variables) == parameters_of(depth, width, 10)


def test_resnet20_is_the_published_size_but_for_the_projections():
    # He et al. count 0.27M with parameter-free shortcuts (option A), 269,722 in all.
    # Option B adds two 1x1 projections and their norms: 16 * 32 + 2 * 32 at stage 2,
    # 32 * 64 + 2 * 64 at stage 3.
    assert parameters_of(20, 16, 10) == 272_474
    assert 272_474 - (16 * 32 + 64) - (32 * 64 + 128) == 269_722


@pytest.mark.full
def test_taps_are_named_and_shaped():
    (logits, taps), state = run("group", start("group"), images(2, 9))
    assert {name: tap.shape for name, tap in taps.items()} == {
        "stem": (2, 9, 9, 2),
        "stage1": (2, 9, 9, 2),
        "stage2": (2, 5, 5, 4),
        "stage3": (2, 3, 3, 8),
        "stage1_pre": (2, 9, 9, 2),
        "stage2_pre": (2, 5, 5, 4),
        "stage3_pre": (2, 3, 3, 8),
        "embedding": (2, 8),
    }
    assert logits.shape == (2, 3) and state == {}
    for stage in ("stem", "stage1", "stage2", "stage3"):
        assert taps[stage].min() == 0 and taps[stage].max() > 0
    mean = np.asarray(taps["stage3"], np.float64).mean((1, 2))
    np.testing.assert_allclose(taps["embedding"], mean, rtol=1e-5)


def test_head_reads_the_embedding():
    variables = start("group")
    head = variables["params"]["Dense_0"]
    output, _ = run("group", variables, images())
    expected = output.taps["embedding"] @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(output.logits, expected, rtol=1e-5, atol=1e-6)


def test_padding_is_one_pixel_on_every_side():
    # Mirroring the images and every kernel mirrors the activations, at stride 2 on odd
    # sides, only if the padding is the same on both sides.
    x = images(2, 9)
    variables = start("group")
    flip = jax.tree.map(lambda p: p[:, ::-1] if p.ndim == 4 else p, variables["params"])
    plain, _ = run("group", variables, x)
    mirrored, _ = run("group", {"params": flip}, x[:, :, ::-1])
    np.testing.assert_allclose(mirrored.logits, plain.logits, rtol=1e-4, atol=1e-5)


def test_group_norm_has_no_state_and_examples_do_not_meet():
    variables = start("group")
    assert set(variables) == {"params"}
    whole, _ = run("group", variables, images(), train=True)
    part, _ = run("group", variables, images()[:2], train=True)
    np.testing.assert_allclose(whole.logits[:2], part.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_batch_norm_mixes_examples_in_training_only():
    variables = start("batch")
    assert set(variables) == {"params", "batch_stats"}
    for train in (True, False):
        whole, _ = run("batch", variables, images(), train=train)
        part, _ = run("batch", variables, images()[:2], train=train)
        difference = jnp.abs(whole.logits[:2] - part.logits).max()
        assert difference > 1e-2 if train else difference < 1e-5


def test_running_statistics_are_biased_with_momentum_point_nine():
    variables = start("batch")
    _, state = run("batch", variables, images(), train=True)
    kernel = variables["params"]["Conv_0"]["kernel"]
    x = jax.lax.conv_general_dilated(
        images(), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = np.asarray(x, np.float64)
    new = state["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(new["mean"], 0.1 * x.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(new["var"], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("axis_name", ["data", None])
def test_axis_name_makes_pmap_see_the_whole_batch(axis_name):
    devices = 8
    assert jax.device_count() == devices
    split = from_linen(ResNetCifar(8, 2, 3, "batch", axis_name))
    # Shards of different scale: their own statistics are far from the batch's.
    scale = jnp.repeat(jnp.arange(1.0, devices + 1), 2)[:, None, None, None]
    x = images(2 * devices) * scale
    variables = start("batch")
    expected, expected_state = run("batch", variables, x, train=True)
    step = jax.pmap(
        lambda v, x: split.apply(v, x, train=True), "data", in_axes=(None, 0)
    )
    output, state = step(variables, x.reshape(devices, 2, *x.shape[1:]))
    logits = np.asarray(output.logits).reshape(expected.logits.shape)
    closest = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)[None]).max()),
        state,
        expected_state,
    )
    if axis_name is None:
        assert np.abs(logits - expected.logits).max() > 1e-2
        assert max(jax.tree.leaves(closest)) > 1e-2
    else:
        np.testing.assert_allclose(logits, expected.logits, rtol=1e-3, atol=1e-4)
        assert max(jax.tree.leaves(closest)) < 1e-4


@pytest.mark.parametrize(
    "field, value",
    [
        ("depth", 10),
        ("depth", 2),
        ("width", 0),
        ("classes", 0),
        ("norm", "layer"),
        ("stem", 0),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .*, got {value!r}"):
        ResNetCifar(**{field: value})


def test_bad_images_are_named():
    with pytest.raises(ValueError, match=r"images: expected .*\(8, 8, 3\)"):
        run("batch", start("batch"), images()[0])


def test_same_as_in_pytorch(float64):
    got = torch_cifar.answers(ResNetCifar(8, 4, 5, stem=3))
    torch_cifar.assert_same(got, torch_cifar.EXPECTED["resnet"])


@pytest.mark.full
def test_padded_shortcuts_take_every_second_pixel_between_zeros():
    block = BasicBlock(4, 2, "batch", pad=True)
    x = images(1, 6)[..., :2]
    variables = jax.jit(block.init)(jax.random.key(0), x)
    blank = jax.tree.map(jnp.zeros_like, variables)
    got = block.apply(blank, x)
    assert got.shape == (1, 3, 3, 4) and "Conv_2" not in variables["params"]
    np.testing.assert_array_equal(got[..., 1:3], x[:, ::2, ::2])
    np.testing.assert_array_equal(got[..., jnp.array([0, 3])], 0)


@pytest.mark.full
def test_weights_with_padded_shortcuts_train_in_the_padded_form_only(tmp_path):
    """The projections that stand in for them are normalized in training."""
    x = images()
    padded, projected = (ResNetCifar(8, 4, 3, pad=pad) for pad in (True, False))
    variables = torch_cifar.fill(jax.eval_shape(padded.init, jax.random.key(0), x))
    path = tmp_path / "padded.safetensors"
    save_weights(variables, path, names="torch_resnet_cifar")

    def logits(module, train):
        shapes = jax.eval_shape(module.init, jax.random.key(0), x)
        model = from_linen(module)
        run = jax.jit(functools.partial(model.apply, train=train))
        return run(load_weights(shapes, path), x)[0].logits

    same = logits(padded, False), logits(projected, False)
    np.testing.assert_allclose(*same, rtol=1e-4, atol=1e-5)
    assert jnp.abs(logits(padded, True) - logits(projected, True)).max() > 0.1
