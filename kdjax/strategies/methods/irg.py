"""Instance relationship graph (IRG), Liu et al. 2019, 10.1109/CVPR.2019.00726."""

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import require
from kdjax.core.layout import adaptive_mean
from kdjax.core.types import Array, Model, Strategy
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import (
    find_tap,
    require_teacher,
    task_loss,
    trace_output,
)


def irg(
    student: Model,
    *,
    axis_name: str | None,
    taps: tuple = ("stage2", "stage3", "embedding"),
    teacher_taps: tuple = (),
    vertex_weight: float = 0.1,
    edge_weight: float = 5.0,
    transformation_weight: float = 5.0,
    label_weight: float = 1.0,
    soft_weight: float = 0.0,
    temperature: float = 4.0,
) -> Strategy:
    """IRG: logits, distances of images, and their ways between two layers are alike.

    L = label_weight * CE(y, p) + soft_weight * KL(p_teacher || p)
        + vertex_weight * mean (z - z_teacher)^2
        + edge_weight * mean over the taps of mean_ij (E_ij - E_teacher_ij)^2
        + transformation_weight * mean_i (T_i - T_teacher_i)^2

    E_ij = |f_i - f_j|^2 / max, T_i = |f_i - g_i|^2 / max for the first tap f and the
    second g. The weights are those of KD-Zoo.

    Args:
      taps: the student's. The first two are maps, from early to late; the earlier is
        averaged to the size of the later, and channels of the later to as many as the
        earlier has.
      teacher_taps: the teacher's, in the same order. Empty: `taps`.

    Raises:
      ConfigError: fewer than 2 taps, another number of teacher taps, a tap that is
        none, or numbers of channels that are no multiples.
    """
    theirs, at = teacher_taps or taps, "strategy.options"
    require(len(taps) >= 2, f"{at}.taps", "at least 2 taps, from early to late", taps)
    expected = f"{len(taps)} taps, as many as of the student, or none"
    require(len(theirs) == len(taps), f"{at}.teacher_taps", expected, theirs)

    def features(output, names, field):
        """The taps, and the first two as vectors of one width."""
        field = f"{at}.{field}"
        found = [find_tap(output, name, field) for name in names]
        return found, at_one_width(found[0], found[1], field)

    def init(key, batch):
        image = batch.inputs["image"]
        variables = student.init(key, image)
        output = trace_output(student, variables, image)
        jax.eval_shape(lambda x: features(x, taps, "taps"), output)
        features(require_teacher(batch), theirs, "teacher_taps")
        return {"student": variables}

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        target = require_teacher(batch, output.logits.shape[-1])
        ours, ours_moved = features(output, taps, "taps")
        other, other_moved = features(target, theirs, "teacher_taps")
        edges = [
            losses.irg_edges(flat(x), flat(y), axis_name=axis_name).mean()
            for x, y in zip(ours, other, strict=True)
        ]
        parts = {
            "vertices": losses.logit_mse(output.logits, target.logits).mean(),
            "edges": jnp.mean(jnp.stack(edges)),
            "transformation": losses.irg_transformation(
                ours_moved[0],
                other_moved[0],
                student_later=ours_moved[1],
                teacher_later=other_moved[1],
                axis_name=axis_name,
            ).mean(),
        }
        weights = label_weight, soft_weight, temperature
        task = task_loss(output.logits, batch, *weights)
        weights = vertex_weight, edge_weight, transformation_weight
        shares = zip(weights, parts.values(), strict=True)
        total = task + jnp.sum(jnp.stack([w * x for w, x in shares]))
        return {"student": total}, (state, {"task": task, **parts})

    return Strategy(init, loss, labels=bool(label_weight))


def flat(x: Array) -> Array:
    """`[batch, features]`."""
    return x.reshape(len(x), -1)


def at_one_width(early: Array, late: Array, field: str) -> tuple[Array, Array]:
    """Features of two layers as `[batch, features]` of one width.

    Maps `[batch, height, width, channels]`: the means of the earlier over the bins of
    the later's size, and the means of the later's channels, as many neighbors as
    makes the earlier's number.
    """
    ok = early.ndim == late.ndim and late.shape[-1] % early.shape[-1] == 0
    expected = "two layers, the channels of the later a multiple of the earlier's"
    require(ok, field, expected, f"shapes {early.shape[1:]} and {late.shape[1:]}")
    if early.ndim == 4:
        early = adaptive_mean(early, late.shape[1:3], (1, 2))
    late = late.reshape(*late.shape[:-1], early.shape[-1], -1).mean(-1)
    return flat(early), flat(late)
