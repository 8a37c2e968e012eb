"""Labels of a batch, as strategies read them."""

import jax.numpy as jnp

from kdjax import losses
from kdjax.core.types import Array, Batch


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
