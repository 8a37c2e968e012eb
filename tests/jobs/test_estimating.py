"""The cost of a run before it is trained."""

import io

import pytest
from rich.console import Console

from kdjax import jobs
from kdjax.config import Compute
from tests.e2e.linear_runs import TEACHER, linear


def test_a_dry_run_measures_and_writes_nothing(tiny_run):
    """Linear networks of 8 x 8 pixels and 10 classes: 640 weights, 2 x 640 FLOPs. 8
    steps of 16 of 200 images are 0.64 epochs, with evaluations after 4 and 8 steps."""
    run, out = tiny_run(), io.StringIO()
    console = Console(file=out, width=100)
    (found,) = jobs.estimate(run, student=linear(), teacher=TEACHER, console=console)
    assert not run.folder.exists()
    assert found.student == found.teacher == (640, 1280)
    assert (found.name, found.steps, found.done) == ("tiny", 8, 0)
    assert found.epochs == pytest.approx(0.64)
    step, evaluation = found.step.seconds, found.evaluation_seconds
    assert 0 < step < 10 and 0 < evaluation < 10
    assert found.seconds == pytest.approx(8 * step + 2 * evaluation)
    # The images and two networks at least, and less than a gigabyte.
    assert 200 * 64 + 2 * 4 * 640 < found.step.memory < 2**30
    text = out.getvalue()
    assert "student: parameters" in text and "640" in text and "0.00" in text
    assert "time to go: 0:00:0" in text


@pytest.mark.full
@pytest.mark.parametrize("how", ["jit", "pmap"])
def test_a_dry_run_over_devices(tiny_run, how):
    """Sizes are of one seed and one copy, however the step is compiled."""
    run = tiny_run(seeds=2, compute=Compute(how=how, data=2))
    quiet = Console(quiet=True)
    (found,) = jobs.estimate(run, student=linear(), teacher=TEACHER, console=quiet)
    assert found.student == found.teacher == (640, 1280)
    assert found.step.seconds > 0


@pytest.mark.full
def test_a_teacher_to_be_trained_is_measured_and_training_follows(tiny_run):
    """A finished run is no cost any more."""
    run = tiny_run()
    quiet = Console(quiet=True)
    teacher, student = jobs.estimate(run, console=quiet)
    assert (teacher.name, student.name) == ("teacher", "tiny")
    assert teacher.teacher is None and student.teacher == teacher.student
    assert not run.folder.exists()
    jobs.distill(run, console=quiet)
    assert jobs.estimate(run, console=quiet) == []
