"""Names of the BiT ResNet-v2: the files of Big Transfer, and timm."""

import re

from kdjax.models.weights import array_layouts as layouts
from kdjax.models.weights.array_layouts import Shape
from kdjax.models.weights.files import Arrays
from kdjax.models.weights.naming import Entry, Scheme, Shapes, before, fixed, table

_UNIT = r"block(\d)/unit(\d+)/"
_PREFIX = "resnet/"


def _branch(number: str) -> str:
    return " abc"[int(number)]


def _leaf(module: str, leaf: str, shape: Shape) -> Entry | None:
    del shape
    if module == "head/conv2d":
        layout = layouts.CONV_1X1 if leaf == "kernel" else layouts.SAME
        return Entry(f"{module}/{leaf}", layout)
    if leaf == "kernel":
        return Entry(f"{module}/{leaf}", layouts.SAME)
    names = {"scale": "gamma", "bias": "beta"}
    return Entry(f"{module}/{names[leaf]}", layouts.VECTOR) if leaf in names else None


def _read(arrays: Arrays, shapes: Shapes) -> Arrays:
    """TensorFlow numbers a repeated name: `standardized_conv2d_17` is the same."""
    del shapes
    pattern = r"(standardized_conv2d|group_norm)_\d+/"
    return {
        re.sub(pattern, r"\1/", name.removeprefix(_PREFIX)): array
        for name, array in arrays.items()
    }


def _write(arrays: Arrays, shapes: Shapes) -> Arrays:
    del shapes
    return {_PREFIX + name: array for name, array in arrays.items()}


BIT = Scheme(
    table(
        fixed(
            ("root_block/conv_root", "root_block/standardized_conv2d"),
            (
                _UNIT + r"conv(\d)",
                lambda b, u, i: f"block{b}/unit{u}/{_branch(i)}/standardized_conv2d",
            ),
            (
                _UNIT + r"gn(\d)",
                lambda b, u, i: f"block{b}/unit{u}/{_branch(i)}/group_norm",
            ),
            (_UNIT + "conv_proj", "block{}/unit{}/a/proj/standardized_conv2d".format),
            ("norm-pre-head", "group_norm"),
            ("head", "head/conv2d"),
        ),
        _leaf,
    ),
    _read,
    _write,
)


def _timm_leaf(module: str, leaf: str, shape: Shape) -> Entry | None:
    if leaf == "kernel":
        is_head = len(shape) == 2
        layout = layouts.TORCH_CONV_1X1 if is_head else layouts.TORCH_CONV
        return Entry(f"{module}.weight", layout)
    names = {"scale": "weight", "bias": "bias"}
    return Entry(f"{module}.{names[leaf]}", layouts.VECTOR) if leaf in names else None


def _timm_unit(part: str, block: str, unit: str, number: str = "") -> str:
    return f"stages.{before(block)}.blocks.{before(unit)}.{part}{number}"


TIMM_BIT = Scheme(
    table(
        fixed(
            ("root_block/conv_root", "stem.conv"),
            (_UNIT + r"conv(\d)", lambda *at: _timm_unit("conv", *at)),
            (_UNIT + r"gn(\d)", lambda *at: _timm_unit("norm", *at)),
            (_UNIT + "conv_proj", lambda *at: _timm_unit("downsample.conv", *at)),
            ("norm-pre-head", "norm"),
            ("head", "head.fc"),
        ),
        _timm_leaf,
    ),
)
