"""Two real processes on this machine form one run, equal to one process."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import kdjax
from kdjax.cache.store import open_store
from kdjax.config import HARD, Cache, Compute, Data, Optim, to_dict
from kdjax.core import runlog
from tests.e2e.linear_runs import TEACHER, linear

# Real processes: the full tier.
pytestmark = pytest.mark.full

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f"{ROOT / 'experiments' / 'function_matching' / 'digits.py'}:tiny"

# On a busy machine a process may wait for another longer than XLA's 40 seconds, after
# which it aborts.
PATIENT = (
    "--xla_cpu_collective_call_terminate_timeout_seconds=600 "
    "--xla_cpu_collective_timeout_seconds=600"
)


def start(workdir, *, processes, devices, options=(), baselines=("labels",)):
    """Start `kdjax distill` as several processes; their exits and outputs."""
    command = [sys.executable, "-m", "kdjax", "distill", "--config", CONFIG]
    command += ["--workdir", str(workdir), "--baselines", *baselines, *options]
    command += ["--compute.several-processes", str(processes > 1)]
    return together(command, processes, devices)


def begin(command, processes, devices):
    """Start a command as several processes that find each other."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    running = []
    for i in range(processes):
        environment = {
            **os.environ,
            "XLA_FLAGS": PATIENT,
            "PYTHONPATH": str(ROOT),
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(i),
        }
        running.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return running


def together(command, processes, devices):
    """Run a command as several processes; their exits and outputs."""
    running = begin(command, processes, devices)
    try:
        outputs = [p.communicate(timeout=900)[0] for p in running]
    finally:
        # One that fails leaves the other waiting for it.
        for process in running:
            process.kill()
            process.wait()
    return [p.returncode for p in running], outputs


def numbers(folder):
    return [
        (line["kind"], line["step"], np.asarray(line.get("loss", line.get("kl", 0.0))))
        for line in runlog.read_metrics(folder)
    ]


def check_equal(folder, other):
    ours, theirs = numbers(folder), numbers(other)
    assert [x[:2] for x in ours] == [x[:2] for x in theirs]
    # Sums come in another order; a batch dealt out wrongly would be far off.
    for a, b in zip(ours, theirs, strict=True):
        # A small KL is a difference of logarithms: their rounding is absolute.
        np.testing.assert_allclose(a[2], b[2], rtol=2e-5, atol=2e-6)


def test_two_processes_equal_one(tmp_path):
    """Teacher, baseline and student, 2 x 2 devices against 1 x 4, fsdp included."""
    # SGD: Adam's division makes a rounding of 1e-7 a difference of 1e-3 in 20 updates.
    student = ("--compute.fsdp", "2", "--model.width", "8", "--optim.name", "sgd")
    layout = (*student, "--teacher.optim.name", "sgd")
    codes, outputs = start(tmp_path / "two", processes=2, devices=2, options=layout)
    assert codes == [0, 0], outputs
    assert "funmatch" in outputs[0] or "tiny" in outputs[0]
    assert "tiny" not in outputs[1], "only the first process speaks"
    codes, outputs = start(tmp_path / "one", processes=1, devices=4, options=layout)
    assert codes == [0], outputs
    for part in ("teacher", "labels", "."):
        check_equal(tmp_path / "two" / part, tmp_path / "one" / part)
    # The same student with images that each process decodes for its own rows.
    other = *student, "--data.pipeline", "host"
    other += "--teacher.run", str(tmp_path / "one" / "teacher")
    options = {"processes": 2, "devices": 2, "options": other, "baselines": ()}
    codes, outputs = start(tmp_path / "streamed", **options)
    assert codes == [0, 0], outputs
    check_equal(tmp_path / "streamed", tmp_path / "one")
    again, outputs = start(tmp_path / "two", processes=1, devices=2, options=layout)
    assert again == [0] and "finished" in outputs[0]


CACHED = """
import sys
from kdjax.core import hosts
hosts.join()
import jax
import kdjax
from kdjax.config import load_config
from kdjax.cache import writer
from tests.e2e.linear_runs import TEACHER, linear

writer._BLOCK_STEPS = 4
run = load_config(sys.argv[1])
kdjax.cache_targets(run, student=linear(), teacher=TEACHER)
print("cached by", jax.process_index(), "of", jax.process_count())
kdjax.distill(run, student=linear(), teacher=TEACHER)
"""


