"""Families of published networks, recognized by the names and shapes of their arrays.

Where the same names were published for several pixel scales, the scale is left open: it
is never guessed.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from kdjax.models.efficientnet_lite import RESOLUTIONS, SCALES, stages
from kdjax.models.weights.files import Shapes

# Blocks of each stage.
Counts = tuple[int, ...]
IMAGENET_CLASSES = 1000
# ImageNet-21k, with and without a background class.
_LARGE_HEADS = (IMAGENET_CLASSES, 21_841, 21_843)
# In the order of the data set's numbers, which is that of the alphabet.
CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


class Published(NamedTuple):
    """A published network: fields of `ModelConfig`, and its classes.

    publisher: where such files come from, in words.
    name, norm, resolution, depth, width: as in `ModelConfig`.
    classes: number of logits.
    normalization: the pixel scale of its training; empty where the file does not tell.
    choices: the pixel scales that such files have, for whoever has to choose.
    class_names: in the order of the logits; empty where unknown.
    """

    publisher: str
    name: str
    norm: str
    resolution: int
    classes: int
    normalization: str = ""
    choices: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    depth: int | None = None
    width: int | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `ModelConfig` that the file determines, by name."""
        names = ("name", "norm", "resolution", "normalization", "depth", "width")
        values = {name: getattr(self, name) for name in names}
        return {name: x for name, x in values.items() if x not in (None, "")}


def find_family(shapes: Shapes) -> Published | None:
    """The published network whose arrays have these names and shapes, if any has."""
    prefixes = ("module.", "params/")
    plain = {
        functools.reduce(str.removeprefix, prefixes, name): shape
        for name, shape in shapes.items()
        if not name.endswith("num_batches_tracked")
    }
    found = (family(plain) for family in _FAMILIES)
    return next((x for x in found if x is not None), None)


def _cifar_resnet(shapes: Shapes) -> Published | None:
    """ResNets of three stages, in PyTorch's names."""
    stem, first = shapes.get("conv1.weight"), shapes.get("layer1.0.conv1.weight")
    head = shapes.get("fc.weight") or shapes.get("linear.weight")
    counts = _counts(shapes, r"layer(\d)\.(\d+)\.conv1\.weight")
    is_basic = "layer1.0.conv3.weight" not in shapes
    if not (stem and first and head and is_basic) or len(set(counts)) != 1:
        return None
    if len(counts) != 3 or stem[2:] != (3, 3):
        return None
    depth, sizes = 6 * counts[0] + 2, (stem[0], first[0])
    name, size = f"resnet{depth}", (None, None)
    if sizes == (32, 64) and depth in (8, 32):
        name = f"{name}x4"
    elif sizes != (16, 16) or depth not in (8, 14, 20, 32, 44, 56, 110):
        if stem[0] != first[0]:
            return None
        name, size = "resnet", (depth, first[0])
    has_projections = any(".downsample." in x or ".shortcut." in x for x in shapes)
    fields = name, _norm(shapes), 32, head[0]
    published = Published("a CIFAR ResNet in PyTorch's names", *fields)
    published = published._replace(depth=size[0], width=size[1])
    if head[0] == 10 and "linear.weight" in shapes and not has_projections:
        # The trainer of akamaster/pytorch_resnet_cifar10 has ImageNet's statistics.
        publisher = "akamaster/pytorch_resnet_cifar10"
        known = published._replace(publisher=publisher, class_names=CIFAR10)
        return known._replace(normalization="imagenet")
    if head[0] == 100 and "fc.weight" in shapes and has_projections:
        publisher = "RepDistiller or pytorch-cifar-models"
        return published._replace(publisher=publisher, normalization="cifar100")
    return published._replace(choices=("cifar10", "cifar100", "imagenet"))


