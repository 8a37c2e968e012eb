"""Taking the student out of a run: loading, predicting, exporting."""

import os
import pathlib
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from kdjax import config as configs
from kdjax import setup
from kdjax.config import (
    require,
    require_folder,
    require_known,
    require_local,
    require_type,
    to_path,
)
from kdjax.core import bucket, runlog
from kdjax.core.types import BoundModel, Model
from kdjax.data import images as files
from kdjax.export import FORMATS, Student, write_export
from kdjax.models.normalization import SCALES
from kdjax.models.zoo import count_parameters
from kdjax.setup.identity import read_identity
from kdjax.train import sharding
from kdjax.train.checkpoint import Checkpoints

BATCH = 64
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def load(
    folder: str | pathlib.Path,
    *,
    checkpoint: Literal["last", "best"] = "last",
    seed: int | Literal["ensemble"] | None = None,
    network: str = "",
    model: Model | None = None,
) -> Student:
    """The trained student of a finished run, ready for images.

    Args:
      folder: the run folder.
      checkpoint: "last", or "best" on the validation split.
      seed: one of the run's seeds, by default its first; "ensemble" for all of them.
      network: one of `run.networks`; empty: the one that the run evaluates.
      model: the model that was passed to `distill` or `train` from Python.

    Raises:
      ConfigError: the run is not finished, has no such seed or network, or needs
        `model`.
    """
    folder = bucket.open_folder(to_path(folder, "folder"), "folder")
    require(checkpoint in ("last", "best"), "checkpoint", "last or best", checkpoint)
    run, summary = setup.read_run(folder), runlog.read_summary(folder)
    overrides = read_identity(folder).overrides or {}
    expected = "the model of this run: load(folder, model=...), from Python"
    ok = "model" not in overrides or model is not None or network != ""
    require(ok, "model", expected, model)
    step = _best_step(folder) if checkpoint == "best" else None
    mesh = sharding.make_mesh(configs.Compute(data=1), 1)
    trained = setup.load_trained(
        folder, mesh, model=model, step_number=step, network=network
    )
    assert summary is not None
    variables = jax.tree.map(np.asarray, trained.variables)
    members = run.seeds if seed == "ensemble" else 0
    if seed != "ensemble":
        seeds = list(range(run.seed, run.seed + run.seeds))
        number = run.seed if seed is None else seed
        require(number in seeds, "seed", f"one of {seeds} or 'ensemble'", seed)
        at = seeds.index(number)
        variables = jax.tree.map(lambda x: x[at], variables)
    count = summary["classes"]
    names = tuple(summary.get("class_names") or map(str, range(count)))
    return Student(
        module=trained.model,
        variables=variables,
        classes=names,
        resolution=run.model.resolution,
        channels=summary["channels"],
        evaluation_crop=run.views.evaluation_crop,
        store=run.data.store,
        members=members,
    )


def _best_step(folder: pathlib.Path) -> int | None:
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.best_step()
    finally:
        checkpoints.close()


class Prediction(NamedTuple):
    """The top classes of one image, with their probabilities, largest first."""

    file: str
    classes: list[str]
    probabilities: list[float]


def predict(
    student: Student,
    paths: Iterable[str | pathlib.Path | bytes] | str | pathlib.Path | bytes,
    *,
    top: int = 5,
) -> Iterator[Prediction]:
    """Predictions for image files, and for all images in folders.

    Args:
      student: of `load`.
      paths: image files, the bytes of one, and folders; or one of these. The
        images of a folder come in the order of their names.
      top: number of classes of each prediction.

    Images of other channels than those of the run are converted, with one warning.

    Raises:
      ConfigError: no such file, or a folder without images. ImageError: a file that
      cannot be decoded.
    """
    require_type(student, Student, "student", "a student of kdjax.load")
    require(top >= 1, "top", "at least 1 class", top)
    top = min(top, len(student.classes))
    images: list[Any] = []
    one = isinstance(paths, (str, os.PathLike, bytes))
    for path in [paths] if one else paths:
        images += [path] if isinstance(path, bytes) else _image_files(path)
    _warn_of_conversion(images, student.channels)
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        logits = _logits(student, batch)
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities = shifted / shifted.sum(-1, keepdims=True)
        for file, row in zip(batch, probabilities, strict=True):
            order = np.argsort(-row, kind="stable")[:top]
            names = [student.classes[i] for i in order]
            yield Prediction(_name(file), names, [float(row[i]) for i in order])


def _warn_of_conversion(images: list[Any], channels: int) -> None:
    """Warn once of color images for a network of gray ones, or the reverse."""
    found = [files.stored_channels(file) for file in images]
    text = files.format_conversion(found, channels)
    if text:
        text = f"files: {text}, as the images of the run"
        warnings.warn(text, stacklevel=3)


def _logits(student: Student, batch: list[Any]) -> np.ndarray:
    """Logits of images (files, or the bytes of one), those of one size together."""
    side = student.store
    images = [files.decode(file, student.channels, _name(file)) for file in batch]
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    if side:
        images = [files.resize(image, side, side) for image in images]
    logits = np.zeros((len(batch), len(student.classes)), np.float32)
    for shape in dict.fromkeys(image.shape for image in images):
        rows = [i for i, image in enumerate(images) if image.shape == shape]
        logits[rows] = student(np.stack([images[i] for i in rows]), sizes[rows])
    return logits


