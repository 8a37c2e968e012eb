import json

import numpy as np
import pytest
from safetensors import numpy as safetensors

from kdjax.models.weights import SCHEMES, WeightsError, recognize
from kdjax.models.weights.families import CIFAR10, find_family
from kdjax.models.weights.files import read_arrays, read_shapes, write_arrays
from tests.models.weights import trees

BATCH = {"norm": "batch"}
# name, naming scheme, options of the network: resolution, scale or choices
FAMILIES = [
    ("bit_r50x1", "bit", {}, 224, "symmetric"),
    ("bit_r101x3", "bit", {"classes": 21_843}, 224, "symmetric"),
    ("bit_r152x2", "own", {"classes": 37}, 224, "symmetric"),
    ("bit_r101x1", "timm_bit", {}, 224, "symmetric"),
    ("resnet18", "torch_resnet", BATCH, 224, "imagenet"),
    ("resnet34", "torch_resnet", BATCH, 224, "imagenet"),
    ("resnet50", "torch_resnet", BATCH, 224, "imagenet"),
    ("resnet50", "torch_resnet", {**BATCH, "classes": 37}, 224, ""),
    ("resnet18_cifar", "torch_resnet", {**BATCH, "classes": 10}, 32, ""),
    ("resnet50_keras", "keras_resnet", BATCH, 224, "caffe"),
    ("resnet56", "torch_resnet_cifar", {**BATCH, "classes": 10}, 32, ""),
    ("resnet32x4", "torch_resnet_cifar", {**BATCH, "classes": 100}, 32, "cifar100"),
    ("mobilenet_v3_small", "torch_mobilenet_v3", BATCH, 224, "imagenet"),
    ("mobilenet_v3_large", "torch_mobilenet_v3", BATCH, 224, "imagenet"),
    ("efficientnet_lite0", "efficientnet_lite", BATCH, 224, "symmetric"),
    ("efficientnet_lite4", "efficientnet_lite", BATCH, 300, "symmetric"),
    ("efficientnet_lite0", "timm_efficientnet_lite", BATCH, 224, ""),
    ("efficientnet_lite1", "timm_efficientnet_lite", BATCH, 240, "symmetric"),
    ("efficientnet_lite2", "timm_efficientnet_lite", BATCH, 260, "symmetric"),
    ("efficientnet_lite3", "timm_efficientnet_lite", BATCH, 280, "symmetric"),
    ("vit_ti16", "big_vision_vit", {}, 224, "symmetric"),
    ("vit_s32", "big_vision_vit", {"side": 384}, 384, "symmetric"),
    ("vit_s16", "timm_vit", {}, 224, ""),
    ("vit_b32", "timm_vit", {"side": 384}, 384, ""),
    ("deit_ti16", "timm_vit", {}, 224, "imagenet"),
    ("deit_b16", "timm_vit", {"side": 384}, 384, "imagenet"),
]


# Tracing a large network takes a second or two.
_QUICK = ("resnet18", "resnet56", "resnet50_keras", "vit_ti16", "deit_ti16")


@pytest.mark.parametrize(
    "name, scheme, options, resolution, scale",
    [
        pytest.param(*x, marks=() if x[0] in _QUICK else pytest.mark.full)
        for x in FAMILIES
    ],
)
def test_families_are_recognized(name, scheme, options, resolution, scale):
    published = find_family(trees.published_shapes(name, scheme, **options))
    assert published is not None
    assert (published.name, published.resolution) == (name, resolution)
    assert published.classes == options.get("classes", 1000)
    assert published.norm == options.get("norm", "group")
    assert published.normalization == scale
    # A scale that names and shapes do not tell is left to the user.
    assert bool(published.choices) == (not scale)


def test_every_scheme_of_the_readme_is_among_the_families():
    assert {scheme for _, scheme, *_ in FAMILIES} == set(SCHEMES)


def test_cifar_resnets_without_projections_are_akamasters(tmp_path):
    file = tmp_path / "resnet20.safetensors"
    write_arrays(file, trees.akamaster(20))
    published = recognize(file)
    assert published is not None
    assert published.fields == {
        "name": "resnet20",
        "norm": "batch",
        "resolution": 32,
        "normalization": "imagenet",
    }
    assert published.class_names == CIFAR10 and published.classes == 10


