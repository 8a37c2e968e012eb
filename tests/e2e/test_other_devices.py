"""A run that goes on over other devices: the same batches, to rounding."""

import dataclasses

import numpy as np
import pytest

from kdjax import jobs
from kdjax.config import Compute, Data, Optim, labels_only
from kdjax.core import runlog
from kdjax.train import sharding
from tests.e2e.linear_runs import linear

LAYOUTS = {
    "8 devices": Compute(data=8),
    "2 devices": Compute(data=2),
    "parameters in 4 parts": Compute(data=2, fsdp=4),
    "pmap": Compute(data=4, how="pmap"),
}
PAIRS = [
    ("8 devices", "2 devices"),
    ("2 devices", "8 devices"),
    ("8 devices", "pmap"),
    ("pmap", "2 devices"),
    ("parameters in 4 parts", "2 devices"),
    ("2 devices", "parameters in 4 parts"),
]


@pytest.fixture
def train(tiny_run, tmp_path, monkeypatch):
    # Parameters of the small network are large enough to be sharded.
    monkeypatch.setattr(sharding, "SHARED_FROM", 8)
    append = runlog.append_metrics

    def job(folder, layout, until=8):
        """Train with a layout; stopped behind a step, as by a crash."""

        def crash(path, line):
            append(path, line)
            if line["step"] == until < 8:
                raise KeyboardInterrupt

        monkeypatch.setattr(runlog, "append_metrics", crash)
        run = tiny_run(
            workdir=str(tmp_path / folder),
            data=Data("digits", train="train[:48]"),
            # Adam would divide a rounding of 1e-7 by another.
            optim=Optim(name="sgd", warmup=2),
            **{"batch": 16, "steps": 8, "log_every": 1},
            **{"evaluate_every": 8, "checkpoint_every": 2},
        )
        run = labels_only(run, teacher=None)
        run = dataclasses.replace(run, compute=LAYOUTS[layout])
        if until < 8:
            with pytest.raises(KeyboardInterrupt):
                jobs.train(run, model=linear())
        else:
            jobs.train(run, model=linear())
        return runlog.read_metrics(run.folder)

    return job


# The gate takes two of them.
@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(*pair, marks=() if i in (0, 5) else pytest.mark.full)
        for i, pair in enumerate(PAIRS)
    ],
)
def test_a_run_goes_on_over_other_devices(train, first, then):
    train("run", first, until=5)
    lines = train("run", then)
    whole = train("whole", first)
    assert [x["step"] for x in lines] == [x["step"] for x in whole]
    for line, expected in zip(lines, whole, strict=True):
        name = "loss" if line["kind"] == "train" else "accuracy"
        np.testing.assert_allclose(line[name], expected[name], rtol=2e-6)


def test_other_batches_would_be_seen(train):
    """The losses of these steps differ by far more than rounding."""
    losses = [x["loss"][0] for x in train("run", "2 devices") if x["kind"] == "train"]
    gaps = np.abs(np.diff(losses)) / losses[1:]
    assert gaps.min() > 1e-4
