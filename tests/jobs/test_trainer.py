"""What a run's summary says of the code that made it."""

import subprocess

from kdjax.jobs import trainer


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


def test_the_version_names_the_commit_it_runs_from(tmp_path, monkeypatch):
    file = tmp_path / "trainer.py"
    file.write_text("1")
    monkeypatch.setattr(trainer, "__file__", str(file))

    def named():
        return trainer._versions()["kdjax"].partition(" ")[2]

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
