"""The store of a teacher's targets: what it is of, and how it is opened."""

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.build.trained import Trained
from kdjax.config import Run, require
from kdjax.core.types import Array, PyTree
from kdjax.data import order
from kdjax.data.source import Source, fingerprint
from kdjax.data.store import Store, StoreError, open_store, read_manifest


def digest(tree: PyTree) -> str:
    """16 hex digits that change with any number of a tree of arrays."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        x = np.ascontiguousarray(jax.device_get(leaf))
        sha.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return sha.hexdigest()[:16]


def manifest(run: Run, train: Source, teacher: Trained) -> dict[str, Any]:
    """Everything that the targets of a run depend on, by name."""
    asked = run.teacher
    assert asked is not None
    views = dataclasses.asdict(run.views)
    fixed = run.views.mode == "fixed"
    common = {
        "kind": "fixed" if fixed else "replayed",
        "teacher": digest(teacher.variables),
        "resolution": teacher.resolution,
        "precision": asked.precision,
        "pixels": [m.model.pixels for m in (asked, *asked.also)],
        "data": fingerprint(train),
        "crop": run.data.crop,
        "top_k": asked.cache.top_k,
        "taps": asked.cache.taps,
    }
    if asked.cache.top_k:
        common["temperature"] = temperature(run)
    if asked.also:
        members = (asked, *asked.also)
        common["mean"] = asked.mean
        common["members"] = [[m.weight, m.temperature] for m in members]
    if not fixed:
        plan = {"seed": run.seed, "seeds": run.seeds, "batch": run.batch}
        return {**common, **plan, "order": order.VERSION, "views": views}
    common["crops"] = asked.cache.crops
    names = ["still", "share", "method", "antialias"]
    if asked.cache.crops:
        names += ["crop", "area", "aspect", "flip", "jitter", "randaugment"]
        common["seed"] = run.seed
    return {**common, "views": {k: views[k] for k in names}}


def temperature(run: Run) -> float:
    """The temperature that the log-normaliser is stored for: that of the first term."""
    for term in run.terms.values():
        if term.teacher == "logits":
            ok = term.temperature.end is None
            want = "0 (all classes) with a temperature that changes"
            require(
                ok, "teacher.cache.top_k", want, run.teacher and run.teacher.cache.top_k
            )
            return term.temperature.value
    return 1.0


def open_cache(run: Run, train: Source, teacher: Trained) -> Store:
    """The store that a run names, if it is of this very run.

    A teacher whose variables are shapes only is not compared.

    Raises:
      StoreError: nothing there, or of another teacher, data set, view plan, order or
        seed: the field is named.
    """
    assert run.teacher is not None
    path = run.teacher.cache.path
    if read_manifest(path) is None:
        raise StoreError(
            f"teacher.cache.path: expected a store in {path}, there is none; "
            "`kdjax cache-targets` with the same options makes it"
        )
    shapes = jax.tree.leaves(teacher.variables)
    abstract = any(isinstance(x, jax.ShapeDtypeStruct) for x in shapes)
    blank = teacher._replace(variables={}) if abstract else teacher
    wanted = manifest(run, train, blank)
    if abstract:
        del wanted["teacher"]
    store = open_store(path, wanted)
    missing = store.unfinished()
    if missing:
        raise StoreError(
            f"{path}: {missing} of {store.rows} rows are missing; "
            "`kdjax cache-targets` with the same options finishes it"
        )
    return store


def open_if_named(run: Run, train: Source, teacher: Trained | None) -> Store | None:
    """The store that a run's terms read their targets from, if it names one."""
    asked = any(term.teacher != "labels" for term in run.terms.values())
    named = run.teacher is not None and bool(run.teacher.cache.path)
    if not (asked and named) or teacher is None:
        return None
    return open_cache(run, train, teacher)


def plan_rows(run: Run, train: Source) -> int:
    """Rows of the store: updates whose views are replayed, or examples."""
    assert run.teacher is not None
    if run.views.mode == "fixed":
        return len(train)
    epochs = run.teacher.cache.epochs
    steps = round(epochs * len(train) / run.batch) or run.steps
    want = f"at most the {run.steps} updates of the run"
    require(steps <= run.steps, "teacher.cache.epochs", want, f"{steps} updates")
    return steps


def fixed_targets(store: Store) -> tuple[dict[str, np.ndarray], int | None]:
    """All targets of a store of kind `fixed`, and the axis of their seeds.

    `[examples, ...]`, or `[seeds, examples, ...]` where each seed has a teacher.
    """
    found = store.read(slice(0, store.rows))
    one = all(x.shape[1] == 1 for x in found.values())
    if one:
        return {k: x[:, 0] for k, x in found.items()}, None
    return {k: np.moveaxis(x, 1, 0) for k, x in found.items()}, 0


def blank_rows(store: Store) -> dict[str, Array]:
    """Targets of one example with the shapes and dtypes of a store."""
    fixed = store.manifest["kind"] == "fixed"
    layout = store.manifest["layout"]["arrays"]
    lead = 1 if fixed else 2
    return {
        k: jnp.zeros((1, *shape[lead:]), dtype) for k, (shape, dtype) in layout.items()
    }
