import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ConfigError, ModelConfig
from kdjax.models import count_parameters, efficientnet_lite, mobilenet_v3, resnet
from kdjax.models.imagenet import MODELS
from tests.models import torch_cifar

# With 1000 classes: BiT as in big_vision's files, the others as torchvision 0.29 and
# timm 1.0.31 count them, the Keras form as Keras prints it (trainable parameters).
PUBLISHED = {
    "bit_r50x1": 25_549_352,
    "bit_r101x1": 44_541_480,
    "bit_r101x3": 387_934_888,
    "bit_r152x2": 236_335_208,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet50_keras": 25_583_592,
    "mobilenet_v3_small": 2_542_856,
    "mobilenet_v3_large": 5_483_032,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
    "vit_ti16": 5_717_416,
    "vit_s16": 22_050_664,
    "vit_s32": 22_878_952,
    "vit_b16": 86_567_656,
    "vit_b32": 88_224_232,
    "deit_ti16": 5_910_800,
    "deit_s16": 22_436_432,
    "deit_b16": 87_338_192,
}
# The feature maps at 224 px: side and channels.
STAGES = {
    "bit_r50x1": {"stem": (56, 64), "stage1": (56, 256), "stage4": (7, 2048)},
    "bit_r152x2": {"stem": (56, 128), "stage2": (28, 1024), "stage4": (7, 4096)},
    "resnet18": {"stem": (56, 64), "stage1": (56, 64), "stage4": (7, 512)},
    "resnet50": {"stem": (56, 64), "stage1": (56, 256), "stage4": (7, 2048)},
    "mobilenet_v3_small": {"stem": (112, 16), "stage1": (56, 16), "stage4": (7, 96)},
    "mobilenet_v3_large": {
        "stage1": (112, 16),
        "stage4": (14, 112),
        "stage5": (7, 160),
    },
    "efficientnet_lite0": {"stage1": (112, 16), "stage2": (56, 24), "stage5": (7, 320)},
    "efficientnet_lite4": {
        "stage1": (112, 24),
        "stage4": (14, 160),
        "stage5": (7, 448),
    },
}
EMBEDDING = {"bit_r101x3": 6144, "resnet34": 512, "mobilenet_v3_small": 1024} | {
    "mobilenet_v3_large": 1280,
    "efficientnet_lite3": 1280,
    "vit_b32": 768,
    "deit_ti16": 192,
}


@functools.cache
def shapes(name):
    """Variables and output at 224 px, without computing anything."""
    norm = "group" if name.startswith("bit") else "batch"
    module = MODELS[name](ModelConfig(name=name, norm=norm, resolution=8), 1000, None)
    images = jnp.zeros((2, 224, 224, 3))
    start = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
    return start[::-1]


def test_every_model_has_its_published_size():
    assert set(MODELS) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name):
    variables, (logits, taps) = shapes(name)
    assert count_parameters(variables) == PUBLISHED[name]
    assert logits.shape == (2, 1000)
    embedding = EMBEDDING.get(name, taps["embedding"].shape[1])
    assert taps["embedding"].shape == (2, embedding)
    head = variables["params"]["head"]["kernel"]
    assert head.shape == (embedding, 1000)
    for stage, (side, channels) in STAGES.get(name, {}).items():
        assert taps[stage].shape == (2, side, side, channels)


@pytest.mark.parametrize("name, leaves", [("bit_r50x1", 153), ("bit_r152x2", 459)])
def test_bit_has_as_many_leaves_as_published(name, leaves):
    variables, _ = shapes(name)
    assert set(variables) == {"params"}
    assert len(jax.tree.leaves(variables)) == leaves


def test_maps_are_named_in_order():
    names = list(shapes("mobilenet_v3_large")[1][1])
    # Taps come out of a trace as a dict sorted by name.
    assert names == ["embedding", *(f"stage{i}" for i in range(1, 6)), "stem"]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
