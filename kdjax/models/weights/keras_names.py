"""Names of the ResNet-50 that Keras published, as TensorFlow.js and others ship it."""

from kdjax.models.weights import array_layouts as layouts
from kdjax.models.weights.array_layouts import Shape
from kdjax.models.weights.files import Arrays
from kdjax.models.weights.naming import Entry, Scheme, Shapes, before, fixed, table

_BLOCK = r"stage(\d)_block(\d+)/"
_STEM = "conv1/kernel"
_LEAVES = {
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}


def _branch(kind: str, stage: str, block: str, number: str) -> str:
    """Stages count from 2 and blocks are letters: `res4f_branch2a`."""
    letter = "abcdef"[before(block)]
    part = "1" if not number else "2" + "abc"[before(number)]
    return f"{kind}{int(stage) + 1}{letter}_branch{part}"


def _leaf(module: str, leaf: str, shape: Shape) -> Entry | None:
    del shape
    if not module.startswith("bn"):
        return Entry(f"{module}/{leaf}", layouts.SAME)
    if leaf not in _LEAVES:
        return None
    return Entry(f"{module}/{_LEAVES[leaf]}", layouts.SAME)


def _flip(arrays: Arrays, shapes: Shapes) -> Arrays:
    """The published network reads blue, green, red; here images are red first."""
    del shapes
    flipped = dict(arrays)
    if _STEM in arrays and arrays[_STEM].ndim == 4:
        flipped[_STEM] = arrays[_STEM][:, :, ::-1]
    return flipped


RESNET = Scheme(
    table(
        fixed(
            ("stem_conv", "conv1"),
            ("stem_norm", "bn_conv1"),
            (_BLOCK + r"conv(\d)", lambda s, b, i: _branch("res", s, b, i)),
            (_BLOCK + r"norm(\d)", lambda s, b, i: _branch("bn", s, b, i)),
            (_BLOCK + "shortcut_conv", lambda s, b: _branch("res", s, b, "")),
            (_BLOCK + "shortcut_norm", lambda s, b: _branch("bn", s, b, "")),
            ("head", "fc1000"),
        ),
        _leaf,
    ),
    _flip,
    _flip,
)
