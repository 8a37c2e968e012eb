"""Opening the target cache of a run, compared with the run."""

import dataclasses
from typing import Any

from kdjax.cache.manifest import make_manifest
from kdjax.cache.plan import count_records, format_steps, reads_cache
from kdjax.cache.store import Store, StoreError, open_store, read_manifest
from kdjax.cache.targets import is_fixed
from kdjax.config import Run, replace_cache, require
from kdjax.core.fingerprint import is_abstract
from kdjax.core.types import BoundModel
from kdjax.data.source import Source


def open_if_named(run: Run, train: Source, teacher: BoundModel | None) -> Store | None:
    """The store that a run's terms read their targets from, if it names one."""
    if teacher is None or not reads_cache(run):
        return None
    return open_cache(run, train, teacher)


def open_cache(run: Run, train: Source, teacher: BoundModel) -> Store:
    """The store of exactly this run, cut to the records that the run needs.

    It may keep more classes than the run's `top_k`. The variables of a teacher of
    shapes alone are not compared.

    Raises:
      ConfigError: it has fewer epochs, or classes, than the run needs.
      StoreError: it is missing, unfinished, or of another teacher, data set, view plan,
        order or seed: the field is named.
    """
    path, records = run.cache.path, count_records(run, train)
    stored = read_manifest(path)
    if stored is None:
        raise StoreError(
            f"teacher.cache.path: expected a store in {path}, there is none; "
            "`kdjax cache-targets` with the same options makes it"
        )
    as_stored = _with_stored_classes(run, stored["layout"]["arrays"])
    manifest = make_manifest(as_stored, train, teacher)
    unknown = ["teacher.variables"] if is_abstract(teacher.variables) else []
    whole = open_store(path, manifest, unknown=unknown)
    expected = f"at most the {format_steps(run, train, whole.records)} in {path}"
    got = format_steps(run, train, records)
    require(records <= whole.records, "teacher.cache.epochs", expected, got)
    store = whole.first(records)
    _require_finished(store)
    return store


def _with_stored_classes(run: Run, arrays: dict[str, Any]) -> Run:
    """The run with the `top_k` of a store in place of its own.

    Raises ConfigError where the run's is larger.
    """
    cache, all_classes = run.cache, "logits" in arrays
    if not all_classes and "log_probs" not in arrays:
        return run
    kept = arrays["logits" if all_classes else "log_probs"][0][-1]
    least = 0 if all_classes else 1
    expected = f"{least} to {kept}, {cache.path} keeps {kept} classes"
    ok = least <= cache.top_k <= kept
    require(ok, "teacher.cache.top_k", expected, cache.top_k)
    cache = dataclasses.replace(cache, top_k=0 if all_classes else kept)
    return dataclasses.replace(run, teacher=replace_cache(run.teacher, cache))


def _require_finished(store: Store) -> None:
    missing = store.unfinished()
    if not missing:
        return
    unit = "images" if is_fixed(store) else "steps"
    count = sum(x.stop - x.start for x in missing)
    spans = [f"{x.start + 1} to {x.stop}" for x in missing[:3]]
    more = ", ..." if len(missing) > 3 else ""
    raise StoreError(
        f"{store.path}: unfinished, the targets of {count} of {store.records} {unit} "
        f"are missing ({unit} {', '.join(spans)}{more}); `kdjax cache-targets` with "
        "the same options computes them"
    )
