"""The runs that belong to one, and the examples each is about."""

import dataclasses
import pathlib
import warnings

from kdjax import config as configs
from kdjax.config import ConfigError, Run
from kdjax.core import runlog
from kdjax.data import memory, sources
from kdjax.data import source as source_of
from kdjax.data.source import Source
from kdjax.data.sources import Splits


def load_source(run: Run, split: str, splits: Splits | None = None) -> Source:
    """The examples of the run's `train`, `validation` or `test` split."""
    data, field = run.data, f"data.{split}"
    if split == "train" and data.train_name:
        classes = _take_split(run, "validation", data.name, splits).classes
        other = _take_split(run, split, data.train_name, None)
        found = source_of.unlabelled(other, classes)
    else:
        found = _take_split(run, split, data.name, splits)
    options = {"on_corrupt": data.on_corrupt, "workers": data.workers}
    streamed = split == "train" and data.feed == "streamed"
    keep = memory.usable if streamed else memory.in_memory
    held, skipped = keep(found, **options)
    if skipped:
        text = f"{field}: left out {len(skipped)} of {len(found)} images: {skipped[0]}"
        warnings.warn(text, stacklevel=2)
    return held


def _take_split(run: Run, split: str, name: str, splits: Splits | None) -> Source:
    data, text = run.data, getattr(run.data, split)
    if splits is None:
        options = {"data_dir": data.data_dir, "channels": data.channels}
        splits = sources.load_splits(name, store=data.store, **options)
    if text == "default":
        text = sources.default_split(name, split)
    return sources.take_split(splits, text, f"data.{split}")


def read_run(folder: str | pathlib.Path) -> Run:
    """The config of a run folder."""
    values = runlog.read_config(folder)
    values.pop("given", None)
    return configs.from_dict(values)


def read_given(folder: str | pathlib.Path) -> dict[str, str]:
    """What a run was handed over from Python instead of by its config."""
    return runlog.read_config(folder).get("given", {})


def teacher_run(run: Run, folder: pathlib.Path) -> Run:
    """The labelled run that trains the teacher of `run`."""
    if run.teacher is None:
        raise ConfigError("teacher: expected a teacher to distil from, got none")
    asked = run.teacher
    return configs.labelled(
        run,
        name="teacher",
        workdir=str(folder),
        data=dataclasses.replace(run.data, train=asked.train, train_name=""),
        model=asked.model,
        teacher=None,
        views=asked.views,
        optim=asked.optim,
        steps=asked.steps,
    )


def baseline_run(run: Run, name: str, folder: pathlib.Path) -> Run:
    """A label-only run with the same model, schedule and number of views as `run`."""
    mode = "function_matching" if name == "labels_mixup" else "consistent"
    teacher = run.teacher
    if teacher is not None and teacher.kind == "average":
        teacher = None
    if teacher is not None:
        change = {"run": "../teacher"} if teacher.trained_first else {}
        teacher = dataclasses.replace(teacher, cache=configs.Cache(), **change)
    return configs.labelled(
        run,
        name=name,
        workdir=str(folder),
        teacher=teacher,
        views=dataclasses.replace(run.views, mode=mode),
    )
