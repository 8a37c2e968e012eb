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
    Case("hint_l2", MAP, knobs=(("convention", "fitnets"),), mask=1),
    Case("hint_l2", MAP, knobs=(("convention", "partial"),), mask=1),
    Case("hint_l1", VECTOR),
    Case("hint_l1", MAP, mask=1),
    Case("hint_cosine", VECTOR),
    Case("channel_weighted_hint", MAP, arrays=_weights, rowwise=("weights",), mask=1),
    Case("hint_cosine", MAP, mask=1),
    *_each("attention_transfer", "form", ["code", "paper"]),
    *_each("attention_transfer", "power", [1, 3.0], mask=1),
    *_each("attention_transfer", "over", ["max"], teacher=(3, 2, 6), mask=1),
    *_each("factor_transfer", "form", ["factor", "attention"]),
    *_each("class_attention", "normalize", [True, False]),
    *_each("class_attention", "size", [3], (3, 4, 4)),
    Case("hierarchical_context", (5, 6, 3)),
    *_each("hierarchical_context", "sizes", [(1,)]),
    Case("masked_imitation", MAP, arrays=_importance, rowwise=("importance",)),
    *_each("channel_wise", "temperature", [1.0, 4.0], mask=1),
    Case("channel_wise", MAP),
    Case("inter_channel_correlation", MAP),
    Case("inter_channel_correlation", MAP, mask=1),
    *_each("neuron_selectivity", "kernel", ["linear", "polynomial", "gaussian"]),
    *_each("neuron_selectivity", "kernel", ["gaussian"], teacher=(3, 2, 6), mask=1),
    *_each("neuron_selectivity", "form", ["released"], zero_if_equal=False,
           nonnegative=False),
    Case("pairwise_affinity", MAP, (3, 2, 6), mask=1),
    Case("pairwise_affinity", MAP),
    Case("optical_flow", (3, 2, 2), **FLOW),
    Case("quantized_hint", MAP, knobs=LEVELS),
    Case("focal_imitation", MAP, **FOCAL),
    Case("bounded_regression", (4,), arrays=_targets, rowwise=("targets",),
         maskwise=("targets",), teacher_gradient=False),
    *_each("activation_boundary", "convention", ["sum", "mean"], zero_if_equal=False,
           teacher_gradient=False),
    Case("overhaul_margin", MAP, arrays=_margin,
         maskwise=("margin",)),
    Case("overhaul_margin", MAP, arrays=_margin, mask=1),
    *_each("flow", "convention", ["mean", "sum"], arrays=_ends, rowwise=ENDS),
    Case("singular_value", MAP, arrays=_ends, rowwise=ENDS, mask=None),
    *_each("singular_value", "components", [2], arrays=_ends, rowwise=ENDS, mask=None),
    Case("variational_information", MAP, arrays=_log_variance, zero_if_equal=False,
         nonnegative=False, maskwise=("log_variance",)),
    Case("variational_information", MAP, arrays=_log_variance, zero_if_equal=False,
         nonnegative=False, mask=1),
    Case("attention_transfer_gradient", MAP),
    *_each("jacobian_matching", "convention", ["sum", "mean"], mask=1),
]  # fmt: skip
