"""Function matching on scikit-learn's digits: the default of `kdjax distill`, by parts.

    kdjax distill --config experiments/function_matching/digits.py:funmatch

A run's own numbers are in README, with the command and the machine. Each function
returns a `Run` and differs from the default in what its name says.
"""

import dataclasses

from kdjax.config import Mode, Run, TrainFirst
from kdjax.presets import digits


def _seen(mode: Mode) -> Run:
    run = digits()
    views = dataclasses.replace(run.views, mode=mode)
    workdir = f"runs/digits-{mode.replace('_', '-')}"
    return dataclasses.replace(
        run, name=mode, workdir=workdir, views=views, baselines=()
    )


def funmatch() -> Run:
    """The default: function matching, with both label-only baselines."""
    return digits()


def fixed() -> Run:
    """The teacher sees the whole image, always the same."""
    return _seen("fixed")


def independent() -> Run:
    """Teacher and student see crops of their own."""
    return _seen("independent")


def consistent() -> Run:
    """Teacher and student see one crop, without mixup."""
    return _seen("consistent")


def tiny() -> Run:
    """Seconds instead of minutes, to see that everything is in place."""
    run = digits()
    assert isinstance(run.teacher, TrainFirst)
    optim = dataclasses.replace(run.optim, warmup=5)
    teacher = dataclasses.replace(run.teacher, steps=20, optim=optim)
    return dataclasses.replace(
        run,
        name="tiny",
        workdir="runs/digits-tiny",
        seeds=1,
        steps=20,
        evaluate_every=10,
        checkpoint_every=10,
        log_every=5,
        optim=optim,
        teacher=teacher,
    )
