"""A picture of what teacher and student see."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import setup
from kdjax.augment import views
from kdjax.config import Compute, ConfigError, Run, require
from kdjax.core import runlog
from kdjax.core.types import BoundModel, PyTree
from kdjax.data import order, statistics, streamed
from kdjax.data.datasets import Splits
from kdjax.data.source import Source
from kdjax.jobs.teachers import teacher_loader, teacher_resolutions
from kdjax.reports.views import write_views
from kdjax.setup.identity import read_identity
from kdjax.train import sharding

# Likeliest classes that are written under a view.
TOP = 2


def show_views(
    run: Run,
    *,
    count: int = 8,
    out: str | pathlib.Path | None = None,
    splits: Splits | None = None,
) -> pathlib.Path:
    """Draw the first views of a run, as its teachers and its student see them.

    Each column is an example of the first update (with mixup, mixed with its
    neighbour); below stand the statistics of the training split. Of a finished run,
    what its teacher and its student (of the first seed) take the views for stands
    under them: the likeliest classes and their probabilities.

    Args:
      run: the run, or one read from a run folder.
      count: examples; more than a batch are a batch.
      out: the PNG; by default `views.png` in the run's folder, or in the current one
        where the run has none yet.
      splits: as `distill` takes them.

    Returns:
      The picture's path.

    Raises:
      ConfigError: a field, `count` or `out` that cannot be used. RunFolderError: the
      folder of `out` cannot be made or written.
    """
    run.check()
    path = _picture(run, out)
    require(count >= 1, "count", "at least 1 example", count)
    source = setup.load_source(run, "train", splits)
    require(run.batch <= len(source), "batch", f"<= {len(source)} examples", run.batch)
    runlog.make_writable(path.parent, "out: ")
    places, epochs = order.batch_at(0, n=len(source), batch=run.batch, seed=run.seed)
    rows = streamed.load_images(source, places)
    sizes = teacher_resolutions(run)

    @functools.partial(jax.jit, static_argnums=2)
    def see(rows: dict, ids: jax.Array, sizes: tuple[int, ...]):
        named = views.name_views(ids, jnp.asarray(epochs), jnp.int32(0), run.views)
        shape = rows.get("size", source.shape[:2])
        draw = views.draw_views(run.seed, named, run.views, shape)
        return views.apply_views(
            draw,
            rows["image"],
            jnp.zeros(run.batch, jnp.int32),
            student_size=run.model.resolution,
            teacher_size=sizes,
            method=run.views.method,
            antialias=run.views.antialias,
        )

    view = see(rows, source.ids[places], sizes)
    taught = tuple(images[:count] for images in view.teacher)
    notes, said = _answers(run, source, view.student[:count], taught)
    names = ["teacher"] if len(sizes) == 1 else [f"teacher {i}" for i in range(9)]
    seen = [("stored", rows["image"])]
    seen += list(zip(names, view.teacher, strict=False))
    seen.append(("student", view.student))
    about = statistics.describe(source)
    labels = source.labels[places[:count]]
    write_views(
        path,
        [(name, np.asarray(images)[:count]) for name, images in seen],
        captions=["no label" if x < 0 else f"class {x}" for x in labels],
        notes=notes,
        lines=[*statistics.format_statistics(about), *said],
        counts=about.counts,
    )
    return path


def _answers(
    run: Run,
    source: Source,
    student_view: jax.Array,
    teacher_views: tuple[jax.Array, ...],
) -> tuple[dict[str, list[str]], list[str]]:
    """What a finished run's teacher and student say to views, by the row of the
    picture, and what is to be said about that."""
    folder = run.folder
    if not runlog.is_finished(folder):
        return {}, []
    overrides = read_identity(folder).overrides
    if overrides:
        return {}, [f"no answers: {', '.join(overrides)} came from Python"]
    mesh = sharding.make_mesh(Compute(data=1), 1)
    try:
        student = setup.load_trained(folder, mesh)
        teacher = teacher_loader(run, None, folder, mesh, source)()
    except ConfigError as error:
        return {}, [f"no answers: {error}"]
    notes = {"student": _top(student, student_view)}
    if teacher is not None:
        several = isinstance(teacher.resolution, tuple)
        # Of several teachers it is the mean, under the last of them.
        row = f"teacher {len(teacher_views) - 1}" if several else "teacher"
        notes[row] = _top(teacher, teacher_views if several else teacher_views[0])
    return notes, []


def _top(trained: BoundModel, images: PyTree) -> list[str]:
    """The likeliest classes of each example and their probabilities, in words."""
    variables = trained.variables
    if trained.axis == 0:
        variables = jax.tree.map(lambda x: x[0], variables)

    @jax.jit
    def probabilities(variables: PyTree, images: PyTree) -> jax.Array:
        output, _ = trained.model.apply(variables, images, train=False, rngs=None)
        return jax.nn.softmax(output.logits)

    found = np.asarray(probabilities(variables, images))
    likeliest = np.argsort(-found, axis=1)[:, :TOP]
    return [
        "\n".join(f"{place}: {100 * row[place]:.0f} %" for place in places)
        for row, places in zip(found, likeliest, strict=True)
    ]


def _picture(run: Run, out: str | pathlib.Path | None) -> pathlib.Path:
    if out is None:
        folder = run.folder
        # A folder with a picture alone in it would be no run's.
        known = (folder / "config.json").is_file()
        return (folder if known else pathlib.Path()) / "views.png"
    path = pathlib.Path(out)
    ok = path.suffix.lower() == ".png" and not path.is_dir()
    require(ok, "out", "a file whose name ends in .png", str(out))
    return path
