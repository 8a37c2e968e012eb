"""The GPU script on CPU: a dry run, a part that is stopped, and what it counts."""

import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax
from experiments.benchmarks.gpu import __main__ as script
from experiments.benchmarks.gpu import (
    bit,
    cifar,
    laws,
    machine,
    profile,
    tables,
    torch_pair,
)
from experiments.benchmarks.gpu.tables import Table
from kdjax.config import ModelConfig
from kdjax.core.flops import count_flops

ROOT = pathlib.Path(__file__).parents[2]
PARTS = ("laws", "cifar", "bit", "kernels", "profile")
NO_TORCH = "torch is not installed"
IMAGES = np.zeros((512, 32, 32, 3), np.uint8)


def start(*options, cwd=None) -> subprocess.Popen:
    """The script, started as a user does."""
    command = [ROOT / "experiments/benchmarks/gpu.sh", *map(str, options)]
    env = {**os.environ, "PYTHON": sys.executable}
    # The gate compiles without optimization; the programs measured here are run.
    env.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=env, cwd=cwd, **pipes)


def rows_of(out: pathlib.Path, part: str) -> list[dict]:
    """The rows of a part's file, which must be whole."""
    content = json.loads((out / "parts" / f"{part}.json").read_text())
    return content["rows"]


def numbers(row: dict) -> list[float]:
    return [x for x in row["values"].values() if isinstance(x, int | float)]


@pytest.mark.full
def test_a_dry_run_measures_every_row_of_every_part(tmp_path):
    out, copy = tmp_path / "out", tmp_path / "copy"
    process = start(out, "--dry", "--copy", copy)
    printed, _ = process.communicate(timeout=900)
    assert process.returncode == 0, printed
    for part in PARTS:
        rows = rows_of(out, part)
        assert rows
        for row in rows:
            assert row["state"] in ("", NO_TORCH), row
            assert not {"nan", "inf"} & set(map(str, row["values"].values())), row
            positive = [x for x in numbers(row) if math.isfinite(x) and x >= 0]
            assert len(positive) == len(numbers(row)), row
            assert row["state"] == NO_TORCH or numbers(row), row
    # Errors of a device against itself are the only zeros.
    for row in [x for part in PARTS[1:4] for x in rows_of(out, part)]:
        assert all(x > 0 for x in numbers(row)), row
    text = (copy / "gpu.md").read_text()
    assert text == (out / "gpu.md").read_text()
    assert all(f"## {part}\n" in text for part in PARTS)
    with tarfile.open(copy / "gpu.tar.gz") as tar:
        assert {f"parts/{part}.json" for part in PARTS} <= set(tar.getnames())
    assert sorted(file.name for file in copy.iterdir()) == ["gpu.md", "gpu.tar.gz"]


