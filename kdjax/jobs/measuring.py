"""Measuring and reporting runs that are there."""

import pathlib
from typing import Any

from kdjax import config as configs
from kdjax import reports, setup
from kdjax.config import require
from kdjax.core.types import Model
from kdjax.data.datasets import Splits
from kdjax.jobs.teachers import teacher_loader
from kdjax.setup.identity import read_identity
from kdjax.train import sharding
from kdjax.train.checkpoint import Checkpoints


def evaluate(
    folder: str | pathlib.Path,
    *,
    split: str = "test",
    checkpoint: str = "last",
    splits: Splits | None = None,
    model: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
) -> dict[str, list[float]]:
    """Measure the trained model of a run folder, one number a seed.

    Args:
      folder: a finished run's.
      split: "test", "validation" or "train", as the run's config names them.
      checkpoint: "last" or "best" (on validation).
      splits, model, teacher: as they were handed to `distill` or `train`. Without the
        teacher that was handed over, agreement and KL are left out.
    """
    folder = pathlib.Path(folder).expanduser()
    names = ("test", "validation", "train")
    require(split in names, "split", " or ".join(names), split)
    require(checkpoint in ("last", "best"), "checkpoint", "last or best", checkpoint)
    run = setup.read_run(folder)
    overrides = read_identity(folder).overrides or {}
    for name, value in (("splits", splits), ("model", model)):
        want = f"what this run was given: evaluate(folder, {name}=...), from Python"
        require(name not in overrides or value is not None, name, want, value)
    source = setup.load_source(run, split, splits)
    mesh = sharding.make_mesh(configs.Compute(data=1), 1)
    step = None
    if checkpoint == "best":
        keeper = Checkpoints(folder, read_only=True)
        step = keeper.best_step()
        keeper.close()
    student = setup.load_trained(folder, mesh, model=model, step_number=step)
    bound = None
    if run.teacher is not None and ("teacher" not in overrides or teacher is not None):
        bound = teacher_loader(run, teacher, folder, mesh, source)()
    measure = setup.make_measure(
        student, bound, run.seeds, mesh, run.views.evaluation_crop
    )
    return measure(student.variables, source)


def report(folders: list[str], out: str | pathlib.Path = "report") -> str:
    """Write `report.md` and `curves.png` over several run folders; returns the text.

    For the folder of a sweep there is `kdjax.experiments.report_sweep`.

    Raises:
      RunFolderError: a folder is not a run's.
    """
    return reports.write_report(folders, out)
