"""Each file of a run folder, cut in half or emptied: read as before, or one line."""

import dataclasses
import re
import shutil
import warnings

import pytest

from kdjax import jobs, reports
from kdjax.config import HARD, Compute, ConfigError
from kdjax.core import runlog
from kdjax.presets import digits
from tests.e2e.linear_runs import linear

# Many small runs: the full tier.
pytestmark = pytest.mark.full

LAST = "checkpoints/6"
WEIGHTS = f"{LAST}/default/params.student.w"
FILES = {
    # One clear line: an error, or a warning of what is trained again.
    "config.json": "config.json is not JSON",
    "metrics.jsonl": "metrics.jsonl: lines of steps [1-5] to 6 are lost",
    f"{LAST}/metrics/metrics": f"{LAST}: expected a whole checkpoint",
    f"{LAST}/record/metadata": f"{LAST}: expected a whole checkpoint",
    f"{LAST}/default/_METADATA": f"{LAST}: expected a whole checkpoint",
    f"{WEIGHTS}/zarr.json": f"{LAST}: expected a whole checkpoint",
    f"{WEIGHTS}/c/0/0/0": f"{LAST}: expected a whole checkpoint",
    # The run is measured again, or the file is written again or not needed.
    "summary.json": "",
    "report.md": "",
    "curves.png": "",
    "events.jsonl": "",
    f"{LAST}/_CHECKPOINT_METADATA": "",
    f"{LAST}/commit_success.txt": "",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = digits(
        workdir=str(tmp_path_factory.mktemp("runs") / "run"),
        teacher=None,
        terms={"hard": HARD},
        baselines=(),
        optim=dataclasses.replace(digits().optim, warmup=1),
        compute=Compute(data=1),
        **dict(seeds=1, steps=6, batch=8, log_every=1),
        **dict(evaluate_every=3, checkpoint_every=6),
    )
    jobs.train(run, model=linear())
    return run


def test_every_file_is_here(finished):
    files = [p for p in finished.folder.rglob("*") if p.is_file()]
    names = {p.relative_to(finished.folder).as_posix() for p in files}
    rest = {x for x in names - {*FILES} if not x.startswith(f"{LAST}/default/")}
    others = {x for x in rest if not x.startswith(("checkpoints/", ".kdjax"))}
    assert {*FILES} <= names and not others


@pytest.mark.parametrize("cut", [lambda x: x[: len(x) // 2], lambda x: b""])
@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_written_again_or_named(finished, tmp_path, name, cut):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    expected = runlog.read_summary(folder)["test"]
    (folder / name).write_bytes(cut((folder / name).read_bytes()))
    run = dataclasses.replace(finished, workdir=str(folder))
    # A run that is interrupted between its last checkpoint and its summary.
    if name != "summary.json":
        (folder / "summary.json").unlink()
    lines = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            jobs.train(run, model=linear())
            assert jobs.evaluate(folder, model=linear()) == expected
            reports.write_report([folder], tmp_path / "report")
        except (ValueError, RuntimeError) as error:
            lines.append(str(error))
    lines += [str(x.message) for x in caught if x.category is UserWarning]
    if FILES[name]:
        (line,) = lines
        assert "\n" not in line
        assert re.search(FILES[name], line), line
    else:
        # Half a line, as a killed process leaves it; named by all that read it.
        torn = "lines that are no events are left out (1)"
        assert all(name == "events.jsonl" and torn in x for x in lines), lines
        assert runlog.read_summary(folder)["test"] == expected


LINES = {
    "removed": (lambda x: [], "lines of steps 1 to 3 are lost"),
    "first is lost": (lambda x: x[1:], "lines up to step 3 have changed"),
    "doubled": (lambda x: [x[0], *x], "lines up to step 3 have changed"),
    "no line": (lambda x: [x[0], b"{", *x[2:]], "lines up to step 3 have changed"),
    "a digit": (
        lambda x: [x[0].replace(b'"loss": [', b'"loss": [1'), *x[1:]],
        "lines up to step 3 have changed",
    ),
}


@pytest.mark.parametrize("kind", LINES)
def test_changed_lines_of_metrics_are_noticed(finished, tmp_path, kind):
    change, text = LINES[kind]
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    file = folder / "metrics.jsonl"
    content = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(change(content)))
    expected = runlog.read_summary(folder)["test"]
    if kind != "no line":
        with pytest.warns(UserWarning, match="has changed since the run ended"):
            reports.collect(folder)
    # The same in a run that was interrupted at step 3.
    shutil.rmtree(folder / LAST)
    (folder / "summary.json").unlink()
    run = dataclasses.replace(finished, workdir=str(folder))
    with pytest.warns(UserWarning, match=f"metrics.jsonl: {text}") as caught:
        jobs.train(run, model=linear())
    assert len(caught) == 1 and runlog.read_summary(folder)["test"] == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reports.collect(folder)


HOLES = {
    "no results": lambda x: {**x, "test": {}},
    "null": lambda x: {**x, "test": None},
    "no number": lambda x: {**x, "classes": None},
    "other seconds": lambda x: {**x, "seconds": "9"},
    "a list": lambda x: [x],
}


@pytest.mark.parametrize("kind", HOLES)
def test_a_summary_with_holes_is_measured_again(finished, tmp_path, kind):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    whole = runlog.read_summary(folder)
    runlog.write_json(folder / "summary.json", HOLES[kind](whole))
    assert runlog.read_summary(folder) is None and not runlog.is_finished(folder)
    with pytest.warns(UserWarning, match="summary.json: is cut off or has holes"):
        reports.collect(folder)
    with pytest.raises(ConfigError, match="it has no whole summary.json"):
        jobs.evaluate(folder, model=linear())
    jobs.train(dataclasses.replace(finished, workdir=str(folder)), model=linear())
    again = runlog.read_summary(folder)
    assert again is not None and again["test"] == whole["test"]


@pytest.mark.parametrize("values", [[None], 0.5, "x", [0.1, 0.2]])
def test_results_that_are_no_numbers_are_named(finished, tmp_path, values):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    whole = runlog.read_summary(folder)
    changed = {**whole, "test": {**whole["test"], "accuracy": values}}
    runlog.write_json(folder / "summary.json", changed)
    text = "summary.json, test: accuracy: expected a list of 1 numbers"
    with pytest.raises(runlog.RunFolderError, match=text):
        reports.collect(folder)


def test_a_summary_without_classes_is_named(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    whole = runlog.read_summary(folder)
    del whole["classes"]
    runlog.write_json(folder / "summary.json", whole)
    text = "summary.json: expected a number of classes in it"
    with pytest.raises(runlog.RunFolderError, match=text):
        jobs.load(folder, model=linear())
