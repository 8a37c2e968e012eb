"""Losses between logits."""

from typing import Any

import numpy as np

from tests.lawbook import Case


def _labels(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    return {"labels": rng.integers(3, size=rows)}


def _knobs(**knobs) -> tuple[tuple[str, Any], ...]:
    return tuple(knobs.items())


_LABELED: dict[str, Any] = {"arrays": _labels, "rowwise": ("labels",)}
_HARD: dict[str, Any] = {"zero_if_equal": False, "teacher_gradient": False}


def _class_weights(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    return {"class_weights": np.array([1.5, 1.0, 0.5])}


def _softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


_RANKED: dict[str, Any] = {"student": (5,), **_HARD}
_BEHIND: dict[str, Any] = {"student": (5,), "teacher_gradient": False}
_DIST: dict[str, Any] = {"relation": True, "mask": 0, "min_rows": 2}
# A smaller eps: what it adds to a divergence of equals grows with T^2.
_WARM = _knobs(temperature=4.0, eps=1e-12)
_LEVELS: dict[str, Any] = {"relation": True, "mask": 0}

CASES = [
    Case("softmax_kl"),
    Case("softmax_kl", knobs=_knobs(temperature=4.0)),
    Case("reverse_softmax_kl"),
    Case("reverse_softmax_kl", knobs=_knobs(temperature=4.0)),
    Case("jeffreys"),
    Case("jeffreys", knobs=_knobs(temperature=4.0)),
    Case("jensen_shannon"),
    Case("jensen_shannon", knobs=_knobs(beta=0.1, temperature=4.0)),
    Case("jensen_shannon", knobs=_knobs(beta=0.0)),
    Case("jensen_shannon", knobs=_knobs(beta=1.0)),
    Case("soft_cross_entropy", zero_if_equal=False),
    Case("soft_cross_entropy", knobs=_knobs(temperature=4.0), zero_if_equal=False),
    Case("soft_label_cross_entropy", positive=_softmax, zero_if_equal=False),
    Case("hard_cross_entropy", **_HARD),
    Case("hard_cross_entropy", knobs=_knobs(label_smoothing=0.1), **_HARD),
    Case(
        "hard_cross_entropy",
        knobs=_knobs(label_smoothing=0.1, variant="big_vision"),
        **_HARD,
    ),
    Case("hard_cross_entropy", teacher="ids", **_HARD),
    Case("logit_mse"),
    Case("logit_mse", knobs=_knobs(center=True)),
    Case("logit_l2"),
    Case("log_softmax_l2"),
    Case("probability_mse"),
    Case("probability_mse", knobs=_knobs(temperature=4.0)),
    Case("probability_l1"),
    Case("sigmoid_kl"),
    Case("sigmoid_kl", knobs=_knobs(temperature=4.0)),
    Case("dkd", **_LABELED),
    Case("dkd", knobs=_knobs(beta=0.5, temperature=1.0), **_LABELED),
    Case("dkd_target", **_LABELED),
    Case("dkd_non_target", **_LABELED),
    Case("standardized_kl"),
    Case("standardized_kl", knobs=_knobs(ddof=0)),
    Case("lwf", zero_if_equal=False),
    Case("lwf", knobs=_knobs(eps=1e-5), zero_if_equal=False),
    Case("wsld", zero_if_equal=False, **_LABELED),
    Case(
        "wsld",
        knobs=_knobs(variant="described"),
        zero_if_equal=False,
        **_LABELED,
    ),
    Case("tf_kd", teacher="ids"),
    Case("tf_kd", teacher="ids", knobs=_knobs(variant="described")),
    Case("dist_inter"),
    Case("dist_inter", knobs=_WARM),
    Case("dist_intra", **_DIST),
    Case("dist_intra", knobs=_WARM, **_DIST),
    Case("dist", **_DIST),
    Case("dist", knobs=_knobs(beta=0.5, gamma=2.0), **_DIST),
    Case("mlld", **_LEVELS),
    Case("mlld", knobs=_knobs(variant="described"), **_LEVELS),
    # Nothing but divergences is left of it.
    Case("mlld", knobs=_knobs(view="strong"), mask=0),
    Case("mlld", knobs=_knobs(standardize=True), **_LEVELS),
    Case("mlld_batch", **_LEVELS),
    Case("mlld_class", **_LEVELS),
    Case("logit_l1"),
    Case(
        "policy_distillation",
        knobs=_knobs(temperature=0.5, student_temperature=2.0),
        zero_if_equal=False,
    ),
    Case("sigmoid_cross_entropy", zero_if_equal=False),
    Case(
        "class_weighted_cross_entropy",
        arrays=_class_weights,
        maskwise=("class_weights",),
        zero_if_equal=False,
    ),
    Case("generator_disagreement", nonnegative=False),
    Case("ranking_distillation", knobs=_knobs(top=3, decay=2.0), **_RANKED),
    Case("ranking_distillation", knobs=_knobs(top=3, sharpness=0.5), **_BEHIND),
]
