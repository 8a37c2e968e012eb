"""Times from figures, against sums by hand."""

import json

import pytest

from kdjax.jobs.forecasting import _ROWS, plan_to_json
from kdjax.plan.forecast import Figures, from_values, to_values
from kdjax.plan.hardware import find_hardware
from kdjax.plan.traffic import Collective

HELD = dict.fromkeys(
    ("parameters", "optimizer", "statistics", "teacher", "data", "batch"), 1000
)
FIGURES = Figures(
    name="student",
    on="h200x64",
    devices=64,
    **{"batch": 4096, "seeds": 1, "steps": 1000, "examples": 40_960},
    steps_per_call=16,
    held=HELD,
    program={"arguments": 1, "temporaries": 2, "code": 3, "total": 141 * 10**9},
    problem="",
    flops=989e12 * 0.002,
    **{"student_flops": 10**9, "teacher_flops": None},
    accessed=4800e9 * 0.001,
    collectives=[
        Collective("all-reduce", 450_000_000, 8, False),
        Collective("all-reduce", 50_000_000, 64, True),
    ],
    compile_seconds=1.0,
)
H200 = find_hardware("h200x64")


def test_the_least_time_of_a_step():
    """Each amount over its public rate: 989 TFLOP/s, 4.8 TB/s, 450 and 50 GB/s."""
    assert FIGURES.least_seconds(H200) == pytest.approx(
        {
            "products": 0.002,
            "memory": 0.001,
            "links": 2 * 7 / 8 * 0.001,
            "network": 2 * 63 / 64 * 0.001,
        }
    )
    assert FIGURES.epochs == 100.0
    assert _ROWS["time, at least"](FIGURES, H200) == "0:00:02"
    assert _ROWS["chip time, at least"](FIGURES, H200) == "0:02:08"


def test_what_fits():
    fuller = FIGURES.program | {"total": 141 * 10**9 + 1}
    assert FIGURES.fits(H200) is True
    assert Figures(**{**vars(FIGURES), "program": fuller}).fits(H200) is False
    full = {**vars(FIGURES), "program": {}, "problem": "Ran out of memory"}
    assert Figures(**full).fits(H200) is False
    assert FIGURES.fits(find_hardware("cpu-8")) is None


def test_no_rate_gives_no_time():
    """No public figure of the network of v5p is used, so that no time comes of it."""
    parts = FIGURES.least_seconds(find_hardware("v5p-128"))
    assert "network" not in parts and parts["products"] > 0


def test_plain_values_and_back():
    assert from_values(json.loads(json.dumps(to_values(FIGURES)))) == FIGURES
    (values,) = json.loads(plan_to_json([FIGURES], H200))
    assert values["fits"] is True and values["collectives"][1]["between"] is True
