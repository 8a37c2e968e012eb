"""A finished run without checkpoints, and the version of the code in a summary."""

import io
import subprocess

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from kdjax.core import environment, runlog
from kdjax.jobs import trainer


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


def test_the_version_names_the_commit_it_runs_from(tmp_path, monkeypatch):
    file = tmp_path / "environment.py"
    file.write_text("1")
    monkeypatch.setattr(environment, "__file__", str(file))

    def named():
        return environment.versions()["kdjax"].partition(" ")[2]

    assert named() == ""
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "empty")
    # Somebody's repository that kdjax is no part of.
    assert named() == ""
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    head = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert named() == f"({head})"
    file.write_text("2")
    assert named() == f"({head}+)"
    monkeypatch.setenv("PATH", "")
    assert named() == ""


def test_a_finished_run_that_has_lost_its_checkpoints_is_named(tiny_run):
    run = tiny_run()
    (run.folder / "checkpoints/8").mkdir(parents=True)
    summary = {"test": {"accuracy": [0.5]}}
    runlog.write_json(run.folder / "summary.json", summary)
    training = trainer.Training(run, {}, Mesh(np.array(jax.devices()[:1]), "data"), {})

    def said():
        console = Console(file=io.StringIO(), width=500)
        trainer.train_one(training, console)
        return console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    finished = f"tiny: finished in {run.folder}"
    assert said() == [finished]
    (run.folder / "checkpoints/8").rmdir()
    text = "has lost its checkpoints; evaluate, load and teachers need them"
    assert said() == [finished, f"warning: {run.folder} {text}"]
