"""Runs of a linear student under a linear teacher of 8x8 grey images."""

import jax
import numpy as np

import kdjax
from kdjax import setup
from kdjax.config import Compute
from kdjax.core.types import BoundModel
from kdjax.models import from_function
from kdjax.train import sharding


def linear(seed=None, classes=10):
    """A linear model of 8x8 grey images, with weights of its own if seeded."""

    def apply(params, x):
        return x.reshape(len(x), -1) @ params["w"]

    def init(key, images):
        return {"w": 0.1 * jax.random.normal(key, (images[0].size, classes))}

    model = from_function(apply, init=init)
    if seed is None:
        return model
    return model, model.init(jax.random.key(seed), np.zeros((1, 8, 8, 1), "f"))


TEACHER = linear(seed=7)


def taught(run, **given):
    """The student's variables after the whole run."""
    folder = kdjax.distill(run, student=linear(), teacher=TEACHER, **given)
    mesh = sharding.make_mesh(Compute(data=1), 1)
    trained = setup.load_trained(folder, mesh, model=linear())
    return jax.device_get(trained.variables["params"]["w"])


def stored(run, **given):
    return kdjax.cache_targets(run, teacher=TEACHER, **given)


def parts_of(run):
    return setup.make_parts(
        run,
        train=setup.load_source(run, "train"),
        student=linear(),
        teacher=BoundModel(*TEACHER, None, 8),
    )
