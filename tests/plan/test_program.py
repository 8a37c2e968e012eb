"""The planned program is that of the training, to the letter."""

import dataclasses

import pytest

from kdjax import setup
from kdjax.config import Compute, Custom, Network, Optim, labels_only
from kdjax.jobs.distilling import prepare
from kdjax.jobs.estimating import _with_values
from kdjax.jobs.start import open_job
from kdjax.jobs.trainer import make_plan
from kdjax.setup.shapes import step_shapes
from kdjax.train.loop import stack

FULL = pytest.mark.full
LAYOUTS = {
    "8 devices": {"compute": Compute(data=8)},
    "parameters in 4 parts": {"compute": Compute(data=2, fsdp=4)},
    "one device": {"compute": Compute(data=1)},
    "two steps a call": {"compute": Compute(data=8, steps_per_call=2)},
    "two seeds": {"compute": Compute(data=8), "seeds": 2},
    "a large model": {
        "compute": Compute(
            **{"data": 2, "fsdp": 2, "precision": "bfloat16", "remat": "all"},
            **{"accumulate": 2, "shard": {"*/kernel": -1}},
        ),
        "optim": Optim(warmup=2, ema=0.9),
    },
}


def programs(run):
    """The text of each training's program: as it is trained, and as it is planned."""
    _, trainings = prepare(open_job(run))
    for training in trainings:
        teacher = training.teacher and _with_values(training.teacher)
        parts = setup.make_parts(
            training.run,
            train=training.data["train"],
            teacher=teacher,
            mesh=training.mesh,
            initial=training.initial,
        )
        step = parts.compile_step()
        steps = make_plan(run).steps_per_call
        coming = setup.make_batches(parts)(0)
        batch = stack([next(coming) for _ in range(steps)])
        constants = setup.place_constants(parts)
        real = step.lower(parts.create_state(), batch, constants)
        planned = step.lower(*step_shapes(parts, steps))
        yield real.as_text(), planned.as_text()


def check_equal(run, trainings):
    pairs = list(programs(run))
    assert len(pairs) == trainings
    for real, planned in pairs:
        # As one assertion on the texts, pytest would compare lines for minutes.
        same = real == planned
        assert same and "func.func public @main" in planned


@pytest.mark.parametrize(
    "layout",
    [x if i == 0 else pytest.param(x, marks=FULL) for i, x in enumerate(LAYOUTS)],
)
def test_teacher_and_student(tiny_run, layout):
    check_equal(tiny_run(**LAYOUTS[layout]), trainings=2)


@FULL
def test_images_that_are_streamed(tiny_run):
    run = tiny_run(compute=Compute(data=8))
    data = dataclasses.replace(run.data, pipeline="host")
    check_equal(dataclasses.replace(run, data=data), trainings=2)


@FULL
def test_several_networks(tiny_run):
    """Two peers that learn from each other."""
    run = labels_only(tiny_run(compute=Compute(data=8)), teacher=None)
    mutual = Custom("mutual", options={"peers": 2})
    check_equal(dataclasses.replace(run, strategy=mutual), trainings=1)


@FULL
def test_a_network_beside_the_student(tiny_run):
    run = labels_only(tiny_run(compute=Compute(data=8)), teacher=None)
    large = Network(dataclasses.replace(run.model, width=4))
    networks = {"strategy": Custom("online"), "networks": {"large": large}}
    check_equal(dataclasses.replace(run, **networks), trainings=1)
