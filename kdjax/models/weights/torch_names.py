"""Names of the convolutional networks in PyTorch: torchvision, timm and others."""

import re
from collections.abc import Sequence
from functools import partial

import numpy as np

from kdjax.models.efficientnet_lite import SCALES, stages
from kdjax.models.weights import array_layouts as layouts
from kdjax.models.weights.array_layouts import Shape
from kdjax.models.weights.files import Arrays
from kdjax.models.weights.naming import Entry, Row, Scheme, Shapes, before, fixed, table

_LEAVES = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_leaf(module: str, leaf: str, shape: Shape) -> Entry | None:
    """Kernels are transposed; norms and biases only have other names."""
    if leaf == "kernel":
        is_conv = len(shape) == 4
        layout = layouts.TORCH_CONV if is_conv else layouts.TORCH_DENSE
        return Entry(f"{module}.weight", layout)
    if leaf not in _LEAVES:
        return None
    return Entry(f"{module}.{_LEAVES[leaf]}", layouts.VECTOR)


def read_torch(arrays: Arrays, shapes: Shapes) -> Arrays:
    """Without the prefix of a wrapper and the counters, which no network needs."""
    del shapes
    return {
        name.removeprefix("module."): array
        for name, array in arrays.items()
        if not name.endswith("num_batches_tracked")
    }


_BLOCK = r"stage(\d)_block(\d+)/"

# torchvision and timm agree on these.
RESNET = Scheme(
    table(
        fixed(
            ("stem_conv", "conv1"),
            ("stem_norm", "bn1"),
            (_BLOCK + r"conv(\d)", lambda s, b, i: f"layer{s}.{before(b)}.conv{i}"),
            (_BLOCK + r"norm(\d)", lambda s, b, i: f"layer{s}.{before(b)}.bn{i}"),
            (
                _BLOCK + "shortcut_conv",
                lambda s, b: f"layer{s}.{before(b)}.downsample.0",
            ),
            (
                _BLOCK + "shortcut_norm",
                lambda s, b: f"layer{s}.{before(b)}.downsample.1",
            ),
            ("head", "fc"),
        ),
        torch_leaf,
    ),
    read_torch,
)


# --- ResNet for CIFAR ---------------------------------------------------------------


def _cifar_blocks(shapes: Shapes) -> int:
    """Blocks in each of the three stages."""
    return len({p.split("/")[1] for p in shapes if "/BasicBlock_" in p}) // 3


def _cifar_rows(shapes: Shapes) -> Sequence[Row]:
    blocks = max(1, _cifar_blocks(shapes))

    def part(kind: str, shortcut: str, block: str, i: str) -> str:
        stage, index = divmod(int(block), blocks)
        name = f"layer{stage + 1}.{index}"
        return f"{name}.{shortcut}" if i == "2" else f"{name}.{kind}{int(i) + 1}"

    return (
        ("Conv_0", "conv1"),
        ("BatchNorm_0", "bn1"),
        (r"BasicBlock_(\d+)/Conv_(\d)", partial(part, "conv", "downsample.0")),
        (r"BasicBlock_(\d+)/BatchNorm_(\d)", partial(part, "bn", "downsample.1")),
        ("Dense_0", "fc"),
    )


def _read_cifar(arrays: Arrays, shapes: Shapes) -> Arrays:
    """One name for what several projects name differently; shortcuts made explicit."""
    other = {".shortcut.": ".downsample.", "linear.": "fc."}
    renamed = {}
    for name, array in read_torch(arrays, shapes).items():
        for theirs, ours in other.items():
            name = name.replace(theirs, ours)
        renamed[name] = array
    if any(".downsample." in name for name in renamed):
        return renamed
    return renamed | _padding_shortcuts(shapes)


def _write_cifar(arrays: Arrays, shapes: Shapes) -> Arrays:
    padding = _padding_shortcuts(shapes)
    same = all(np.array_equal(arrays.get(n, 0), x) for n, x in padding.items())
    return {n: x for n, x in arrays.items() if not (same and n in padding)}


