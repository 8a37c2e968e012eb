"""Processes of a run that are lost, stopped, paused or never come."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from kdjax.core import runlog
from tests.e2e.several import begin, together, wait_for, with_child

# Real processes: the full tier.
pytestmark = pytest.mark.full


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
        wait_for(begun, running)
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
        wait_for(lambda: runlog.read_metrics(tmp_path / "run"), running)
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
            lines = runlog.read_metrics(folder) if folder.exists() else []
            seen = len(lines)
            wait_for(lambda n=seen: len(runlog.read_metrics(folder)) > n, running)
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
    wait_for(lambda: runlog.read_metrics(tmp_path / "run"), [only])
    _, child = with_child(only)
    only.kill()
    only.wait()
    only.stdout.close()
    deadline = time.monotonic() + 60
    while pathlib.Path(f"/proc/{child}/cmdline").exists():
        stat = pathlib.Path(f"/proc/{child}/stat").read_text()
        if stat.rsplit(")", 1)[1].split()[0] == "Z":
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_process_that_never_comes(tmp_path):
    """The one that waits ends in the set time, and names what may be wrong."""
    command = [sys.executable, "-m", "kdjax", "train", "--steps", "60", *SEVERAL]
    command += ["--workdir", str(tmp_path / "run"), "--compute.meet-within", "6"]
    first, second = begin(command, processes=2, devices=1)
    first.kill()
    first.communicate(timeout=60)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 75
    line = output.splitlines()[-1]
    assert line.startswith("kdjax: not all processes have met; JAX_COORDINATOR_ADDRESS")
    assert "***" not in output and not (tmp_path / "run").exists()