@pytest.mark.full
@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="needs /proc")
def test_a_part_stopped_in_the_middle_leaves_the_others_whole(tmp_path):
    out = tmp_path / "out"
    options = "--parts", "cifar,kernels,profile", "--limit", "profile=1"
    process = start(out, "--dry", *options)
    file, end = out / "parts" / "cifar.json", time.monotonic() + 300
    while not (file.exists() and not rows_of(out, "cifar")[0]["state"]):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 1, printed
    rows = rows_of(out, "cifar")
    assert not rows[0]["state"] and numbers(rows[0])
    assert {"not run: the part was stopped"} <= {row["state"] for row in rows}
    notes = json.loads((out / "parts" / "cifar.json").read_text())["notes"]
    assert notes
    assert all(not row["state"] and numbers(row) for row in rows_of(out, "kernels"))
    report = (out / "gpu.md").read_text()
    assert re.search(r"- cifar: failed, status -9, .*; \d of \d+ rows measured", report)
    assert re.search(r"- kernels: done in .*; 6 of 6 rows measured", report)
    assert "- profile: stopped at its limit of 1 s; no rows" in report


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--parts", "laws,speed"], "--parts: expected some of laws, .*; got speed"),
        (["--parts", ""], "--parts: expected some of .*; got none"),
        (["--limit", "bit"], "--limit: expected PART=SECONDS, got bit"),
        (["--cifar", "none.npz"], "--cifar: .*; no file none.npz"),
        (["--deadline", "0"], "--deadline: expected seconds, got 0"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(options, line, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.arguments(options)
    assert stopped.value.code == 2
    assert re.fullmatch(f"gpu.sh: {line}\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"x": np.zeros(3)}, "images"),
        ({"images": np.zeros((600, 8, 8, 3), np.uint8)}, "labels"),
        (
            {"images": np.zeros((600, 8, 8, 3), np.uint8), "labels": np.zeros(600)},
            r"got uint8 \(600, 8, 8, 3\) and \(600,\)",
        ),
        ({"images": IMAGES, "labels": np.zeros(512)}, "integers; got float64"),
        ({"images": IMAGES, "labels": np.arange(512)}, "10\\); got 0 to 511"),
        ({"images": IMAGES, "labels": np.full(512, -1)}, "10\\); got -1 to -1"),
    ],
)
def test_wrong_images_are_refused(arrays, line, tmp_path, capsys):
    file = tmp_path / "cifar.npz"
    np.savez(file, **arrays)
    with pytest.raises(SystemExit) as stopped:
        script.arguments(["--cifar", str(file)])
    assert stopped.value.code == 2
    assert re.search(line, capsys.readouterr().err)


@pytest.mark.parametrize("content", ["empty", "npy", "text"])
def test_a_file_without_arrays_by_name_is_one_line(content, tmp_path, capsys):
    file = tmp_path / "cifar.npz"
    if content == "npy":
        with open(file, "wb") as out:
            np.save(out, IMAGES)
    else:
        file.write_text("" if content == "empty" else "images")
    with pytest.raises(SystemExit) as stopped:
        script.arguments(["--cifar", str(file)])
    assert stopped.value.code == 2
    assert re.fullmatch("gpu.sh: --cifar: .*cifar.npz: .+\n", capsys.readouterr().err)


def test_images_without_numpy_are_one_line(tmp_path, capsys, monkeypatch):
    file = tmp_path / "cifar.npz"
    np.savez(file, images=IMAGES, labels=np.zeros(512, int))
    assert script.arguments(["--cifar", str(file)]).cifar == file
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(SystemExit) as stopped:
        script.arguments(["--cifar", str(file)])
    assert stopped.value.code == 2
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_the_number_of_images_is_that_of_the_file(tmp_path):
    np.savez(tmp_path / "c.npz", images=IMAGES[:99], labels=np.zeros(99, int))
    images, _ = cifar.load_data(cifar.FULL, tmp_path / "c.npz")["train"]
    table = Table("cifar", tmp_path, 60)
    cifar.notes(table, cifar.FULL, len(images))
    assert ", 99 images resident on" in (tmp_path / "cifar.md").read_text()


def test_the_limits_fit_into_eight_minutes():
    assert tuple(script.LIMITS) == PARTS
    assert sum(script.LIMITS.values()) <= 8 * 60 - 15
    assert script.arguments([]).deadline == 8 * 60
    assert script.arguments(["--dry"]).deadline == math.inf


def test_other_modules_in_the_current_folder_are_not_taken(tmp_path):
    (tmp_path / "experiments").mkdir()
    for name in ("tarfile.py", "experiments/__init__.py"):
        (tmp_path / name).write_text("raise SystemExit(9)")
    process = start("--parts", "", cwd=tmp_path)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert printed.startswith("gpu.sh: --parts: expected some of")


def test_the_variables_of_the_parts(monkeypatch):
    fraction = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"
    for name in (*fraction, "PYTHONPATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    values = script.environment(False, "fresh")
    assert values["JAX_COMPILATION_CACHE_DIR"] == "fresh"
    assert values["PYTHONSAFEPATH"] == "1"
    assert values["PYTHONPATH"] == str(ROOT)
    assert values["CUDA_VISIBLE_DEVICES"] == "0"
    assert [values.get(name) for name in fraction] == ["0.9", None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.5")
    values = script.environment(False, "fresh")
    assert values["CUDA_VISIBLE_DEVICES"] == "3"
    assert [values.get(name) for name in fraction] == ["0.5", None]
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.4")
    values = script.environment(True, "fresh")
    assert [values.get(name) for name in fraction] == [None, "0.4"]
    assert values["CUDA_VISIBLE_DEVICES"] == ""


def test_the_gpu_of_the_report_is_the_chosen_one(monkeypatch):
    commands = []

    def quiet(*command):
        commands.append(command)
        return 0, "a GPU, 1.0, 80 MiB"

    monkeypatch.setattr(machine, "run_quiet", quiet)
    assert machine.graphics({"CUDA_VISIBLE_DEVICES": "3"}) == "a GPU, 1.0, 80 MiB"
    assert commands[0][:3] == ("nvidia-smi", "-i", "3")
    assert machine.graphics({"CUDA_VISIBLE_DEVICES": ""}) == "none chosen"


def test_the_report_records_the_variables_that_change_numbers():
    env = {"XLA_FLAGS": "--xla_x=1", "NVIDIA_TF32_OVERRIDE": "0"}
    text = machine.heading(script.arguments([]), "gpu: x", [], env)
    assert "- variables: `XLA_FLAGS=--xla_x=1`, `NVIDIA_TF32_OVERRIDE=0`\n" in text


def test_the_commit_is_that_of_the_checkout_alone(tmp_path, monkeypatch):
    def git(*command):
        given = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *command]
        subprocess.run(given, cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "First")
    monkeypatch.setattr(machine, "ROOT", tmp_path.resolve())
    assert re.fullmatch("[0-9a-f]{12}", machine.commit())
    (tmp_path / "copy").mkdir()
    monkeypatch.setattr(machine, "ROOT", tmp_path.resolve() / "copy")
    assert machine.commit() == "not known (see --commit)"


def test_two_runs_do_not_share_a_folder(tmp_path, capsys):
    with script.lock(tmp_path):
        with pytest.raises(SystemExit) as stopped:
            script.lock(tmp_path)
    assert stopped.value.code == 2
    assert re.fullmatch("gpu.sh: OUT: another run .*\n", capsys.readouterr().err)
    script.lock(tmp_path).close()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    script.check_folder("OUT", tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(SystemExit) as stopped:
            script.check_folder("--copy", folder)
        assert stopped.value.code == 2
        assert re.fullmatch("gpu.sh: --copy: .*\n", capsys.readouterr().err)


def test_files_of_an_earlier_run_are_set_aside(tmp_path):
    for number in (1, 2):
        script.set_aside(tmp_path)
        assert not list((tmp_path / "parts").iterdir())
        (tmp_path / "parts" / "bit.json").write_text(f"{number}")
        (tmp_path / "gpu.md").write_text(f"{number}")
    script.set_aside(tmp_path)
    for number in (1, 2):
        folder = tmp_path / f"earlier-{number}"
        assert (folder / "parts" / "bit.json").read_text() == f"{number}"
        assert (folder / "gpu.md").read_text() == f"{number}"


@pytest.fixture
def handlers():
    """The handlers of signals, put back after the test."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("handlers")
def test_a_signal_during_the_probe_is_one_line(name, tmp_path, monkeypatch, capsys):
    def probe(*_):
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(60)

    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["gpu.sh", str(out), "--dry"])
    monkeypatch.setattr(script, "find_device", probe)
    monkeypatch.setattr(script, "Trials", lambda env: machine.Trials(env, ()))
    assert script.main() == 2
    assert capsys.readouterr().err == f"gpu.sh: stopped by {name}\n"
    # Nothing but the lock: the run did not start.
    assert [file.name for file in out.iterdir()] == [".lock"]


@pytest.mark.skipif(sys.platform != "linux", reason="a signal of Linux")
def test_a_part_dies_with_the_script():
    child = (
        "import time; from experiments.benchmarks.gpu.machine import *;"
        "die_with_parent(); print('ready', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        # The child holds the pipe: it ends when the child does.
        began = time.monotonic()
        assert process.stdout.read() == b""
        assert time.monotonic() - began < 30


def test_a_part_without_its_script_ends_at_once():
    command = "from experiments.benchmarks.gpu.machine import *; die_with_parent()"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for given, status in (
        (machine.for_child(env), 0),
        ({**env, machine.PARENT: "1"}, 1),
    ):
        done = subprocess.run([sys.executable, "-c", command], env=given)
        assert done.returncode == status


class Closed:
    """A pipe without its reader."""

    def write(self, _text):
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self):
        pass


def options_of(tmp_path):
    """Checked options, with the folders of a run that has started."""
    options = script.arguments([str(tmp_path / "out"), "--parts", "bit,kernels"])
    script.check_folder("OUT", options.out)
    script.set_aside(options.out)
    return options


def run_parts(options, monkeypatch, run, seconds=600.0) -> tuple[int, list[float]]:
    """The status of the script with another `run_part`, and the limits given to it."""
    limits = []

    def run_part(name, options, env, refresh, limit):
        limits.append(limit)
        return run(name)

    monkeypatch.setattr(script, "run_part", run_part)
    return script.run_parts(options, {}, "# Head", time.monotonic() + seconds), limits


def test_a_closed_output_ends_no_part(tmp_path, monkeypatch):
    options = options_of(tmp_path)
    monkeypatch.setattr(sys, "stdout", Closed())
    status, limits = run_parts(options, monkeypatch, lambda name: "done in 1 s")
    sys.stdout.close()
    assert status == 1
    assert len(limits) == 2
    assert "- kernels: done in 1 s; no rows" in (options.out / "gpu.md").read_text()


def test_a_full_disk_ends_no_part(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    options = options_of(tmp_path)
    monkeypatch.setattr(script, "write", full)
    status, limits = run_parts(options, monkeypatch, lambda name: "done in 1 s")
    assert status == 1
    assert len(limits) == 2
    printed = capsys.readouterr()
    assert "- kernels: done in 1 s; no rows" in printed.out
    assert printed.err.count("No space left on device") == 1
    # The same of a part's log.
    status, _ = run_parts(options, monkeypatch, full)
    assert status == 1
    assert "- kernels: failed, OSError: [Errno 28]" in capsys.readouterr().out


def test_a_full_disk_ends_no_row(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    table = Table("laws", tmp_path, 60)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "write", full)
        assert table.measure("t", "a", lambda: {"x": 1.0}) == {"x": 1.0}
    assert "No space left" in capsys.readouterr().err
    table.measure("t", "b", lambda: {"x": 2.0})
    rows = json.loads((tmp_path / "laws.json").read_text())["rows"]
    assert [row["values"]["x"] for row in rows] == [1.0, 2.0]


def test_the_deadline_cuts_limits_and_ends_the_run(tmp_path, monkeypatch, capsys):
    options = options_of(tmp_path)
    status, limits = run_parts(options, monkeypatch, lambda name: "done in 1 s", 40.0)
    assert status == 0
    # bit would have 130 s, kernels 35 s.
    assert limits[0] == pytest.approx(37, abs=1)
    assert limits[1] == 35
    status, limits = run_parts(options, monkeypatch, lambda name: "done", 12.0)
    assert status == 1 and not limits
    assert "- bit: not run: out of time\n" in capsys.readouterr().out


def test_a_failed_probe_shows_what_jax_says(monkeypatch, capsys):
    text = "import sys; print('no driver', file=sys.stderr); print('cpu: x')"
    monkeypatch.setattr(machine, "PROBE", text)
    with pytest.raises(SystemExit) as stopped:
        machine.probe(script.arguments([]), dict(os.environ))
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "no driver"
    assert lines[1].startswith("gpu.sh: expected a GPU, found cpu: x")


@pytest.fixture
def fake_torch(tmp_path, monkeypatch):
    """A function that writes a module `torch`, found by all processes."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    monkeypatch.syspath_prepend(folder)
    return (folder / "torch.py").write_text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ImportError('no libcudart')", "ImportError: no libcudart"),
        ("import os; os._exit(7)", "status 7"),
        ("import os; os.kill(os.getpid(), 11)", "status -11"),
    ],
)
def test_a_broken_torch_is_an_error_and_missing(text, why, fake_torch, tmp_path):
    fake_torch(text)
    table = Table("cifar", tmp_path, 60)
    torch_pair.measure(table, "PyTorch", (4, 8), dry=True)
    rows = json.loads((tmp_path / "cifar.json").read_text())["rows"]
    assert [row["row"] for row in rows] == torch_pair.names((4, 8))
    for row in rows:
        assert row["state"].startswith("error: ") and row["state"].endswith(why)
    (line,) = machine.Trials(os.environ, ("torch",)).lines()
    assert line.startswith("missing: torch (needed by the PyTorch rows of cifar): ")
    assert line.endswith(why)


def test_a_torch_without_cuda_is_an_error(fake_torch, tmp_path):
    fake_torch(
        "from types import SimpleNamespace\n"
        "cuda = SimpleNamespace(is_available=lambda: False)"
    )
    assert machine.Trials(os.environ, ("torch",)).lines() == []
    table = Table("cifar", tmp_path, 60)
    torch_pair.measure(table, "PyTorch", (4,), dry=False)
    rows = json.loads((tmp_path / "cifar.json").read_text())["rows"]
    states = {row["state"] for row in rows}
    assert states == {"error: RuntimeError: this PyTorch has no CUDA"}


def test_pytorch_begins_with_the_large_batch_in_bfloat16():
    rows = torch_pair.cases((128, 512))
    assert rows[:2] == [("eager", "bfloat16", 512), ("compiled", "bfloat16", 512)]
    assert len(rows) == len(set(rows)) == 8


def test_the_most_telling_loops_are_first():
    rows = list(cifar.variants(cifar.FULL).values())
    assert rows[0] == cifar.Variant(512, 32)
    assert [row.teacher for row in rows[:3]] == ["live", "cached", "none"]
    assert [(row.batch, row.per_call) for row in rows[3:6]] == [
        (128, 32),
        (128, 1),
        (128, 8),
    ]


def test_the_ratio_to_the_floor_counts_the_windows_that_save():
    # Two of six windows take twice as long: 6 / 8, where a median would say 1.
    assert cifar.ratio([1.0] * 6, [1, 1, 2, 1, 1, 2]) == 0.75


def test_rows_that_were_not_reached_say_why(tmp_path):
    def states():
        rows = json.loads((tmp_path / "bit.json").read_text())["rows"]
        return [row["state"] for row in rows]

    table = Table("bit", tmp_path, 2.0)
    table.plan("t", ["a", "b"])
    # A part that is killed here leaves this behind.
    assert states() == ["not run: the part was stopped"] * 2
    assert table.measure("t", "a", lambda: {"x": 1}) is None
    assert states() == ["not run: out of time", "not run: the part was stopped"]
    assert table.measure("t", "b", lambda: {"x": 1}, least=0.0) == {"x": 1}
    table.plan("t", ["c"])
    table.finish()
    assert states() == ["not run: out of time", "", "not run: out of time"]


def test_numbers_that_json_lacks_become_strings(tmp_path):
    def refuse(name):
        raise ValueError(name)

    table = Table("laws", tmp_path, 60)
    table.put("t", "a", {"x": math.nan, "y": math.inf, "z": 1.5})
    table.measure("t", "b", lambda: {"x": -math.inf})
    text = (tmp_path / "laws.json").read_text()
    rows = json.loads(text, parse_constant=refuse)["rows"]
    assert rows[0]["values"] == {"x": "nan", "y": "inf", "z": 1.5}
    assert rows[1]["values"] == {"x": "-inf"}
    assert "| a | nan | inf | 1.5 |" in (tmp_path / "laws.md").read_text()


def test_long_names_of_costs_are_cut_after_they_are_counted():
    long = "x" * 100
    events = [(profile.family(f"{long}{end}.{i}"), 1.0) for end in "ab" for i in (1, 2)]
    found = profile.largest(events, 1)
    assert found == [(f"{long}a", 2, 0.5), (f"{long}b", 2, 0.5)]
    shown = profile.code(found[0][0])
    assert shown == "`" + "x" * 77 + "...`"
    assert profile.code("a`b") == "`a'b`"


def test_the_results_of_one_device_are_kept(tmp_path):
    own = tmp_path / "cpu" / "teacher"
    own.mkdir(parents=True)
    summary = {"test": {"accuracy": [0.5, 0.7], "kl": [0.25]}, "seconds": 9.0}
    (own / "summary.json").write_text(json.dumps(summary))
    ended: dict[str, int | None] = {"gpu": None, "cpu": 0}
    table = Table("laws", tmp_path, 0.0)
    for job in ("teacher", "student"):
        table.measure(
            "digits job",
            job,
            lambda job=job: laws.compare(tmp_path, job, ended),
            least=-math.inf,
        )
    rows = json.loads((tmp_path / "laws.json").read_text())["rows"]
    assert rows[0]["values"] == {
        "accuracy %, cpu": pytest.approx(60),
        "kl nats, cpu": 0.25,
        "seconds, cpu": 9.0,
    }
    assert rows[0]["state"] == "not run: out of time on the gpu"
    assert rows[1]["state"] == (
        "error: the job on the cpu ended with status 0; not run: out of time on the gpu"
    )
    assert not rows[1]["values"]


# Millions of multiplications of one image, as the papers' tables have them.
@pytest.mark.parametrize(
    ("name", "size", "millions"),
    [("resnet20", 32, 40.8), ("resnet56", 32, 125.7), ("resnet50", 224, 4089)],
)
def test_operations_are_those_of_the_papers(name, size, millions):
    classes = 10 if size == 32 else 1000
    config = ModelConfig(name=name, norm="batch", resolution=size)
    model = kdjax.make_model(config, classes)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)

    def loss(params, rest, image):
        output, _ = model.apply({**rest, "params": params}, image)
        return jnp.sum(output.logits)

    arguments = variables["params"], variables, image
    forward = count_flops(loss, *arguments)
    assert forward / 2e6 == pytest.approx(millions, rel=2e-3)
    # The gradient of the image is not taken.
    both = count_flops(jax.value_and_grad(loss), *arguments)
    assert 2.9 < both / forward <= 3


def test_a_loop_counts_as_often_as_it_turns():
    def product(x, w):
        return x @ w, None

    square = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    stack = jax.ShapeDtypeStruct((5, 8, 8), jnp.float32)

    def chain(x, stack):
        return jax.lax.scan(product, x, stack)

    assert count_flops(jax.jit(chain), square, stack) == 5 * 2 * 8**3


def test_the_runs_of_full_size_can_be_run():
    for variant in cifar.variants(cifar.FULL).values():
        run = cifar.make_run(cifar.FULL, variant)
        run.check()
        assert cifar.FULL.window % variant.per_call == 0
        for config in (run.model, run.teacher.model):
            kdjax.make_model(config, cifar.CLASSES)
    for px in bit.FULL.resolutions:
        run = bit.make_run(bit.FULL, px, bit.FULL.batches[0])
        run.check()
        for config in (run.model, run.teacher.model):
            kdjax.make_model(config, bit.CLASSES)
