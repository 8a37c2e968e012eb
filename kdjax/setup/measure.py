"""Metrics of a model on a source, from its evaluation views."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kdjax.augment import views
from kdjax.core.types import Array, BoundModel, Model, PyTree
from kdjax.data import streamed
from kdjax.data.source import Source
from kdjax.train import evaluate

BATCH = 256


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


def make_measure(
    student: BoundModel,
    teacher: BoundModel | None,
    seeds: int,
    mesh: Mesh,
    evaluation_crop: float = 0.0,
) -> Callable[..., dict[str, list[float]]]:
    """`(variables, source, limit=None) -> metrics`, a number a seed.

    limit: number of examples, the first ones; all by default.
    """
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

    def on_source(
        variables: PyTree, source: Source, limit: int | None = None
    ) -> dict[str, list[float]]:
        return measure(variables, teacher_variables, chunks(source, limit))

    return on_source


def chunks(source: Source, limit: int | None = None) -> Iterator[tuple[Any, Any]]:
    """`({"image", "size"}, labels)` of the examples in order, `BATCH` at a time."""
    n = len(source) if limit is None else min(limit, len(source))
    for start in range(0, n, BATCH):
        indices = np.arange(start, min(start + BATCH, n))
        yield streamed.load_images(source, indices), source.labels[indices]
