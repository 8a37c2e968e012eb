"""A run folder is one process's at a time."""

import contextlib
import io
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from rich.console import Console

from kdjax import jobs
from kdjax.config import Compute, Data, Optim
from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.experiments import load_experiment, sweep
from kdjax.jobs.start import BusyFolderError, load_data, lock_folder, open_job
from kdjax.presets import digits, digits_teacher
from kdjax.setup.identity import (
    find_differences,
    fingerprint_data,
    identify,
    read_identity,
)

OTHER = """
import sys, time
from filelock import FileLock

lock = FileLock(sys.argv[1])
lock.acquire()
print("locked", flush=True)
time.sleep(600)
"""
SWEEP = """
from kdjax.config import Optim
from kdjax.experiments import Experiment
from kdjax.presets import digits, digits_teacher


def run(steps):
    optim = Optim(warmup=0)
    teacher = digits_teacher(steps=2, optim=optim)
    return digits(steps=steps, batch=8, optim=optim, teacher=teacher)


EXPERIMENT = Experiment(
    claim="two runs",
    variants={"one": lambda scale: run(2), "two": lambda scale: run(3)},
    durations={"tiny": (1,)},
)
"""


@contextlib.contextmanager
def locked_elsewhere(folder):
    """Another process that has locked a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", OTHER, str(folder / runlog.LOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_is_one_processes_at_a_time(tmp_path):
    folder = tmp_path / "a/run"
    with lock_folder(folder), lock_folder(folder):
        pass
    with locked_elsewhere(folder) as other:
        with pytest.raises(BusyFolderError, match="another process is training in it"):
            with lock_folder(folder):
                pass
        # One that dies lets go, and whoever waits has it then.
        begun = time.monotonic()
        threading.Timer(2, other.kill).start()
        with lock_folder(folder, wait=True):
            assert time.monotonic() - begun > 1.5
    with lock_folder(folder):
        pass


@pytest.mark.full
def test_a_run_of_another_process_is_left_alone(tmp_path):
    optim = Optim(warmup=0)
    run = digits(
        steps=2,
        batch=8,
        optim=optim,
        teacher=digits_teacher(steps=2, optim=optim),
        baselines=(),
        workdir=str(tmp_path / "run"),
    )
    with locked_elsewhere(tmp_path / "run"):
        with pytest.raises(BusyFolderError, match=r"run: another process is training"):
            jobs.distill(run)
        assert not (tmp_path / "run/teacher").exists()
    jobs.distill(run)
    assert runlog.is_finished(tmp_path / "run")


class Listening(io.StringIO):
    """Keeps what is written, and does something when a text is."""

    def __init__(self, text="", react=lambda: None):
        super().__init__()
        self._text, self._react = text, react

    def write(self, text):
        if self._text and self._text in text:
            self._react()
        return super().write(text)


@pytest.mark.full
def test_sweeps_share_what_is_left(tmp_path):
    file, root = tmp_path / "two.py", tmp_path / "sweep"
    file.write_text(SWEEP)

    def go(output):
        console = Console(file=output, width=200)
        where = {"seeds": 1, "workdir": str(root), "console": console}
        sweep(load_experiment(file), "tiny", **where)
        return output.getvalue()

    with (
        locked_elsewhere(root / "one-x1"),
        locked_elsewhere(root / "teacher-0") as other,
    ):
        waiting = "waiting for the process that trains it"
        said = go(Listening(waiting, other.kill))
    assert "one x1, 2 steps\nanother process is training it" in said
    assert said.count(waiting) == 1 and "left to other processes: one x1" in said
    assert runlog.is_finished(root / "two-x1")
    assert runlog.is_finished(root / "teacher-0")
    assert not runlog.is_finished(root / "one-x1")
    assert "Not finished: one x1." in (root / "report.md").read_text()
    said = go(Listening())
    assert "2 runs, 1 finished" in said and "left to" not in said
    assert "2 of 2 runs are finished" in (root / "report.md").read_text()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_run_is_of_the_images_of_every_split(tmp_path, split):
    """One pixel of one of them is another run."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 6, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(6) % 3
    names = "train", "validation", "test"
    splits = {k: (x, labels) for k, x in zip(names, images, strict=True)}
    data = Data("digits", train="train", validation="validation", test="test")
    one = Compute(data=1)
    run = digits(workdir=str(tmp_path / "run"), batch=2, data=data, compute=one)

    def identity(splits):
        job = load_data(open_job(run, splits, console=Console(file=io.StringIO())))
        identity = identify(run, overrides=job.overrides)
        return identity.add(fingerprint_data(job.data))

    first = identity(splits)
    with lock_folder(run.folder, first):
        assert read_identity(run.folder) == first == identity(splits)
    other = images[names.index(split)].copy()
    other[5, 7, 7] ^= 1
    changed = identity({**splits, split: (other, labels)})
    (line,) = find_differences(first, changed)
    assert line.startswith(f"data.{split}: its images or labels changed since")
    with pytest.raises(RunFolderError, match=f"data.{split}: its images"):
        with lock_folder(run.folder, changed):
            pass
