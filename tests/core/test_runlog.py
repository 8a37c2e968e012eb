"""Run folders survive crashes, refuse strangers and say what is wrong in one line."""

import errno
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError

CONFIG = {"name": "a", "workdir": "here", "optim": {"lr": 0.1, "wd": 0.0}, "steps": 5}


def contents(folder):
    """Every name below a folder, with the bytes of the files."""
    return {
        str(f.relative_to(folder)): f.read_bytes() if f.is_file() else None
        for f in sorted(folder.rglob("*"))
    }


def line(step, **metrics):
    return {"kind": "validation", "step": step, "seconds": 1.5, **metrics}


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def run_alone(code):
    """Run `code` in a new Python that has loaded runlog.py alone of kdjax."""
    command = [
        sys.executable,
        "-c",
        "import sys\nfrom kdjax.core import runlog\n" + code,
    ]
    return subprocess.run(command, capture_output=True, text=True)


def test_open_makes_folder_and_writes_config(tmp_path):
    folder = runlog.open_run(tmp_path / "runs" / "a", CONFIG)
    assert folder == tmp_path / "runs" / "a"
    assert contents(folder).keys() == {"config.json"}
    assert (folder / "config.json").read_text() == json.dumps(CONFIG, indent=2) + "\n"
    assert runlog.read_config(folder) == CONFIG


def test_open_again_keeps_everything(tmp_path):
    folder = runlog.open_run(tmp_path, CONFIG)
    runlog.append_metrics(folder, line(1))
    before = contents(folder)
    assert runlog.contains_run(folder) and runlog.find_config(folder) == CONFIG
    assert runlog.find_config(tmp_path / "missing") is None
    runlog.open_run(folder, {**CONFIG, "workdir": "elsewhere"})
    assert contents(folder) == before


def test_open_refuses_a_foreign_folder_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "sub").mkdir()
    before = contents(tmp_path)
    with pytest.raises(RunFolderError, match="not empty.*sub, thesis.tex") as caught:
        runlog.open_run(tmp_path, CONFIG)
    assert str(tmp_path) in str(caught.value)
    assert contents(tmp_path) == before


def test_open_takes_a_folder_with_only_a_killed_writers_file(tmp_path):
    # The process ends between the writing of the temporary file and its renaming.
    done = run_alone(
        "import os\nos.replace = lambda *_: os._exit(9)\n"
        f"runlog.write_json({str(tmp_path / 'config.json')!r}, {{'half': 1}})"
    )
    assert done.returncode == 9, done.stderr
    assert len(contents(tmp_path)) == 1
    assert not runlog.contains_run(tmp_path)
    runlog.open_run(tmp_path, CONFIG)
    assert runlog.read_config(tmp_path) == CONFIG


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_open_refuses_a_regular_file_in_the_way(tmp_path, below):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(RunFolderError, match="^workdir: .*Not a directory$") as caught:
        runlog.open_run(file / below, CONFIG)
    assert str(file / below) in str(caught.value)
    assert contents(tmp_path) == {"file": b"mine"}


def test_open_on_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(RunFolderError, match="^workdir: .*No space left on device$"):
        runlog.open_run(tmp_path / "runs" / "a", CONFIG)
    assert contents(tmp_path) == {}


def test_open_on_a_full_disk_keeps_a_folder_that_was_there(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(RunFolderError, match="No space left on device"):
        runlog.open_run(tmp_path, CONFIG)
    assert tmp_path.is_dir()
    assert contents(tmp_path) == {}


def test_open_reports_a_folder_that_may_not_be_made(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.mkdir", denied)
    with pytest.raises(RunFolderError, match="^workdir: .*a: Permission denied$"):
        runlog.open_run(tmp_path / "a", CONFIG)


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_write_json_fails_whole(tmp_path, monkeypatch, failing):
    file = tmp_path / "summary.json"
    runlog.write_json(file, {"old": 1})
    before = contents(tmp_path)
    monkeypatch.setattr(os, failing, no_space)
    with pytest.raises(RunFolderError, match="summary.json: No space left on device"):
        runlog.write_json(file, {"new": 2})
    assert contents(tmp_path) == before


def test_write_json_interrupted_leaves_the_old_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    runlog.write_json(tmp_path / "a.json", {"old": 1})
    before = contents(tmp_path)
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runlog.write_json(tmp_path / "a.json", {"new": 2})
    assert contents(tmp_path) == before


def test_written_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    runlog.write_json(tmp_path / "a.json", {})
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "a.json")]
    assert modes[0] == modes[1]


