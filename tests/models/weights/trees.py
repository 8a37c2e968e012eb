"""Small trees with the names of the real networks, for tests of names and files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.config import ModelConfig
from kdjax.models import zoo
from kdjax.models.efficientnet_lite import EfficientNetLite
from kdjax.models.mobilenet_v3 import MobileNetV3
from kdjax.models.resnet import ResNet
from kdjax.models.resnet_cifar import ResNetCifar
from kdjax.models.resnet_v2 import ResNetV2
from kdjax.models.vit import Size, ViT
from kdjax.models.weights import SCHEMES
from kdjax.models.weights.array_layouts import file_shape

# naming scheme: the network that has it, all but the names of no consequence
NETWORKS = {
    "bit": ResNetV2(26),
    "timm_bit": ResNetV2(26),
    "torch_resnet": ResNet(50),
    "keras_resnet": ResNet(50, keras=True),
    "torch_resnet_cifar": ResNetCifar(14, norm="batch"),
    "torch_mobilenet_v3": MobileNetV3("small"),
    "efficientnet_lite": EfficientNetLite(0),
    "timm_efficientnet_lite": EfficientNetLite(1),
    "big_vision_vit": ViT(Size(8, 2, 2), 16),
    "timm_vit": ViT(Size(8, 2, 2), 16, distilled=True),
}


def shapes(module, side=32):
    """The variables of the module as shapes."""
    images = jnp.zeros((1, side, side, 3))
    return jax.eval_shape(module.init, jax.random.key(0), images)


def values(template, seed=0, largest=6):
    """Random arrays as in `template`, but no axis longer than `largest`.

    Names and ranks stay, which is all that the schemes look at.
    """
    rng = np.random.default_rng(seed)

    def draw(leaf):
        shape = tuple(min(n, largest) for n in leaf.shape)
        return rng.standard_normal(shape).astype(leaf.dtype)

    return jax.tree.map(draw, template)


@functools.cache
def _shapes_by_names(names):
    return shapes(NETWORKS[names])


def tree(names, seed=0):
    """A small tree of the network that has this naming scheme."""
    return values(_shapes_by_names(names), seed)


def same(a, b):
    """Equal in structure, names, dtypes and every number."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    equal = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b)
    wrong = [
        jax.tree_util.keystr(path)
        for path, ok in jax.tree_util.tree_leaves_with_path(equal)
        if not ok
    ]
    assert not wrong


@functools.cache
def published_shapes(name, scheme, classes=1000, side=224, **fields):
    """{name in the file: shape} of a network under a naming scheme."""
    model = zoo.make_model(ModelConfig(name, **fields), classes)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    blank = {
        entry.name: np.broadcast_to(np.int8(0), file_shape(entry.layout, shapes[path]))
        for path, entry in SCHEMES[scheme].entries(shapes).items()
    }
    written = SCHEMES[scheme].write(blank, shapes)
    return {name: array.shape for name, array in written.items()}


def akamaster(depth=56):
    """Arrays in the names of akamaster/pytorch_resnet_cifar10: no projections."""
    name, names = f"resnet{depth}", "torch_resnet_cifar"
    shapes = published_shapes(name, names, classes=10, norm="batch")
    return {
        "module." + name.replace("fc.", "linear."): np.zeros(shape, np.float32)
        for name, shape in shapes.items()
        if ".downsample." not in name
    }
