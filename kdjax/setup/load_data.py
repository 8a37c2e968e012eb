"""Loading the examples of a run, by the fields of its config."""

import dataclasses
import itertools
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from kdjax.config import ConfigError, Run, require
from kdjax.data import datasets, memory, streamed
from kdjax.data import source as sources
from kdjax.data.datasets import Splits
from kdjax.data.source import Source
from kdjax.teachers.sanity import spread_sample

# Training images that are compared.
_SAMPLE = 8
# Classes that labels alone may make: more are numbers of another kind.
MAX_UNSTATED = 2**20


def call_own(run: Run) -> Splits | None:
    """The splits of a data set in memory, for `load_source`; None for one of files.

    A function of the user's own that makes them is called once.
    """
    data = run.data
    if not datasets.is_own(data.name):
        return None
    return datasets.load_splits(data.name, data_dir=data.data_dir)


def load_source(
    run: Run,
    split: str,
    splits: Splits | None = None,
    field: str = "",
    *,
    outline: bool = False,
    class_names: Sequence[str] | None = None,
) -> Source:
    """The examples of the run's `train`, `validation` or `test` split.

    Training images without labels have the classes of the other two.

    Args:
      splits: arrays or sources by split, in place of the data set of `run.data`.
      field: the field named by errors; by default `data.train` and so on.
      outline: read the headers of files alone. Images are blank, and labels may be 0;
        their numbers, shapes and classes are right.
      class_names: the classes that it must have, in their order.
    """
    data, field = run.data, field or f"data.{split}"
    if split == "train" and data.train_name:
        other = dataclasses.replace(data, name=data.train_name)
        other = dataclasses.replace(run, data=other)
        source = _load(other, split, None, field, unlabeled=True, outline=outline)
    else:
        source = _load(run, split, splits, field, outline=outline)
    if split == "train" and not source.classes:
        names = ("validation", "test")
        labeled = [
            _load(run, name, splits, f"data.{name}", outline=outline) for name in names
        ]
        source = sources.with_classes_of(source, labeled)
    if not (data.classes or source.names):
        highest, expected = source.classes - 1, f"labels below {MAX_UNSTATED:,}"
        require(highest < MAX_UNSTATED, field, expected, highest)
    if class_names is not None:
        expected = "the classes of data.train in the same order"
        sources.check_same_names(source.names, class_names, field, expected)
    if split == "train" and source.classes == 1:
        got = f"1 ({', '.join(source.names) or 'every label is 0'})"
        raise ConfigError(field, "images of at least 2 classes", shown=got)
    if outline:
        return memory.blank(source)
    options = {"on_error": data.on_error, "workers": data.workers}
    streamed = split == "train" and data.pipeline == "host"
    select = memory.select_decodable if streamed else memory.decode_all
    selected = select(source, **options)
    if selected.skipped:
        count = f"{len(selected.skipped)} of {len(source)} images"
        more = "; ..." if len(selected.skipped) > 5 else ""
        text = f"{field}: left out {count}: {'; '.join(selected.skipped[:5])}{more}"
        warnings.warn(text, stacklevel=2)
    return selected


def _load(
    run: Run,
    split: str,
    splits: Splits | None,
    field: str,
    unlabeled: bool = False,
    outline: bool = False,
) -> Source:
    """One split as arrays or files, not yet decoded.

    unlabeled: the data set is that of `data.train_name`, whose labels are not used.
    """
    data, text = run.data, _text(run, split)
    if splits is not None:
        datasets.check_splits(splits, "splits")
    options = {"channels": data.channels, "store": data.store}
    if splits is None:
        splits = datasets.load_splits(
            data.name,
            data_dir=data.data_dir,
            labeled=not unlabeled,
            read_labels=not outline,
            field="data.train_name" if unlabeled else "data.name",
            used=_names_in_use(run, split if unlabeled else ""),
            **options,
        )
    source = datasets.take_split(splits, text, field, data.shuffle_seed)
    source = datasets.convert(source, **options)
    if data.classes:
        return sources.with_class_count(source, data.classes, field)
    return source


def _text(run: Run, split: str) -> str:
    """The sub-split that a run takes for `train`, `validation` or `test`."""
    text = getattr(run.data, split)
    return datasets.default_split(run.data.name, split) if text == "default" else text


