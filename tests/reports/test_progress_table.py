"""The table of `kdjax watch`: what a folder shows, at every stage of a run."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from kdjax.core import runlog, timeline
from kdjax.reports.progress_table import (
    _duration,
    find_runs,
    progress_table,
    run_state,
    states_of,
)

NOW = 10_000.0


@pytest.fixture
def folder(tmp_path):
    return runlog.open_run(tmp_path / "run", {"name": "a", "steps": 400})


def put(folder, *events):
    write = timeline.make_writer(folder)
    for event in events:
        write(event)


def watch(*folders):
    """The command, in a process that ends in an error where JAX was imported."""
    code = "import sys; from kdjax.cli.main import main; main(sys.argv[1:]); "
    code += "assert 'jax' not in sys.modules"
    command = [sys.executable, "-c", code, "watch", *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


START = {"event": "start", "time": NOW - 110, "step": 0, "setup": 5.0, "restore": 0.0}
STEPS = {
    **{"event": "steps", "time": NOW - 10, "from": 0, "step": 100, "seconds": 100.0},
    **{"compile": 20.0, "memory": {"host": 3 * 2**30}},
}
LINE = {
    **{"kind": "train", "step": 100, "seconds": 100.0, "images_per_second": 25_300.0},
    **{"loss": [1.0, 2.0], "agreement": [0.5, 0.7]},
}


def test_a_run_that_trains(folder):
    put(folder, START, STEPS)
    runlog.append_metrics(folder, LINE)
    kind = {"kind": "validation", "step": 100, "seconds": 1.0}
    runlog.append_metrics(folder, {**kind, "accuracy": [0.25], "agreement": [0.5]})
    state = run_state("run", folder, NOW)
    assert state.state == "training" and not state.is_over
    # 80 of 105 s in steps; 300 more at one a second.
    cells = ("100/400", "1.5000", "25.0", "50.0", "25k", "3.0", "76", "5m")
    assert state.cells == cells


@pytest.mark.parametrize(
    ("events", "now", "state"),
    [
        ((START, STEPS), NOW + 1_000, "silent 17m"),
        ((START, {**STEPS, "seconds": 400.0}), NOW + 1_000, "training"),
        (
            (START, {"event": "end", "time": NOW, "step": 0, "reason": "x"}),
            NOW,
            "ended: x",
        ),
    ],
)
def test_the_states_of_a_run_that_is_not_finished(folder, events, now, state):
    put(folder, *events)
    assert run_state("run", folder, now).state == state


def test_a_new_folder_is_starting_and_an_old_one_unfinished(folder):
    begun = (folder / "config.json").stat().st_mtime
    assert run_state("run", folder, begun + 5).state == "starting"
    assert run_state("run", folder, begun + 500).state == "unfinished"
    runlog.write_json(folder / "summary.json", {"test": {"accuracy": [0.5]}})
    assert run_state("run", folder, begun + 500).state == "finished"


def test_torn_and_foreign_lines_are_left_out(folder):
    put(folder, START, STEPS)
    with open(folder / "events.jsonl", "ab") as stream:
        stream.write(b'{"event": "steps", "time": 1}\n[1]\n{"event": "other"}\n{"even')
    assert run_state("run", folder, NOW).cells[0] == "100/400"
    put(folder, {**STEPS, "from": 100, "step": 200})
    assert run_state("run", folder, NOW).cells[0] == "200/400"


def test_a_damaged_folder_is_said_and_the_others_are_shown(folder, tmp_path):
    other = runlog.open_run(tmp_path / "other", {"name": "b", "steps": 400})
    (folder / "config.json").write_text("{")
    first, second = states_of(find_runs([folder, other]))
    assert "config.json is not JSON" in first.problem and first.is_over
    assert second.state == "starting" and not second.problem
    assert progress_table([first, second]).row_count == 2
    done = watch(folder, other)
    assert done.returncode == 2 and "run/config.json is not JSON" in done.stderr
    assert done.stderr.count("\n") == 1 and "starting" in done.stdout


def test_runs_below_a_folder_are_found(folder, tmp_path):
    runlog.open_run(folder / "teacher", {"name": "t", "steps": 4})
    names = [name for name, _ in find_runs([tmp_path])]
    assert names == [f"{tmp_path.name}/run", f"{tmp_path.name}/run/teacher"]
    assert [name for name, _ in find_runs([folder])] == ["run", "run/teacher"]
    with pytest.raises(runlog.RunFolderError, match="no run in"):
        find_runs([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (59, "59s"), (130, "2m"), (18_400, "5h 07m"), (270_000, "3d 03h")],
)
def test_durations_are_short(seconds, text):
    assert _duration(seconds) == text


def test_the_command_prints_once_where_there_is_no_terminal(folder):
    put(folder, START, STEPS)
    done = watch(folder)
    assert done.returncode == 0, done.stderr
    assert "100/400" in done.stdout and json.dumps(done.stderr) == '""'


@pytest.mark.full
def test_control_c_ends_the_table_in_a_terminal(folder):
    """The run trains on; the table stays, and the exit status is 0."""
    now = time.time()
    put(folder, {**START, "time": now - 1}, {**STEPS, "time": now})
    command = [sys.executable, "-m", "kdjax", "watch", str(folder), "--every", "0.2"]
    leader, follower = pty.openpty()
    ends = {"stdin": follower, "stdout": follower, "stderr": follower}
    # Programs in the background of a script ignore Control-C, and so do their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, start_new_session=True, **ends)
    os.close(follower)
    output = b""
    try:
        while b"training" not in output:
            output += os.read(leader, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert b"Traceback" not in output


def test_a_finished_run_whose_summary_is_damaged_or_lost(folder):
    put(folder, START, {"event": "end", "time": NOW, "step": 0, "reason": "finished"})
    state = run_state("run", folder, NOW)
    assert state.state == "without a summary" and not state.problem
    (folder / "summary.json").write_text('{"test": ')
    problem = run_state("run", folder, NOW).problem
    assert problem.endswith("run/summary.json cannot be read")
