"""Measure a model, and how close it is to its teacher, on held-out images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kdjax import metrics
from kdjax.core import reduce
from kdjax.core.seeds import map_seeds
from kdjax.core.types import Array, PyTree
from kdjax.train import sharding

Predict = Callable[[PyTree, Array], Array]


def make_evaluate(
    predict: Predict,
    teacher: Predict | None,
    *,
    teacher_axis: int | None,
    seeds: int,
    mesh: Mesh,
    batch: int = 256,
) -> Callable[..., dict[str, list[float]]]:
    """A function that measures a model on a whole split.

    Args:
      predict: `(variables, uint8 images) -> logits` at the model's own resolution.
      teacher: the same for the teacher, at its resolution; None without one.
      teacher_axis: 0 if there is one teacher a seed, None if all seeds share one.
      seeds: how many models `variables` holds along its first axis.
      mesh: its devices share each batch.
      batch: images at a time; rounded up to a multiple of the devices.

    Returns:
      `evaluate(variables, teacher_variables, images, labels)`, giving one number a
      seed for `accuracy`, `top_5` (with more than 5 classes), `nll`,
      `calibration_error` and, with a teacher, `agreement` and `kl` (nats, T = 1).
    """
    batch += -batch % mesh.size

    def one(variables, teacher_variables, images, labels, mask):
        logits = predict(variables, images).astype(jnp.float32)
        rows = {
            "accuracy": metrics.accuracy(logits, labels),
            "nll": metrics.negative_log_likelihood(logits, labels),
        }
        if logits.shape[-1] > 5:
            rows["top_5"] = metrics.top_k(logits, labels, 5)
        if teacher is not None:
            target = teacher(teacher_variables, images).astype(jnp.float32)
            rows["agreement"] = metrics.agreement(logits, target)
            rows["kl"] = metrics.teacher_kl(logits, target)
        sums = {name: reduce.masked_sum(row, where=mask) for name, row in rows.items()}
        return sums, metrics.calibration_bins(logits, labels, mask)

    unroll = mesh.devices.flat[0].platform == "cpu"
    axes = (0, teacher_axis, None, None, None)
    every = map_seeds(one, axes, seeds, unroll=unroll)
    sums_of = jax.jit(every, out_shardings=sharding.replicated(mesh))

    def evaluate(variables, teacher_variables, images, labels):
        total: Any = None
        for start in range(0, len(labels), batch):
            chunk = _padded(images, labels, start, batch)
            placed = [sharding.put(mesh, x, 0) for x in chunk]
            sums = jax.device_get(sums_of(variables, teacher_variables, *placed))
            total = sums if total is None else jax.tree.map(np.add, total, sums)
        means, bins = total
        found = {k: [float(v) / len(labels) for v in x] for k, x in means.items()}
        each = [jax.tree.map(lambda x, i=i: x[i], bins) for i in range(seeds)]
        found["calibration_error"] = [float(metrics.calibration_error(b)) for b in each]
        return found

    return evaluate


def _padded(images: np.ndarray, labels: np.ndarray, start: int, batch: int):
    """One batch of full size and the mask of its real rows."""
    x, y = images[start : start + batch], labels[start : start + batch]
    spare = batch - len(y)
    mask = np.arange(batch) < len(y)
    x = np.concatenate([x, np.zeros((spare, *x.shape[1:]), x.dtype)])
    return x, np.concatenate([y, np.zeros(spare, y.dtype)]), mask