def _name(file: Any) -> str:
    return "standard input" if isinstance(file, bytes) else str(file)


def _image_files(name: str | pathlib.Path) -> list[pathlib.Path]:
    path = to_path(name, "files")
    require_local(name, "files")
    if path.is_dir():
        every = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
        require(bool(every), "files", f"images in {path}", "none")
        return every
    require(path.is_file(), "files", "regular image files, or folders", str(path))
    return [path]


def export(
    folder: str | pathlib.Path,
    name: str,
    *,
    out: str | pathlib.Path = "",
    batch: int = 0,
    checkpoint: Literal["last", "best"] = "last",
    seed: int | Literal["ensemble"] | None = None,
) -> pathlib.Path:
    """Write the student of a run in a format of another runtime, and its card.

    Args:
      folder: the run folder.
      name: of the format, a key of `kdjax.export.FORMATS`.
      out: the folder of the files; by default `export` in the run folder.
      batch: the batch of the exported function; 0 for any, and with safetensors.
      checkpoint, seed: as in `load`.

    Returns:
      The written file. `card.json` and `card.md` describe it.
    """
    require_known(name, FORMATS, "format")
    require_local(out, "out")
    require(0 <= batch <= 2**16, "batch", "0 (any) to 65536 images", batch)
    has_batch = name != "safetensors"
    require(has_batch or not batch, "batch", "none with safetensors", batch)
    folder = bucket.open_folder(to_path(folder, "folder"), "folder")
    target = pathlib.Path(out).expanduser() if out else folder / "export"
    require_folder(target, "out")
    student = load(folder, checkpoint=checkpoint, seed=seed)
    path = write_export(student, name, target, batch=batch)
    card = make_card(folder, student, path, name)
    # The summary has the metrics of the last checkpoint, seed by seed.
    if checkpoint == "last" and seed != "ensemble":
        card["test"] = _test_metrics(folder, seed)
    runlog.write_json(target / "card.json", card)
    (target / "card.md").write_text(format_card(card))
    bucket.push(target)
    return path


def _test_metrics(folder: pathlib.Path, seed: int | None) -> dict[str, float]:
    """The test metrics of one seed, by default the first, at the last checkpoint."""
    run, summary = setup.read_run(folder), runlog.read_summary(folder) or {}
    at = 0 if seed is None else seed - run.seed
    return {name: float(x[at]) for name, x in summary.get("test", {}).items()}


def make_card(
    folder: pathlib.Path, student: Student, path: pathlib.Path, name: str
) -> dict[str, Any]:
    """The description of an exported student, as plain values."""
    run, summary = setup.read_run(folder), runlog.read_summary(folder) or {}
    side, channels = student.input_size, student.channels
    return {
        "format": name,
        "file": path.name,
        "bytes": path.stat().st_size,
        "input": f"uint8 [batch, {side}, {side}, {channels}]",
        "output": f"float32 logits [batch, {len(student.classes)}]",
        "classes": list(student.classes),
        "pixels": _pixels(run.model.normalization),
        "model": configs.to_dict(run)["model"],
        "parameters": count_parameters(student.variables),
        "flops": _flops(student),
        "test": {},
        "data": run.data.name,
        "teacher": configs.to_dict(run)["teacher"],
        "milliseconds": {str(n): _latency(student, n) for n in (1, 64)},
        "machine": summary.get("machine", ""),
        "versions": summary.get("versions", {}),
    }


def _pixels(normalization: str) -> dict[str, list[float]]:
    """Mean and standard deviation by which pixels / 255 enter the network."""
    mean, std = SCALES[normalization]
    return {"mean": list(mean), "std": list(std)}


def _images(student: Student, count: int) -> np.ndarray:
    side = student.input_size
    return np.zeros((count, side, side, student.channels), np.uint8)


def _flops(student: Student) -> int:
    """FLOPs of the network for one image, or of all members of an ensemble."""
    axis = 0 if student.members else None
    bound = BoundModel(student.module, student.variables, axis, student.resolution)
    return max(student.members, 1) * setup.image_flops(bound, student.channels)


def _latency(student: Student, batch: int, repeats: int = 20) -> float:
    """The median time of a batch in milliseconds, on this machine."""
    images = _images(student, batch)
    student(images)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        student(images)
        times.append(time.perf_counter() - start)
    return round(1e3 * float(np.median(times)), 3)


def format_card(card: dict[str, Any]) -> str:
    """A card as Markdown."""
    rows = {
        "format": f"{card['format']}, `{card['file']}`, {card['bytes']:,} bytes",
        "input": f"`{card['input']}`",
        "output": f"`{card['output']}`",
        "model": card["model"]["name"],
        "parameters": f"{card['parameters']:,}",
        "FLOPs per image": f"{card['flops']:,}, of products and convolutions",
        **{f"test {name}": f"{value:.4f}" for name, value in card["test"].items()},
        "milliseconds": ", ".join(
            f"{time:.1f} for a batch of {n}" for n, time in card["milliseconds"].items()
        )
        + ", on this machine",
        "data": card["data"],
        "teacher": (card["teacher"] or {}).get("kind", "none"),
        "classes": ", ".join(card["classes"][:20])
        + (", ..." if len(card["classes"]) > 20 else ""),
    }
    lines = ["# Exported student", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(lines) + "\n"