def _names_in_use(run: Run, only: str = "") -> set[str]:
    """Names of the splits that a run takes from its data set, or of one of them."""
    splits = ["validation", "test", *([] if run.data.train_name else ["train"])]
    return {datasets.split_name(_text(run, x)) for x in ([only] if only else splits)}


def warn_of_missing_classes(
    run: Run, data: Mapping[str, Source], fields: Mapping[str, str] | None = None
) -> None:
    """Warn of each split that lacks classes that another split has, in one line.

    A set that is sorted by class, cut in shares, has such splits; so has a folder
    whose splits have other class folders.

    fields: of the splits to warn of, their names; by default of all, `data.train` and
        so on.

    Raises:
      ConfigError: if all labels are of a single class.
    """
    fields = {k: f"data.{k}" for k in data} if fields is None else fields
    counts = {split: _count_labels(source) for split, source in data.items()}
    size = max(map(len, counts.values()))
    present = {k: np.pad(x, (0, size - len(x))) > 0 for k, x in counts.items()}
    anywhere = np.any([*present.values()], axis=0)
    if present["train"].any() and anywhere.sum() == 1:
        got = f"1 (every label is {anywhere.argmax()})"
        expected = "images of at least 2 classes"
        raise ConfigError(fields.get("train", "data.train"), expected, shown=got)
    for split, field in fields.items():
        own = present[split]
        lacking = np.flatnonzero(anywhere & ~own)
        # Images without labels, to teach on, may be of any class.
        if not own.any() or not len(lacking):
            continue
        names = data["train"].names
        shown = [names[i] if names else str(i) for i in lacking[:5]]
        count = f"{len(lacking)} of {anywhere.sum()} classes"
        text = f"{field}: {count} without an image: "
        text += ", ".join(shown) + ", ..." * (len(lacking) > 5)
        if "[" in _text(run, split):
            text += " (for a set sorted by class set data.shuffle_seed)"
        warnings.warn(text, stacklevel=3)


def _count_labels(source: Source) -> np.ndarray:
    return np.bincount(source.labels[source.labels >= 0], minlength=source.classes)


def warn_of_gaps(run: Run, data: Mapping[str, Source]) -> None:
    """Warn where half of the class numbers below the highest label, or more, have no
    image in any split.

    One wrong label makes a problem of many classes. Classes that are named or counted
    by `data.classes` are meant.
    """
    found = np.unique(np.concatenate([source.labels for source in data.values()]))
    found = found[found >= 0]
    highest = int(found.max(initial=0))
    empty = highest + 1 - len(found)
    stated = run.data.classes or any(source.names for source in data.values())
    if stated or not highest or 2 * empty < highest:
        return
    field = next(k for k, x in data.items() if (x.labels == highest).any())
    text = f"data.{field}: {empty:,} of the classes below the highest label, {highest},"
    advice = f"number the classes from 0, or set data.classes to {highest + 1}"
    warnings.warn(f"{text} have no image ({advice})", stacklevel=3)


def warn_of_shared_images(
    run: Run, data: Mapping[str, Source], fields: Mapping[str, str] | None = None
) -> None:
    """Warn of each pair of splits of a run that share images, in one line.

    fields: of the splits whose pairs with all others are checked, their names; by
        default of all, `data.train` and so on.
    """
    fields = {k: f"data.{k}" for k in data} if fields is None else fields
    for first, second in itertools.combinations(data, 2):
        other_set = run.data.train_name and "train" in (first, second)
        texts = _text(run, first), _text(run, second)
        same = datasets.split_name(texts[0]) == datasets.split_name(texts[1])
        if other_set or not same or not {first, second} & {*fields}:
            continue
        count = len(np.intersect1d(data[first].ids, data[second].ids))
        if count:
            names = [fields.get(k, f"data.{k}") for k in (first, second)]
            pair = " and ".join(f"{n} ({t})" for n, t in zip(names, texts, strict=True))
            warnings.warn(f"{pair} share {count:,} images", stacklevel=3)


def warn_of_equal_images(train: Source) -> None:
    """Warn of training images that are all equal, by a spread sample of them."""
    images = streamed.load_images(train, spread_sample(len(train), _SAMPLE))
    first, *others = images["image"]
    if others and all(np.array_equal(first, x) for x in others):
        text = f"data.train: {len(others) + 1} images, drawn from all, are equal; were"
        warnings.warn(f"{text} they read or converted wrongly?", stacklevel=3)
