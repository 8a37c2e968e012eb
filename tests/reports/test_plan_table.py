"""A plan in the report of a run, beside what was measured."""

import json

import pytest

from kdjax import jobs, reports
from kdjax.core import runlog
from kdjax.plan.forecast import Figures
from kdjax.plan.hardware import find_hardware
from kdjax.plan.traffic import Collective
from kdjax.reports.collect import collect
from kdjax.reports.plan_table import plan_table


def figures(name, on):
    """64 images of 2 seeds a step; 1 GB of 8 on a device."""
    values = {"name": name, "on": on, "devices": 8, "batch": 64, "seeds": 2}
    values |= {"steps": 100, "examples": 1000, "steps_per_call": 1, "held": {}}
    values |= {"program": {"total": 1_000_000_000}, "problem": "", "flops": 1.97e11}
    values |= {"student_flops": 1, "teacher_flops": None, "accessed": 0.0}
    sent = [Collective("all-reduce", 10, 8, False)]
    return Figures(**values, collectives=sent, compile_seconds=1.0)


@pytest.fixture
def folder(tmp_path):
    config = {"name": "student", "steps": 100}
    run = runlog.open_run(tmp_path / "run", config)
    runlog.open_run(run / "teacher", {**config, "name": "teacher"})
    for rate in (100.0, 1280.0, 2000.0):
        line = {"kind": "train", "step": 10, "images_per_second": rate, "loss": [1.0]}
        runlog.append_metrics(run, line)
    return run


def keep(folder, on, *names):
    hardware = find_hardware(on)
    jobs.keep_plan(folder, [figures(x, hardware.name) for x in names], hardware)


def test_planned_and_measured(folder):
    """197 GFLOPs take 1 ms at the 197 TFLOPs of a v5e; 128 images at 1,280 a second."""
    assert plan_table(collect(folder)) == ""
    keep(folder, "v5e-8", "teacher", "student")
    row = "| 8 devices, v5e-8 | 1.0 GB | – | 1.00 | {} |"
    both = plan_table(collect([folder, folder / "teacher"]))
    assert "| student (unfinished at step 10 of 100) " + row.format("100.00") in both
    assert "| teacher (unfinished at step 0 of 100) " + row.format("–") in both


def test_plans_of_several_hardware_and_the_newest_of_each(folder):
    for on in ("v5e-8", "v5p-8", "v5e-8"):
        keep(folder, on, "student")
    plans = json.loads((folder / "plan.json").read_text())["plans"]
    assert [x["on"] for x in plans] == ["v5p-8", "v5e-8"]
    assert plan_table(collect(folder)).count("\n| student") == 2


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"plans": [1]}', '{"plans": 3}'])
def test_a_file_that_is_no_plan(folder, tmp_path, text):
    (folder / "plan.json").write_text(text)
    with pytest.raises(runlog.RunFolderError, match="plan.json is no"):
        reports.write_report([folder], tmp_path / "report")
