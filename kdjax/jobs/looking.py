"""A picture of what teacher and student see."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import build
from kdjax.augment import views
from kdjax.config import Run, require
from kdjax.core import runlog
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
    source = build.load_source(run, "train", splits)
    require(run.batch <= len(source), "batch", f"<= {len(source)} examples", run.batch)
    runlog.make_writable(path.parent, "out: ")
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
    labels = source.labels[places[:count]]
    write_views(
        path,
        [(name, np.asarray(images)[:count]) for name, images in seen],
        captions=["no label" if x < 0 else f"class {x}" for x in labels],
        lines=statistics.in_words(about),
        counts=about.counts,
    )
    return path


def _picture(run: Run, out: str | pathlib.Path | None) -> pathlib.Path:
    if out is None:
        folder = pathlib.Path(run.workdir)
        # A folder with a picture alone in it would be no run's.
        known = (folder / "config.json").is_file()
        return (folder if known else pathlib.Path()) / "views.png"
    path = pathlib.Path(out)
    ok = path.suffix.lower() == ".png" and not path.is_dir()
    require(ok, "out", "a file whose name ends in .png", str(out))
    return path
