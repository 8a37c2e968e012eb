"""Runs with a controller and projected gradients: resumed, and over devices."""

import dataclasses

import chex
import numpy as np
import pytest

import kdjax
from kdjax.config import HARD, SOFT, Compute, Offline
from kdjax.core import runlog
from tests.e2e.linear_runs import TEACHER, linear
from tests.e2e.saved import saved

pytestmark = pytest.mark.full

STRATEGY = Offline(
    gradient_norms=True,
    project_gradients=True,
    controller="keep_divergence",
    controller_options={"low": 0.001, "high": 0.002},
)


@pytest.fixture
def run(tiny_run, tmp_path):
    """Eight steps with two terms."""
    terms = {"soft": SOFT, "hard": HARD}
    return tiny_run(strategy=STRATEGY, terms=terms, seeds=2, evaluate_every=8)


def distilled(run, folder, **changes):
    run = dataclasses.replace(run, workdir=str(folder), **changes)
    return kdjax.distill(run, student=linear(), teacher=TEACHER)


def test_a_controller_resumes_bitwise(run, tmp_path, monkeypatch):
    append = runlog.append_metrics

    def crash(folder, line):
        append(folder, line)
        if line["step"] == 6:
            raise RuntimeError("a crash")

    with monkeypatch.context() as patch:
        patch.setattr(runlog, "append_metrics", crash)
        with pytest.raises(RuntimeError, match="a crash"):
            distilled(run, tmp_path / "run")
    whole = distilled(run, tmp_path / "whole")
    chex.assert_trees_all_equal(saved(distilled(run, tmp_path / "run")), saved(whole))
    lines = [x for x in runlog.read_metrics(whole) if x["kind"] == "train"]
    temperatures = [line["temperature of soft"] for line in lines]
    # It rises from 1 by 1 % a step; a line is the mean of two steps.
    want = (1.01**6 + 1.01**7) / 2
    np.testing.assert_allclose(temperatures[-1], [want] * 2, rtol=1e-6)
    assert all("gradient of hard" in line for line in lines)


@pytest.mark.parametrize("how", ["jit", "pmap"])
def test_devices_share_a_controller(run, how, tmp_path):
    """Its metrics and gradients are those of the whole batch."""
    alone = distilled(run, tmp_path / "alone", compute=Compute(data=1))
    several = distilled(run, tmp_path / "both", compute=Compute(data=2, how=how))
    # The moments of the optimizer are bfloat16, and their last bit may differ.
    pair = [
        {name: x for name, x in saved(folder).items() if "opt_state" not in name}
        for folder in (several, alone)
    ]
    chex.assert_trees_all_close(*pair, rtol=1e-4, atol=2e-4)