def _torch_resnet(shapes: Shapes) -> Published | None:
    """ResNets of four stages, of torchvision and timm."""
    stem, head = shapes.get("conv1.weight"), shapes.get("fc.weight")
    counts = _counts(shapes, r"layer(\d)\.(\d+)\.conv1\.weight")
    is_bottleneck = "layer1.0.conv3.weight" in shapes
    depths: dict[tuple[Counts, bool], int] = {
        ((2, 2, 2, 2), False): 18,
        ((3, 4, 6, 3), False): 34,
        ((3, 4, 6, 3), True): 50,
    }
    depth = depths.get((counts, is_bottleneck))
    # Wider and grouped ones have other kernels in their first block.
    if not (stem and head and depth) or stem[:2] != (64, 3):
        return None
    if shapes.get("layer1.0.conv2.weight") != (64, 64, 3, 3):
        return None
    if stem[2:] == (3, 3):
        choices = ("cifar10", "cifar100", "imagenet")
        fields = f"resnet{depth}_cifar", _norm(shapes), 32, head[0]
        return Published("a ResNet for small images", *fields, choices=choices)
    fields = f"resnet{depth}", _norm(shapes), 224, head[0]
    return _of_imagenet(Published("torchvision or timm", *fields), "imagenet")


def _keras_resnet(shapes: Shapes) -> Published | None:
    head = shapes.get("fc1000/kernel")
    if "res2a_branch2a/kernel" not in shapes or head is None:
        return None
    fields = "resnet50_keras", "batch", 224, head[1]
    return _of_imagenet(Published("Keras", *fields), "caffe")


def _bit(shapes: Shapes) -> Published | None:
    """BiT in the names of Big Transfer, of big_vision (those here too) and of timm."""
    if any(name.endswith("running_mean") for name in shapes):
        return None  # timm's ResNet-v2 with BatchNorm.
    plain = {
        re.sub(r"standardized_conv2d_\d+/", "standardized_conv2d/", name): shape
        for name, shape in shapes.items()
    }
    for publisher, (prefix, stem, unit, head) in _BIT_NAMES.items():
        stem, head = plain.get(prefix + stem), plain.get(prefix + head)
        if not (stem and head):
            continue
        is_torch = publisher == "timm"
        width, classes = (stem[0], head[0]) if is_torch else (stem[-1], head[-1])
        depths: dict[Counts, int] = {
            (3, 4, 6, 3): 50,
            (3, 4, 23, 3): 101,
            (3, 8, 36, 3): 152,
        }
        depth = depths.get(_counts(plain, re.escape(prefix) + unit))
        name = f"bit_r{depth}x{width // 64}"
        if name in ("bit_r50x1", "bit_r101x1", "bit_r101x3", "bit_r152x2"):
            # All of them, fine-tuned ones included, were trained on [-1, 1].
            fields = name, "group", 224, classes, "symmetric"
            return Published(f"BiT of {publisher}", *fields)
    return None


# publisher: prefix of all names, stem, first kernel of a unit, head
_BIT_NAMES = {
    "Big Transfer": (
        "resnet/",
        "root_block/standardized_conv2d/kernel",
        r"block(\d)/unit(\d+)/a/standardized_conv2d/kernel",
        "head/conv2d/kernel",
    ),
    "big_vision": (
        "",
        "root_block/conv_root/kernel",
        r"block(\d)/unit(\d+)/conv1/kernel",
        "head/kernel",
    ),
    "timm": (
        "",
        "stem.conv.weight",
        r"stages\.(\d)\.blocks\.(\d+)\.conv1\.weight",
        "head.fc.weight",
    ),
}


def _mobilenet_v3(shapes: Shapes) -> Published | None:
    hidden, head = shapes.get("classifier.0.weight"), shapes.get("classifier.3.weight")
    blocks = _counts(shapes, r"()features\.(\d+)\.block\.0\.0\.weight")
    sizes = {(11, 1024): "small", (15, 1280): "large"}
    size = sizes.get((sum(blocks), hidden[0] if hidden else 0))
    if size is None or head is None:
        return None
    fields = f"mobilenet_v3_{size}", "batch", 224, head[0]
    return _of_imagenet(Published("torchvision", *fields), "imagenet")


