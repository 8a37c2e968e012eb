"""Evaluation of a model, and of its agreement with its teacher, on held-out images."""

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

# (variables, {"image": uint8, ...}) -> logits
Predict = Callable[[PyTree, dict[str, Array]], Array]


def make_evaluate(
    predict: Predict,
    teacher: Predict | None,
    *,
    teacher_axis: int | None,
    seeds: int,
    mesh: Mesh,
    batch: int = 256,
) -> Callable[..., dict[str, list[float]]]:
    """A function that evaluates a model on a whole split.

    Args:
      predict: `(variables, images) -> logits` at the model's own resolution; `images`
        holds `image` (uint8) and the other arrays of the chunks.
      teacher: the same for the teacher, at its resolution; None without one.
      teacher_axis: 0 if there is one teacher a seed, None if all seeds share one.
      seeds: the number of models along the first axis of `variables`.
      mesh: its devices share each batch.
      batch: images at a time; rounded up to a multiple of the devices.

    Returns:
      `evaluate(variables, teacher_variables, chunks)` of chunks `(images, labels)` of
      at most `batch` examples, giving one number a
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

    def evaluate(variables, teacher_variables, chunks):
        total: Any = None
        count = 0
        for images, labels in chunks:
            count += len(labels)
            chunk = jax.tree.map(lambda x: pad(x, batch), (images, labels))
            mask = np.arange(batch) < len(labels)
            on_devices = [
                jax.tree.map(lambda x: sharding.put(mesh, x, 0), x)
                for x in (*chunk, mask)
            ]
            sums = jax.device_get(sums_of(variables, teacher_variables, *on_devices))
            total = sums if total is None else jax.tree.map(np.add, total, sums)
        means, bins = total
        results = {k: [float(v) / count for v in x] for k, x in means.items()}
        each = [jax.tree.map(lambda x, i=i: x[i], bins) for i in range(seeds)]
        results["calibration_error"] = [
            float(metrics.calibration_error(b)) for b in each
        ]
        return results

    return evaluate


def pad(x: np.ndarray, batch: int) -> np.ndarray:
    """`x` padded with zeros to `[batch, ...]`."""
    spare = batch - len(x)
    return np.concatenate([x, np.zeros((spare, *x.shape[1:]), x.dtype)])
