"""A small network with taps, and batches of a teacher of other widths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax
from kdjax.config import ConfigError, Custom, Optim
from kdjax.core import runlog
from kdjax.core.types import Batch
from kdjax.models import from_function
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from kdjax.train import turns
from tests.e2e.saved import saved

N, SIDE, CLASSES, EXAMPLES = 5, 4, 3, 12


def tapped(width=2, classes=CLASSES, seed=0):
    """Linear maps of the pixels: `stage1` `[batch, side, side, width]`, `stage2` at
    half the side and twice the width, their mean `embedding`, and logits of that."""

    def apply(params, x):
        first = x @ params["first"]
        halves = first.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1)
        second = halves.mean((2, 4)) @ params["second"]
        embedding = second.mean((1, 2))
        taps = {"stage1": first, "stage2": second, "embedding": embedding}
        return embedding @ params["last"], taps

    def init(key, images):
        shapes = {
            "first": (images.shape[-1], width),
            "second": (width, 2 * width),
            "last": (2 * width, classes),
        }
        keys = jax.random.split(jax.random.fold_in(key, seed), 3)
        return {
            name: jax.random.normal(k, shape)
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    return from_function(apply, init=init)


def batch_of(teacher=None, variables=None, seed=0, **fields):
    """A batch of random images with the teacher's outputs and variables."""
    rng = np.random.default_rng(seed)
    images = jnp.asarray(rng.normal(size=(N, SIDE, SIDE, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, CLASSES, N))
    index = jnp.asarray(rng.permutation(EXAMPLES)[:N])
    teacher = teacher or tapped(width=3)
    if variables is None:
        variables = teacher.init(jax.random.key(9), images)
    targets = teacher.apply(variables, images, train=False, rngs=None)[0]
    inputs = {"image": images, "teacher_image": images}
    batch = Batch(inputs, labels, targets, {"teacher": variables}, index=index)
    return batch._replace(**fields)


def made(name, student=None, teacher=None, optim=None, **options):
    """A strategy by name, as a run makes it."""
    run = digits(strategy=Custom(name, options=options), optim=optim or Optim())
    teacher = teacher or tapped(width=3)
    return make_strategy(run, student or tapped(), teacher, CLASSES, examples=EXAMPLES)


def start(strategy, batch, seed=1):
    """Parameters and state of its networks, checked as a run checks them."""
    plain = batch._replace(frozen={}, partner_labels=None, mix_weight=None)
    one = jax.tree.map(lambda x: x[:1], plain)._replace(frozen=batch.frozen)
    variables = jax.jit(strategy.init)(jax.random.key(seed), one)
    turns.check_networks(strategy, variables)
    params = {k: x["params"] for k, x in variables.items() if "params" in x}
    state = {
        k: {c: y for c, y in x.items() if c != "params"} for k, x in variables.items()
    }
    return params, state


def loss_of(strategy, params, state, batch, schedules=None):
    """The sum of the losses, the new state and metrics."""

    @jax.jit
    def call(*arguments):
        values, aux = strategy.loss(*arguments)
        turns.check_losses(values, params)
        turns.check_state(aux, state)
        return sum(values.values()), aux

    return call(params, state, batch, schedules or {}, jax.random.key(2))


def wide(tree):
    """Arrays as float64."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def cross_entropy(logits, labels):
    """Of each example, in float64."""
    top = logits.max(-1, keepdims=True)
    log_total = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
    return log_total - logits[np.arange(len(logits)), np.asarray(labels)]


def refused(call, *arguments, **options):
    """The text of the ConfigError, which is one line."""
    with pytest.raises(ConfigError) as error:
        call(*arguments, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def check_resumes(strategy, tiny_run, tmp_path, monkeypatch, teacher=None):
    """A run that crashed and continued ends as one that did not, bitwise.

    teacher: a model and its variables.
    """
    if teacher is None:
        model = tapped(width=3, classes=10)
        teacher = model, model.init(jax.random.key(7), jnp.zeros((1, 8, 8, 1)))
    run = tiny_run(
        strategy=strategy, steps=6, checkpoint_every=2, evaluate_every=6, log_every=1
    )
    append = runlog.append_metrics

    def crash(folder, line):
        append(folder, line)
        if line["step"] == 3:
            raise RuntimeError("a crash")

    def distill(**changes):
        return kdjax.distill(
            dataclasses.replace(run, **changes),
            student=tapped(classes=10),
            teacher=teacher,
        )

    with monkeypatch.context() as patch:
        patch.setattr(runlog, "append_metrics", crash)
        with pytest.raises(RuntimeError, match="a crash"):
            distill()
    resumed = saved(distill())
    whole = saved(distill(workdir=str(tmp_path / "whole")))
    assert resumed.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)
    return whole