def _padding_shortcuts(shapes: Shapes) -> Arrays:
    """Projections that compute a shortcut without weights (option A of He et al.).

    Such a shortcut takes every second pixel and puts zeros before and after the
    channels. So does a 1x1 convolution of stride 2 with a shifted identity, followed
    by a norm with mean 0 and variance 1 - eps. Equal in evaluation only, which is all
    that a frozen teacher needs: in training the norm divides by the deviation of the
    batch, so the outputs differ from the first step on. A student that
    starts from such weights must be of the padded form (`ResNetCifar(pad=True)`,
    `resnet20_pad`), which has the shortcuts themselves.
    """
    blocks = max(1, _cifar_blocks(shapes))
    arrays = {}
    for path, shape in shapes.items():
        block = re.fullmatch(r"params/[^/]+_(\d+)/Conv_2/kernel", path)
        if not block:
            continue
        stage, index = divmod(int(block[1]), blocks)
        *_, inner, outer = shape
        eye = np.eye(outer, inner, -((outer - inner) // 2), np.float32)
        name = f"layer{stage + 1}.{index}.downsample"
        ones = np.ones(outer, np.float32)
        arrays |= {
            f"{name}.0.weight": eye[:, :, None, None],
            f"{name}.1.weight": ones,
            f"{name}.1.bias": 0 * ones,
            f"{name}.1.running_mean": 0 * ones,
            f"{name}.1.running_var": ones - np.float32(1e-5),
        }
    return arrays


RESNET_CIFAR = Scheme(table(_cifar_rows, torch_leaf), _read_cifar, _write_cifar)


# --- EfficientNet-Lite --------------------------------------------------------------

EFFICIENTNET_LITE = Scheme(
    table(
        fixed(
            ("stem_conv", "_conv_stem"),
            ("stem_norm", "_bn0"),
            (
                r"block(\d+)/(expand|depthwise|project)_conv",
                "_blocks.{}._{}_conv".format,
            ),
            (r"block(\d+)/expand_norm", "_blocks.{}._bn0".format),
            (r"block(\d+)/depthwise_norm", "_blocks.{}._bn1".format),
            (r"block(\d+)/project_norm", "_blocks.{}._bn2".format),
            ("head_conv", "_conv_head"),
            ("head_norm", "_bn1"),
            ("head", "_fc"),
        ),
        torch_leaf,
    ),
    read_torch,
)


def _timm_lite_rows(shapes: Shapes) -> Sequence[Row]:
    """timm counts blocks within stages and names their parts in order of use."""
    rows: list[Row] = [
        ("stem_conv", "conv_stem"),
        ("stem_norm", "bn1"),
        ("head_conv", "conv_head"),
        ("head_norm", "bn2"),
        ("head", "classifier"),
    ]
    count = len({p.split("/")[1] for p in shapes if p.startswith("params/block")})
    block = 0
    for stage, repeats in enumerate(_repeats(count)):
        for index in range(repeats):
            wide = f"params/block{block}/expand_conv/kernel" in shapes
            parts = ("expand", "depthwise", "project") if wide else _NARROW
            convs = ("conv_pw", "conv_dw", "conv_pwl") if wide else _NARROW_CONVS
            name = f"blocks.{stage}.{index}"
            for i, (part, conv) in enumerate(zip(parts, convs, strict=True), 1):
                rows.append((f"block{block}/{part}_conv", f"{name}.{conv}"))
                rows.append((f"block{block}/{part}_norm", f"{name}.bn{i}"))
            block += 1
    return rows


_NARROW = ("depthwise", "project")
_NARROW_CONVS = ("conv_dw", "conv_pw")


def _repeats(blocks: int) -> list[int]:
    """Blocks of each stage of the variant that has so many in all; none if none has."""
    for variant in SCALES:
        repeats = [stage.repeats for stage in stages(variant)]
        if sum(repeats) == blocks:
            return repeats
    return []


TIMM_EFFICIENTNET_LITE = Scheme(table(_timm_lite_rows, torch_leaf), read_torch)


# --- MobileNetV3 --------------------------------------------------------------------


def _mobilenet_rows(shapes: Shapes) -> Sequence[Row]:
    """torchvision numbers the parts that a block has."""
    modules = {path.split("/", 1)[1].rsplit("/", 1)[0] for path in shapes}
    count = len({m.split("/")[0] for m in modules if m.startswith("block")})
    rows: list[Row] = [
        ("stem_conv", "features.0.0"),
        ("stem_norm", "features.0.1"),
        ("last_conv", f"features.{count + 1}.0"),
        ("last_norm", f"features.{count + 1}.1"),
        ("hidden", "classifier.0"),
        ("head", "classifier.3"),
    ]
    for block in range(count):
        parts = ("expand_conv", "depthwise_conv", "squeeze/reduce", "project_conv")
        parts_of = [part for part in parts if f"block{block}/{part}" in modules]
        for i, part in enumerate(parts_of):
            name = f"features.{block + 1}.block.{i}"
            if part == "squeeze/reduce":
                rows.append((f"block{block}/squeeze/reduce", f"{name}.fc1"))
                rows.append((f"block{block}/squeeze/expand", f"{name}.fc2"))
            else:
                norm = part.replace("conv", "norm")
                rows.append((f"block{block}/{part}", f"{name}.0"))
                rows.append((f"block{block}/{norm}", f"{name}.1"))
    return rows


MOBILENET_V3 = Scheme(table(_mobilenet_rows, torch_leaf), read_torch)
