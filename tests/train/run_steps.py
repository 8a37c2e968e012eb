"""Some steps of a run on any layout, without its loop."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import setup
from kdjax.config import ModelConfig
from kdjax.core.types import BoundModel
from kdjax.models import zoo

STEPS = 5


def make_teacher(width=4, seeds=None):
    model = zoo.make_model(
        ModelConfig("resnet", depth=8, width=width, resolution=8), 10
    )
    init = lambda key: model.init(key, jnp.zeros((1, 8, 8, 1)))  # noqa: E731
    if seeds is None:
        return BoundModel(model, init(jax.random.key(7)), None, 8)
    return BoundModel(
        model, jax.vmap(init)(jax.random.split(jax.random.key(7), seeds)), 0, 8
    )


def run_steps(run, teacher, steps=STEPS):
    """Train `steps` updates; the state as one host sees it, and the metrics."""
    train = setup.load_source(run, "train")
    parts = setup.make_parts(run, train=train, teacher=teacher)
    call, state = parts.compile_step(), parts.create_state()
    created = jax.tree.map(lambda x: x.sharding, state)
    running, given = call.enter(state), setup.place_constants(parts)
    coming, per_call = setup.make_batches(parts)(0), run.compute.steps_per_call or 1
    seen = []
    for step in range(0, steps, per_call):
        batches = [next(coming) for _ in range(step, min(step + per_call, steps))]
        batch = jax.tree.map(lambda *x: np.stack(x), *batches)
        running, metrics = call.call(running, batch, given)
        seen.append(jax.device_get(metrics))
    last = call.leave(running)
    metrics = {k: np.concatenate([m[k] for m in seen]) for k in seen[0]}
    return last, metrics, created


def close(a, b, **tolerance):
    chex.assert_trees_all_close(jax.device_get(a), jax.device_get(b), **tolerance)
