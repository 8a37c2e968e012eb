"""Overhaul of feature distillation (OFD), Heo et al. 2019, arXiv 1904.01866."""

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import ConfigError, require, require_known
from kdjax.core.types import Array, Batch, Model, PyTree, Strategy
from kdjax.models import Projector, make_projector, projectors
from kdjax.strategies.networks import apply_network
from kdjax.strategies.norms import ending_norms, norm_params
from kdjax.strategies.supervision import (
    apply_frozen,
    find_tap,
    require_teacher,
    task_loss,
    trace_output,
)

_AT = "strategy.options"


def ofd(
    student: Model,
    *,
    teacher: Model | None,
    axis_name: str | None,
    taps: tuple = ("stage1_pre", "stage2_pre", "stage3_pre"),
    teacher_taps: tuple = (),
    norms: tuple = (),
    weight: float = 1e-3,
    label_weight: float = 1.0,
    soft_weight: float = 0.0,
    temperature: float = 4.0,
) -> Strategy:
    """OFD: features before the ReLU, negative ones clipped at the teacher's margin.

    L = label_weight * CE(y, p) + soft_weight * KL(p_teacher || p)
        + weight * sum over the taps i = 1..n of 2^(i - n) ofd(r_i(s_i), t_i, m_i)

    r is a 1x1 convolution and BatchNorm. m is the mean negative value of a channel, by
    scale and bias of the teacher's norm before the tap. Where a tap adds up several
    norms, as behind a shortcut with one, their biases and variances are added. The
    teacher is in evaluation mode here; in the authors' code its BatchNorm has the
    statistics of the batch.

    Args:
      taps: the student's, before the ReLU, from early to late.
      teacher_taps: the teacher's, in the same order. Empty: `taps`.
      norms: the teacher's norm before each tap, as a path of its parameters such as
        `stage2_block0/norm1`. Empty: found from the teacher's computation.

    Raises:
      ConfigError: no live teacher, a tap or norm that is none, maps of other sizes, or
        a tap that no norm ends at.
    """
    theirs = teacher_taps or taps
    ok = len(taps) == len(set(taps)) > 0
    require(ok, f"{_AT}.taps", "one tap or several different ones", taps)
    for name, given in (("teacher_taps", theirs), ("norms", norms or taps)):
        expected = f"{len(taps)}, as many as taps, or none"
        require(len(given) == len(taps), f"{_AT}.{name}", expected, given)

    def maps(output, names, field):
        return tuple(find_tap(output, name, f"{_AT}.{field}") for name in names)

    def init(key, batch):
        image = batch.inputs["image"]
        one, two = jax.random.split(key)
        variables = student.init(one, image)
        ours = maps(trace_output(student, variables, image), taps, "taps")
        targets = maps(require_teacher(batch), theirs, "teacher_taps")
        _norms_of(teacher, batch, theirs, norms)
        connectors = _connectors(ours, targets, axis_name)
        return {"student": variables, "connectors": connectors.init(two)}

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        ours = maps(output, taps, "taps")
        targets = maps(require_teacher(batch), theirs, "teacher_taps")
        own = {"params": params["connectors"], **state["connectors"]}
        ours, new = _connectors(ours, targets, axis_name).apply(own, ours)
        total = jnp.zeros(())
        feeding = _norms_of(teacher, batch, theirs, norms)
        for i, (x, target, paths) in enumerate(
            zip(ours, targets, feeding, strict=True)
        ):
            margin = margins(batch.frozen["teacher"]["params"], paths)
            value = losses.ofd(x, target, margin=margin).mean()
            total += value * 2.0 ** (i + 1 - len(taps))
        task = task_loss(output.logits, batch, label_weight, soft_weight, temperature)
        metrics = {"task": task, "ofd": total}
        state = {**state, "connectors": new}
        return {"student": task + weight * total}, (state, metrics)

    return Strategy(init, loss, labels=bool(label_weight))


def _connectors(ours: tuple, targets: tuple, axis_name: str | None) -> Projector:
    try:
        pairs = zip(ours, targets, strict=True)
        return projectors.each(
            [make_projector("conv_bn", a.shape, b.shape, axis_name) for a, b in pairs]
        )
    except ValueError as error:
        raise ConfigError(f"{_AT}.taps", reason=str(error)) from error


def margins(params: PyTree, paths: tuple[str, ...]) -> Array:
    """Margins of a sum of norms, `[channels]`: `losses.ofd_margins`."""
    norms = [norm_params(params)[path] for path in paths]
    scales, biases = (jnp.stack([x[k] for x in norms]) for k in ("scale", "bias"))
    return losses.ofd_margins(jnp.sqrt(jnp.sum(scales**2, 0)), jnp.sum(biases, 0))


def _norms_of(
    teacher: Model | None, batch: Batch, taps: tuple, norms: tuple
) -> list[tuple[str, ...]]:
    """The paths of the norms that end at each tap of the teacher."""
    images = batch.inputs["teacher_image"]
    live = "teacher" in batch.frozen and not isinstance(images, tuple)
    expected = "one teacher that runs live, for the margins from its norms"
    require(live, "teacher", expected, "cached targets or several teachers")
    assert teacher is not None
    variables = batch.frozen["teacher"]
    for path in norms:
        require_known(path, norm_params(variables["params"]), f"{_AT}.norms")
    if norms:
        return [(path,) for path in norms]
    found = []
    for tap in taps:

        def read(params, tap=tap):
            output = apply_frozen(teacher, {**variables, "params": params}, images)
            return output.taps[tap]

        found.append(ending_norms(read, variables["params"]))
        expected = f"the norm before each tap, as none ends at {tap}"
        require(bool(found[-1]), f"{_AT}.norms", expected, norms)
    return found
