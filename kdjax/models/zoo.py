"""Models by name."""

import math
from typing import Any

import jax

from kdjax import config as configs
from kdjax.core.types import Model
from kdjax.models.adapters import from_linen
from kdjax.models.resnet_cifar import ResNetCifar


def _resnet(config: configs.Model, classes: int, axis_name: str | None) -> Model:
    module = ResNetCifar(config.depth, config.width, classes, config.norm, axis_name)
    return from_linen(module)


MODELS = {"resnet": _resnet}


def make_model(
    config: configs.Model, classes: int, axis_name: str | None = None
) -> Model:
    """The model that `config` names, with `classes` logits.

    `config.name` is a key of `MODELS`, or `module:function` (or `file.py:function`),
    called as `function(config, classes)` and returning a `kdjax.core.types.Model`.
    axis_name: axis of `pmap` over which batch statistics are taken; a model of your own
    is not told.

    Raises `ConfigError` naming `model.name` if there is no such model or the function
    returns something else, ValueError naming the field that the model cannot use.
    """
    if ":" in config.name:
        make = configs.load_function(config.name, "model.name")
        model = configs.call(make, "model.name", config, classes)
        expected = f"{config.name} to return a kdjax.core.types.Model"
        configs.require(isinstance(model, Model), "model.name", expected, model)
        return model
    known = ", ".join(sorted(MODELS))
    expected = f"one of {known}, or module:function"
    configs.require(config.name in MODELS, "model.name", expected, config.name)
    return MODELS[config.name](config, classes, axis_name)


def count_parameters(variables: Any) -> int:
    """Number of numbers in `variables["params"]`; shapes alone are enough."""
    leaves = jax.tree.leaves(variables["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)
