"""Every command once, from its arguments to its files, on linear networks."""

import os
import pathlib
import shutil
import signal
import threading
import warnings

import chex
import numpy as np
import pytest
from PIL import Image

from kdjax.cli import main as cli
from kdjax.core import runlog
from tests.e2e.saved import saved

MODEL = '''
"""A linear model of small gray images."""

import jax

from kdjax.models import from_function


def linear(model, classes):
    def apply(params, images):
        return images.reshape(len(images), -1) @ params["w"]

    def init(key, images):
        return {"w": 0.1 * jax.random.normal(key, (images[0].size, classes))}

    return from_function(apply, init=init)
'''
EXPERIMENT = """
from kdjax.config import Compute, ModelConfig, Optim, TrainFirst
from kdjax.experiments import Experiment
from kdjax.presets import digits

LINEAR = ModelConfig("{model}:linear", resolution=8)
OPTIM = Optim(warmup=0)


def mix(scale="tiny"):
    teacher = TrainFirst(LINEAR, steps=4, optim=OPTIM)
    one = Compute(data=1)
    common = dict(optim=OPTIM, steps=4, batch=8, compute=one)
    return digits(model=LINEAR, teacher=teacher, **common)


EXPERIMENT = Experiment("two runs", {{"mix": mix}}, {{"tiny": (1,)}}, ())
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Run commands in one folder, in this process, as the shell would."""
    root = tmp_path_factory.mktemp("commands")
    (root / "own.py").write_text(MODEL)
    (root / "two.py").write_text(EXPERIMENT.format(model=root / "own.py"))
    patch = pytest.MonkeyPatch()
    patch.chdir(root)
    # The command line quiets other libraries for a whole process.
    patch.setattr(warnings, "formatwarning", warnings.formatwarning)
    patch.setattr(threading, "excepthook", threading.excepthook)
    yield root
    patch.undo()


def options(**more):
    named = {
        "--model.name": "own.py:linear",
        "--teacher.model.name": "own.py:linear",
        "--teacher.steps": "12",
        "--teacher.optim.warmup": "2",
        "--optim.warmup": "2",
        "--steps": "12",
        "--batch": "16",
        "--seeds": "2",
        "--evaluate-every": "6",
        "--checkpoint-every": "6",
        "--log-every": "4",
        "--compute.data": "1",
        "--baselines": "labels",
        **more,
    }
    return [word for pair in named.items() for word in pair]


def run(*args):
    cli.main(list(args))


@pytest.fixture(scope="module")
def finished(shell):
    """A distillation with a teacher of its own and one baseline."""
    run("distill", *options(**{"--workdir": "run"}))
    return shell / "run"


def test_distill_leaves_its_files_and_a_table(finished):
    for folder in (finished, finished / "teacher", finished / "labels"):
        assert (folder / "checkpoints" / "12").is_dir()
        assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
        assert len(runlog.read_summary(folder)["test"]["accuracy"]) == 2
    report = (finished / "report.md").read_text()
    assert all(f"| {name} |" in report for name in ("teacher", "labels", "funmatch"))


def test_distill_again_says_that_it_is_finished(finished, capsys):
    before = (finished / "metrics.jsonl").read_bytes()
    run("distill", *options(**{"--workdir": "run"}))
    assert "finished" in capsys.readouterr().out
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_another_config_in_the_same_folder_is_refused(finished, capsys):
    with pytest.raises(SystemExit) as stop:
        run("distill", *options(**{"--workdir": "run", "--steps": "13"}))
    assert stop.value.code == 2
    assert "steps: folder has 12, this run has 13" in capsys.readouterr().err


def test_a_stopped_run_continues_bitwise(finished, shell, monkeypatch, capsys):
    """SIGTERM between two checkpoints, then the same command."""
    append = runlog.append_metrics

    def stop_at_8(folder, line):
        append(folder, line)
        if pathlib.Path(folder).name == "stopped" and line["step"] == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    command = ["distill", *options(**{"--workdir": "stopped"})]
    with monkeypatch.context() as patch:
        patch.setattr(runlog, "append_metrics", stop_at_8)
        with pytest.raises(SystemExit) as stop:
            run(*command)
    assert stop.value.code == 143
    assert "stopped at step 9 of 12" in capsys.readouterr().err
    run(*command)
    chex.assert_trees_all_equal(saved(shell / "stopped"), saved(finished))


