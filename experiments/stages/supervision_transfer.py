"""Supervision transfer, Gupta et al. 2016, arXiv 1507.00448: images teach edges.

    kdjax distill --config experiments/stages/supervision_transfer.py:transfer
    python -m experiments.stages.supervision_transfer runs/transfer

The last command prints the accuracy of late fusion: of both modalities together.
"""

import dataclasses
import pathlib
import sys

import jax.numpy as jnp
import numpy as np

import kdjax
from experiments.stages import common
from kdjax import setup, targets
from kdjax.config import (
    FromRun,
    Modality,
    Stages,
    Term,
)

# The stages whose predictions late fusion averages.
FUSED = ("teacher", "labels")


def transfer(
    *,
    scale: str = "digits",
    modality: Modality = "edges",
    tap: str = "stage3",
    workdir: str = "runs/transfer",
) -> Stages:
    """A teacher of images, a student of their edges by its features, then labels.

    Transfer: |r(F(edges)) - F_teacher(image)|^2, without labels, with a trained 1x1
    convolution r. The head does not move. Then CE(y, p) on few labels. `alone` has
    these labels only.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
      modality: that of the student, "edges" or "gray". Digits are gray already.
      tap: the layer whose features are matched.
    """
    base = common.taught(scale)
    model = dataclasses.replace(
        base.model, modality=modality, normalization="symmetric"
    )
    start = dataclasses.replace(model, weights="stage:transfer")
    below = dataclasses.replace(base.optim, parameters=common.layers_to(scale, tap))
    # Every image teaches in the transfer, which takes no labels.
    unlabeled, few = base.data, dataclasses.replace(base.data, train="train[:5000]")
    if scale != "cifar":
        few = base.data
        unlabeled = dataclasses.replace(few, train="train", train_name=few.name)
    matched = {"teacher": FromRun("stage:teacher"), "terms": matching(tap)}
    runs = {
        "teacher": common.teacher(scale),
        "transfer": common.taught(
            scale, model=model, data=unlabeled, optim=below, **matched
        ),
        "labels": common.on_labels(scale, model=start, data=few),
        "alone": common.on_labels(scale, model=model, data=few),
    }
    return Stages(runs, workdir)


def matching(tap: str) -> dict[str, Term]:
    """The squared distance of the features at a tap."""
    return {"transfer": Term("hint_l2", student=tap, teacher=tap, projector=True)}


def fused_accuracies(
    workdir: str, names: tuple[str, ...] = FUSED
) -> dict[str, list[float]]:
    """Test accuracy of each of these stages and of their mean, seed by seed."""
    folders = [pathlib.Path(workdir).expanduser() / name for name in names]
    runs = [setup.read_run(folder) for folder in folders]
    test = setup.load_source(runs[-1], "test")
    images, labels = np.asarray(test.images), np.asarray(test.labels)
    found: dict[str, list[float]] = {name: [] for name in (*names, "late fusion")}
    for number in range(runs[-1].seeds):
        members = [
            kdjax.load(folder, seed=run.seed + number % run.seeds)(images)
            for folder, run in zip(folders, runs, strict=True)
        ]
        mean = targets.ensemble_logits(jnp.stack(members))
        for name, logits in zip(found, (*members, mean), strict=True):
            right = np.asarray(logits).argmax(-1) == labels
            found[name].append(float(right.mean()))
    return found


if __name__ == "__main__":
    for what, values in fused_accuracies(sys.argv[1]).items():
        seeds = ", ".join(f"{100 * x:.1f}" for x in values)
        print(f"{what}: {100 * np.mean(values):.2f} % ({seeds})")