def _efficientnet_lite(shapes: Shapes) -> Published | None:
    """EfficientNet-Lite in the names of efficientnet_pytorch, and of timm."""
    if any("_se_" in name or ".se." in name for name in shapes):
        return None  # EfficientNet-B: the same names, with squeeze-and-excitation.
    own = r"()_blocks\.(\d+)\._depthwise_conv\.weight"
    timm = r"(\d+)\.(\d+)\.conv_dw\.weight"
    blocks = sum(_counts(shapes, own)) or sum(_counts(shapes, r"blocks\." + timm))
    head = shapes.get("_fc.weight") or shapes.get("classifier.weight")
    last = shapes.get("_conv_head.weight") or shapes.get("conv_head.weight")
    if head is None or last is None:
        return None
    sizes = {
        (sum(stage.repeats for stage in stages(v)), stages(v)[-1].channels): v
        for v in SCALES
    }
    variant = sizes.get((blocks, last[1]))
    if variant is None:
        return None
    name, size = f"efficientnet_lite{variant}", RESOLUTIONS[variant]
    published = Published("EfficientNet-Lite", name, "batch", size, head[0])
    if variant == 0 and "_fc.weight" not in shapes:
        # timm has it from TensorFlow, and trained by itself on another scale.
        return published._replace(choices=("symmetric (tf_)", "imagenet (ra_in1k)"))
    return _of_imagenet(published, "symmetric")


def _vit(shapes: Shapes) -> Published | None:
    """Vision transformers of big_vision, and of timm and DeiT."""
    kernel = shapes.get("embedding/kernel")
    is_jax = kernel is not None
    if is_jax:
        layers = r"()Transformer/encoderblock_(\d+)/MlpBlock_\d/Dense_0/kernel"
        patch, width, head = kernel[0], kernel[-1], shapes.get("head/kernel", (0,))[-1]
        names = ("pos_embedding", "Transformer/posembed_input/pos_embedding")
        positions = next((shapes[x] for x in names if x in shapes), None)
    else:
        kernel, layers = (
            shapes.get("patch_embed.proj.weight"),
            r"()blocks\.(\d+)\.norm1",
        )
        positions, layers = shapes.get("pos_embed"), layers + r"\.weight"
        if kernel is None:
            return None
        patch, width, head = kernel[-1], kernel[0], shapes.get("head.weight", (0,))[0]
    distilled = "dist_token" in shapes
    letter = {192: "ti", 384: "s", 768: "b"}.get(width)
    has_class_token = "cls" in shapes or "cls_token" in shapes
    if letter is None or positions is None or not (head and has_class_token):
        return None
    if sum(_counts(shapes, layers)) != 12:
        return None
    # big_vision's class token has no position; DeiT's second token has one.
    count = positions[1]
    grids = [count - x for x in (2 if distilled else 1, 0)]
    side = next((math.isqrt(n) for n in grids if math.isqrt(n) ** 2 == n), 0)
    name = f"{'deit' if distilled else 'vit'}_{letter}{patch}"
    if not side or name not in _TRANSFORMERS:
        return None
    fields = name, "group", side * patch, head
    if is_jax:
        # Fine-tuned ones too were trained on [-1, 1].
        return Published("big_vision", *fields, "symmetric")
    if distilled:
        return _of_imagenet(Published("DeiT", *fields), "imagenet")
    choices = ("symmetric (augreg)", "imagenet (DeiT)")
    return Published("timm", *fields, choices=choices)


_TRANSFORMERS = (
    "vit_ti16",
    "vit_s16",
    "vit_s32",
    "vit_b16",
    "vit_b32",
    "deit_ti16",
    "deit_s16",
    "deit_b16",
)
_FAMILIES: tuple[Callable[[Shapes], Published | None], ...] = (
    _cifar_resnet,
    _torch_resnet,
    _keras_resnet,
    _bit,
    _mobilenet_v3,
    _efficientnet_lite,
    _vit,
)


def _counts(shapes: Shapes, pattern: str) -> Counts:
    """The number of blocks of each stage, by the first group of a pattern's matches."""
    blocks: dict[str, set[str]] = {}
    for name in shapes:
        match = re.fullmatch(pattern, name)
        if match:
            blocks.setdefault(match[1], set()).add(match[2])
    return tuple(len(blocks[stage]) for stage in sorted(blocks))


def _norm(shapes: Shapes) -> str:
    has_statistics = any(name.endswith("running_mean") for name in shapes)
    return "batch" if has_statistics else "group"


def _of_imagenet(published: Published, normalization: str) -> Published:
    """The published scale, unless the head is that of other classes."""
    if published.classes in _LARGE_HEADS:
        return published._replace(normalization=normalization)
    return published._replace(choices=(f"{normalization} (as published)",))
