"""The command line: help without JAX, fields as options, errors in one line."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from jax.errors import JaxRuntimeError

from kdjax.cli import main as cli
from kdjax.config import Custom, Ensemble, FromRun, Scalar, Term, to_dict
from kdjax.presets import digits
from kdjax.train import loop

ROOT = pathlib.Path(__file__).parents[2]


def kdjax(*args, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "kdjax", *args]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=300, **options
    )


def fields(values, at=""):
    """Every option that a config has, as the command line names it."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from fields(value, f"{at}{name}.")
        else:
            yield f"--{at}{name}".replace("_", "-"), value


@pytest.mark.parametrize("command", ["train", "distill"])
def test_help_shows_every_field_with_its_default(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help-all"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    default = to_dict(digits())
    if command == "train":
        default.pop("teacher")
        default["terms"] = {"hard": default["terms"].pop("soft")}
        # None, which has no fields to show.
        default["terms"]["hard"].pop("temperature")
    for option, value in fields(default):
        if option == "--teacher.also":
            # A list of tables: only a config function can say it.
            continue
        assert option in shown, option
        if (
            command == "distill"
            and isinstance(value, (int, float, str))
            and value != ""
        ):
            after = shown.split(option + " ")[1].split("│ --")[0]
            words = " ".join(after.replace("│", " ").replace("'", "").split())
            assert f"default: {value!s})" in words, option


@pytest.mark.parametrize("command", ["evaluate", "report", "sweep", "experiments"])
def test_help_of_the_commands_over_folders(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    wanted = {
        "evaluate": ("--split", "--checkpoint"),
        "report": ("--out",),
        "sweep": ("--scale STR", "--seeds", "--workdir"),
        "experiments": ("[STR]",),
    }
    assert all(option in shown for option in wanted[command])


def test_help_never_starts_jax():
    code = (
        "import sys\n"
        "from kdjax.cli.main import main\n"
        "for command in ('distill', 'train', 'evaluate', 'report', 'sweep'):\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = {'jax', 'flax', 'optax', 'orbax', 'matplotlib'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    seconds = time.perf_counter() - start
    assert done.stdout.rstrip().endswith("HEAVY []"), done.stdout[-300:] + done.stderr
    # Five helps in one process; a wide bound, as machines are noisy.
    assert seconds < 15


@pytest.mark.full
def test_a_wrong_name_imports_nothing_that_it_does_not_need():
    """Plots, streams and data sets take as long to import as JAX."""
    code = (
        "import sys\n"
        "from kdjax.cli.main import main\n"
        "try: main(['distill', 'cifar10', '--model.name', 'resnet21'])\n"
        "except SystemExit: pass\n"
        "heavy = {'matplotlib', 'grain', 'tensorflow_datasets', 'sklearn'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert "model.name: did you mean" in done.stderr
    assert done.stdout.rstrip().endswith("HEAVY []"), done.stdout


@pytest.fixture
def parsed(monkeypatch):
    """What a command would run, without running it."""
    seen = []
    monkeypatch.setattr(cli, "_start", lambda job, *_: seen.append(job))

    class Jobs:
        def __getattr__(self, name):
            return lambda *args, **options: seen.append((name, args, options)) or {}

    def parse(*args):
        seen.clear()
        cli.main(list(args))
        seen[0](Jobs())
        return seen[1]

    return parse


def test_options_are_fields(parsed):
    name, (run,), _ = parsed(
        "distill",
        "--optim.lr", "0.5",
        "--terms.soft.temperature.value", "4",
        "--views.area", "0.2", "0.9",
        "--views.flip", "False",
        "--teacher.model.width", "12",
        "--baselines", "labels",
        "--workdir", "elsewhere",
    )  # fmt: skip
    assert name == "distill"
    assert run.optim.lr == 0.5 and run.terms["soft"].temperature.value == 4
    assert run.views.area == (0.2, 0.9) and run.views.flip is False
    assert run.teacher.model.width == 12 and run.baselines == ("labels",)
    assert run.workdir == "elsewhere"


def test_fields_by_path(parsed):
    """`--set` reaches everything; a table takes new names; a number is a constant."""
    _, (run,), _ = parsed(
        "distill",
        *("--set", "optim.lr=3e-3", "--set=name=7", "--set", "views.area=(0.2, 0.9)"),
        *("--set", "baselines=()", "--set", "optim.milestones=[0.5]"),
        *("--set", "teacher.members.0.run=runs/other", "--set", "views.flip=true"),
        *("--teacher.members.1.run", "runs/next", "--teacher.weights", "1", "2"),
        *("--set", 'terms.soft.options={"beta": 2}', "--set", "model.weights=None"),
        *("--terms.hard.loss=hard_cross_entropy", "--terms.hard.weight", "0.1"),
        *("--terms.hard.teacher", "labels", "--terms.soft.weight.end", "0.5"),
        *("--terms.soft.weight.schedule", "linear", "--steps", "500"),
        *("--terms.stages.student", "stage1", "stage2", "--terms.stages.loss", "fsp"),
    )
    assert run.optim.lr == 3e-3 and run.name == "7" and run.views.area == (0.2, 0.9)
    assert run.baselines == () and run.optim.milestones == (0.5,) and run.views.flip
    members = FromRun("runs/other"), FromRun("runs/next")
    assert run.teacher == Ensemble(members, weights=(1.0, 2.0)) and run.steps == 500
    assert run.model.weights == "None"
    soft = {"options": {"beta": 2}, "weight": Scalar(1.0, 0.5, "linear")}
    flow = Term("fsp", student=("stage1", "stage2"))
    hard = Term("hard_cross_entropy", Scalar(0.1), teacher="labels")
    soft = dataclasses.replace(digits().terms["soft"], **soft)
    assert run.terms == {"soft": soft, "hard": hard, "stages": flow}


def test_a_strategy_by_its_function(parsed):
    _, (run,), _ = parsed(
        "train",
        *("--strategy.function", "mine.py:critic", "--strategy.options.turns", "3"),
        *("--strategy.options.name", "hinge", "--strategy.options.sizes", "4", "2"),
    )
    options = {"turns": 3, "name": "hinge", "sizes": (4, 2)}
    assert run.strategy == Custom("mine.py:critic", options)
    with pytest.raises(SystemExit):
        parsed("train", "--strategy.options.turns", "3")


def test_a_config_function_and_options_on_top(parsed):
    file = ROOT / "experiments" / "function_matching" / "digits.py"
    _, (run,), _ = parsed(
        "distill", "--config", f"{file}:consistent", "--optim.lr", "3e-3"
    )
    assert run.views.mode == "consistent" and run.optim.lr == 3e-3
    assert run.baselines == ()


def test_a_run_folders_config_runs_it_again(parsed, tmp_path):
    import json

    (tmp_path / "config.json").write_text(json.dumps(to_dict(digits(steps=321))))
    _, (run,), _ = parsed("distill", f"--config={tmp_path / 'config.json'}")
    assert run == digits(steps=321)


def test_commands_over_folders(parsed):
    assert parsed("evaluate", "some/run", "--split", "validation") == (
        "evaluate",
        ("some/run",),
        {"split": "validation", "checkpoint": "last", "network": ""},
    )


BAD = {
    ("fly",): "command: expected one of train, distill, cache-targets, evaluate, ",
    ("sweep", "nowhere.py"): "experiment: expected a file that exists, got 'nowhere",
    ("experiments", "nowhere"): "folder: expected a folder of experiments, got ",
    ("distill", "--optim.rate", "1"): "optim.rate",
    ("distill", "--steps", "many"): "many",
    ("distill", "--views.mode", "sideways"): "sideways",
    ("distill", "--terms.soft.temperature.value", "0"): (
        "terms.soft.temperature.value: expected a number in [1e-06, 1e+06], got 0"
    ),
    ("distill", "--terms.soft.temperature.value", "nan"): "got nan",
    ("distill", "--set", "steps"): "set: expected PATH=VALUE, got 'steps'",
    ("distill", "--set"): "set: expected PATH=VALUE, got ''",
    ("distill", "--set", "views.mod=x"): "views.mod: did you mean 'mode'? expected ",
    ("distill", "--set", "views.mode=x"): "views.mode: expected one of ['fixed'",
    ("distill", "--set", "steps=many"): "steps: expected a value of type int, got 'ma",
    ("distill", "--set", "steps.x=1"): "steps.x: expected the end of the path",
    (
        "distill",
        "--set",
        "teacher.members.2.run=x",
    ): "members.2: expected a number",
    ("distill", "--terms.soft.weight.valu", "1"): "weight.valu: did you mean 'value'?",
    (
        "distill",
        "--terms.soft.student",
        "--steps",
        "3",
    ): "expected a value, got nothing",
    ("distill", "--views.area", "0", "1"): "views.area: expected 0 < low <= high <= 1",
    ("distill", "--views.area", "0.5", "1.2"): "views.area",
    ("distill", "--steps", "0"): "steps: expected >= 1 and <= 100000000 steps, got 0",
    ("distill", "--config"): "config: expected FILE.py:FUNCTION",
    ("distill", "--config", "nowhere.py:f"): "config: expected a file that exists",
    (
        "distill",
        "--config",
        "kdjax.config:Views",
    ): "config: expected a function returning",
    ("train", "--terms.hard.teacher", "logits"): "terms.hard.teacher: expected labels",
    ("report",): "RUNS",
    ("views", "nowhere"): "run: expected a run folder (with config.json), ",
    ("views", "tests"): "run: expected a run folder (with config.json), ",
    ("views", "nowhere/config.json"): "config: expected a file that exists",
    ("distill", "--data.crop", "host"): (
        "data.crop: expected device unless data.pipeline is host, got 'host'"
    ),
}


@pytest.mark.parametrize("args", BAD, ids=" ".join)
def test_bad_options_fail_before_jax_starts(args, capsys, monkeypatch):
    def started(job, *_):
        raise AssertionError("a job was started")

    monkeypatch.setattr(cli, "_start", started)
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        cli.main(list(args))
    assert stop.value.code not in (0, None)
    assert BAD[args].lower() in capsys.readouterr().err.lower()


@pytest.mark.full
def test_the_whole_path_from_the_shell(tmp_path):
    """`python -m kdjax`: distil, see it finished, evaluate, report, refuse."""
    file = ROOT / "experiments" / "function_matching" / "digits.py"
    work = str(tmp_path / "run")
    command = ["distill", "--config", f"{file}:tiny", "--workdir", work]
    command += ["--compute.data", "1", "--baselines", "labels"]
    first = kdjax(*command)
    assert first.returncode == 0, first.stderr[-2000:]
    assert "agreement" in first.stdout and "step 20/20" in first.stdout
    assert first.stderr == ""
    again = kdjax(*command)
    assert again.returncode == 0 and "finished" in again.stdout
    other = kdjax(*command, "--steps", "30")
    assert other.returncode == 2
    assert "steps: folder has 20, this run has 30" in other.stderr
    assert "Traceback" not in other.stderr
    measured = kdjax("evaluate", work)
    assert measured.returncode == 0 and "accuracy" in measured.stdout
    report = kdjax("report", work, f"{work}/labels", "--out", str(tmp_path / "out"))
    assert report.returncode == 0 and "| labels |" in report.stdout
    assert (tmp_path / "out" / "curves.png").is_file()
    nowhere = kdjax("evaluate", str(tmp_path / "nowhere"))
    assert nowhere.returncode == 2 and len(nowhere.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_run_told_to_stop_exits_as_its_signal_asks(number, status, capsys):
    def job(jobs):
        raise loop.Interrupted("stopped at step 3 of 8", number)

    with pytest.raises(SystemExit) as stop:
        cli._start(job)
    assert stop.value.code == status
    assert capsys.readouterr().err == "kdjax: stopped at step 3 of 8\n"


def test_a_checkpoint_that_cannot_be_written_ends_the_process_at_once():
    """In one line, though a thread that still waits for the disk would never end."""
    code = """
import threading
from kdjax.cli import main
from kdjax.train.checkpoint import CheckpointError

def job(jobs):
    threading.Thread(target=threading.Event().wait).start()
    raise CheckpointError("runs/x: no space left on the disk")

main._start(job)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert run.returncode == 1
    assert run.stderr == "kdjax: runs/x: no space left on the disk\n"


def test_what_fails_in_a_thread_prints_no_traceback(capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def fails():
        raise OSError("said again by whoever waits for the thread")

    def job(jobs):
        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()

    cli._start(job)
    assert capsys.readouterr().err == ""


def test_a_reader_that_leaves_is_no_error():
    code = "kdjax train --help | head -n 1"
    shell = code.replace("kdjax", f"{sys.executable} -m kdjax")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert "usage: kdjax train" in done.stdout and done.stderr == ""


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "a").write_text("kept")
    done = kdjax("train", "--workdir", str(tmp_path / "a"))
    assert done.returncode == 2 and (tmp_path / "a").read_text() == "kept"
    assert "workdir: " in done.stderr and "Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error", [JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nmore"), MemoryError("9 GB")]
)
def test_a_full_memory_is_one_line(error, capsys, monkeypatch):
    monkeypatch.setattr(cli, "quiet", lambda: None)

    def job(_):
        raise error

    with pytest.raises(SystemExit) as stop:
        cli._start(job)
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kdjax: out of memory (") and "9 GB); a smaller" in line


def test_code_of_a_config_is_refused_on_request(tmp_path):
    """In a process of its own: it holds for the rest of the process."""
    (tmp_path / "mine.py").write_text("print('this ran')\n")
    options = ["--model.name", f"{tmp_path}/mine.py:small", "--workdir", str(tmp_path)]
    command = [sys.executable, "-m", "kdjax", "train", *options, "--no-code"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "this ran" not in done.stdout
    expected = "model.name: expected no code of a file or module (--no-code), got '"
    assert expected in done.stderr and len(done.stderr.splitlines()) == 1
