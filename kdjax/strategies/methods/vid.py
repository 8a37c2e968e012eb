"""Variational information distillation (VID), Ahn et al. 2019, arXiv 1904.05835."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import Optim, require
from kdjax.core.layout import adaptive_mean
from kdjax.core.types import Array, Model, Strategy
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import (
    find_tap,
    require_teacher,
    task_loss,
    trace_output,
)


def vid(
    student: Model,
    *,
    optim: Optim,
    taps: tuple = ("stage1", "stage2", "stage3"),
    teacher_taps: tuple = (),
    weight: float = 1.0,
    label_weight: float = 1.0,
    soft_weight: float = 0.0,
    temperature: float = 4.0,
    variance: float = 5.0,
) -> Strategy:
    """VID: the student's features predict the teacher's, with a variance a channel.

    L = label_weight * CE(y, p) + soft_weight * KL(p_teacher || p)
        + weight * sum over the taps of mean ((t - mu(s))^2 / v + log v) / 2

    The regressors mu are three 1x1 convolutions of the teacher's width. They and the
    variances v = softplus(a) + 1e-5 are trained with the student, a without decay.

    Args:
      optim: the optimizer of the run.
      taps: names of the student's taps. Of two maps, the larger is averaged.
      teacher_taps: names of the teacher's taps, in the same order. Empty: `taps`.
      variance: initial v.

    Raises:
      ConfigError: no tap, another number of teacher taps, or a tap that is none.
    """
    theirs, at = teacher_taps or taps, "strategy.options"
    ok = len(taps) == len(set(taps)) > 0
    require(ok, f"{at}.taps", "one tap or several different ones", taps)
    expected = f"{len(taps)} taps, as many as of the student, or none"
    require(len(theirs) == len(taps), f"{at}.teacher_taps", expected, theirs)
    start = losses.vid_log_variance(variance)

    def pairs(output, batch):
        """{tap: (student's features, teacher's)}, each of two maps at one size."""
        target = require_teacher(batch)
        return {
            ours: at_one_size(
                find_tap(output, ours, f"{at}.taps"),
                find_tap(target, other, f"{at}.teacher_taps"),
            )
            for ours, other in zip(taps, theirs, strict=True)
        }

    def init(key, batch):
        image = batch.inputs["image"]
        variables = student.init(key, image)
        output = trace_output(student, variables, image)
        shapes = jax.eval_shape(pairs, output, batch)
        regressors, variances = {}, {}
        for i, (tap, (x, y)) in enumerate(shapes.items()):
            own_key, x = jax.random.fold_in(key, i + 1), jnp.zeros(x.shape, x.dtype)
            regressors[tap] = regressor(y.shape[-1]).init(own_key, x)["params"]
            variances[tap] = jnp.full(y.shape[-1:], start)
        return {
            "student": variables,
            "regressors": {"params": regressors},
            "log variances": {"params": variances},
        }

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        terms = {}
        for tap, (x, y) in pairs(output, batch).items():
            own = {"params": params["regressors"][tap]}
            mean = regressor(y.shape[-1]).bind(own)(x)
            log_variance = params["log variances"][tap]
            terms[f"vid {tap}"] = losses.vid(mean, y, log_variance=log_variance).mean()
        weights = label_weight, soft_weight, temperature
        task = task_loss(output.logits, batch, *weights)
        total = task + weight * jnp.sum(jnp.stack([*terms.values()]))
        return {"student": total}, (state, {"task": task, **terms})

    undecayed = dataclasses.replace(optim, wd=0.0, parameters=())
    return Strategy(
        init, loss, labels=bool(label_weight), optim={"log variances": undecayed}
    )


def regressor(width: int) -> nn.Sequential:
    """Three linear maps of the channels, without bias, and ReLU between them."""
    layers = [nn.Dense(width, use_bias=False) for _ in range(3)]
    return nn.Sequential([layers[0], nn.relu, layers[1], nn.relu, layers[2]])


def at_one_size(x: Array, y: Array) -> tuple[Array, Array]:
    """Two maps `[batch, height, width, channels]` with the larger averaged to the
    bins of the smaller. Features without positions stay as they are."""
    if x.ndim != 4 or y.ndim != 4:
        return x, y
    small = min(x.shape[1], y.shape[1]), min(x.shape[2], y.shape[2])
    return adaptive_mean(x, small, (1, 2)), adaptive_mean(y, small, (1, 2))
