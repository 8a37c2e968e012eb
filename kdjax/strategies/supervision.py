"""Labels and teacher outputs of a batch, and taps by name, as strategies read them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import require, require_known
from kdjax.core.types import Array, Batch, Model, Output, PyTree


def label_loss(logits: Array, batch: Batch) -> Array:
    """Mean cross-entropy of the labels, over both labels of a mixed image.

    logits: `[batch, classes]`. The result is a scalar.
    """
    values = losses.hard_cross_entropy(logits, batch.labels)
    partner, share = batch.partner_labels, batch.mix_weight
    if partner is not None and share is not None:
        second = losses.hard_cross_entropy(logits, partner)
        values = share * values + (1 - share) * second
    return jnp.mean(values)


def trace_output(model: Model, variables: PyTree, inputs: PyTree) -> Output:
    """The shapes of a model's output, without computing it."""
    call = lambda v, x: model.apply(v, x, train=False, rngs=None)[0]  # noqa: E731
    return jax.eval_shape(call, variables, inputs)


def require_teacher(batch: Batch, classes: int) -> None:
    """Refuse a batch without a teacher's logits of so many classes.

    Raises ConfigError of `teacher`.
    """
    targets = batch.targets
    got = "none" if targets is None else "the top-k classes"
    expected = "a teacher with the logits of all classes"
    require(isinstance(targets, Output), "teacher", expected, got)
    assert isinstance(targets, Output)
    width = targets.logits.shape[-1]
    expected = f"as many classes as the student ({classes})"
    require(width == classes, "teacher", expected, width)


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


def find_tap(output: Output, name: str, field: str) -> Array:
    """The activation of that name, or the logits.

    Raises ConfigError of `field` for a name that is none.
    """
    taps = {"logits": output.logits, **output.taps}
    require_known(name, taps, field)
    return taps[name]
