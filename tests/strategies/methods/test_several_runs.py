"""Strategies of several teachers, and a specialist, in whole runs that resume."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

import kdjax
from kdjax.config import (
    HARD,
    Custom,
    Ensemble,
    FromWeights,
    ModelConfig,
    Views,
)
from tests.strategies.methods.resumption import check_resumes_bitwise
from tests.strategies.methods.tapped import tapped

pytestmark = pytest.mark.full

OPTIONS = {
    "majority_triplets": {"triplets": 4},
    "teacher_graph": {"width": 8},
    "specialist": {"cluster": (1, 4, 6)},
    "with_specialists": {"clusters": ("1,4,6",), "label_weight": 1.0},
    "feature_matching": {},
}


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
        teacher=Ensemble((teacher(3), teacher(4))),
        views=Views(mode="consistent", flip=False),
        evaluate_every=8,
    )
    model = tapped(classes=10)
    if name == "specialist":
        run = dataclasses.replace(run, teacher=None, terms={"hard": HARD})
        return functools.partial(kdjax.jobs.train, model=model), run
    return functools.partial(kdjax.distill, student=model), run


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_resumes_bitwise(name, tiny_run, tmp_path):
    """A crash after step 6 continues at step 4."""
    job, run = job_of(name, tiny_run)
    check_resumes_bitwise(job, run, tmp_path / "crashed", crash_at=6)
