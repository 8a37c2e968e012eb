"""Several teachers, two kinds of knowledge, and a teacher of another modality."""

import dataclasses
import functools
import pathlib

from experiments.methods import common
from experiments.stages.specialists import specialists
from kdjax.config import (
    HARD,
    Custom,
    Ensemble,
    FromRun,
    ModelConfig,
    Run,
    Scalar,
    Stages,
    Term,
)
from kdjax.experiments import Experiment, above, ref
from kdjax.jobs.distilling import teacher_run

NONE = "no number for digits"
# Of the hint from images to edges, beside 1.
WEIGHTS = (0.1, 0.01)
# Networks of three teachers by scale; of three the vote has no tie.
NETWORKS = {
    "tiny": [("resnet", 8), ("resnet", 6), ("resnet", 4)],
    "digits": [("resnet", 8), ("resnet", 6), ("resnet", 4)],
    "cifar": [("resnet56", 0), ("resnet44", 0), ("resnet32", 0)],
}


def train_teacher(scale: str, number: int) -> Run:
    """One of three teachers, on the labels that the teacher of the base has."""
    run = teacher_run(common.base(scale), pathlib.Path("teacher"))
    return dataclasses.replace(run, model=_network(scale, number), seed=100 * number)


def several(scale: str, example_weights: str = "", rule: str = "oracle") -> Run:
    """Hinton's loss of the three teachers: of their mean, or weighted by example."""
    run = common.hinton(scale)
    soft = run.terms["soft"]
    if example_weights:
        options = {"rule": rule}
        soft = dataclasses.replace(
            soft, example_weights=example_weights, example_options=options
        )
    members = tuple(FromRun(ref(f"teacher {i}")) for i in range(3))
    terms = {**run.terms, "soft": soft}
    return dataclasses.replace(run, teacher=Ensemble(members), terms=terms)


def majority(scale: str) -> Run:
    """You et al.: the mean of three teachers, and their vote on triplets."""
    strategy = Custom(
        "majority_triplets", options={"label_weight": 0.1, "soft_weight": 0.9}
    )
    teacher = several(scale).teacher
    return dataclasses.replace(common.base(scale), teacher=teacher, strategy=strategy)


def graph(scale: str) -> Run:
    """A graph of three teachers, whose features alone are read."""
    teacher = several(scale).teacher
    strategy = Custom("teacher_graph")
    return dataclasses.replace(common.base(scale), teacher=teacher, strategy=strategy)


def with_specialists(scale: str) -> Stages:
    """A generalist and two specialists, at the temperature of Hinton's loss."""
    return specialists(scale=scale, temperature=4.0)


def two_kinds(scale: str) -> Run:
    """Predictions of the first teacher, features of the second."""
    run = several(scale)
    soft = dataclasses.replace(run.terms["soft"], teacher="0/logits")
    terms = {**run.terms, "soft": soft, "hint": _hint("1/stage2")}
    return dataclasses.replace(run, terms=terms)


def edges(scale: str) -> Run:
    """The student alone, on labels, of edges."""
    return _of_edges(common.labels(scale))


def edges_taught(scale: str, weight: float = 1.0) -> Run:
    """The student of edges, with the features of a teacher of whole images."""
    hint = dataclasses.replace(_hint("stage3", "stage3"), weight=Scalar(weight))
    hard = {"hard": HARD, "hint": hint}
    return _of_edges(dataclasses.replace(common.base(scale), terms=hard))


def _network(scale: str, number: int) -> ModelConfig:
    """The network of the base's teacher, of another depth or width."""
    name, width = NETWORKS[scale][number]
    model = common.large(scale)
    return dataclasses.replace(model, name=name, width=width or model.width)


def _of_edges(run: Run) -> Run:
    model = dataclasses.replace(run.model, modality="edges", normalization="symmetric")
    return dataclasses.replace(run, model=model)


def _hint(teacher: str, student: str = "stage2") -> Term:
    """The squared distance of two taps, with a trained 1x1 convolution."""
    options = {"student": student, "teacher": teacher, "projector": True}
    return Term("hint_l2", weight=Scalar(1.0), **options)


EXPERIMENT = Experiment(
    claim=(
        "Several teachers, and a teacher of another modality, end above labels alone "
        "(arXiv 1503.02531, 1911.13019, 1507.00448; You et al., KDD 2017)"
    ),
    variants={
        "labels": common.labels,
        "hinton": common.hinton,
        "mean": several,
        "oracle": functools.partial(several, example_weights="teacher_weights"),
        "entropy": functools.partial(
            several, example_weights="teacher_weights", rule="entropy"
        ),
        "majority": majority,
        "two kinds": two_kinds,
        "edges": edges,
        "edges taught": edges_taught,
        **{
            f"edges taught, weight {x:g}": functools.partial(edges_taught, weight=x)
            for x in WEIGHTS
        },
        "graph": graph,
        "specialists": with_specialists,
    },
    select_on_validation={
        "edges taught, chosen": (
            "edges taught",
            *(f"edges taught, weight {x:g}" for x in WEIGHTS),
        )
    },
    durations=common.DURATIONS,
    hypotheses=(
        above("the mean of three above labels", "mean", "labels", paper=NONE),
        above("the mean of three above one teacher", "mean", "hinton", paper=NONE),
        above("weights of the right teachers above the mean", "oracle", "mean"),
        above("weights by entropy above the mean", "entropy", "mean"),
        above("a vote on triplets above the mean", "majority", "mean", paper=NONE),
        above("a graph of teachers above labels", "graph", "labels", paper=NONE),
        above("specialists above one teacher", "specialists", "hinton", paper=NONE),
        above("two kinds of knowledge above one", "two kinds", "hinton"),
        above(
            "features of images above labels alone, for edges",
            "edges taught, chosen",
            "edges",
        ),
    ),
    pretrain={
        f"teacher {i}": functools.partial(train_teacher, number=i) for i in range(3)
    },
)
