"""Resuming a run that crashed, with a linear student."""

import io

import pytest
from rich.console import Console

from kdjax import jobs
from kdjax.config import Data, labels_only
from kdjax.core import runlog
from tests.e2e.linear_runs import linear


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
