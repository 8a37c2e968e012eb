"""Losses between feature maps, single or by stage, and between input gradients."""

import numpy as np

from tests.lawbook import Case

MAP = (3, 2, 4)
VECTOR = (2, 3)


def _ends(rng, rows):
    end = rng.normal(size=(rows, 3, 2, 5))
    return {"student_end": end, "teacher_end": end}


def _importance(rng, rows):
    return {"importance": (rng.uniform(size=(rows, 3, 2)) > 0.3) * 0.5}


def _margin(rng, rows):
    return {"margin": -np.abs(rng.normal(size=4))}


def _log_variance(rng, rows):
    return {"log_variance": rng.normal(size=4)}


def _each(name, knob, values, shape=MAP, **more):
    return [Case(name, shape, knobs=((knob, v),), **more) for v in values]


def _foreground(rng, rows):
    return {"foreground": (rng.uniform(size=(rows, 3, 2)) > 0.5) * 0.25}


def _weights(rng, rows):
    return {"weights": rng.uniform(size=(rows, 4))}


def _targets(rng, rows):
    return {"targets": 0.1 * rng.normal(size=(rows, 4))}


LEVELS = (("levels", 9), ("low", -3.0), ("high", 3.0))
PARTS = (("alpha", 0.5), ("beta", 0.3), ("gamma", 0.1))
FLOW: dict = {"arrays": _importance, "rowwise": ("importance",), "zero_if_equal": False}
FOCAL: dict = {"arrays": _foreground, "rowwise": ("foreground",), "knobs": PARTS}
ENDS = ("student_end", "teacher_end")

CASES = [
    Case("hint_l2", VECTOR),
    Case("hint_l2", MAP, knobs=(("variant", "fitnets"),), mask=1),
    Case("hint_l2", MAP, knobs=(("variant", "partial"),), mask=1),
    Case("hint_l1", VECTOR),
    Case("hint_l1", MAP, mask=1),
    Case("hint_cosine", VECTOR),
    Case("channel_weighted_hint", MAP, arrays=_weights, rowwise=("weights",), mask=1),
    Case("hint_cosine", MAP, mask=1),
    *_each("attention_transfer", "variant", ["code", "paper"]),
    *_each("attention_transfer", "power", [1, 3.0], mask=1),
    *_each("attention_transfer", "over", ["max"], teacher=(3, 2, 6), mask=1),
    *_each("factor_transfer", "variant", ["factor", "attention"]),
    *_each("factor_transfer", "variant", ["attention"], teacher=(3, 2, 6), mask=1),
    *_each("cat_kd", "normalize", [True, False]),
    *_each("cat_kd", "size", [3], (3, 4, 4)),
    Case("review_kd", (5, 6, 3)),
    *_each("review_kd", "sizes", [(1,)]),
    Case("fine_grained_imitation", MAP, arrays=_importance, rowwise=("importance",)),
    *_each("cwd", "temperature", [1.0, 4.0], mask=1),
    Case("cwd", MAP),
    Case("ickd", MAP),
    Case("ickd", MAP, mask=1),
    *_each("nst", "kernel", ["linear", "polynomial", "gaussian"]),
    *_each("nst", "kernel", ["gaussian"], teacher=(3, 2, 6), mask=1),
    *_each("nst", "variant", ["released"], zero_if_equal=False,
           nonnegative=False),
    Case("pairwise_affinity", MAP, (3, 2, 6), mask=1),
    Case("pairwise_affinity", MAP),
    Case("optical_flow", (3, 2, 2), **FLOW),
    Case("quantized_hint", MAP, knobs=LEVELS),
    Case("fgd", MAP, **FOCAL),
    Case("bounded_regression", (4,), arrays=_targets, rowwise=("targets",),
         maskwise=("targets",), teacher_gradient=False),
    *_each("ab", "variant", ["sum", "mean"], zero_if_equal=False,
           teacher_gradient=False),
    Case("ofd", MAP, arrays=_margin,
         maskwise=("margin",)),
    Case("ofd", MAP, arrays=_margin, mask=1),
    *_each("fsp", "variant", ["mean", "sum", "norm"], arrays=_ends, rowwise=ENDS),
    Case("kdsvd", MAP, arrays=_ends, rowwise=ENDS, mask=None),
    *_each("kdsvd", "components", [2], arrays=_ends, rowwise=ENDS, mask=None),
    Case("vid", MAP, arrays=_log_variance, zero_if_equal=False,
         nonnegative=False, maskwise=("log_variance",)),
    Case("vid", MAP, arrays=_log_variance, zero_if_equal=False,
         nonnegative=False, mask=1),
    Case("attention_transfer_gradient", MAP),
    *_each("jacobian_matching", "variant", ["sum", "mean"], mask=1),
]  # fmt: skip
