"""Knowledge review (ReviewKD), Chen et al. 2021, arXiv 2104.09044."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import require
from kdjax.core.types import Array, Model, Output, Strategy
from kdjax.models.layers import norm
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import (
    find_tap,
    require_teacher,
    task_loss,
    trace_output,
)

# Convolutions as the authors draw them: uniform, with variance 1 / inputs.
_INIT = nn.initializers.lecun_uniform()


def review_kd(
    student: Model,
    *,
    steps: int,
    axis_name: str | None,
    taps: tuple = ("stage1_pre", "stage2_pre", "stage3_pre", "embedding"),
    teacher_taps: tuple = (),
    weight: float = 1.0,
    label_weight: float = 1.0,
    soft_weight: float = 0.0,
    temperature: float = 4.0,
    warmup: float = 1 / 12,
    most_channels: int = 512,
) -> Strategy:
    """ReviewKD: features of the student, fused with all later ones, follow the teacher.

    L = label_weight * CE(y, p) + soft_weight * KL(p_teacher || p)
        + min(step / (warmup * steps), 1) * weight
          * sum over the taps of the hierarchical context loss(fused map, teacher's)

    From the last tap to the first, a block takes the student's map and the fused map
    of the block before, weighs both by attention at each position, and adds them.

    Args:
      taps: the student's, from early to late. Features without positions are 1x1 maps.
      teacher_taps: the teacher's, in the same order. Empty: `taps`.
      weight: 0.6 to 8 on CIFAR-100, by the pair of networks.
      warmup: share of the run in which the weight rises; 20 of 240 epochs.
      most_channels: of a fused map, which has as many as the student's last tap.

    Raises:
      ConfigError: fewer than 2 taps, another number of teacher taps, or a tap that is
        none.
    """
    theirs, at = teacher_taps or taps, "strategy.options"
    require(len(taps) >= 2, f"{at}.taps", "at least 2 taps, from early to late", taps)
    expected = f"{len(taps)} taps, as many as of the student, or none"
    require(len(theirs) == len(taps), f"{at}.teacher_taps", expected, theirs)
    require(0 <= warmup <= 1, f"{at}.warmup", "a share in [0, 1]", warmup)
    require(most_channels >= 1, f"{at}.most_channels", "at least 1", most_channels)

    def maps(output, names, field):
        return [_as_map(output, name, f"{at}.{field}") for name in names]

    def fusion_of(targets):
        shapes = tuple((x.shape[1], x.shape[2], x.shape[3]) for x in targets)
        return Fusion(shapes, most_channels, axis_name)

    def init(key, batch):
        image = batch.inputs["image"]
        one, two = jax.random.split(key)
        variables = student.init(one, image)
        output = trace_output(student, variables, image)
        ours = jax.eval_shape(lambda x: maps(x, taps, "taps"), output)
        targets = maps(require_teacher(batch), theirs, "teacher_taps")
        zeros = [jnp.zeros(x.shape, x.dtype) for x in ours]
        return {"student": variables, "fusion": fusion_of(targets).init(two, zeros)}

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        targets = maps(require_teacher(batch), theirs, "teacher_taps")
        fusion = {"params": params["fusion"], **state["fusion"]}
        fused, new = fusion_of(targets).apply(
            fusion, maps(output, taps, "taps"), mutable=["batch_stats"]
        )
        values = map(losses.review_kd, fused, targets)
        review = jnp.sum(jnp.stack([jnp.mean(x) for x in values]))
        weights = label_weight, soft_weight, temperature
        task = task_loss(output.logits, batch, *weights)
        total = task + schedules["weight"] * review
        metrics = {"task": task, "review": review}
        return {"student": total}, ({**state, "fusion": dict(new)}, metrics)

    def schedules(step):
        rise = warmup * steps
        return {"weight": weight * min(step / rise, 1.0) if rise else weight}

    return Strategy(init, loss, schedules, labels=bool(label_weight))


class Fusion(nn.Module):
    """The student's maps, from early to late, as maps of the teacher's shapes.

    shapes: (height, width, channels) of the teacher's maps.
    most_channels: of what the blocks hand on.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.
    """

    shapes: tuple[tuple[int, int, int], ...]
    most_channels: int
    axis_name: str | None

    @nn.compact
    def __call__(self, maps: list[Array]) -> list[Array]:
        def normed(x: Array, channels: int, side: int) -> Array:
            options = {"use_bias": False, "kernel_init": _INIT}
            x = nn.Conv(channels, (side, side), **options)(x)
            return norm("batch", channels, True, self.axis_name)(x)

        channels, fused, results = min(self.most_channels, maps[-1].shape[-1]), None, []
        for x, shape in zip(reversed(maps), reversed(self.shapes), strict=True):
            x = normed(x, channels, 1)
            if fused is not None:
                later = nearest(fused, x.shape[1], x.shape[2])
                both = jnp.concatenate([x, later], -1)
                share = nn.sigmoid(nn.Conv(2, (1, 1))(both))
                x = share[..., :1] * x + share[..., 1:] * later
            fused = nearest(x, shape[0], shape[1])
            results.append(normed(fused, shape[2], 3))
        return results[::-1]


def nearest(x: Array, height: int, width: int) -> Array:
    """A map resized to its nearest pixels, by torch's rule: row i is floor(i H / h)."""
    rows = jnp.arange(height) * x.shape[1] // height
    return x[:, rows][:, :, jnp.arange(width) * x.shape[2] // width]


def _as_map(output: Output, name: str, field: str) -> Array:
    """A tap `[batch, height, width, channels]`; features without positions are 1x1."""
    x = find_tap(output, name, field)
    require(x.ndim in (2, 4), field, "maps, or features without positions", name)
    return x if x.ndim == 4 else x[:, None, None]
