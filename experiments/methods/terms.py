"""Losses that are one term of a run: labels, and the loss of the paper's weight.

`kdjax losses NAME` prints the same taps, weight and temperature. Where the paper's
weight ends below labels, validation chooses between it, a tenth and a hundredth.
"""

import dataclasses
import functools

from experiments.methods import common
from kdjax import losses
from kdjax.config import HARD, Run, Scalar, Term
from kdjax.experiments import Experiment, above

NONE = "no number for digits"
NAMES = (
    # Logits.
    "reverse_softmax_kl",
    "logit_mse",
    "dkd",
    "dist",
    "mlld",
    "standardized_kl",
    # Features.
    "hint_l2",
    "attention_transfer",
    "nst",
    "cwd",
    "ickd",
    "ab",
    "fsp",
    # Relations of examples.
    "rkd_distance",
    "rkd_angle",
    "sp",
    "cc",
    "pkt",
    "irg_edges",
    "locality_preserving",
    "mmd",
)


def term(name: str) -> Term:
    """The term of a loss: taps, projector and weight of its recipe."""
    recipe = losses.REGISTRY[name].term
    assert recipe is not None

    def taps(names: tuple[str, ...]) -> str | tuple[str, ...]:
        return names[0] if len(names) == 1 else names

    return Term(
        name,
        Scalar(float(recipe.weight)),
        student=taps(recipe.student),
        teacher=taps(recipe.teacher),
        projector=recipe.projector,
    )


def beside_labels(scale: str, loss: Term) -> Run:
    """Cross-entropy of the labels, and the loss."""
    terms = {"hard": HARD, "own": loss}
    return dataclasses.replace(common.base(scale), terms=terms)


# One loss at several stages, and the projector of the published code.
STAGES = ("stage1", "stage2", "stage3")
MORE = {
    "hint_l2, regressor": dataclasses.replace(term("hint_l2"), projector="regressor"),
    "attention_transfer, three stages": dataclasses.replace(
        term("attention_transfer"), student=STAGES, teacher=STAGES, pair="depth"
    ),
    "kdsvd": term("kdsvd"),
}
LOSSES = {**{name: term(name) for name in NAMES}, **MORE}
TOO_LARGE = ("nst", "cwd", "attention_transfer, three stages")


def smaller(loss: Term) -> dict[str, Term]:
    """The loss with a tenth and a hundredth of its weight."""
    weight = loss.scalars[0].value
    values = (weight / 10, weight / 100)
    return {f"{x:g}": dataclasses.replace(loss, weight=Scalar(x)) for x in values}


SMALLER = {
    f"{name}, weight {weight}": loss
    for name in TOO_LARGE
    for weight, loss in smaller(LOSSES[name]).items()
}
CHOSEN = {
    f"{name}, chosen": (name, *(x for x in SMALLER if x.startswith(f"{name}, weight")))
    for name in TOO_LARGE
}

EXPERIMENT = Experiment(
    claim="A loss of the literature, beside labels, ends above labels alone",
    variants={
        "labels": common.labels,
        "hinton": common.hinton,
        **{
            name: functools.partial(beside_labels, loss=loss)
            for name, loss in {**LOSSES, **SMALLER}.items()
        },
    },
    select_on_validation=CHOSEN,
    durations=common.DURATIONS,
    hypotheses=tuple(
        above(f"{name} above labels", name, "labels", paper=NONE)
        for name in ("hinton", *LOSSES, *CHOSEN)
        if name not in TOO_LARGE
    ),
)