def test_group_norm_has_no_state(name):
    module = MODELS[name](ModelConfig(name=name, norm="group", resolution=8), 10, None)
    variables = jax.eval_shape(
        module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )
    assert set(variables) == {"params"}


def test_bit_has_group_norm_only():
    with pytest.raises(ConfigError, match="^norm: expected group for bit_r50x1"):
        MODELS["bit_r50x1"](
            ModelConfig(name="bit_r50x1", norm="batch", resolution=8), 10, None
        )


# --- BatchNorm ------------------------------------------------------------------------

ROW = mobilenet_v3.Row(3, 16, 8, True, True, 1)
BLOCKS = {
    "resnet": lambda axis: resnet.Block(8, False, axis_name=axis),
    "mobilenet": lambda axis: mobilenet_v3.Block(ROW, axis_name=axis),
    "lite": lambda axis: efficientnet_lite.Block(8, 3, 1, 2, axis_name=axis),
}


@pytest.mark.full
@pytest.mark.parametrize("kind", BLOCKS)
def test_statistics_are_those_of_the_whole_batch_under_pmap(kind):
    devices = jax.device_count()
    assert devices == 8
    # Shards of different scale: their own statistics are far from the batch's.
    scale = np.repeat(np.arange(1.0, 9.0), 2)[:, None, None, None]
    x = scale * np.random.default_rng(0).standard_normal((16, 4, 4, 8))
    x = x.astype(np.float32)
    whole = BLOCKS[kind](None)
    variables = jax.jit(whole.init)(jax.random.key(0), x)

    def train(module):
        return lambda v, x: module.apply(v, x, True, mutable=["batch_stats"])

    expected, expected_state = jax.jit(train(whole))(variables, x)
    step = jax.pmap(train(BLOCKS[kind]("data")), "data", in_axes=(None, 0))
    got, state = step(variables, x.reshape(8, 2, 4, 4, 8))
    got = np.asarray(got).reshape(expected.shape)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    for one, all_devices in zip(
        jax.tree.leaves(expected_state), jax.tree.leaves(state), strict=True
    ):
        for device in np.asarray(all_devices):
            np.testing.assert_allclose(device, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "make, field, value",
    [
        (resnet.ResNet, "depth", 20),
        (resnet.ResNet, "norm", "layer"),
        (mobilenet_v3.MobileNetV3, "size", "medium"),
        (mobilenet_v3.MobileNetV3, "norm", "layer"),
        (efficientnet_lite.EfficientNetLite, "variant", 5),
        (efficientnet_lite.EfficientNetLite, "classes", 0),
    ],
)
def test_bad_fields_are_named(make, field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .*, got {value!r}"):
        make(**{field: value})


@pytest.mark.parametrize("name", ["bit_r50x1", "resnet18", "efficientnet_lite0"])
def test_bad_images_are_named(name):
    module = MODELS[name](ModelConfig(name=name, norm="group", resolution=8), 10, None)
    with pytest.raises(ValueError, match=r"images: expected .*\(8, 8, 3\)"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((8, 8, 3)))


def test_small_form_is_the_same_as_in_pytorch(monkeypatch):
    # One bottleneck a stage and every fourth pixel, to be fast.
    monkeypatch.setitem(resnet.BLOCKS, 50, (1, 1, 1, 1))
    module = resnet.ResNet(50, 5, small=True)
    images = np.float32(torch_cifar.images()[:2, ::4, ::4])
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    variables = jax.tree.map(np.float32, torch_cifar.fill(shapes))
    logits, taps = jax.jit(module.apply)(variables, images)
    expected = torch_cifar.EXPECTED["resnet_small"]
    np.testing.assert_allclose(logits, expected["eval"], rtol=1e-4, atol=1e-4)
    assert set(taps) == set(expected["taps"])
    for name, mark in expected["taps"].items():
        np.testing.assert_allclose(torch_cifar.mark(taps[name]), mark, atol=1e-4)
