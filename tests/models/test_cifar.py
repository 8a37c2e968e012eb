"""What the networks of the CIFAR tables have in common; nothing here is compiled."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from kdjax import config
from kdjax.models import count_parameters, from_linen, make_model
from kdjax.models.cifar import MODELS

# Numbers of learnable parameters for 100 classes. All were counted once in PyTorch
# (those of the tables on RepDistiller's definitions); what is published besides:
# [1] exact: osmr/imgclsmob, table "CIFAR-100" of its README
# [2] exact: quoted by users of SimKD's ResNet-32x4 (DefangChen/SimKD, arXiv 2203.14001)
# [3] exact: quoted for AugMix's WRN-40-2 (google-research/augmix, arXiv 1912.02781)
# [4] in millions: chenyaofo/pytorch-cifar-models, table "CIFAR-100" of its README
# [5] in millions: "Rocket Launching", arXiv 1708.04106, table 1 (10 classes)
# [6] in millions: He et al. 2016, arXiv 1512.03385, table 6 (10 classes, which are
#     5 850 parameters fewer)
# [7] in millions: "Wide Residual Networks", arXiv 1605.07146 (10 classes)
PARAMETERS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,  # [1]
    "resnet32": 472_756,  # [4] 0.47
    "resnet44": 667_188,  # [4] 0.67
    "resnet56": 861_620,  # [1]
    "resnet110": 1_736_564,  # [1]
    "resnet20_pad": 275_572,  # [6] 0.27
    "resnet32_pad": 470_004,  # [6] 0.46
    "resnet44_pad": 664_436,  # [6] 0.66
    "resnet56_pad": 858_868,  # [6] 0.85
    "resnet110_pad": 1_733_812,  # [6] 1.7
    "resnet18_cifar": 11_220_132,
    "resnet34_cifar": 21_328_292,
    "resnet50_cifar": 23_705_252,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,  # [2]
    "wrn_16_1": 180_916,  # [5] 0.2
    "wrn_16_2": 703_284,  # [5] 0.7
    "wrn_40_1": 569_780,  # [5] 0.6
    "wrn_40_2": 2_255_156,  # [3] [5] 2.2
    "wrn_16_8": 11_007_540,  # [7] 11.0
    "wrn_28_4": 5_872_180,
    "wrn_28_10": 36_536_884,  # [7] 36.5
    "wrn_40_4": 8_972_340,  # [7] 8.9
    "vgg8": 3_965_028,
    "vgg11": 9_277_284,
    "vgg13": 9_462_180,
    "vgg16": 14_774_436,
    "vgg19": 20_086_692,
    "mobilenet_v2_cifar": 812_836,
    "shufflenet_v1_cifar": 949_258,
    "shufflenet_v2_cifar": 1_355_528,  # [4] 1.36, with a 3x3 stem
    "shufflenet_v2_x1_5_cifar": 2_580_548,
    "plain_cnn_teacher": 273_444,
    "plain_cnn_student": 8_436,
}

# Teacher's parameters over student's, README of kaiqi123/cktf (arXiv 2303.07599).
RATIOS = {
    ("wrn_40_2", "wrn_16_2"): 3.21,
    ("wrn_40_2", "wrn_40_1"): 3.96,
    ("resnet56", "resnet20"): 3.1,
    ("resnet110", "resnet20"): 6.24,
    ("resnet110", "resnet32"): 3.67,
    ("resnet32x4", "resnet8x4"): 6.03,
    ("vgg13", "vgg8"): 2.39,
}

# Side and channels of the taps on images of 32, and the width of the embedding.
# "stageN_pre" is of the shape of "stageN".
STAGES = {
    "resnet20": ("stem 32 16, stage1 32 16, stage2 16 32, stage3 8 64", 64),
    "resnet8x4": ("stem 32 32, stage1 32 64, stage2 16 128, stage3 8 256", 256),
    "resnet18_cifar": (
        "stem 32 64, stage1 32 64, stage2 16 128, stage3 8 256, stage4 4 512",
        512,
    ),
    "wrn_16_2": ("stem 32 16, stage1 32 32, stage2 16 64, stage3 8 128", 128),
    "vgg8": (
        "stem 32 64, stage1 16 128, stage2 8 256, stage3 4 512, stage4 4 512",
        512,
    ),
    "mobilenet_v2_cifar": (
        "stem 16 16, stage1 16 12, stage2 8 16, stage3 4 48, stage4 2 160",
        1280,
    ),
    "shufflenet_v1_cifar": (
        "stem 32 24, stage1 16 240, stage2 8 480, stage3 4 960",
        960,
    ),
    "shufflenet_v2_cifar": (
        "stem 32 24, stage1 16 116, stage2 8 232, stage3 4 464",
        1024,
    ),
    "plain_cnn_teacher": ("stage1 32 64, stage2 16 128", 128),
    "plain_cnn_student": ("stage1 32 16, stage2 16 32", 32),
}
FAMILIES = tuple(STAGES)


def network(name, norm="batch", classes=100, axis_name=None):
    return MODELS[name](
        config.ModelConfig("resnet", norm=norm, resolution=8), classes, axis_name
    )


def images(side=32):
    return jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)


@functools.cache
def shapes(name, norm="batch"):
    """Shapes of `(logits, taps)` and of the variables."""
    module = network(name, norm)
    return jax.eval_shape(module.init_with_output, jax.random.key(0), images())


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_the_published_ones(name):
    assert count_parameters(shapes(name)[1]) == PARAMETERS[name]


@pytest.mark.parametrize("teacher, student", RATIOS)
def test_teachers_are_as_much_larger_as_published(teacher, student):
    large, small = (count_parameters(shapes(name)[1]) for name in (teacher, student))
    assert abs(large / small - RATIOS[teacher, student]) < 0.011


# The networks of the CIFAR-100 tables of RepDistiller, mdistiller, SimKD and logit
# standardization, as they are called here.
TABLES = """wrn_40_2 wrn_16_2 wrn_40_1 resnet56 resnet20 resnet110 resnet32 resnet32x4
    resnet8x4 vgg13 vgg8 mobilenet_v2_cifar resnet50_cifar shufflenet_v1_cifar
    shufflenet_v2_cifar shufflenet_v2_x1_5_cifar resnet18_cifar""".split()


@pytest.mark.parametrize("name", TABLES)
def test_the_networks_of_the_tables_have_names(name):
    model = make_model(config.ModelConfig(name=name, norm="batch", resolution=8), 100)
    variables = jax.eval_shape(model.init, jax.random.key(0), images())
    assert count_parameters(variables) == PARAMETERS[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_taps_are_named_and_shaped(name):
    (logits, taps), _ = shapes(name)
    places, width = STAGES[name]
    expected = {"embedding": (2, width)}
    for tap, side, channels in map(str.split, places.split(",")):
        shape = (2, int(side), int(side), int(channels))
        expected[tap] = shape
        if tap != "stem" and name != "mobilenet_v2_cifar":
            expected[f"{tap}_pre"] = shape
        if name == "wrn_16_2":
            expected[f"{tap}_raw"] = shape
    assert {tap: x.shape for tap, x in taps.items()} == expected
    assert logits.shape == (2, 100)


@pytest.mark.parametrize("name", FAMILIES)
def test_group_norm_takes_the_place_of_every_batch_norm(name):
    batch, group = shapes(name)[1], shapes(name, "group")[1]
    assert set(batch) == {"params", "batch_stats"} and set(group) == {"params"}
    assert count_parameters(group) == count_parameters(batch)


@pytest.mark.full
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_batch_norm_knows_the_axis_and_whether_it_is_training(name, train):
    found = set()

    def look(call, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm):
            m = context.module
            found.add((m.axis_name, m.use_running_average, m.momentum, m.epsilon))
        return call(*args, **kwargs)

    module = network(name, axis_name="data")
    with nn.intercept_methods(look):
        jax.eval_shape(
            lambda key, x: module.init(key, x, train=train),
            jax.random.key(0),
            images(),
        )
    assert found == {("data", not train, 0.9, 1e-5)}


@pytest.mark.full
@pytest.mark.parametrize("name", FAMILIES)
def test_only_training_changes_the_state(name):
    model = from_linen(network(name))
    variables = jax.eval_shape(model.init, jax.random.key(0), images())

    def changed(train):
        def states(variables):
            _, state = model.apply(variables, jnp.zeros((2, 32, 32, 3)), train=train)
            pairs = zip(
                jax.tree.leaves(state["batch_stats"]),
                jax.tree.leaves(variables["batch_stats"]),
                strict=True,
            )
            marks.extend(new is not old for new, old in pairs)
            return state

        marks = []
        jax.eval_shape(states, variables)
        return marks

    assert all(changed(train=True)) and not any(changed(train=False))


@pytest.mark.parametrize("name", FAMILIES)
def test_bad_images_are_named(name):
    module = network(name)
    with pytest.raises(ValueError, match=r"images: expected .*\(32, 32, 3\)"):
        jax.eval_shape(
            module.init, jax.random.key(0), jax.ShapeDtypeStruct((32, 32, 3), "float32")
        )


def test_larger_images_fit():
    for name in FAMILIES:
        module = network(name, classes=7)
        run = functools.partial(module.init_with_output, jax.random.key(0))
        (logits, _), _ = jax.eval_shape(run, images(64))
        assert logits.shape == (2, 7)
