"""The runs that belong to one, and the examples each is about."""

import dataclasses
import pathlib
import warnings

import numpy as np

from kdjax import config as configs
from kdjax.config import ConfigError, Ensemble, MovingAverage, Run, TeacherConfig
from kdjax.core import runlog
from kdjax.data import datasets, memory
from kdjax.data import source as source_of
from kdjax.data.datasets import Splits
from kdjax.data.source import Source


def load_source(
    run: Run, split: str, splits: Splits | None = None, field: str = ""
) -> Source:
    """The examples of the run's `train`, `validation` or `test` split.

    Training images without labels have the classes of the other two.

    field: what errors call the split's text; by default `data.train` and so on.
    """
    data, field = run.data, field or f"data.{split}"
    if split == "train" and data.train_name:
        other = dataclasses.replace(data, name=data.train_name)
        other = dataclasses.replace(run, data=other)
        found = _load(other, split, None, field, taught=True)
    else:
        found = _load(run, split, splits, field)
    if split == "train" and not found.classes:
        others = ("validation", "test")
        labeled = [_load(run, name, splits, f"data.{name}") for name in others]
        found = source_of.with_classes_of(found, labeled)
    elif split == "train":
        _warn_of_gaps(found, data.classes, field)
    options = {"on_error": data.on_error, "workers": data.workers}
    streamed = split == "train" and data.pipeline == "host"
    keep = memory.select_decodable if streamed else memory.decode_all
    held = keep(found, **options)
    if held.skipped:
        count = f"{len(held.skipped)} of {len(found)} images"
        more = "; ..." if len(held.skipped) > 5 else ""
        text = f"{field}: left out {count}: {'; '.join(held.skipped[:5])}{more}"
        warnings.warn(text, stacklevel=2)
    return held


def _load(
    run: Run,
    split: str,
    splits: Splits | None,
    field: str,
    taught: bool = False,
) -> Source:
    """taught: the set is that of `data.train_name`, whose labels are not used."""
    data, text = run.data, getattr(run.data, split)
    if splits is not None:
        datasets.check_splits(splits, "splits")
    made = {"channels": data.channels, "store": data.store}
    if splits is None:
        splits = datasets.load_splits(
            data.name,
            data_dir=data.data_dir,
            labeled=not taught,
            field="data.train_name" if taught else "data.name",
            **made,
        )
    if text == "default":
        text = datasets.default_split(data.name, split)
    found = datasets.convert(datasets.take_split(splits, text, field), **made)
    return (
        source_of.with_class_count(found, data.classes, field)
        if data.classes
        else found
    )


def _warn_of_gaps(source: Source, stated: int, field: str) -> None:
    """One wrong label makes a problem of many classes; say so where half of them on end
    have no image and nobody named or counted them."""
    labels = np.unique(source.labels)
    gaps = np.diff(labels)
    if not (stated or source.names) and 2 * gaps.max(initial=0) > source.classes:
        low, high = labels[gaps.argmax()], labels[gaps.argmax() + 1]
        text = f"{field}: of {source.classes:,} classes none between {low} and {high}"
        more = "has an image; data.classes says how many there are"
        warnings.warn(f"{text} {more}", stacklevel=3)


def read_run(folder: str | pathlib.Path) -> Run:
    """The config of a run folder."""
    return configs.from_dict(runlog.read_config(folder))


def teacher_run(run: Run, folder: pathlib.Path) -> Run:
    """The run on labels that trains the teacher of `run`."""
    training = configs.trained_first(run.teacher)
    if training is None:
        raise ConfigError("teacher.kind", "train", run.teacher and run.teacher.kind)
    return configs.labels_only(
        run,
        name="teacher",
        workdir=str(folder),
        data=dataclasses.replace(run.data, train=training.train, train_name=""),
        model=training.model,
        teacher=None,
        views=training.views,
        optim=training.optim,
        steps=training.steps,
    )


def baseline_run(run: Run, name: str, folder: pathlib.Path) -> Run:
    """A label-only run with the same model, schedule and number of views as `run`."""
    mode = "function_matching" if name == "labels_mixup" else "consistent"
    return configs.labels_only(
        run,
        name=name,
        workdir=str(folder),
        teacher=_without_cache(run),
        views=dataclasses.replace(run.views, mode=mode),
    )


def _without_cache(run: Run) -> TeacherConfig | None:
    """The live teacher that a baseline of `run` is compared with."""
    teacher = run.teacher
    if teacher is None or isinstance(teacher, MovingAverage):
        return None
    teacher = configs.replace_cache(teacher, configs.Cache())
    if isinstance(teacher, Ensemble) and teacher.mean == "probabilities":
        # A baseline has no loss with a temperature that would name it.
        teacher = dataclasses.replace(teacher, mean_at=run.mean_at)
    return configs.replace_trained(teacher, "../teacher")
