"""Models by name."""

import dataclasses
import json
import math
import textwrap
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import config as configs
from kdjax.core.fingerprint import fingerprint_code
from kdjax.core.types import Model
from kdjax.models import cifar, imagenet
from kdjax.models.adapters import from_linen
from kdjax.models.modality import view_modality
from kdjax.models.normalization import normalize_inputs
from kdjax.models.resnet_cifar import ResNetCifar
from kdjax.models.weights import WeightsError, load_weights, recognize


def _resnet(
    config: configs.ModelConfig, classes: int, axis_name: str | None
) -> ResNetCifar:
    return ResNetCifar(config.depth, config.width, classes, config.norm, axis_name)


# name: (config, classes, axis_name) -> network. `resnet` alone reads depth and width.
MODELS = {"resnet": _resnet, **cifar.MODELS, **imagenet.MODELS}


def make_model(
    config: configs.ModelConfig,
    classes: int,
    axis_name: str | None = None,
    field: str = "model",
) -> Model:
    """The model that `config` names, with `classes` logits.

    `config.name` is a key of `MODELS`, or `module:function` (or `file.py:function`),
    called as `function(config, classes)` and returning a `kdjax.core.types.Model`.
    axis_name: axis of `pmap` over which batch statistics are taken; a model of your own
    does not get it.
    field: the name of `config` in errors, for example "teacher.model".

    Raises `ConfigError` naming `field.name` if there is no such model or the function
    returns something else, or the field that the network cannot use; the model itself
    raises one naming `field.resolution` or `field.normalization` for images that do
    not fit.
    """
    config = config.filled({})
    name, make = f"{field}.name", find_maker(config, field)
    if ":" in config.name:
        model = configs.call(make, name, config, classes)
        expected = f"{config.name} to return a kdjax.core.types.Model"
        configs.require_type(model, Model, name, expected)
        return adapt_inputs(model, config, field)
    with configs.beneath(field):
        model = from_linen(make(config, classes, axis_name))
    # The argument `images` of networks is the field `resolution` of configs.
    errors = configs.beneath(field, {"images": "resolution"})
    model = Model(errors(model.init), errors(model.apply))
    return adapt_inputs(model, config, field)


def adapt_inputs(model: Model, config: configs.ModelConfig, field: str) -> Model:
    """`model` with the pixel scale and the modality of its config as its input."""
    model = normalize_inputs(model, config.normalization, field)
    return view_modality(model, config.modality, field)


def find_maker(config: configs.ModelConfig, field: str = "model") -> Callable[..., Any]:
    """The function that makes the model of `config`; `ConfigError` without one."""
    name = f"{field}.name"
    if ":" in config.name:
        return configs.load_function(config.name, name)
    make = MODELS.get(config.name) or cifar.wide(config.name)
    if make is not None:
        return make
    hint = configs.suggest(configs.near_names(config.name, MODELS))
    expected = "a network's name (`kdjax models` lists them) or file.py:function"
    raise configs.ConfigError(name, expected, config.name, hint=hint)


def list_models(part: str = "") -> str:
    """The names in `MODELS` that contain a text, by the images that they are for.

    Raises `ConfigError` where none does.
    """
    names = [name for name in MODELS if part.lower() in name]
    if not names:
        configs.require_known(part, MODELS, "name")
    lines = []
    for title, group in (
        ("small images (CIFAR)", {"resnet": _resnet, **cifar.MODELS}),
        ("large images (ImageNet)", imagenet.MODELS),
    ):
        text = ", ".join(name for name in group if name in names)
        indented = textwrap.fill(text, 88, initial_indent="  ", subsequent_indent="  ")
        lines += [f"{title}:", indented] if text else []
    return "\n".join(lines)


def fingerprint_model(config: configs.ModelConfig, field: str = "model") -> str:
    """Fingerprint of a model of the user's own: its file and the config passed to it.

    It tells apart models with the same variables. Empty for a model of `MODELS`.
    """
    if ":" not in config.name:
        return ""
    files = configs.source_files(config.name, f"{field}.name")
    name = config.name.rpartition(":")[2]
    # Weights are compared by their values, and the file may be moved.
    rest = dataclasses.replace(config, name=name, weights="", adapt=())
    fields = dataclasses.asdict(rest)
    # Existing fingerprints have the first name of this field, and of its default.
    scale = fields.pop("normalization")
    fields["pixels"] = "half" if scale == "symmetric" else scale
    # They are older than this field.
    if fields["modality"] == "image":
        del fields["modality"]
    passed = json.dumps(fields).encode()
    return fingerprint_code(name, *(file.read_bytes() for file in files), passed)


def load_pretrained(
    config: configs.ModelConfig, classes: int, channels: int, field: str = "model"
) -> Any:
    """The variables of the model that `config` names, with the weights that it names.

    Raises ConfigError naming `field` where they cannot be found or do not fit.
    """
    try:
        return _load_pretrained(config, classes, channels, field)
    except WeightsError as error:
        text = _other_network(config, error)
        if not text:
            text = f"{error}{_norm_hint(config, classes, channels, field, error)}"
        raise configs.ConfigError(f"{field}.weights", reason=text) from error


def _load_pretrained(
    config: configs.ModelConfig, classes: int, channels: int, field: str
) -> Any:
    model, size = make_model(config, classes, field=field), config.resolution
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return load_weights(shapes, config.weights, adapt=config.adapt)


def _other_network(config: configs.ModelConfig, error: WeightsError) -> str:
    """A line for weights of another network than the config names, else empty."""
    published = recognize(config.weights) if error.mismatches else None
    if published is None or published.name == config.name.removesuffix("_pad"):
        return ""
    found = f"{published.name} ({published.publisher})"
    return f"expected weights of {config.name}, {config.weights} has {found}"


def _norm_hint(
    config: configs.ModelConfig,
    classes: int,
    channels: int,
    field: str,
    error: WeightsError,
) -> str:
    """A line for weights that fit the same network with the other norm, or nearly."""
    if not error.mismatches:
        return ""
    norm = "group" if config.norm == "batch" else "batch"
    mismatches = 0
    try:
        other = dataclasses.replace(config, norm=norm)
        _load_pretrained(other, classes, channels, field)
    except WeightsError as problem:
        mismatches = len(problem.mismatches)
    except configs.ConfigError:
        return ""  # There is no such network.
    if mismatches >= len(error.mismatches):
        return ""
    fit = f"all but {mismatches} fit" if mismatches else "all fit"
    return f"\n  the norms differ: with {field}.norm {norm}, {fit}"


def count_parameters(variables: Any) -> int:
    """Number of numbers in `variables["params"]`; shapes alone are enough."""
    leaves = jax.tree.leaves(variables["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)
