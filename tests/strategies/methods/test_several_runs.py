"""Strategies of one and several teachers in whole runs: resumed, and over devices."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax
from kdjax.config import (
    HARD,
    Compute,
    Custom,
    Ensemble,
    FromWeights,
    ModelConfig,
    Views,
)
from tests.e2e.saved import saved
from tests.strategies.methods.resumption import check_resumes_bitwise
from tests.strategies.methods.tapped import tapped

pytestmark = pytest.mark.full

TAPS = {"taps": ("stage1", "stage2", "embedding")}
OPTIONS = {
    "majority_triplets": {"triplets": 4},
    "teacher_graph": {"width": 8},
    "specialist": {"cluster": (1, 4, 6)},
    "with_specialists": {"clusters": ("1,4,6",), "label_weight": 1.0},
    "feature_matching": {},
    "vid": TAPS,
    "review_kd": {**TAPS, "warmup": 0.5},
}
SEVERAL = (
    "majority_triplets",
    "teacher_graph",
    "with_specialists",
    "feature_matching",
)
SEVERAL_DEVICES = ("teacher_graph", "feature_matching", "vid", "review_kd")


def fixed(config, classes):
    """A teacher of this width, with weights of its own."""
    model = tapped(config.width, classes)
    key, image = jax.random.key(config.width), jnp.zeros((1, 8, 8, 1))
    variables = model.init(key, image)
    return model._replace(init=lambda key, images: variables)


def teacher(width):
    return FromWeights(ModelConfig(f"{__name__}:fixed", width=width, resolution=8))


def job_of(name, tiny_run):
    """A run of eight steps, and the job that does it."""
    run = tiny_run(
        strategy=Custom(name, options=OPTIONS[name]),
        teacher=Ensemble((teacher(3), teacher(4))) if name in SEVERAL else teacher(3),
        views=Views(mode="consistent", flip=False),
        evaluate_every=8,
    )
    model = tapped(classes=10)
    if name == "specialist":
        run = dataclasses.replace(run, teacher=None, terms={"hard": HARD})
        return functools.partial(kdjax.jobs.train, model=model), run
    return functools.partial(kdjax.distill, student=model), run


@pytest.mark.parametrize("name", ["specialist", *SEVERAL])
def test_a_run_resumes_bitwise(name, tiny_run, tmp_path):
    """A crash after step 6 continues at step 4."""
    job, run = job_of(name, tiny_run)
    check_resumes_bitwise(job, run, tmp_path / "crashed", crash_at=6)


@pytest.mark.parametrize("name", SEVERAL_DEVICES)
def test_two_devices_are_one(name, tiny_run, tmp_path):
    """Under pmap each has half of the batch; statistics are those of the whole."""
    job, run = job_of(name, tiny_run)

    def numbers(folder, compute):
        own = dataclasses.replace(run, workdir=str(tmp_path / folder), compute=compute)
        arrays = saved(job(own))
        # The moments of the optimizer are bfloat16, and their last bit may differ.
        return {k: np.asarray(x) for k, x in arrays.items() if "opt_state" not in k}

    alone = numbers("alone", Compute(data=1))
    both = numbers("both", Compute(data=2, how="pmap"))
    chex.assert_trees_all_close(both, alone, rtol=1e-4, atol=2e-4)
