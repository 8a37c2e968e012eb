"""Run folders become records; what is no run folder is named."""

import json
import math
import re
import subprocess
import sys

import pytest

from kdjax.config import ConfigError
from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.reports import RunRecord, collect, write_report
from kdjax.reports.collect import curve, label, mean_and_spread, progress

CONFIG = {"name": "funmatch", "steps": 300, "data": {"test": "test"}}
SUMMARY = {
    "name": "funmatch",
    "steps": 300,
    "parameters": 1234,
    "seconds": 5.0,
    "seeds": [0, 1],
    "test": {"accuracy": [0.5, 0.7]},
    "command": "kdjax distill",
    "machine": "a box",
    "versions": {"jax": "0.10.2"},
}


def make_run(folder, *, steps=(100, 200), summary=None, **config):
    runlog.open_run(folder, {**CONFIG, **config})
    for step in steps:
        line = {"kind": "validation", "step": step, "accuracy": [step / 1000, 0.5]}
        runlog.append_metrics(folder, {"kind": "train", "step": step, "loss": [1.0]})
        runlog.append_metrics(folder, line)
    if summary is not None:
        runlog.write_json(folder / "summary.json", summary)
    return folder


def test_collect_reads_a_finished_run(tmp_path):
    folder = make_run(tmp_path / "a", summary=SUMMARY)
    (record,) = collect([str(folder)])
    assert record.name == "funmatch"
    assert record.path == folder
    assert record.config == CONFIG
    assert [line["step"] for line in record.metrics] == [100, 100, 200, 200]
    assert record.summary == SUMMARY
    assert progress(record) == ""
    assert label(record, [record]) == "funmatch"


def test_collect_keeps_the_order(tmp_path):
    folders = [make_run(tmp_path / name, name=name) for name in "cab"]
    assert [record.name for record in collect(folders)] == ["c", "a", "b"]


@pytest.mark.parametrize(("steps", "reached"), [((100, 200), 200), ((), 0)])
def test_an_unfinished_run_says_how_far_it_is(tmp_path, steps, reached):
    (record,) = collect([make_run(tmp_path / "a", steps=steps)])
    assert record.summary is None
    expected = f"funmatch (unfinished at step {reached} of 300)"
    assert label(record, [record]) == expected


def test_runs_of_one_name_are_told_apart_by_folder(tmp_path):
    folders = [make_run(tmp_path / name, summary=SUMMARY) for name in "ab"]
    records = collect([*folders, make_run(tmp_path / "c", name="c", summary=SUMMARY)])
    assert [label(record, records) for record in records] == [
        f"funmatch, {tmp_path / 'a'}",
        f"funmatch, {tmp_path / 'b'}",
        "c",
    ]


def test_collect_names_what_is_no_run_folder(tmp_path):
    good = make_run(tmp_path / "good")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RunFolderError, match="no run in .*empty: the folder is empty"):
        collect([good, empty])
    with pytest.raises(
        RunFolderError, match="no run in .*gone: there is no such folder"
    ):
        collect([good, tmp_path / "gone"])


@pytest.mark.parametrize("missing", ["name", "steps"])
def test_collect_names_a_config_of_something_else(tmp_path, missing):
    values = {name: value for name, value in CONFIG.items() if name != missing}
    runlog.write_json(tmp_path / "config.json", values)
    with pytest.raises(
        RunFolderError, match=f"is not a run's config: no field {missing}"
    ):
        collect([tmp_path])


def test_collect_names_a_broken_summary(tmp_path):
    folder = make_run(tmp_path / "a")
    (folder / "summary.json").write_text("{}")
    with pytest.warns(UserWarning, match="a/summary.json: is cut off or has holes"):
        assert collect([folder])[0].summary is None


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "summary.json",
            ("[0.5, 0.7]", "0.5"),
            "test: accuracy: expected a list of 2 n",
        ),
        ("summary.json", ("[0.5, 0.7]", '["a", "b"]'), "got ['a', 'b']"),
        (
            "config.json",
            ('"seeds": 2', '"seeds": 3'),
            "expected a list of 3 numbers, g",
        ),
        ("metrics.jsonl", ('"loss"', '"lost"'), "train at step 10: loss: expected a l"),
    ],
)
def test_what_is_no_number_a_seed_is_named(tmp_path, file, change, message):
    folder = make_run(tmp_path / "a", summary={"test": {"accuracy": [0.5, 0.7]}})
    config = {**CONFIG, "seeds": 2}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text('{"test": {"accuracy": [0.5, 0.7]}}')
    line = {"kind": "train", "step": 10, "loss": [1.0, 2.0]}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    collect([folder])
    text = (folder / file).read_text()
    assert change[0] in text
    (folder / file).write_text(text.replace(*change))
    with pytest.raises(RunFolderError, match=re.escape(message)):
        collect([folder])