def test_sizes_without_a_name_are_depth_and_width():
    shapes = trees.published_shapes(
        "resnet", "torch_resnet_cifar", classes=10, depth=26, width=12, norm="batch"
    )
    published = find_family(shapes)
    assert published is not None
    sizes = {k: published.fields[k] for k in ("name", "depth", "width")}
    assert sizes == {"name": "resnet", "depth": 26, "width": 12}


def test_similar_networks_are_not_taken_for_these():
    shapes = trees.published_shapes("resnet50", "torch_resnet", **BATCH)
    grouped = {**shapes, "layer1.0.conv2.weight": (128, 4, 3, 3)}
    assert find_family(grouped) is None
    lite = trees.published_shapes("efficientnet_lite0", "efficientnet_lite", **BATCH)
    assert find_family({**lite, "_blocks.0._se_reduce.weight": (8, 32, 1, 1)}) is None
    cifar = trees.published_shapes(
        "resnet20", "torch_resnet_cifar", classes=10, norm="batch"
    )
    assert find_family({**cifar, "layer1.0.conv3.weight": (64, 16, 1, 1)}) is None
    assert find_family({"weight": (2, 3)}) is None


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "json"])
def test_headers_have_the_shapes_of_the_arrays(suffix, tmp_path):
    arrays = {"a/b": np.ones((2, 3), np.float32), "c": np.float32(1) * np.ones(())}
    file = tmp_path / f"model.{suffix}"
    if suffix == "json":
        weights = [
            {"name": k, "shape": list(x.shape), "dtype": "float32"}
            for k, x in arrays.items()
        ]
        group = {"paths": ["shard"], "weights": weights}
        file.write_text(json.dumps({"weightsManifest": [group]}))
        data = b"".join(x.astype("<f4").tobytes() for x in arrays.values())
        (tmp_path / "shard").write_bytes(data)
    else:
        write_arrays(file, arrays)
    expected = {name: x.shape for name, x in read_arrays(file).items()}
    assert read_shapes(file) == expected == {"a/b": (2, 3), "c": ()}


def test_only_headers_are_read(tmp_path):
    file = tmp_path / "resnet20.safetensors"
    arrays = {name: np.array(x) for name, x in trees.akamaster(20).items()}
    content = safetensors.save(arrays)
    # The values may be anything: they are not looked at.
    file.write_bytes(content[:-4] + b"\xff\xff\xff\x7f")
    assert recognize(file).name == "resnet20"
    with pytest.raises(WeightsError, match="expected a file|nothing there"):
        recognize(tmp_path / "gone.npz")


@pytest.mark.parametrize(
    "mean, scale",
    [
        ([0.5, 0.5, 0.5], "symmetric"),
        ([0.485, 0.456, 0.406], "imagenet"),
        ([0.1, 0.2, 0.3], ""),
    ],
)
def test_timms_config_tells_the_scale(mean, scale, tmp_path):
    shapes = trees.published_shapes("vit_ti16", "timm_vit")
    file = tmp_path / "model.safetensors"
    write_arrays(file, {k: np.zeros(x, np.int8) for k, x in shapes.items()})
    std = [0.5] * 3 if scale == "symmetric" else [0.229, 0.224, 0.225]
    config = {"mean": mean, "std": std, "input_size": [3, 224, 224]}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": config}))
    published = recognize(file)
    assert (published.normalization, bool(published.choices)) == (scale, not scale)


def test_an_exported_student_brings_its_card(tmp_path):
    file = tmp_path / "weights.safetensors"
    write_arrays(file, {"params/Dense_0/bias": np.zeros(3, np.float32)})
    assert recognize(file) is None
    fields = {"name": "resnet", "depth": 14, "width": 4, "norm": "batch"}
    fields |= {"resolution": 8, "normalization": "unit"}
    card = {"file": file.name, "classes": ["a", "b", "c"], "model": fields}
    (tmp_path / "card.json").write_text(json.dumps(card))
    published = recognize(file)
    assert published.fields == fields and published.classes == 3
    assert published.class_names == ("a", "b", "c")
    # The card of another file, and a network that a file of the user's names.
    for changes in ({"file": "other"}, {"model": {**fields, "name": "net.py:make"}}):
        (tmp_path / "card.json").write_text(json.dumps({**card, **changes}))
        assert recognize(file) is None
