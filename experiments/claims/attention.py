"""Attention transfer (arXiv 1612.03928): do student and teacher look at one place?

    kdjax sweep experiments/claims/attention.py --scale digits
    python -m experiments.claims.attention runs/sweeps/attention/digits

The second command measures the overlap of their attention maps on the test images,
with a t-test, and draws some maps into `attention.png`.
"""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import kdjax
from experiments.claims import common
from kdjax import setup
from kdjax.augment.views import evaluation_view
from kdjax.config import HARD, Run, Scalar, Term
from kdjax.experiments import Experiment, above

TAPS = ("stage1", "stage2")
SHOWN = "stage1"
RIGHT = " ---: | ---: | ---: | --- |"


def attention(scale: str) -> Run:
    """Cross-entropy of the labels, and attention transfer at two places.

    The weight in common use.
    """
    terms = {
        tap: Term("attention_transfer", Scalar(1_000.0), student=tap, teacher=tap)
        for tap in TAPS
    }
    return dataclasses.replace(common.base(scale), terms={"hard": HARD, **terms})


EXPERIMENT = Experiment(
    claim="Attention transfer makes a student look where its teacher looks",
    variants={
        "labels": common.labels,
        "hinton": common.hinton,
        "attention": attention,
    },
    durations=common.DURATIONS,
    hypotheses=(
        above("attention transfer above labels", "attention", "labels"),
        above("attention transfer above Hinton's loss", "attention", "hinton"),
    ),
)


def maps(folder: pathlib.Path, seed: int, images: np.ndarray) -> dict[str, np.ndarray]:
    """Attention maps of a run: {tap: [n, height, width]}, each with sum 1."""
    student = kdjax.load(folder, seed=seed)
    inputs = evaluation_view(jnp.asarray(images), student.resolution)

    @jax.jit
    def read(variables, inputs):
        output, _ = student.module.apply(variables, inputs, train=False, rngs=None)
        energy = {tap: jnp.sum(output.taps[tap] ** 2, axis=-1) for tap in TAPS}
        return {
            t: e / jnp.sum(e, axis=(1, 2), keepdims=True) for t, e in energy.items()
        }

    return jax.tree.map(np.asarray, read(student.variables, inputs))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over the images of sum_p min(a_p, b_p): 1 for equal maps, 0 for disjoint."""
    return float(np.minimum(one, other).sum((1, 2)).mean())


def measure(root: pathlib.Path) -> tuple[dict[str, dict[str, list[float]]], dict]:
    """Overlaps `{tap: {variant: one a seed}}`, and some maps of the first seed."""
    run = setup.read_run(root / "attention-x1")
    images = np.asarray(setup.load_source(run, "test").images)
    # The teacher of every seed is that of the first.
    teacher = maps(root / "teacher-0", 0, images)
    overlaps = {tap: {name: [] for name in EXPERIMENT.variants} for tap in TAPS}
    drawn = {"image": images[:8, ..., 0], "teacher": teacher[SHOWN][:8]}
    for name in EXPERIMENT.variants:
        for seed in range(run.seeds):
            own = maps(root / f"{name}-x1", seed, images)
            for tap in TAPS:
                overlaps[tap][name].append(overlap(own[tap], teacher[tap]))
            if seed == 0:
                drawn[name] = own[SHOWN][:8]
    return overlaps, drawn


def table(overlaps: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: the leads over labels as claims, then the overlaps."""
    claims = ["| claim | paper | ours | seeds | p | verdict |", f"| --- | --- |{RIGHT}"]
    means = ["| variant |", "| --- |"]
    rows = {name: f"| {name} |" for name in EXPERIMENT.variants}
    for tap, variants in overlaps.items():
        means = [f"{means[0]} {tap} |", f"{means[1]} ---: |"]
        for name, numbers in variants.items():
            rows[name] += " {:.3f} ± {:.3f} |".format(*_mean(numbers))
            if name == "labels":
                continue
            each = np.subtract(numbers, variants["labels"])
            p = float(np.asarray(stats.ttest_1samp(each, 0.0))[1])
            lead = "{:+.3f} ± {:.3f}".format(*_mean(each))
            named = f"{name}: overlap at {tap} above labels"
            verdict = "undecided" if p >= 0.05 else "holds"
            verdict = "reversed" if p < 0.05 and np.mean(each) < 0 else verdict
            claims.append(
                f"| {named} | – | {lead} | {len(each)} | {p:.2g} | {verdict} |"
            )
    return "\n".join([*claims, "", *means, *rows.values()])


def draw(drawn: dict[str, np.ndarray], file: pathlib.Path) -> None:
    """A row for the images and for the maps of each network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, len(drawn)))
    axes = figure.subplots(len(drawn), 8)
    for row, (name, pictures) in zip(axes, drawn.items(), strict=True):
        row[0].set_title(name, loc="left", fontsize=9)
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture, cmap="gray" if name == "image" else "viridis")
            axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(file, dpi=80)


def _mean(numbers) -> tuple[float, float]:
    """Mean and standard error over the seeds."""
    return np.mean(numbers), np.std(numbers, ddof=1) / np.sqrt(len(numbers))


if __name__ == "__main__":
    sweep = pathlib.Path(sys.argv[1])
    found, pictures = measure(sweep)
    draw(pictures, sweep / "attention.png")
    print(table(found))
