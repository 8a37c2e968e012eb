"""Early exits: a student that stops at the first exit that is confident.

    kdjax train --config experiments/examples/early_exits.py:run
    python -m experiments.examples.early_exits runs/early_exits

The second command prints accuracy and FLOPs at several thresholds of confidence, and
the accuracy of each exit and of the ensemble of exits.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import metrics, setup, targets
from kdjax.augment import views
from kdjax.config import Custom, Run
from kdjax.core.types import Array, Batch, Model
from kdjax.models import exits, make_model
from kdjax.presets import digits_labels
from kdjax.strategies import make_strategy
from kdjax.train.checkpoint import Checkpoints

TAPS = ("stage1", "stage2")
THRESHOLDS = (0.0, 0.5, 0.7, 0.9, 0.97, 1.0)


def run() -> Run:
    """The student of the digits preset on labels, with exits behind two stages."""
    strategy = Custom("deep_to_shallow", options={"taps": TAPS})
    return digits_labels(
        name="early exits", workdir="runs/early_exits", strategy=strategy
    )


def load(folder: str, images: Array, classes: int) -> tuple[Model, Any]:
    """The model of `folder` with its exits, and the variables of its first seed."""
    config = setup.read_run(folder)
    student = make_model(config.model, classes)
    strategy = make_strategy(config, student, None, classes)
    batch = Batch({"image": images[:1]}, jnp.zeros(1, jnp.int32))
    shapes = jax.eval_shape(lambda: strategy.init(jax.random.key(0), batch))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def of_all_seeds(x: Any) -> jax.ShapeDtypeStruct:
        shape = (config.seeds, *x.shape)
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=device)

    like = jax.tree.map(of_all_seeds, shapes)
    checkpoints = Checkpoints(folder)
    networks = {k: checkpoints.restore_network(x, k) for k, x in like.items()}
    checkpoints.close()
    # The last exit has the features that the heads were made for.
    head = exits.exit_head(classes, 4 * config.model.width)
    variables = jax.tree.map(lambda x: x[0], exits.join_exits(networks))
    return exits.with_exits(student, TAPS, head), variables


def main(folder: str) -> dict[str, tuple[float, float]]:
    """Print, and return, accuracy and mean FLOPs of an image by kind of prediction."""
    config = setup.read_run(folder)
    test = setup.load_source(config, "test")
    images = views.evaluation_view(jnp.asarray(test.images), config.model.resolution)
    labels = jnp.asarray(test.labels)
    model, variables = load(folder, images, test.classes)
    costs = np.array(exits.exit_flops(model, variables, images[:1]))
    output, _ = jax.jit(model.apply)(variables, images)
    logits = exits.exit_logits(output)

    def accuracy(logits: Array) -> float:
        return float(metrics.accuracy(logits, labels).mean())

    rows = {f"exit {i}": (accuracy(x), costs[i - 1]) for i, x in enumerate(logits, 1)}
    rows["ensemble"] = accuracy(targets.ensemble_logits(logits)), costs[-1]
    for threshold in THRESHOLDS:
        chosen, number = exits.first_confident(logits, threshold)
        cost = costs[np.asarray(number)].mean()
        rows[f"confidence > {threshold}"] = accuracy(chosen), cost
    for name, (share, cost) in rows.items():
        print(f"{name:18} {100 * share:6.2f} %  {cost:10,.0f} FLOPs")
    return rows


if __name__ == "__main__":
    main(sys.argv[1])
