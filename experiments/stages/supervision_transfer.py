"""Supervision transfer, Gupta et al. 2016, arXiv 1507.00448: images teach edges.

    kdjax distill --config experiments/stages/supervision_transfer.py:transfer
    kdjax distill --config experiments/stages/supervision_transfer.py:cifar
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
from kdjax import presets, setup, targets
from kdjax.config import (
    FromRun,
    Modality,
    ModelConfig,
    Optim,
    Stages,
    Term,
    labels_only,
)
from kdjax.jobs.distilling import teacher_run

# The stages whose predictions late fusion averages.
FUSED = ("teacher", "labels")


def transfer(
    *,
    modality: Modality = "edges",
    tap: str = "stage3",
    transfer_steps: int = common.STEPS,
    steps: int = common.STEPS,
    workdir: str = "runs/transfer",
) -> Stages:
    """A teacher of images, a student of their edges by its features, then labels.

    Transfer: |r(F(edges)) - F_teacher(image)|^2, without labels, with a trained 1x1
    convolution r. The head does not move. Then CE(y, p). `alone` has labels only.

    Args:
      modality: that of the student, "edges" or "gray". Digits are gray already.
      tap: the layer whose features are matched.
    """
    student = dataclasses.replace(common.resnet(), modality=modality)
    below = dataclasses.replace(Optim(), parameters=common.layers_to(tap))
    # Every digit teaches here: transfer takes no labels.
    unlabeled = dataclasses.replace(
        common.taught().data, train="train", train_name="digits"
    )
    start = dataclasses.replace(student, weights="stage:transfer")
    return Stages(
        {
            "teacher": common.teacher(),
            "transfer": common.taught(
                transfer_steps,
                model=student,
                data=unlabeled,
                teacher=FromRun("stage:teacher"),
                terms=matching(tap),
                optim=below,
            ),
            "labels": common.on_labels(steps, model=start),
            "alone": common.on_labels(steps, model=student),
        },
        workdir,
    )


def cifar(
    *, modality: Modality = "gray", workdir: str = "runs/transfer_cifar"
) -> Stages:
    """The same with CIFAR-10: ResNet-56 of colors, ResNet-20 of gray levels."""
    model = ModelConfig("resnet20", norm="batch", resolution=32, modality=modality)
    start = dataclasses.replace(model, weights="stage:transfer")
    base = presets.cifar10(baselines=(), model=model)
    few = dataclasses.replace(base.data, train="train[:5000]")
    matched = {"teacher": FromRun("stage:teacher"), "terms": matching("stage3")}
    return Stages(
        {
            "teacher": teacher_run(base, pathlib.Path("teacher")),
            "transfer": dataclasses.replace(base, **matched),
            "labels": labels_only(base, teacher=None, model=start, data=few),
            "alone": labels_only(base, teacher=None, data=few),
        },
        workdir,
    )


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
