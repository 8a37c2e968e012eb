"""Recognition of published weights: the network, its input and its classes."""

import os
import pathlib
from typing import Any

from kdjax.core.safe_read import parse_json, read_bytes
from kdjax.models.normalization import SCALES as PIXEL_SCALES
from kdjax.models.weights import hub
from kdjax.models.weights.errors import WeightsError
from kdjax.models.weights.families import Published, find_family
from kdjax.models.weights.files import read_shapes


def recognize(source: str | os.PathLike) -> Published | None:
    """The published network in a file of weights; None for one of no known family.

    Only headers are read, so that it takes milliseconds. A file of timm's on the
    Hugging Face hub has a `config.json` beside it, and one of `kdjax export` a
    `card.json`, which are read too.

    Args:
      source: as `load_weights` takes it.

    Raises:
      WeightsError: the file cannot be found or read.

    Example:
      >>> import tempfile, numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     np.savez(f"{folder}/mine.npz", weight=np.zeros((2, 3)))
      ...     print(recognize(f"{folder}/mine.npz"))
      None
    """
    path = hub.resolve(source)
    own = _from_card(path)
    if own is not None:
        return own
    published = find_family(read_shapes(path))
    return published and _with_config(published, _timm_config(source, path))


# --- card.json of `kdjax export` -----------------------------------------------------


def _from_card(path: pathlib.Path) -> Published | None:
    """The network of an exported student, as the card beside it states."""
    card = _read_json(path.parent / "card.json")
    model, names = card.get("model"), tuple(card.get("classes") or ())
    if card.get("file") != path.name or not isinstance(model, dict):
        return None
    fields = ("name", "norm", "resolution", "normalization", "depth", "width")
    if ":" in model.get("name", ":") or not set(fields) <= set(model):
        return None  # A network of the user's own is named by its file.
    values = {name: model[name] for name in fields}
    named = () if all(name.isdigit() for name in names) else names
    return Published(
        "kdjax export", classes=len(names), class_names=named, choices=(), **values
    )


def _read_json(file: pathlib.Path) -> dict[str, Any]:
    """The table in a JSON file; empty without one."""
    try:
        content = parse_json(read_bytes(file))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# --- timm's config.json -------------------------------------------------------------


def _timm_config(source: Any, path: pathlib.Path) -> dict[str, Any]:
    """The `pretrained_cfg` of a `config.json` beside the file; empty without one."""
    location = hub.find(source)
    file = path.parent / "config.json"
    if isinstance(location, hub.HubFile) and not file.exists():
        revision = f"@{location.revision}" if location.revision else ""
        try:
            file = hub.resolve(f"hf:{location.repo}{revision}:config.json")
        except WeightsError:
            return {}  # Not every repository has one.
    config = _read_json(file).get("pretrained_cfg")
    return config if isinstance(config, dict) else {}


def _with_config(published: Published, config: dict[str, Any]) -> Published:
    """With the scale and resolution that timm's config names."""
    mean, std = config.get("mean"), config.get("std")
    size = config.get("input_size")
    if isinstance(size, list) and len(size) == 3:
        published = published._replace(resolution=int(size[-1]))
    if not (isinstance(mean, list) and isinstance(std, list)):
        return published
    for name, (means, deviations) in PIXEL_SCALES.items():
        pairs = zip((*mean, *std), _three(means) + _three(deviations), strict=True)
        if all(abs(a - b) < 1e-3 for a, b in pairs):
            return published._replace(normalization=name, choices=())
    text = f"mean {mean}, std {std} of its config.json, which no scale here has"
    return published._replace(normalization="", choices=(text,))


def _three(values: tuple[float, ...]) -> tuple[float, ...]:
    return values * 3 if len(values) == 1 else values