def test_evaluate_repeats_the_summary(finished, capsys):
    run("evaluate", "run")
    split, seeds, *lines = capsys.readouterr().out.splitlines()
    assert split.startswith("# test split (") and split.endswith("last checkpoint")
    assert seeds.split()[:3] == ["#", "seed", "0"]
    texts = [line.partition("#")[0].split() for line in lines]
    shown = {name: [float(x) for x in values] for name, *values in texts}
    assert "fraction whose most probable class is the label" in lines[0]
    summary = runlog.read_summary(finished)["test"]
    assert shown.keys() >= {"accuracy", "agreement", "kl"}
    for name, values in shown.items():
        assert values == pytest.approx(summary[name], abs=1e-6), name


@pytest.mark.full
def test_inputs_that_changed_are_named(shell, capsys):
    """A renamed class, another image, another model file, another teacher."""
    rng = np.random.default_rng(0)
    for number in range(24):
        split = ("train", "test", "validation")[number % 3]
        name = ("ant", "bee")[number // 12]
        file = shell / "photos" / split / name / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(file)
    (shell / "net.py").write_text(MODEL)
    data = {"--data.name": "folder:photos", "--data.train": "train"}
    data |= {"--workdir": "photo", "--batch": "8"}
    run("distill", *options(**data, **{"--model.name": "net.py:linear"}))
    capsys.readouterr()

    def evaluated():
        """The warnings of `evaluate`, or its error."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                run("evaluate", "photo")
            except SystemExit:
                return capsys.readouterr().err
        return "; ".join(str(x.message) for x in caught)

    assert evaluated() == ""
    image = shell / "photos/test/ant/1.png"
    whole = image.read_bytes()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(image)
    assert evaluated().startswith("data.test: its images or labels changed since")
    image.write_bytes(whole)
    (shell / "net.py").write_text(MODEL + "# more")
    assert "photo: net.py changed since this run began" in evaluated()
    (shell / "net.py").write_text(MODEL)
    aside = shell / "photo/teacher/checkpoints"
    aside.rename(shell / "aside")
    shutil.copytree(shell / "photo/labels/checkpoints", aside)
    assert "teacher: the weights or code changed since the run began" in evaluated()
    shutil.rmtree(aside)
    (shell / "aside").rename(aside)
    assert evaluated() == ""
    for split in ("train", "test", "validation"):
        (shell / f"photos/{split}/ant").rename(shell / f"photos/{split}/wasp")
    assert "data.test: expected the classes of the run in the same order" in evaluated()


def test_report_compares_folders(finished, shell, capsys):
    run("report", "run", "run/labels", "--out", "both")
    assert "| labels |" in capsys.readouterr().out
    assert (shell / "both" / "curves.png").is_file()


def test_views_draws_a_picture(finished, capsys):
    run("views", "run", "--count", "2")
    assert "views.png" in capsys.readouterr().out
    assert (finished / "views.png").read_bytes()[:4] == b"\x89PNG"


def test_a_cached_teacher_teaches_as_the_live_one(finished, shell):
    more = {"--teacher.run": "run/teacher", "--baselines": "", "--steps": "6"}
    more |= {"--evaluate-every": "6"}
    named = options(**more)
    # A teacher of a run has its own config; no baseline is trained.
    named = [x for x in named if x]
    for option in ("--teacher.model.name", "--teacher.steps", "--teacher.optim.warmup"):
        at = named.index(option)
        del named[at : at + 2]
    run("distill", *named, "--workdir", "live")
    store = ["--teacher.cache.path", "store"]
    run("cache-targets", *named, "--workdir", "cached", *store)
    run("distill", *named, "--workdir", "cached", *store)
    live, cached = (runlog.read_summary(shell / x)["test"] for x in ("live", "cached"))
    assert live["kl"] == pytest.approx(cached["kl"], rel=1e-4)


def test_train_learns_from_labels(shell):
    more = options(**{"--workdir": "alone"})
    named = []
    for option, value in zip(more[::2], more[1::2], strict=True):
        if not option.startswith(("--teacher", "--baselines")):
            named += [option, value]
    run("train", *named)
    assert "agreement" not in runlog.read_summary(shell / "alone")["test"]


def test_a_sweep_trains_and_judges(shell, capsys):
    run("sweep", "two.py", "--scale", "tiny", "--seeds", "1", "--workdir", "sweep")
    assert "two runs" in (shell / "sweep" / "report.md").read_text()
    capsys.readouterr()
    run("report", "sweep")
    run("experiments", str(shell))
    assert "two: two runs" in capsys.readouterr().out
