"""Names of the vision transformers: big_vision (and before it), timm and DeiT."""

import math
import re

import numpy as np

from kdjax.models.weights import array_layouts as layouts
from kdjax.models.weights.array_layouts import Shape
from kdjax.models.weights.files import Arrays
from kdjax.models.weights.naming import Entry, Scheme, Shapes, fixed, table
from kdjax.models.weights.torch_names import read_torch, torch_leaf

_LAYER = r"Transformer/encoderblock_(\d+)/"
_ATTENTION = _LAYER + "MultiHeadDotProductAttention_0/"
_POSITION = "pos_embedding"


# --- big_vision ---------------------------------------------------------------------

# What the networks before big_vision numbered differently.
_OLD = (
    (r"Transformer/(posembed_input/)?pos_embedding", _POSITION),
    (
        r"(.*/)MultiHeadDotProductAttention_1(/.*)",
        r"\1MultiHeadDotProductAttention_0\2",
    ),
    (r"(.*/encoderblock_\d+/)LayerNorm_2(/.*)", r"\1LayerNorm_1\2"),
    (r"(.*/)MlpBlock_3(/.*)", r"\1MlpBlock_0\2"),
)


def _leaf(module: str, leaf: str, shape: Shape) -> Entry | None:
    del shape
    if leaf == "dist":
        return None
    return Entry(f"{module}/{leaf}" if module else leaf, layouts.SAME)


def _read(arrays: Arrays, shapes: Shapes) -> Arrays:
    """In big_vision the class token has no position: zeros are the same."""
    renamed = {}
    for name, array in arrays.items():
        name = name.removeprefix("params/")
        for pattern, new in _OLD:
            name = re.sub(f"^{pattern}$", new, name)
        renamed[name] = array
    position = renamed.get(_POSITION)
    if position is None or position.ndim != 3:
        return renamed
    model_shape = shapes.get(f"params/{_POSITION}")
    if position.shape != model_shape and math.isqrt(position.shape[1]) ** 2 == len(
        position[0]
    ):
        renamed[_POSITION] = np.pad(position, ((0, 0), (1, 0), (0, 0)))
    return renamed


def _write(arrays: Arrays, shapes: Shapes) -> Arrays:
    del shapes
    position = arrays[_POSITION]
    written = {f"params/{name}": array for name, array in arrays.items()}
    written["params/cls"] = arrays["cls"] + position[:, :1]
    written[f"params/{_POSITION}"] = position[:, 1:]
    return written


BIG_VISION = Scheme(
    table(fixed(("", ""), ("(embedding|head|Transformer/.*)", "{}".format)), _leaf),
    _read,
    _write,
)


# --- timm ---------------------------------------------------------------------------

_TOKENS = {"cls": "cls_token", "dist": "dist_token", _POSITION: "pos_embed"}
_SPLIT = ("query", "key", "value")


def _timm_leaf(module: str, leaf: str, shape: Shape) -> Entry | None:
    if not module:
        return Entry(_TOKENS[leaf], layouts.SAME) if leaf in _TOKENS else None
    if leaf == "kernel" and len(shape) == 3:
        inward = module.endswith(_SPLIT)
        layout = layouts.TORCH_HEADS_IN if inward else layouts.TORCH_HEADS_OUT
        return Entry(f"{module}.weight", layout)
    return torch_leaf(module, leaf, shape)


def _read_timm(arrays: Arrays, shapes: Shapes) -> Arrays:
    """timm keeps query, key and value in one array."""
    split = {}
    for name, array in read_torch(arrays, shapes).items():
        is_joined = array.ndim > 0 and array.shape[0] % 3 == 0
        if ".qkv." in name and is_joined:
            for part, x in zip(_SPLIT, np.split(array, 3), strict=True):
                split[name.replace(".qkv.", f".{part}.")] = x
        else:
            split[name] = array
    return split


def _write_timm(arrays: Arrays, shapes: Shapes) -> Arrays:
    del shapes
    joined = {}
    for name, array in arrays.items():
        if ".query." in name:
            parts = [arrays[name.replace(".query.", f".{part}.")] for part in _SPLIT]
            joined[name.replace(".query.", ".qkv.")] = np.concatenate(parts)
        elif ".key." not in name and ".value." not in name:
            joined[name] = array
    return joined


TIMM_VIT = Scheme(
    table(
        fixed(
            ("", ""),
            ("embedding", "patch_embed.proj"),
            (_LAYER + "LayerNorm_0", "blocks.{}.norm1".format),
            (_LAYER + "LayerNorm_1", "blocks.{}.norm2".format),
            (_ATTENTION + "(query|key|value)", "blocks.{}.attn.{}".format),
            (_ATTENTION + "out", "blocks.{}.attn.proj".format),
            (_LAYER + "MlpBlock_0/Dense_0", "blocks.{}.mlp.fc1".format),
            (_LAYER + "MlpBlock_0/Dense_1", "blocks.{}.mlp.fc2".format),
            ("Transformer/encoder_norm", "norm"),
            ("(head|head_dist)", "{}".format),
        ),
        _timm_leaf,
    ),
    _read_timm,
    _write_timm,
)
