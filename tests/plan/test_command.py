"""`kdjax plan`: what it refuses at once, and what it prints."""

import json
import subprocess
import sys

import pytest

from kdjax.cli.main import main
from kdjax.plan import compilers

REFUSED = {
    "digits --on v5e-7": "on: expected one of v5e-1",
    "digits --on v5e-8 --set batch=63": "batch: expected a multiple of 8 devices",
    "digits --on v5e-8 --set compute.fsdp=16": "compute.data x compute.fsdp: ",
    "digits --on v5e-8 --set compute.how=pmap": "compute.how: expected jit, to plan",
    "digits --on v5e-8 --slices 0": "slices: expected a number >= 1",
    "digits --on v5e-8 --set batch": "set: expected PATH=VALUE, got 'batch'",
    "digits --on v5e-8 --set no.field=1": "no: ",
    "digits": "on: expected kdjax plan ON",
    "nothing --on v5e-8": "run: expected a run folder",
    "digits --on v5e-8": "on: v5e-8 needs its compiler: pip install 'kdjax[plan-tpu]'",
    "digits --on h200x8": "pip install 'kdjax[plan-gpu]'",
    "digits --on cpu-8 --examples 9": "examples: expected examples and classes",
}


@pytest.mark.parametrize("words", REFUSED)
def test_one_line_before_anything_is_compiled(words, capsys, monkeypatch):
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        main(["plan", *words.split()])
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith("kdjax: ") and REFUSED[words] in line


def run(*words):
    command = [sys.executable, "-m", "kdjax", "plan", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.full
def test_figures_of_this_processor(tmp_path, monkeypatch):
    """Of data and weights that are not here; kept for the next time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = "imagenet_funmatch --on cpu-8 --examples 1000 --classes 10 --json --set"
    words += " batch=16 steps=50 optim.warmup=5 seeds=1 data.train=train"
    words += " model.name=resnet model.resolution=8 teacher.model.name=resnet"
    words += " teacher.model.resolution=8 teacher.model.weights=not/here.npz"
    done = run(*words.split())
    assert done.returncode == 0, done.stderr
    (student,) = json.loads(done.stdout)
    assert student["devices"] == 8 and student["examples"] == 1000
    assert student["held"]["teacher"] > 0 and student["teacher_flops"] > 0
    # The images of one device, forward twice and backward: between 3 and 4 passes.
    each = student["teacher_flops"] + 3 * student["student_flops"]
    assert 0.8 * 2 * each < student["flops"] < 1.2 * 2 * each
    assert {x["kind"] for x in student["collectives"]} >= {"all-reduce"}
    words = words.replace("steps=50", "steps=60")
    again = json.loads(run(*words.split()).stdout)
    # The same program of a longer run.
    assert (again[0]["steps"], student["steps"]) == (60, 50)
    assert again[0]["compile_seconds"] == 0.0 < student["compile_seconds"]
    assert again[0]["program"] == student["program"]


@pytest.mark.full
def test_data_that_are_not_here_are_named():
    done = run("cifar10", "--on", "cpu-2", "--set", "data.data_dir=/nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("kdjax: data")