def test_curve_is_sorted_and_later_lines_win(tmp_path):
    lines = [
        {"kind": "validation", "step": 20, "kl": [2.0]},
        {"kind": "train", "step": 15, "kl": [9.0]},
        {"kind": "validation", "step": 10, "kl": [1.0]},
        {"kind": "validation", "step": 20, "kl": [3.0]},
        {"kind": "validation", "step": 30, "accuracy": [0.5]},
    ]
    record = RunRecord("a", tmp_path, CONFIG, lines, None)
    assert list(curve(record, "kl").items()) == [(10, [1.0]), (20, [3.0])]
    assert curve(record, "agreement") == {}


def test_mean_and_spread_by_hand():
    # Deviations -2, 0, 2: the squares sum to 8, and 8 / (3 - 1) = 4.
    assert mean_and_spread([1.0, 3.0, 5.0]) == (3.0, 2.0)
    assert mean_and_spread([0.25]) == (0.25, None)
    assert all(math.isnan(value) for value in mean_and_spread([1.0, math.inf]) if value)
    assert math.isnan(mean_and_spread([math.nan])[0])


def test_write_report_writes_both_files_and_returns_the_text(tmp_path):
    folders = [make_run(tmp_path / "a", summary=SUMMARY), make_run(tmp_path / "b")]
    out = tmp_path / "new" / "report"
    text = write_report(folders, out)
    assert sorted(file.name for file in out.iterdir()) == ["curves.png", "report.md"]
    assert (out / "report.md").read_text() == text
    assert "60.00 ± 14.14" in text
    assert "(curves.png)" in text
    assert f"funmatch, {tmp_path / 'b'} (unfinished at step 200 of 300)" in text


def test_write_report_into_the_run_folder_itself(tmp_path):
    folder = make_run(tmp_path / "a", summary=SUMMARY)
    config = (folder / "config.json").read_bytes()
    write_report([folder], folder)
    write_report([folder], folder)
    assert (folder / "config.json").read_bytes() == config
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "report.md",
        "summary.json",
    ]


def test_write_report_of_nothing(tmp_path):
    with pytest.raises(RunFolderError, match="at least one run folder"):
        write_report([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_write_report_where_it_cannot(tmp_path):
    folder = make_run(tmp_path / "a")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        RunFolderError, match="cannot write in .*file/out: Not a direct"
    ):
        write_report([folder], tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


def test_reports_load_no_training_code():
    code = (
        "import sys, kdjax.reports\n"
        "heavy = {'flax', 'optax', 'orbax', 'grain', 'matplotlib.pyplot'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_single_path_is_one_run(tmp_path):
    folder = make_run(tmp_path / "a")
    for path in (folder, str(folder)):
        assert [record.path for record in collect(path)] == [folder]
    for other in (None, [None]):
        with pytest.raises(ConfigError, match="^runs: expected a path.*, got NoneType"):
            collect(other)  # type: ignore[arg-type]


def test_a_run_named_twice_is_one(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "a", summary=SUMMARY)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    same = ["a", "a/", "./link", str(folder), "a/../a"]
    assert [str(record.path) for record in collect(same)] == ["a"]


def test_a_report_names_the_data_of_its_runs(tmp_path):
    folders = [
        make_run(
            tmp_path / name,
            summary=SUMMARY,
            name=name,
            data={"name": data, "test": "test"},
            content={"test": data},
        )
        for name, data in (("a", "digits"), ("b", "folder:x"), ("c", "digits"))
    ]
    text = write_report(folders, tmp_path / "report")
    where = "on different test images: `digits` (a, c); `folder:x` (b)."
    assert where in text
    assert "different" not in write_report(folders[::2], tmp_path / "report")


@pytest.mark.parametrize("content", ["", "{", "garbage", '{"test": {'])
def test_a_broken_summary_is_not_unfinished(tmp_path, content):
    folder = make_run(tmp_path / "a")
    (folder / "summary.json").write_text(content)
    expected = f"{re.escape(str(folder / 'summary.json'))}: is cut off"
    with pytest.warns(UserWarning, match=expected):
        (record,) = collect([folder])
    assert label(record, [record]) == "funmatch (summary.json cannot be read)"
