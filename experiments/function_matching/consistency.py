"""Views that teacher and student share, and durations of training (figure 3)."""

from experiments.function_matching import common
from experiments.function_matching.common import base, fixed, seen, stored
from kdjax.config import Run
from kdjax.experiments import Experiment, Hypothesis, above, widening

# A mild crop is a fixed part of the image, anywhere in it, not mirrored.
MILD = {"crop": "random", "flip": False}


def fix_rs(scale: str = "digits") -> Run:
    """Both see the whole image, always: the target is a constant."""
    return fixed(base(scale), scale, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=False)


def fix_cc(scale: str = "digits") -> Run:
    """The teacher sees the centre, always; the student a mild crop."""
    return fixed(base(scale), scale, fixed_view="center", **MILD)


def ind_rc(scale: str = "digits") -> Run:
    """Each sees a mild crop of its own."""
    return seen(base(scale), mode="independent", **MILD)


def ind_ic(scale: str = "digits") -> Run:
    """Each sees an inception crop of its own."""
    return seen(base(scale), mode="independent")


def same_rc(scale: str = "digits") -> Run:
    """Both see one mild crop."""
    return seen(base(scale), mode="consistent", **MILD)


def same_ic(scale: str = "digits") -> Run:
    """Both see one inception crop: consistent teaching."""
    return seen(base(scale), mode="consistent")


def mix(scale: str = "digits") -> Run:
    """Both see one inception crop, mixed with another: function matching."""
    return seen(base(scale), mode="function_matching")


def fix_ic_ens(scale: str = "digits") -> Run:
    """The target is the teacher's mean output over many inception crops."""
    crops = {"tiny": 2, "digits": 1_000, "cifar": 100, "paper": 1_000}[scale]
    return stored(seen(base(scale), mode="fixed"), crops=crops)


GAP = "ImageNet: +1.20 at 30 epochs, +4.81 at 9 600"
CROSS = "ImageNet: -1.06 at 30 epochs, -0.05 at 90, +0.22 at 300, +0.60 at 4 800"
FIXED, SAME = ("fix/rs", "fix/cc", "fix/ic_ens"), "same/ic"


def _nearer(fixed: str) -> tuple[Hypothesis, ...]:
    """Consistent teaching beats a fixed teacher in every measure, when long."""
    claim = f"1: {SAME} beats {fixed}"
    return (
        above(f"{claim} in accuracy", SAME, fixed, paper=GAP),
        above(f"{claim} in agreement", SAME, fixed, metric="agreement"),
        above(f"{claim} in held-out KL", fixed, SAME, metric="kl"),
    )


EXPERIMENT = Experiment(
    claim=(
        "A student that sees what its teacher sees gains by training longer; under a "
        "fixed or independently cropped teacher it ends lower (arXiv 2106.05237, "
        "figure 3)"
    ),
    variants={
        "fix/rs": fix_rs,
        "fix/cc": fix_cc,
        "fix/ic_ens": fix_ic_ens,
        "ind/rc": ind_rc,
        "ind/ic": ind_ic,
        "same/rc": same_rc,
        "same/ic": same_ic,
        "mix": mix,
    },
    durations=common.DURATIONS,
    hypotheses=(
        *(hypothesis for fixed in FIXED for hypothesis in _nearer(fixed)),
        *(
            widening(
                f"1: the lead of {SAME} over {fixed} grows", SAME, fixed, paper=GAP
            )
            for fixed in FIXED
        ),
        *(
            above(
                f"2: {other} has the larger training loss than fix/rs",
                other,
                "fix/rs",
                metric="train_loss",
                paper="figure 3: fixed far lower",
            )
            for other in ("same/rc", SAME, "mix")
        ),
        above(
            "2: and fix/rs the larger held-out KL than mix",
            "fix/rs",
            "mix",
            metric="kl",
        ),
        above(f"3: mix below {SAME} when short", SAME, "mix", at=0, paper=CROSS),
        above(f"3: mix above {SAME} when long", "mix", SAME, paper=CROSS),
        above("4: same/rc above ind/rc", "same/rc", "ind/rc", paper="figure 3: higher"),
        above("4: same/ic above ind/ic", SAME, "ind/ic", paper="figure 3: higher"),
        above("5: fix/cc above fix/rs", "fix/cc", "fix/rs", paper="figure 3: higher"),
        above(
            "5: fix/ic_ens above fix/rs",
            "fix/ic_ens",
            "fix/rs",
            paper="figure 3: higher",
        ),
        Hypothesis(
            "6: same/ic gains from the shortest duration to the longest",
            ((1.0, SAME, -1), (-1.0, SAME, 0)),
            paper="74.95 to 81.76",
        ),
        Hypothesis(
            "6: mix gains from the last lengthening",
            ((1.0, "mix", -1), (-1.0, "mix", -2)),
            paper="82.18 to 82.31",
        ),
    ),
    highlight={
        "mix": "function matching",
        "same/ic": "consistent teaching",
        "fix/rs": "fixed teacher",
        "ind/ic": "independent crops",
    },
)
