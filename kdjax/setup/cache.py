"""The store of a teacher's targets: what it is of, and how it is opened."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from kdjax.augment.views import VERSION as VIEWS_VERSION
from kdjax.config import Run, require
from kdjax.core.fingerprint import fingerprint_arrays, is_abstract
from kdjax.core.types import Array
from kdjax.data import order
from kdjax.data.source import Source, fingerprint
from kdjax.data.store import (
    Rows,
    Store,
    StoreError,
    create_store,
    open_store,
    read_manifest,
)
from kdjax.setup.trained import Trained


def manifest(run: Run, train: Source, teacher: Trained) -> dict[str, Any]:
    """Everything that the targets of a run depend on, named as in its config.

    What a difference is reported for comes first: the teacher's variables, which
    change with its precision and seeds, are last. Without them, as where they are
    shapes only, they are left out.
    """
    asked = run.teacher
    assert asked is not None
    fixed = run.views.mode == "fixed"
    members = (asked, *asked.also)
    cache = {"top_k": asked.cache.top_k, "taps": asked.cache.taps}
    plan: dict[str, Any] = {"seed": run.seed, "seeds": run.seeds, "batch": run.batch}
    if fixed:
        cache["crops"] = asked.cache.crops
        plan = {"seed": run.seed} if asked.cache.crops else {}
        if teacher.axis == 0:
            plan["seeds"] = run.seeds
    views = {k: getattr(run.views, k) for k in _fields_seen(run)}
    # Answers that the temperature of the loss enters.
    averaged = asked.mean == "probabilities" and not asked.mean_at
    tempered = asked.cache.top_k or averaged
    of: dict[str, Any] = {
        "precision": asked.precision,
        "resolution": teacher.resolution,
        "pixels": list(teacher.pixels),
        "cache": cache,
    }
    if asked.also:
        of["mean"] = asked.mean
        of["weights"] = [m.weight for m in members]
        of["temperatures"] = [m.temperature for m in members]
        if asked.mean_at:
            of["mean_at"] = asked.mean_at
    if any(teacher.code):
        of["code"] = list(teacher.code)
    if not is_abstract(teacher.variables):
        of["variables"] = fingerprint_arrays(teacher.variables)
    return {
        **plan,
        "views": views,
        "kind": "fixed" if fixed else "replayed",
        "rules": {"order": order.VERSION, "views": VIEWS_VERSION},
        "data": {"crop": run.data.crop, "content": fingerprint(train)},
        "teacher": of,
        **({"terms": {"temperature": run.temperature}} if tempered else {}),
    }


def _fields_seen(run: Run) -> list[str]:
    """The fields of `views` that change what the teacher sees."""
    assert run.teacher is not None
    crop = ["share"] if run.views.crop == "random" else ["area", "aspect"]
    drawn = ["crop", *crop, "flip", "jitter", "randaugment"]
    names = ["mode", "method", "antialias"]
    if run.views.mode != "fixed":
        mix = ["mix"] if run.views.mode == "function_matching" else []
        return [*names, *drawn, *mix]
    if run.teacher.cache.crops:
        return [*names, *drawn]
    return [*names, "still", *(["share"] if run.views.still == "central" else [])]


def likeliest(run: Run) -> dict[str, Any]:
    """How many of the likeliest classes a run asks for, and at which temperature, as
    `keep` and `unpack` of `kdjax.teachers.cached` take it; nothing where all."""
    assert run.teacher is not None
    top_k = run.teacher.cache.top_k
    return {"top_k": top_k, "temperature": run.temperature} if top_k else {}


def make_cache(
    run: Run, train: Source, teacher: Trained, arrays: dict[str, Rows], block: int
) -> Store:
    """The store that a run names, made where there is none.

    Raises:
      ConfigError: it holds another number of passes.
      StoreError: as `open_cache`, or nothing can be written there.
    """
    assert run.teacher is not None
    path, rows = run.teacher.cache.path, plan_rows(run, train)
    of = manifest(run, train, teacher)
    if read_manifest(path) is not None:
        there = open_store(path, of, mend=True).rows
        want = f"the {_passes(run, train, there)} that {path} was made for"
        require(there == rows, "teacher.cache.epochs", want, _passes(run, train, rows))
    return create_store(path, of, arrays, rows=rows, block=block)


def open_cache(run: Run, train: Source, teacher: Trained) -> Store:
    """The store that a run names, if it is of this very run: the rows that it needs.

    It may keep more classes than the run asks for. A teacher whose variables are shapes
    only is not compared.

    Raises:
      ConfigError: it has fewer passes, or classes, than the run asks for.
      StoreError: nothing there, unfinished, or of another teacher, data set, view plan,
        order or seed: the field is named.
    """
    assert run.teacher is not None
    path, rows = run.teacher.cache.path, plan_rows(run, train)
    there = read_manifest(path)
    if there is None:
        raise StoreError(
            f"teacher.cache.path: expected a store in {path}, there is none; "
            "`kdjax cache-targets` with the same options makes it"
        )
    of = manifest(_for_all_kept(run, there["layout"]["arrays"]), train, teacher)
    unknown = ["teacher.variables"] if is_abstract(teacher.variables) else []
    whole = open_store(path, of, unknown=unknown)
    want = f"at most the {_passes(run, train, whole.rows)} in {path}"
    ok = rows <= whole.rows
    require(ok, "teacher.cache.epochs", want, _passes(run, train, rows))
    store = whole.first(rows)
    gone = store.unfinished()
    if gone:
        what = "images" if store.manifest["kind"] == "fixed" else "updates"
        count = sum(x.stop - x.start for x in gone)
        spans = [f"{x.start + 1} to {x.stop}" for x in gone[:3]]
        more = ", ..." if len(gone) > 3 else ""
        raise StoreError(
            f"{path}: unfinished, the targets of {count} of {rows} {what} are missing "
            f"({what} {', '.join(spans)}{more}); `kdjax cache-targets` with the same "
            "options computes them"
        )
    return store


def _for_all_kept(run: Run, arrays: dict[str, Any]) -> Run:
    """The run as if it asked for all the classes that a store keeps.

    Raises ConfigError where it asks for more.
    """
    assert run.teacher is not None
    asked, whole = run.teacher.cache, "logits" in arrays
    if not whole and "log_probs" not in arrays:
        return run
    held = arrays["logits" if whole else "log_probs"][0][-1]
    least = 0 if whole else 1
    want = f"{least} to {held}, {asked.path} keeps {held} classes"
    require(least <= asked.top_k <= held, "teacher.cache.top_k", want, asked.top_k)
    cache = dataclasses.replace(asked, top_k=0 if whole else held)
    return dataclasses.replace(
        run, teacher=dataclasses.replace(run.teacher, cache=cache)
    )


def _passes(run: Run, train: Source, rows: int) -> str:
    return f"{rows} updates ({rows * run.batch / len(train):.4g} passes)"


def replayed(run: Run, train: Source) -> str:
    """How a run's targets reach it from their store, in words; empty if live."""
    if not _reads_cache(run):
        return ""
    assert run.teacher is not None
    path = run.teacher.cache.path
    if run.views.mode == "fixed":
        return f"stored in {path}, one answer an image whatever the student sees"
    rows = plan_rows(run, train)
    if rows == run.steps:
        return f"stored in {path}, the answer to every view of the run"
    return (
        f"stored in {path}, the answers to the views of the first "
        f"{_passes(run, train, rows)}; then the same views again, "
        f"{run.steps / rows:.4g} times in all"
    )


def _reads_cache(run: Run) -> bool:
    return run.uses_teacher and run.teacher is not None and bool(run.teacher.cache.path)


def open_if_named(run: Run, train: Source, teacher: Trained | None) -> Store | None:
    """The store that a run's terms read their targets from, if it names one."""
    if teacher is None or not _reads_cache(run):
        return None
    return open_cache(run, train, teacher)


def plan_rows(run: Run, train: Source) -> int:
    """Rows of the store: updates whose views are replayed, or examples.

    Raises ConfigError where the passes make no update, or more than the run has.
    """
    assert run.teacher is not None
    if run.views.mode == "fixed":
        return len(train)
    epochs, one = run.teacher.cache.epochs, run.batch / len(train)
    if not epochs:
        return run.steps
    steps = round(epochs / one)
    want = f"0 (all), or at least one update ({one:.4g} passes)"
    require(steps >= 1, "teacher.cache.epochs", want, epochs)
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