def test_metrics_round_trip(tmp_path):
    assert runlog.read_metrics(tmp_path) == []
    rows = [line(1, accuracy=[0.1, 0.2]), {"kind": "train", "step": 2, "loss": [3.5]}]
    for row in rows:
        runlog.append_metrics(tmp_path, row)
    assert runlog.read_metrics(tmp_path) == rows
    texts = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(text) for text in texts] == rows


def test_metrics_take_arrays(tmp_path):
    values = np.array([0.5, 0.25], np.float32)
    row = {"kind": "train", "step": np.int64(3), "loss": values, "lr": values[0]}
    runlog.append_metrics(tmp_path, row)
    (found,) = runlog.read_metrics(tmp_path)
    assert found == {"kind": "train", "step": 3, "loss": [0.5, 0.25], "lr": 0.5}
    assert type(found["lr"]) is float


def test_values_that_are_not_finite_are_valid_json_and_come_back(tmp_path):
    values = [math.nan, math.inf, -math.inf, 1.0]
    runlog.append_metrics(tmp_path, line(1, kl=np.array(values), loss=math.nan))
    (text,) = (tmp_path / "metrics.jsonl").read_text().splitlines()

    def forbid(constant):
        raise AssertionError(f"{constant} is not JSON")

    written = json.loads(text, parse_constant=forbid)
    assert written["kl"] == ["NaN", "Infinity", "-Infinity", 1.0]
    (found,) = runlog.read_metrics(tmp_path)
    np.testing.assert_array_equal(found["kl"], values)
    assert math.isnan(found["loss"])


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_a_summary_that_is_cut_off_counts_as_missing(tmp_path, cut):
    path = tmp_path / "summary.json"
    runlog.write_json(path, {"test": {"accuracy": [0.5]}})
    assert runlog.is_finished(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    assert not runlog.is_finished(tmp_path) and runlog.read_summary(tmp_path) is None


def test_summary_comes_back_with_its_texts(tmp_path):
    assert runlog.read_summary(tmp_path) is None
    assert not runlog.is_finished(tmp_path)
    summary = {"name": "NaN", "test": {"kl": [math.inf]}, "versions": {"jax": "NaN"}}
    runlog.write_json(tmp_path / "summary.json", summary)
    assert runlog.is_finished(tmp_path)
    assert runlog.read_summary(tmp_path) == summary


@pytest.mark.parametrize(
    "bad", [{"step": 1}, {"kind": "train"}, {**line(1), "step": 1.5}]
)
def test_append_refuses_a_line_without_kind_or_step(tmp_path, bad):
    with pytest.raises(RunFolderError, match="a line needs kind and step"):
        runlog.append_metrics(tmp_path, bad)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("torn", [b'{"kind": "train", "st', b"\x00\x00", b"\xff"])
def test_a_torn_last_line_is_left_out_and_then_replaced(tmp_path, torn):
    runlog.append_metrics(tmp_path, line(1))
    with open(tmp_path / "metrics.jsonl", "ab") as stream:
        stream.write(torn)
    assert runlog.read_metrics(tmp_path) == [line(1)]
    runlog.append_metrics(tmp_path, line(2))
    assert runlog.read_metrics(tmp_path) == [line(1), line(2)]


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line(1)))
    assert runlog.read_metrics(tmp_path) == [line(1)]
    runlog.append_metrics(tmp_path, line(2))
    assert runlog.read_metrics(tmp_path) == [line(1), line(2)]


