"""Labels and teacher outputs of a batch, and taps by name, as strategies read them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import require, require_known
from kdjax.core.types import Array, Batch, Model, Output, PyTree
from kdjax.teachers.ensemble import split_members


def label_losses(logits: Array, batch: Batch) -> Array:
    """Cross-entropy of the labels, `[batch]`, over both labels of a mixed image."""
    values = losses.hard_cross_entropy(logits, batch.labels)
    partner, share = batch.partner_labels, batch.mix_weight
    if partner is not None and share is not None:
        second = losses.hard_cross_entropy(logits, partner)
        values = share * values + (1 - share) * second
    return values


def label_loss(logits: Array, batch: Batch) -> Array:
    """Mean cross-entropy of the labels, over both labels of a mixed image.

    logits: `[batch, classes]`. The result is a scalar.
    """
    return jnp.mean(label_losses(logits, batch))


def task_loss(
    logits: Array,
    batch: Batch,
    label_weight: float,
    soft_weight: float,
    temperature: float,
) -> Array:
    """label_weight * CE(y, p) + soft_weight * KL(p_teacher || p), a scalar.

    A part of weight 0 is skipped. The KL has its factor of the squared temperature.
    """
    total = jnp.zeros((), logits.dtype)
    if label_weight:
        total += label_weight * label_loss(logits, batch)
    if soft_weight:
        teacher = require_teacher(batch, logits.shape[-1]).logits
        soft = losses.softmax_kl(logits, teacher, temperature=temperature)
        total += soft_weight * jnp.mean(soft)
    return total


def one_hot_labels(batch: Batch, classes: int) -> Array:
    """One-hot labels, `[batch, classes]`; those of a mixed image are weighted."""
    labels = jax.nn.one_hot(batch.labels, classes)
    if batch.partner_labels is None or batch.mix_weight is None:
        return labels
    partner = jax.nn.one_hot(batch.partner_labels, classes)
    return batch.mix_weight * labels + (1 - batch.mix_weight) * partner


def trace_output(model: Model, variables: PyTree, inputs: PyTree) -> Output:
    """The shapes of a model's output, without computing it."""
    return jax.eval_shape(lambda v, x: apply_frozen(model, v, x), variables, inputs)


def apply_frozen(model: Model, variables: PyTree, inputs: PyTree) -> Output:
    """A network in evaluation mode: its stored statistics are used, and not updated."""
    return model.apply(variables, inputs, train=False, rngs=None)[0]


def require_teacher(batch: Batch, classes: int | None = None) -> Output:
    """The teacher's logits and taps; refuse a batch without those of all classes.

    Raises ConfigError of `teacher`.
    """
    targets = batch.targets
    got = "none" if targets is None else "the top-k classes"
    expected = "a teacher with the logits of all classes"
    require(isinstance(targets, Output), "teacher", expected, got)
    assert isinstance(targets, Output)
    width = targets.logits.shape[-1]
    expected = f"as many classes as the student ({classes})"
    require(classes is None or width == classes, "teacher", expected, width)
    return targets


def require_members(batch: Batch, count: int = 0) -> list[Output]:
    """The outputs of each of several teachers.

    count: their number, where it must be one; 0: two or more.

    Raises ConfigError of `teacher.members`.
    """
    members = split_members(require_teacher(batch))
    number = len(members)
    expected = f"{count or 'two'} teachers{'' if count else ' or more'}, run live"
    ok = number == count if count else number > 1
    require(ok, "teacher.members", expected, number or "one teacher")
    return members


def require_live_teacher(teacher: Model | None, batch: Batch) -> tuple[Model, PyTree]:
    """The teacher and its variables, for a gradient in its input.

    Raises:
      ConfigError: of `teacher`, where there is none, where its targets come from a
        cache, where there are several, or where it takes images of another size.
    """
    expected = "one teacher that runs live, for the gradient in its input"
    live = teacher is not None and "teacher" in batch.frozen
    got = "none" if teacher is None else "cached targets"
    require(live, "teacher", expected, got)
    assert teacher is not None
    images = batch.inputs["teacher_image"]
    require(not isinstance(images, tuple), "teacher", expected, "several")
    ours, theirs = (x.shape[1:] for x in (batch.inputs["image"], images))
    require(ours == theirs, "teacher", f"images of the student's {ours}", theirs)
    return teacher, batch.frozen["teacher"]


def require_same_classes(
    networks: Mapping[str, Model], variables: Mapping[str, PyTree], inputs: PyTree
) -> None:
    """Refuse networks with other numbers of classes than the student.

    Raises ConfigError of `networks.NAME.model`.
    """
    widths = {
        name: trace_output(model, variables[name], inputs).logits.shape[-1]
        for name, model in networks.items()
    }
    expected = f"as many classes as the student ({widths['student']})"
    for name, width in widths.items():
        ok = width == widths["student"]
        require(ok, f"networks.{name}.model", expected, width)


def find_map(output: Output, name: str, field: str) -> Array:
    """The feature map of that name, `[batch, height, width, channels]`.

    Raises ConfigError of `field` for a name that is none, or no map.
    """
    found = find_tap(output, name, field)
    require(found.ndim == 4, field, "a map, such as stage3", name)
    return found


def find_tap(output: Output, name: str, field: str) -> Array:
    """The activation of that name, or the logits.

    Raises ConfigError of `field` for a name that is none.
    """
    taps = {"logits": output.logits, **output.taps}
    require_known(name, taps, field)
    return taps[name]
