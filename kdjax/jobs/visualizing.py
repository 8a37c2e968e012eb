"""A picture of a run's first views, with the predictions of teacher and student."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import setup
from kdjax.augment import views
from kdjax.config import Compute, ConfigError, Run, require, require_local
from kdjax.core import runlog
from kdjax.core.types import BoundModel, PyTree, View
from kdjax.data import order, statistics, streamed
from kdjax.data.datasets import Splits
from kdjax.data.source import Source
from kdjax.jobs.start import check_run
from kdjax.setup.identity import read_identity
from kdjax.train import sharding

# Top-k classes that are written under a view, and the characters of a name.
TOP = 2
NAME = 16


def show_views(
    run: Run,
    *,
    count: int = 8,
    out: str | pathlib.Path | None = None,
    splits: Splits | None = None,
) -> pathlib.Path:
    """Draw the first training views of a run, for its teachers and its student.

    Each column is an example of the first step, with its class. With mixup it is mixed
    with its neighbor, and the shares of the two classes stand above. The statistics of
    the training split stand below. For a finished run, the top-k classes of its teacher
    and its student (of the first seed) stand under the views.

    Args:
      run: the run, or one read from a run folder.
      count: examples, at most a batch.
      out: the PNG; by default `views.png` in the run's folder, or in the current one
        where the run has no folder yet.
      splits: as for `distill`.

    Returns:
      The picture's path.

    Raises:
      ConfigError: a field, `count` or `out` that cannot be used. RunFolderError: the
      folder of `out` cannot be made or written.
    """
    # Not with the other jobs: matplotlib takes as long as JAX to import.
    from kdjax.reports.view_grid import write_views

    check_run(run)
    run.check()
    run, _ = setup.complete_models(run)
    path = _output_path(run, out)
    require(count >= 1, "count", "at least 1 example", count)
    source = setup.load_source(run, "train", splits)
    require(run.batch <= len(source), "batch", f"<= {len(source)} examples", run.batch)
    runlog.make_writable(path.parent, "out: ")
    indices, epochs = order.batch_at(0, n=len(source), batch=run.batch, seed=run.seed)
    rows = streamed.load_images(source, indices)
    rows["label"] = source.labels[indices]
    view = _first_view(run, source, rows, source.ids[indices], epochs)
    student, teachers = view.student[:count], [x[:count] for x in view.teacher]
    predictions, lines = _predictions(run, source, student, teachers)
    names = ["teacher"] if len(teachers) == 1 else [f"teacher {i}" for i in range(9)]
    images: list[tuple[str, Any]] = [("stored", rows["image"])]
    images += list(zip(names, teachers, strict=False))
    images.append(("student", student))
    summary = statistics.describe(source)
    write_views(
        path,
        [(name, np.asarray(x)[:count]) for name, x in images],
        captions=_captions(view, source.names)[:count],
        notes=predictions,
        lines=[*statistics.format_statistics(summary), *lines],
        counts=summary.counts,
    )
    return path


def _captions(view: View, names: tuple[str, ...]) -> list[str]:
    """The class of each example; with mixup also its partner's, and their shares."""
    labels = [_class_name(label, names) for label in np.asarray(view.labels)]
    if view.partner_labels is None or view.mix_weight is None:
        return labels
    partners = [_class_name(label, names) for label in np.asarray(view.partner_labels)]
    share = float(view.mix_weight)
    return [
        f"{100 * share:.0f} % {own}\n{100 - 100 * share:.0f} % {other}"
        for own, other in zip(labels, partners, strict=True)
    ]


def _class_name(label: int, names: tuple[str, ...]) -> str:
    """A class by its name, shortened, or by its number where names are not known."""
    if label < 0:
        return "no label"
    name = names[label] if label < len(names) else f"class {label}"
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def _first_view(
    run: Run,
    source: Source,
    rows: dict[str, np.ndarray],
    ids: np.ndarray,
    epochs: np.ndarray,
) -> View:
    """The views of the first batch; the teacher's is a tuple, one for each teacher."""
    sizes = setup.teacher_resolutions(run)

    @jax.jit
    def view(rows: dict[str, Any], ids: jax.Array) -> View:
        named = views.name_views(ids, jnp.asarray(epochs), jnp.int32(0), run.views)
        shape = rows.get("size", source.shape[:2])
        draw = views.draw_views(run.seed, named, run.views, shape)
        return views.apply_views(
            draw,
            rows["image"],
            rows["label"],
            student_size=run.model.resolution,
            teacher_size=sizes,
            method=run.views.method,
            antialias=run.views.antialias,
        )

    return view(rows, ids)


def _predictions(
    run: Run, source: Source, student_images: jax.Array, teacher_images: list[jax.Array]
) -> tuple[dict[str, list[str]], list[str]]:
    """Top-k classes of a finished run's networks by row of the picture, and remarks."""
    folder = run.folder
    if not runlog.is_finished(folder):
        return {}, []
    overrides = read_identity(folder).overrides
    if overrides:
        return {}, [f"no predictions: {', '.join(overrides)} came from Python"]
    mesh = sharding.make_mesh(Compute(data=1), 1)
    try:
        student = setup.load_trained(folder, mesh)
        teacher = setup.load_teacher(run, source, mesh)
    except ConfigError as error:
        return {}, [f"no predictions: {error}"]
    names = source.names
    texts = {"student": _format_top(student, student_images, names)}
    if teacher is None:
        return texts, []
    if isinstance(teacher.resolution, tuple):
        # The mean of several teachers stands under the last of them.
        last = f"teacher {len(teacher_images) - 1}"
        texts[last] = _format_top(teacher, tuple(teacher_images), names)
    else:
        texts["teacher"] = _format_top(teacher, teacher_images[0], names)
    return texts, []


def _format_top(
    trained: BoundModel, images: PyTree, names: tuple[str, ...]
) -> list[str]:
    """The top-k classes of each example with their probabilities, as text."""
    variables = trained.variables
    if trained.axis == 0:
        variables = jax.tree.map(lambda x: x[0], variables)

    @jax.jit
    def predict(variables: PyTree, images: PyTree) -> jax.Array:
        output, _ = trained.model.apply(variables, images, train=False, rngs=None)
        return jax.nn.softmax(output.logits)

    probabilities = np.asarray(predict(variables, images))
    top = np.argsort(-probabilities, axis=1)[:, :TOP]
    return [
        "\n".join(
            f"{100 * row[index]:.0f} % {_class_name(index, names)}" for index in indices
        )
        for row, indices in zip(probabilities, top, strict=True)
    ]


def _output_path(run: Run, out: str | pathlib.Path | None) -> pathlib.Path:
    if out is None:
        folder = run.folder
        # A folder with a picture alone in it would be refused as no run's.
        exists = (folder / "config.json").is_file()
        return (folder if exists else pathlib.Path()) / "views.png"
    require_local(out, "out")
    path = pathlib.Path(out)
    ok = path.suffix.lower() == ".png" and not path.is_dir()
    require(ok, "out", "a file whose name ends in .png", str(out))
    return path