@pytest.mark.parametrize("bad", ['{"kind": "tr', "[1]", "3", '{"kind": "a"}', ""])
def test_an_invalid_line_elsewhere_names_file_and_line(tmp_path, bad):
    file = tmp_path / "metrics.jsonl"
    file.write_text("\n".join([json.dumps(line(1)), bad, json.dumps(line(2)), ""]))
    with pytest.raises(RunFolderError, match="metrics.jsonl, line 2: ") as caught:
        runlog.read_metrics(tmp_path)
    assert str(file) in str(caught.value)


def test_truncate_drops_later_and_torn_lines(tmp_path):
    runlog.truncate_metrics(tmp_path, 3)
    assert contents(tmp_path) == {}
    for step in (1, 2, 3, 4):
        runlog.append_metrics(tmp_path, line(step, kl=[math.inf]))
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"kind"')
    runlog.truncate_metrics(tmp_path, 2)
    expected = [line(1, kl=[math.inf]), line(2, kl=[math.inf])]
    assert runlog.read_metrics(tmp_path) == expected
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 2


def test_truncate_fails_whole(tmp_path, monkeypatch):
    for step in (1, 2):
        runlog.append_metrics(tmp_path, line(step))
    before = contents(tmp_path)
    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(RunFolderError, match="metrics.jsonl: No space left on device"):
        runlog.truncate_metrics(tmp_path, 1)
    assert contents(tmp_path) == before


def test_append_below_a_regular_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match="metrics.jsonl: Not a directory$"):
        runlog.append_metrics(tmp_path / "file", line(1))


def test_read_config_of_no_run(tmp_path):
    def says(path, text):
        with pytest.raises(RunFolderError) as caught:
            runlog.read_config(path)
        assert str(caught.value) == f"no run in {path}: {text}"

    made = f"(`kdjax train --workdir {tmp_path}` makes one)"
    says(tmp_path, f"the folder is empty {made}")
    says(tmp_path / "a", f"there is no such folder {made.replace('` m', '/a` m')}")
    (tmp_path / ".kdjax-lock").touch()
    says(tmp_path, f"the folder is empty {made}")
    (tmp_path / "notes.txt").touch()
    says(tmp_path, "it has no config.json, but notes.txt")
    says(tmp_path / "notes.txt", "it is a file")
    for number in range(6):
        runlog.open_run(tmp_path / f"run{number}", CONFIG)
    says(tmp_path, "it has the runs run0, run1, run2, run3, run4, ...")
    says(tmp_path / "run0" / "config.json", f"the run is {tmp_path / 'run0'}")


def test_the_module_needs_the_standard_library_only():
    done = run_alone("print({'jax', 'numpy', 'flax'} & set(sys.modules))")
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


def test_a_folder_inside_another_run_is_refused(tmp_path):
    run = runlog.open_run(tmp_path / "a", CONFIG)
    for inner in ("x", "x/y", "teacher/x", "teacher/labels"):
        with pytest.raises(RunFolderError, match=rf"^workdir: .*{inner} lies in the"):
            runlog.refuse_nested(run / inner)
    assert contents(run).keys() == {"config.json"}


def test_folders_that_are_in_no_run_or_created_by_it_are_legal(tmp_path):
    run = runlog.open_run(tmp_path / "a", CONFIG)
    for name in runlog.NESTED:
        runlog.refuse_nested(run / name)
    runlog.refuse_nested(run)
    runlog.refuse_nested(tmp_path / "b")
    # A run that began there goes on, and other programs have a config.json, too.
    runlog.refuse_nested(runlog.open_run(run / "x", CONFIG))
    for text in ('{"model_type": "vit"}', "[]", "{"):
        (tmp_path / "config.json").write_text(text)
        runlog.refuse_nested(tmp_path / "b")