def test_two_processes_cache_and_replay_as_one(tiny_run, tmp_path):
    """Blocks are shared out, each on its process's own devices; 2 x 2 against 1 x 1."""

    def small(name, compute):
        base = tiny_run()
        cache = Cache(path=str(tmp_path / f"store {name}"))
        return dataclasses.replace(
            base,
            workdir=str(tmp_path / f"run {name}"),
            steps=10,
            optim=Optim(name="sgd", warmup=2),
            teacher=dataclasses.replace(base.teacher, cache=cache),
            compute=compute,
        )

    config = tmp_path / "two.json"
    config.write_text(
        json.dumps(to_dict(small("two", Compute(several_processes=True))))
    )
    command = [sys.executable, "-c", CACHED, str(config)]
    codes, outputs = together(command, processes=2, devices=2)
    assert codes == [0, 0], outputs
    for i, output in enumerate(outputs):
        assert f"cached by {i} of 2" in output
    assert "3 of 3 blocks" in outputs[0] and "blocks" not in outputs[1]
    one = small("one", Compute(data=1))
    kdjax.cache_targets(one, student=linear(), teacher=TEACHER)
    kdjax.distill(one, student=linear(), teacher=TEACHER)
    rows = [
        open_store(tmp_path / f"store {name}").read(slice(0, 10))["logits"]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(rows[1], rows[0], rtol=0, atol=2e-6)
    ours, theirs = (numbers(tmp_path / f"run {name}") for name in ("two", "one"))
    assert [x[:2] for x in ours] == [x[:2] for x in theirs]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a[2], b[2], rtol=2e-5, atol=2e-6)


RESUMED = """
import sys
from kdjax.core import hosts
hosts.join()
import kdjax
from kdjax.config import load_config
from kdjax.train import sharding
from tests.e2e.linear_runs import linear

sharding.SHARED_FROM = 8
kdjax.jobs.train(load_config(sys.argv[1]), model=linear())
"""


def test_a_part_of_one_process_is_damaged(tiny_run, tmp_path):
    """Both go back to the checkpoint before, and end as an undisturbed run."""
    layout = {"fsdp": 2, "several_processes": True}
    run = dataclasses.replace(
        tiny_run(),
        **dict(teacher=None, terms={"hard": HARD}, compute=Compute(**layout)),
        **dict(workdir=str(tmp_path / "run"), steps=4, log_every=1),
        **dict(evaluate_every=2, checkpoint_every=2, optim=Optim(warmup=1)),
    )
    config = tmp_path / "two.json"
    config.write_text(json.dumps(to_dict(run)))
    command = [sys.executable, "-c", RESUMED, str(config)]
    codes, outputs = together(command, processes=2, devices=1)
    assert codes == [0, 0], outputs
    expected = numbers(run.folder)
    (run.folder / "summary.json").unlink()
    parts = sorted((run.folder / "checkpoints/4/default").glob("params*/c/*/*/*"))
    assert len(parts) == 2
    parts[-1].write_bytes(parts[-1].read_bytes()[:9])
    codes, outputs = together(command, processes=2, devices=1)
    assert codes == [0, 0], outputs
    assert "steps 3 to 4 are trained again" in outputs[0]
    for ours, theirs in zip(numbers(run.folder), expected, strict=True):
        assert ours[:2] == theirs[:2]
        np.testing.assert_array_equal(ours[2], theirs[2])


STOPPED = """
import os, sys
from kdjax.core import hosts, runlog
if sys.argv[2] != "1":
    hosts.join()
import kdjax
from kdjax.config import load_config
from tests.e2e.linear_runs import linear

append = runlog.append_metrics

def crash(folder, line):
    append(folder, line)
    if line["step"] == int(sys.argv[3]):
        os._exit(9)

runlog.append_metrics = crash
kdjax.jobs.train(load_config(sys.argv[1]), model=linear())
"""


