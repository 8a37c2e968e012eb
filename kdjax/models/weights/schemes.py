"""The naming schemes by name."""

from kdjax.models.weights import (
    array_layouts,
    bit_names,
    keras_names,
    torch_names,
    vit_names,
)
from kdjax.models.weights.files import Arrays
from kdjax.models.weights.naming import Entry, Scheme, Shapes

_COLLECTIONS = ("params/", "batch_stats/", "state/")


def _read_own(arrays: Arrays, shapes: Shapes) -> Arrays:
    """big_vision's files may leave out the collection where there is only one."""
    del shapes
    if any(name.startswith(_COLLECTIONS) for name in arrays):
        return dict(arrays)
    return {f"params/{name}": array for name, array in arrays.items()}


def _own_entries(shapes: Shapes) -> dict[str, Entry | None]:
    return {path: Entry(path, array_layouts.SAME) for path in shapes}


# This project's names. Any network has them, and so do big_vision's own BiT files.
OWN = "own"

SCHEMES: dict[str, Scheme] = {
    OWN: Scheme(_own_entries, _read_own),
    "bit": bit_names.BIT,
    "timm_bit": bit_names.TIMM_BIT,
    "torch_resnet": torch_names.RESNET,
    "keras_resnet": keras_names.RESNET,
    "torch_resnet_cifar": torch_names.RESNET_CIFAR,
    "torch_mobilenet_v3": torch_names.MOBILENET_V3,
    "efficientnet_lite": torch_names.EFFICIENTNET_LITE,
    "timm_efficientnet_lite": torch_names.TIMM_EFFICIENTNET_LITE,
    "big_vision_vit": vit_names.BIG_VISION,
    "timm_vit": vit_names.TIMM_VIT,
}
