"""Metrics of a model on a source, from its evaluation views."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kdjax.augment import views
from kdjax.core.seeds import map_seeds
from kdjax.core.types import Array, BoundModel, Model, PyTree
from kdjax.data import streamed
from kdjax.data.source import Source
from kdjax.train import evaluate, sharding

BATCH = 256


def blank_images(resolution: Any, channels: int) -> Any:
    """A batch of one image of zeros for a model. resolution: as in `BoundModel`."""
    return jax.tree.map(
        lambda size: jnp.zeros((1, size, size, channels), jnp.float32), resolution
    )


def predictor(
    model: Model, resolution: Any, evaluation_crop: float = 0.0
) -> evaluate.Predict:
    """`(variables, {"image": uint8, ...}) -> logits`, in evaluation mode.

    resolution: as in `BoundModel`.
    evaluation_crop: its size, as in `config.Views`.
    """

    def predict(variables: PyTree, images: dict[str, Array]) -> Array:
        pixels, sizes = images["image"], images.get("size")
        inputs = jax.tree.map(
            lambda size: views.evaluation_view(pixels, size, evaluation_crop, sizes),
            resolution,
        )
        return model.apply(variables, inputs, train=False, rngs=None)[0].logits

    return predict


def predict_all(
    bound: BoundModel, source: Source, seeds: int, mesh: Mesh, crop: float = 0.0
) -> np.ndarray:
    """The outputs of a model for every example: `[seeds, examples, classes]`.

    seeds: the number of its sets of variables; 1 where all seeds share one.
    crop: the size of the evaluation crop, as in `config.Views`.
    """
    variables, batch = bound.variables, BATCH + -BATCH % mesh.size
    if bound.axis is None:
        variables = jax.tree.map(lambda x: jnp.asarray(x)[None], variables)
    predict = predictor(bound.model, bound.resolution, crop)
    unroll = mesh.devices.flat[0].platform == "cpu"
    every = map_seeds(predict, (0, None), seeds, unroll=unroll)
    outputs_of = jax.jit(every, out_shardings=sharding.replicated(mesh))
    parts = []
    for images, labels in chunks(source):
        padded = jax.tree.map(lambda x: evaluate.pad(x, batch), images)
        placed = jax.tree.map(lambda x: sharding.put(mesh, x, 0), padded)
        outputs = jax.device_get(outputs_of(variables, placed))
        parts.append(outputs[:, : len(labels)].astype(np.float32))
    return np.concatenate(parts, axis=1)


def make_measure(
    student: BoundModel,
    teacher: BoundModel | None,
    seeds: int,
    mesh: Mesh,
    evaluation_crop: float = 0.0,
) -> Callable[..., dict[str, list[float]]]:
    """`(variables, source) -> metrics`, a number a seed.

    A teacher without logits is left out.
    """
    teacher = teacher if teacher and teacher.has_logits else None
    measure = evaluate.make_evaluate(
        predictor(student.model, student.resolution, evaluation_crop),
        predictor(teacher.model, teacher.resolution, evaluation_crop)
        if teacher
        else None,
        teacher_axis=teacher.axis if teacher else None,
        seeds=seeds,
        mesh=mesh,
        batch=BATCH,
    )
    teacher_variables = teacher.variables if teacher else None

    def on_source(variables: PyTree, source: Source) -> dict[str, list[float]]:
        return measure(variables, teacher_variables, chunks(source))

    return on_source


def chunks(source: Source) -> Iterator[tuple[Any, Any]]:
    """`({"image", "size"}, labels)` of the examples in order, `BATCH` at a time."""
    n = len(source)
    for start in range(0, n, BATCH):
        indices = np.arange(start, min(start + BATCH, n))
        yield streamed.load_images(source, indices), source.labels[indices]
