"""A sweep trains what is left, survives a failure, and judges what there is."""

import io

import pytest
from rich.console import Console

from kdjax import jobs
from kdjax.config import load_experiment
from kdjax.core import runlog
from kdjax.jobs.sweeping import SweepError

FILE = """
import dataclasses

from kdjax.config import Cache, Optim, Run, Teacher

CLAIM = "small"
DURATIONS = {"tiny": (1,)}
OPTIM = Optim(warmup=0)
TEACHER = Teacher(steps=2, optim=OPTIM)


def mix(scale="tiny"):
    return Run(steps=2, batch=8, optim=OPTIM, teacher=TEACHER)


def cached(scale="tiny"):
    teacher = dataclasses.replace(TEACHER, cache=Cache(path="store"))
    return dataclasses.replace(mix(), teacher=teacher)


def spoilt(scale="tiny"):
    run = mix()
    return dataclasses.replace(run, data=dataclasses.replace(run.data, train="no"))


VARIANTS = {"mix": mix, "cached": cached, "spoilt": spoilt}
EXPECTED = ()
"""


def test_a_sweep_goes_on_where_it_was(tmp_path):
    file, root = tmp_path / "small.py", tmp_path / "sweep"
    file.write_text(FILE)
    output = io.StringIO()

    def go():
        console = Console(file=output, width=200)
        experiment = load_experiment(file)
        jobs.sweep(experiment, "tiny", seeds=2, workdir=str(root), console=console)

    with pytest.raises(SweepError, match="1 runs failed:\n  spoilt x1: data.train"):
        go()
    first = output.getvalue()
    assert "3 runs, 0 finished" in first and "[3/3] spoilt x1" in first
    for name in ("mix-x1", "cached-x1", "teacher-0"):
        assert runlog.is_finished(root / name)
    # One teacher for all, trained once.
    assert not (root / "teacher-1").exists() and not (root / "mix-x1/teacher").exists()
    assert "2 of 3 runs are finished" in (root / "report.md").read_text()
    with pytest.raises(SweepError):
        go()
    again = output.getvalue().removeprefix(first)
    assert "3 runs, 2 finished" in again and "[1/1] spoilt x1" in again
