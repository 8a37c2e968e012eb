"""Teachers that are further apart than those of `teachers.py`: a study of what that
does not show at scale digits, whose two teachers are equally good."""

import dataclasses
import functools

from experiments.function_matching import common
from experiments.function_matching.common import base
from kdjax.config import Ensemble, FromRun, Mean, Optim, Run, TrainFirst, labels_only
from kdjax.experiments import Experiment, above, ref

# The training images of each teacher: a fifth of the images, another fifth, or all.
IMAGES = {"one": "train[200:400]", "other": "train[400:600]", "strong": "train"}


def taught(scale: str = "digits", *, by: str) -> Run:
    """Function matching under one of the teachers."""
    return dataclasses.replace(base(scale), teacher=FromRun(ref(by)))


def both(scale: str = "digits", *, mean: Mean) -> Run:
    """Function matching under the mean of the two weak ones."""
    members = FromRun(ref("one")), FromRun(ref("other"))
    return dataclasses.replace(base(scale), teacher=Ensemble(members, mean=mean))


def teacher(scale: str = "digits", *, name: str) -> Run:
    """Trains one of the teachers, all of one network and with as many steps."""
    run = base(scale)
    teacher_config = run.teacher
    assert isinstance(teacher_config, TrainFirst)
    return labels_only(
        run,
        data=dataclasses.replace(run.data, train=IMAGES[name]),
        model=teacher_config.model,
        views=teacher_config.views,
        optim=teacher_config.optim if scale == "tiny" else Optim(),
        steps=teacher_config.steps,
    )


STRONGER = "T384 over T224: +0.16 at 300 epochs, +0.28, +0.15, +0.33 at 9 600"
BOTH = "both over T224: +0.58 at 1 200 epochs, +0.53 at 4 800, +0.51 at 9 600"

EXPERIMENT = Experiment(
    claim=(
        "Where one teacher is clearly better than another, its student is, and the "
        "mean of two weak teachers teaches better than one (a study of tables 1 and "
        "3 of arXiv 2106.05237)"
    ),
    variants={
        **{f"{name} teacher": functools.partial(taught, by=name) for name in IMAGES},
        "mean of logits": functools.partial(both, mean="logits"),
        "mean of probabilities": functools.partial(both, mean="probabilities"),
    },
    durations={k: common.DURATIONS[k] for k in ("tiny", "digits")},
    hypotheses=tuple(
        above(
            f"9: {larger} above {smaller}, {words}", larger, smaller, at=at, paper=paper
        )
        for larger, smaller, paper in (
            ("strong teacher", "one teacher", STRONGER),
            ("mean of logits", "one teacher", BOTH),
            ("mean of logits", "other teacher", BOTH),
            ("mean of probabilities", "one teacher", BOTH),
            ("mean of probabilities", "other teacher", BOTH),
        )
        for at, words in ((0, "shortest"), (-2, "last but one"), (-1, "longest"))
    ),
    pretrain={name: functools.partial(teacher, name=name) for name in IMAGES},
    highlight={
        "strong teacher": "strong teacher",
        "one teacher": "one teacher",
        "mean of logits": "mean of logits",
        "mean of probabilities": "mean of probabilities",
    },
)
