"""Born-Again Networks (BAN), Furlanello et al. 2018, arXiv 1805.04770.

    kdjax distill --config experiments/stages/born_again.py:born_again
    python -m experiments.stages.born_again runs/born_again

The second command prints the accuracy of the ensemble of the generations.
"""

import dataclasses
import pathlib
import sys

import jax.numpy as jnp
import numpy as np

import kdjax
from experiments.stages import common
from kdjax import setup, targets
from kdjax.config import HARD, Custom, FromRun, Stages
from kdjax.presets import digits


def born_again(
    *,
    scale: str = "digits",
    generations: int = 3,
    example_weights: str = "",
    workdir: str = "runs/born_again",
) -> Stages:
    """Generations `g0`, `g1`, ... of one network, each taught by the one before it.

    Generation 0: CE(y, p). Later ones: CE(y, p) + KL(p_before || p) at temperature 1,
    each from an initialization of its own.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
      example_weights: `confidence_weights` is the ablation CWTM: labels alone, where an
        example counts by the largest probability of the generation before. Empty: the
        loss above.
    """
    terms = common.soft_and_hard(1.0, 1.0, temperature=1.0)
    if example_weights:
        terms = {"hard": dataclasses.replace(HARD, example_weights=example_weights)}
    runs = {"g0": common.on_labels(scale)}
    for number in range(1, generations):
        runs[f"g{number}"] = common.taught(
            scale,
            teacher=FromRun(f"stage:g{number - 1}"),
            terms=terms,
            # With the seeds of the one before it would begin where that began.
            seed=1_000 * number,
        )
    return Stages(runs, workdir)


def cwtm(*, scale: str = "digits") -> Stages:
    """The ablation CWTM: examples weighted by the confidence of the one before."""
    return born_again(
        scale=scale,
        example_weights="confidence_weights",
        workdir="runs/born_again_cwtm",
    )


def dkpp(*, scale: str = "digits") -> Stages:
    """The ablation DKPP: the predictions of the one before, permuted at each step."""
    stages = born_again(scale=scale, workdir="runs/born_again_dkpp")
    permuted = {"strategy": Custom("dkpp"), "terms": digits().terms}
    runs = {
        name: run if run.teacher is None else dataclasses.replace(run, **permuted)
        for name, run in stages.runs.items()
    }
    return dataclasses.replace(stages, runs=runs)


def ensemble_accuracies(workdir: str) -> list[float]:
    """Test accuracy of the mean probabilities of all generations, seed by seed."""
    folders = sorted(pathlib.Path(workdir).expanduser().glob("g*"))
    runs = [setup.read_run(folder) for folder in folders]
    test = setup.load_source(runs[0], "test")
    images, labels = np.asarray(test.images), np.asarray(test.labels)
    accuracies = []
    for number in range(runs[0].seeds):
        members = [
            kdjax.load(folder, seed=run.seed + number)(images)
            for folder, run in zip(folders, runs, strict=True)
        ]
        mean = targets.ensemble_logits(jnp.stack(members))
        accuracies.append(float(np.mean(mean.argmax(-1) == labels)))
    return accuracies


if __name__ == "__main__":
    found = 100 * np.array(ensemble_accuracies(sys.argv[1]))
    seeds = ", ".join(f"{x:.1f}" for x in found)
    print(f"ensemble of the generations: {found.mean():.2f} % ({seeds})")
