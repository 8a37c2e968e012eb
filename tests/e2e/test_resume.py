"""Resuming a run that crashed, with a linear student."""

import dataclasses
import io
import re

import numpy as np
import pytest
from rich.console import Console

from kdjax import jobs
from kdjax.config import Data, labels_only
from kdjax.core import runlog
from kdjax.core.timeline import read_events
from kdjax.reports.goodput import find_attempts
from kdjax.train import loop
from tests.e2e.linear_runs import linear
from tests.e2e.saved import saved


def test_a_run_continues_at_its_last_checkpoint(tiny_run, monkeypatch):
    """The last, of step 6, is not measured; the best, of step 4, is."""
    run = labels_only(
        tiny_run(
            evaluate_every=4,
            checkpoint_every=6,
            data=Data("digits", train="train[:32]"),
        ),
        teacher=None,
    )
    append, text = runlog.append_metrics, io.StringIO()

    def crash(folder, line):
        append(folder, line)
        if line["step"] == 8:
            raise RuntimeError("a crash")

    def train():
        return jobs.train(run, model=linear(), console=Console(file=text))

    with monkeypatch.context() as patch:
        patch.setattr(runlog, "append_metrics", crash)
        with pytest.raises(RuntimeError, match="a crash"):
            train()
    assert "continuing" not in text.getvalue()
    folder = train()
    assert "continuing at step 6" in text.getvalue()
    lines = [x["step"] for x in runlog.read_metrics(folder) if x["kind"] == "train"]
    assert lines == [2, 4, 6, 8]
    # Each process is an attempt, whose end is known.
    first, second = find_attempts(read_events(folder))
    assert (first.first, first.last, first.reason) == (0, 6, "RuntimeError")
    assert (second.first, second.last, second.reason) == (6, 8, "finished")
    for attempt in (first, second):
        assert sum(attempt.seconds.values()) <= attempt.total * 1.01 + 0.01
        assert attempt.seconds["evaluation"] > 0 and attempt.seconds["lost"] == 0
    report = (folder / "report.md").read_text()
    assert f"{run.name}, attempt 1" in report and f"{run.name}, all" in report


def test_a_run_that_dies_early_continues_after_its_first_step(
    tiny_run, tmp_path, monkeypatch
):
    """No regular checkpoint comes before the end: the early ones are of step 1, and of
    the times that double. The result is that of a run without any."""
    run = labels_only(
        tiny_run(evaluate_every=8, checkpoint_every=8, log_every=4), teacher=None
    )
    append, text = runlog.append_metrics, io.StringIO()

    def crash(folder, line):
        raise RuntimeError("a crash")

    def train(**changes):
        changed = dataclasses.replace(run, **changes)
        return jobs.train(changed, model=linear(), console=Console(file=text))

    with monkeypatch.context() as patch:
        patch.setattr(loop, "FIRST_CHECKPOINT", 0.0)
        patch.setattr(runlog, "append_metrics", crash)
        with pytest.raises(RuntimeError, match="a crash"):
            train()
    monkeypatch.setattr(runlog, "append_metrics", append)
    resumed = saved(train())
    step = re.search(r"continuing at step (\d)", text.getvalue())
    assert step is not None and 1 <= int(step[1]) <= 3
    whole = saved(train(workdir=str(tmp_path / "whole")))
    assert resumed.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)