@pytest.mark.parametrize("counts", [(2, 1), (1, 2)])
def test_a_run_goes_on_in_another_number_of_processes(tiny_run, tmp_path, counts):
    def train(folder, processes, until=0):
        compute = Compute(several_processes=processes > 1)
        run = dataclasses.replace(
            tiny_run(),
            **dict(teacher=None, terms={"hard": HARD}, compute=compute),
            **dict(workdir=str(tmp_path / folder), steps=8, log_every=1),
            **dict(evaluate_every=8, checkpoint_every=2),
            optim=Optim(name="sgd", warmup=2),
        )
        config = tmp_path / f"{folder} {processes}.json"
        config.write_text(json.dumps(to_dict(run)))
        command = [sys.executable, "-c", STOPPED, str(config), str(processes)]
        command += [str(until)]
        codes, outputs = together(command, processes, 2 // processes)
        assert (codes == [0] * processes) == (not until), outputs
        return run.folder

    train("run", counts[0], until=5)
    folder = train("run", counts[1])
    check_equal(folder, train("whole", counts[0]))


ODD = """
import os, sys
config, what = sys.argv[1:]
odd = os.environ["JAX_PROCESS_ID"] == "1"
if odd and what == "devices":
    os.environ["JAX_NUM_CPU_DEVICES"] = "2"
from kdjax.core import hosts
hosts.join()
import dataclasses
import numpy as np
import kdjax
from kdjax.config import ConfigError, load_config
from tests.e2e.linear_runs import linear

run = load_config(config)
if odd and what == "steps":
    run = dataclasses.replace(run, steps=9)
images = np.arange(40 * 8 * 8 * 1, dtype=np.uint8).reshape(40, 8, 8, 1)
rest = images, np.arange(40) % 10
if odd and what == "images":
    images = images ^ np.eye(40, dtype=np.uint8)[:, 3].reshape(40, 1, 1, 1)
data = images, np.arange(40) % 10
with hosts.leave_at_once():
    try:
        splits = {"train": data, "validation": rest, "test": rest}
        kdjax.jobs.train(run, model=linear(), splits=splits)
    except ConfigError as error:
        sys.exit(str(error))
"""
NAMED = {
    "devices": "devices everywhere, got process 1 of 2 with 2 x cpu",
    "steps": "config, code and data everywhere, got process 1 of 2 with other steps",
    "images": "config, code and data everywhere, got process 1 of 2 with other content "
    "of `train`",
}


@pytest.mark.parametrize("what", NAMED)
def test_a_process_that_differs_is_named(tiny_run, tmp_path, what):
    """By all processes, before anything is written."""
    run = dataclasses.replace(
        tiny_run(),
        **dict(teacher=None, terms={"hard": HARD}, workdir=str(tmp_path / "run")),
        **dict(data=Data("digits", "train", "validation", "test"), steps=8),
        compute=Compute(several_processes=True),
    )
    config = tmp_path / "differs.json"
    config.write_text(json.dumps(to_dict(run)))
    command = [sys.executable, "-c", ODD, str(config), what]
    codes, outputs = together(command, processes=2, devices=1)
    assert codes == [1, 1]
    for output in outputs:
        assert f"compute.several_processes: expected the same {NAMED[what]}" in output
        assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def with_child(process):
    """The numbers of a process and of the child that does its work."""
    path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [process.pid, *map(int, path.read_text().split())]


LOST = {
    "killed": (1, signal.SIGKILL, "process 1 of 2 was not heard of for 8 s"),
    "stopped": (1, signal.SIGSTOP, "process 1 of 2 was not heard of for 8 s"),
    "first killed": (0, signal.SIGKILL, "process 0 has gone"),
}


def lose(command, how, begun):
    """Lose one of two processes once `begun()`; the other's exit, text and seconds."""
    lost, sent, _ = LOST[how]
    running = begin(command, processes=2, devices=1)
    other = running[1 - lost]
    try:
        deadline = time.monotonic() + 300
        while not begun():
            assert time.monotonic() < deadline and other.poll() is None
            time.sleep(0.5)
        # A host that is lost takes all its processes along.
        pids = with_child(running[lost])
        assert len(pids) == 2
        for pid in pids:
            os.kill(pid, sent)
        since = time.monotonic()
        output, _ = other.communicate(timeout=120)
        return other.returncode, output, time.monotonic() - since
    finally:
        for process in running:
            process.kill()
            process.wait()
            process.stdout.close()


def check_named(how, code, output, seconds):
    assert code == 75
    lines = [x for x in output.splitlines() if "step" not in x]
    assert lines[-1] == f"kdjax: {LOST[how][2]}: start all again"
    assert "Traceback" not in output and "***" not in output
    assert "coordination" not in output
    assert (0 if how == "first killed" else 5) < seconds < 60


SEVERAL = ("--compute.several-processes", "True", "--compute.lost-after", "8")


@pytest.mark.parametrize("how", LOST)
def test_a_lost_process_ends_the_other_with_its_name(tmp_path, how):
    """Within the set time, in one line, with a status that asks for a restart."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "kdjax", "train", "--workdir", str(folder)]
    command += ["--steps", "100000", "--seeds", "1", "--log-every", "20", *SEVERAL]
    check_named(how, *lose(command, how, lambda: runlog.read_metrics(folder)))


@pytest.mark.parametrize("how", ["killed", "first killed"])
def test_a_process_lost_while_targets_are_cached(tmp_path, how):
    """The other ends as in training."""
    words = [sys.executable, "-m", "kdjax"]
    teacher, store = tmp_path / "teacher", tmp_path / "store"
    options = ["--steps", "20", "--seeds", "1", "--optim.warmup", "5"]
    train = [*words, "train", "--workdir", str(teacher), *options]
    assert subprocess.run(train, capture_output=True).returncode == 0
    command = [*words, "cache-targets", "--workdir", str(tmp_path / "run")]
    command += ["--teacher.run", str(teacher), "--teacher.cache.path", str(store)]
    command += ["--steps", "50000", *SEVERAL]
    check_named(how, *lose(command, how, lambda: list(store.glob("logits/c/*/*"))))


def test_what_one_process_refuses_ends_all_at_once(tmp_path):
    """The first alone opens the store, and says what is wrong; none waits for long."""
    words = [sys.executable, "-m", "kdjax"]
    teacher, store = tmp_path / "teacher", tmp_path / "store"
    options = ["--seeds", "1", "--optim.warmup", "5"]
    train = [*words, "train", "--workdir", str(teacher), "--steps", "20", *options]
    assert subprocess.run(train, capture_output=True).returncode == 0
    command = [*words, "cache-targets", "--workdir", str(tmp_path / "run"), *options]
    command += ["--teacher.run", str(teacher), "--teacher.cache.path", str(store)]
    command += SEVERAL
    codes, outputs = together([*command, "--steps", "60"], processes=2, devices=1)
    assert codes == [0, 0], outputs
    begun = time.monotonic()
    codes, outputs = together([*command, "--steps", "90"], processes=2, devices=1)
    assert time.monotonic() - begun < 120
    assert codes == [2, 75], outputs
    assert outputs[0].splitlines()[-1].startswith("kdjax: teacher.cache.epochs")
    assert outputs[1].splitlines()[-1].endswith("has gone: start all again")
    assert "Traceback" not in outputs[0] + outputs[1]


def test_a_process_that_pauses_is_waited_for(tmp_path):
    """Stopped and continued within the set time, it ends as the others do."""
    command = [sys.executable, "-m", "kdjax", "train", "--steps", "600", *SEVERAL]
    command += ["--workdir", str(tmp_path / "run"), "--seeds", "1"]
    command += ["--log-every", "20", "--optim.warmup", "20"]
    running = begin(command, processes=2, devices=1)
    try:
        deadline = time.monotonic() + 300
        while not runlog.read_metrics(tmp_path / "run"):
            assert time.monotonic() < deadline and running[0].poll() is None
            time.sleep(0.2)
        pids = with_child(running[1])
        for sent in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                os.kill(pid, sent)
            time.sleep(4)
        outputs = [p.communicate(timeout=300)[0] for p in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [p.returncode for p in running] == [0, 0], outputs
    assert "600/600" in outputs[0]


def test_a_signal_to_one_process_saves_on_all(tmp_path):
    """SIGTERM to the parent of one: all stop at one step, and go on from it.

    So does a run that was resumed, whose first step is no 1, and one whose program
    makes several steps.
    """
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "kdjax", "train", "--workdir", str(folder)]
    command += ["--steps", "400", "--seeds", "1", "--log-every", "10", *SEVERAL]
    command += ["--checkpoint-every", "100000", "--evaluate-every", "100000"]
    command += ["--optim.warmup", "20"]
    before = 0
    for options in ([], [], ["--compute.steps-per-call", "7"]):
        running = begin([*command, *options], processes=2, devices=1)
        try:
            deadline = time.monotonic() + 300
            lines = runlog.read_metrics(folder) if folder.exists() else []
            while len(runlog.read_metrics(folder)) <= len(lines):
                assert time.monotonic() < deadline and running[0].poll() is None
                time.sleep(0.2)
            running[1].send_signal(signal.SIGTERM)
            outputs = [p.communicate(timeout=120)[0] for p in running]
        finally:
            for process in running:
                process.kill()
                process.wait()
        assert [p.returncode for p in running] == [143, 143], outputs
        saved = max(int(x.name) for x in (folder / "checkpoints").iterdir())
        assert saved > before and f"stopped at step {saved} of" in outputs[0]
        before = saved
    codes, outputs = together(command, processes=2, devices=1)
    assert codes == [0, 0], outputs


def test_a_killed_parent_takes_its_child_along(tmp_path):
    command = [sys.executable, "-m", "kdjax", "train", "--steps", "100000"]
    command += ["--workdir", str(tmp_path / "run"), "--log-every", "20"]
    command += ["--compute.several-processes", "True"]
    (only,) = begin(command, processes=1, devices=1)
    deadline = time.monotonic() + 300
    while not runlog.read_metrics(tmp_path / "run"):
        assert time.monotonic() < deadline and only.poll() is None
        time.sleep(0.5)
    _, child = with_child(only)
    only.kill()
    only.wait()
    only.stdout.close()
    while pathlib.Path(f"/proc/{child}/cmdline").exists():
        stat = pathlib.Path(f"/proc/{child}/stat").read_text()
        if stat.rsplit(")", 1)[1].split()[0] == "Z":
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
