"""The manifest of a target cache: everything that its targets depend on."""

from typing import Any

from kdjax.augment.views import VERSION as VIEWS_VERSION
from kdjax.config import Ensemble, Run, TeacherConfig, members_of
from kdjax.core.fingerprint import fingerprint_arrays, is_abstract
from kdjax.core.types import BoundModel
from kdjax.data import order
from kdjax.data.source import Source, fingerprint

# Names in manifests are older than those of the configs: stored caches stay valid.
_VIEWS = {"crop_fraction": "share", "fixed_view": "still"}
_NAMES = {"symmetric": "half", "center": "central"}


def make_manifest(run: Run, train: Source, teacher: BoundModel) -> dict[str, Any]:
    """Everything that the targets of a run depend on, by the names in its config.

    The teacher's variables are last, because they change with its precision and seeds:
    those fields are then reported first. They are left out where they are shapes only.
    """
    fixed, config = run.views.mode == "fixed", run.cache
    cache = {"top_k": config.top_k, "taps": config.taps}
    plan: dict[str, Any] = {"seed": run.seed, "seeds": run.seeds, "batch": run.batch}
    if fixed:
        cache["crops"] = config.crops
        plan = {"seed": run.seed} if config.crops else {}
        if teacher.axis == 0:
            plan["seeds"] = run.seeds
    views = {_VIEWS.get(k, k): _plain(getattr(run.views, k)) for k in _view_fields(run)}
    members = [member for _, member in members_of(run.teacher)]
    of: dict[str, Any] = {
        "precision": _one_or_all([member.precision for member in members]),
        "resolution": teacher.resolution,
        "pixels": [_plain(name) for name in teacher.normalization],
        "cache": cache,
        **_of_mean(run.teacher),
    }
    # The loss's temperature enters a top-k normalizer, and a mean of probabilities.
    averaged = of.get("mean") == "probabilities" and "mean_at" not in of
    tempered = config.top_k or averaged
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


def _of_mean(teacher: TeacherConfig | None) -> dict[str, Any]:
    """The mean that an ensemble's targets are; empty for a single teacher."""
    if not isinstance(teacher, Ensemble):
        return {}
    ones = [1.0] * len(teacher.members)
    mean = {
        "mean": teacher.mean,
        "weights": list(teacher.weights) or ones,
        "temperatures": list(teacher.temperatures) or ones,
    }
    return mean | ({"mean_at": teacher.mean_at} if teacher.mean_at else {})


def _one_or_all(values: list[str]) -> str | list[str]:
    return values[0] if len(set(values)) == 1 else values


def _plain(value: Any) -> Any:
    """A value of a config as manifests have it."""
    return _NAMES.get(value, value) if isinstance(value, str) else value


def _view_fields(run: Run) -> list[str]:
    """The fields of `views` that change the teacher's view."""
    crop = ["crop_fraction"] if run.views.crop == "random" else ["area", "aspect"]
    drawn = ["crop", *crop, "flip", "jitter", "randaugment"]
    names = ["mode", "method", "antialias"]
    if run.views.mode != "fixed":
        mix = ["mix"] if run.views.mode == "function_matching" else []
        return [*names, *drawn, *mix]
    if run.cache.crops:
        return [*names, *drawn]
    center = run.views.fixed_view == "center"
    return [*names, "fixed_view", *(["crop_fraction"] if center else [])]
