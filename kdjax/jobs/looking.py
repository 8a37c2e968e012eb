"""A picture of what teacher and student see."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import build
from kdjax.augment import views
from kdjax.config import Run, require
from kdjax.data import order, statistics, streamed
from kdjax.data.sources import Splits
from kdjax.reports.views import write_views


def show_views(
    run: Run,
    *,
    count: int = 8,
    out: str | pathlib.Path | None = None,
    splits: Splits | None = None,
) -> pathlib.Path:
    """Draw the first views of a run, as its teachers and its student see them.

    Each column is an example of the first update (with mixup, mixed with its
    neighbour); below stand the statistics of the training split.

    Args:
      run: the run, or one read from a run folder.
      count: examples, at most a batch.
      out: the PNG; by default `views.png` in the run's folder.
      splits: as `distill` takes them.

    Returns:
      The picture's path.
    """
    run.check()
    require(1 <= count <= run.batch, "count", f"1 to {run.batch} examples", count)
    source = build.load_source(run, "train", splits)
    require(run.batch <= len(source), "batch", f"<= {len(source)} examples", run.batch)
    places, epochs = order.batch_at(0, n=len(source), batch=run.batch, seed=run.seed)
    rows = streamed.stored(source, places)
    teachers = (run.teacher, *run.teacher.also) if run.teacher else ()
    sizes = tuple(teacher.model.resolution for teacher in teachers)

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
    names = ["teacher"] if len(sizes) == 1 else [f"teacher {i}" for i in range(9)]
    seen = [("stored", rows["image"])]
    seen += list(zip(names, view.teacher, strict=False))
    seen.append(("student", view.student))
    about = statistics.describe(source)
    path = pathlib.Path(run.workdir) / "views.png" if out is None else pathlib.Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = source.labels[places[:count]]
    write_views(
        path,
        [(name, np.asarray(images)[:count]) for name, images in seen],
        captions=["no label" if x < 0 else f"class {x}" for x in labels],
        lines=statistics.in_words(about),
        counts=about.counts,
    )
    return path
