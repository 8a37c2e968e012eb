"""The manifest of a target cache: everything that its targets depend on."""

from typing import Any

from kdjax.augment.views import VERSION as VIEWS_VERSION
from kdjax.config import Run
from kdjax.core.fingerprint import fingerprint_arrays, is_abstract
from kdjax.core.types import BoundModel
from kdjax.data import order
from kdjax.data.source import Source, fingerprint


def make_manifest(run: Run, train: Source, teacher: BoundModel) -> dict[str, Any]:
    """Everything that the targets of a run depend on, by the names in its config.

    The teacher's variables are last, because they change with its precision and seeds:
    those fields are then reported first. They are left out where they are shapes only.
    """
    config = run.teacher
    assert config is not None
    fixed = run.views.mode == "fixed"
    members = (config, *config.also)
    cache = {"top_k": config.cache.top_k, "taps": config.cache.taps}
    plan: dict[str, Any] = {"seed": run.seed, "seeds": run.seeds, "batch": run.batch}
    if fixed:
        cache["crops"] = config.cache.crops
        plan = {"seed": run.seed} if config.cache.crops else {}
        if teacher.axis == 0:
            plan["seeds"] = run.seeds
    views = {k: getattr(run.views, k) for k in _view_fields(run)}
    # The loss's temperature enters a top-k normalizer, and a mean of probabilities.
    averaged = config.mean == "probabilities" and not config.mean_at
    tempered = config.cache.top_k or averaged
    of: dict[str, Any] = {
        "precision": config.precision,
        "resolution": teacher.resolution,
        "pixels": list(teacher.pixels),
        "cache": cache,
    }
    if config.also:
        of["mean"] = config.mean
        of["weights"] = [m.weight for m in members]
        of["temperatures"] = [m.temperature for m in members]
        if config.mean_at:
            of["mean_at"] = config.mean_at
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


def _view_fields(run: Run) -> list[str]:
    """The fields of `views` that change the teacher's view."""
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
