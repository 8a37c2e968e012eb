"""Registry of the strategies that `--strategy.function` takes by name."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

from kdjax.config import require_known
from kdjax.core.types import Strategy
from kdjax.strategies.methods.acgan import acgan
from kdjax.strategies.methods.crd import crd
from kdjax.strategies.methods.critic_on_features import critic_on_features
from kdjax.strategies.methods.critic_on_logits import critic_on_logits
from kdjax.strategies.methods.deep_to_shallow import deep_to_shallow
from kdjax.strategies.methods.dkpp import dkpp
from kdjax.strategies.methods.factor_transfer import factor_transfer, paraphraser
from kdjax.strategies.methods.feature_map_online import feature_map_online
from kdjax.strategies.methods.feature_matching import feature_matching
from kdjax.strategies.methods.generated import generated
from kdjax.strategies.methods.graph_heads import graph_heads
from kdjax.strategies.methods.input_gradients import (
    attention_transfer_gradient,
    jacobian_matching,
)
from kdjax.strategies.methods.irg import irg
from kdjax.strategies.methods.kdgan import kdgan
from kdjax.strategies.methods.majority_triplets import majority_triplets
from kdjax.strategies.methods.many_students import many_students
from kdjax.strategies.methods.meal import meal
from kdjax.strategies.methods.multi_head_graph import multi_head_graph
from kdjax.strategies.methods.mutual import mutual
from kdjax.strategies.methods.ofd import ofd
from kdjax.strategies.methods.online import online
from kdjax.strategies.methods.review_kd import review_kd
from kdjax.strategies.methods.specialists import specialist, with_specialists
from kdjax.strategies.methods.teacher_graph import teacher_graph
from kdjax.strategies.methods.vid import vid

# Arguments, besides options, for which a user's function may have a parameter.
CONTEXT = (
    "teacher",
    "steps",
    "classes",
    "axis_name",
    "terms",
    "networks",
    "examples",
    "optim",
)


class Entry(NamedTuple):
    """A strategy by name.

    function: makes it, from models and options.
    method: the name of the method in words.
    paper: arXiv number or DOI; empty for a definition of no paper's own.
    networks: names that `Run.networks` must have for it.
    teacher: it reads a teacher, which `kdjax distill` provides.
    command: one that trains it, where networks of `resnet` do not.
    """

    function: Callable[..., Strategy]
    method: str
    paper: str = ""
    networks: tuple[str, ...] = ()
    teacher: bool = False
    command: str = ""


STAGES = "kdjax distill --config experiments/stages"
FACTORS = f"{STAGES}/factor_transfer.py:factor_transfer"
GENERATED = f"{STAGES}/generated.py:digits"
GRAPHS = f"{STAGES}/multi_head_graph.py:multi_head_graph"
STRATEGIES: dict[str, Entry] = {
    entry.function.__name__: entry
    for entry in (
        Entry(mutual, "Deep mutual learning (DML)", "1706.00384"),
        Entry(online, "Online distillation", networks=("large",)),
        Entry(deep_to_shallow, "Be Your Own Teacher (BYOT), early exits", "1905.08094"),
        Entry(dkpp, "Dark knowledge permuted (DKPP)", "1805.04770", teacher=True),
        Entry(critic_on_logits, "Critic on logits", "1709.00513", teacher=True),
        Entry(
            attention_transfer_gradient,
            "Attention transfer (AT), gradients",
            "1612.03928",
            teacher=True,
        ),
        Entry(jacobian_matching, "Jacobian matching", "1803.00443", teacher=True),
        Entry(crd, "Contrastive representation (CRD)", "1910.10699", teacher=True),
        Entry(
            irg,
            "Instance relationship graph (IRG)",
            "10.1109/CVPR.2019.00726",
            teacher=True,
        ),
        Entry(review_kd, "Knowledge review (ReviewKD)", "2104.09044", teacher=True),
        Entry(ofd, "Overhaul of features (OFD)", "1904.01866", teacher=True),
        Entry(vid, "Variational information (VID)", "1904.05835", teacher=True),
        Entry(critic_on_features, "Critic on features", "1803.10750", teacher=True),
        Entry(meal, "MEAL", "1812.02425", teacher=True),
        Entry(
            feature_map_online,
            "Feature-map-level online adversarial KD",
            "2002.01775",
            networks=("peer",),
        ),
        Entry(
            paraphraser,
            "Paraphraser of factor transfer",
            "1802.04977",
            networks=("paraphraser",),
            command=FACTORS,
        ),
        Entry(
            factor_transfer,
            "Factor transfer (FT)",
            "1802.04977",
            networks=("paraphraser",),
            teacher=True,
            command=FACTORS,
        ),
        Entry(
            graph_heads,
            "Heads of multi-head graph distillation",
            "1907.02226",
            networks=("heads",),
            command=GRAPHS,
        ),
        Entry(
            multi_head_graph,
            "Multi-head graph distillation (MHGD)",
            "1907.02226",
            networks=("heads",),
            teacher=True,
            command=GRAPHS,
        ),
        Entry(kdgan, "KDGAN", networks=("large", "critic")),
        Entry(
            acgan,
            "Auxiliary classifier GAN (AC-GAN)",
            "1610.09585",
            networks=("generator",),
            command=GENERATED,
        ),
        Entry(
            generated,
            "Distillation on generated images (TSC-GAN)",
            "1812.02271",
            networks=("generator",),
            teacher=True,
            command=GENERATED,
        ),
        Entry(
            many_students,
            "Many students under one teacher",
            teacher=True,
            command=(
                "kdjax distill --strategy.function many_students "
                "--networks.small.model.name resnet --networks.small.model.width 1"
            ),
        ),
        Entry(
            feature_matching,
            "Label-free feature matching (Theia)",
            "2407.20179",
            teacher=True,
        ),
        Entry(
            teacher_graph,
            "Graph of several teachers",
            "1804.10069",
            teacher=True,
            command=f"{STAGES}/several_teachers.py:graph",
        ),
        Entry(
            specialist,
            "Specialist with a dustbin class",
            "1503.02531",
            command=f"{STAGES}/specialists.py:specialists",
        ),
        Entry(
            with_specialists,
            "Generalist and specialists",
            "1503.02531",
            teacher=True,
            command=f"{STAGES}/specialists.py:specialists",
        ),
        Entry(
            majority_triplets,
            "Several teachers and their vote",
            "10.1145/3097983.3098135",
            teacher=True,
            command=f"{STAGES}/several_teachers.py:majority",
        ),
    )
}


def list_strategies() -> str:
    """A table of the strategies: name, method, paper, and what each needs."""
    rows = [("name", "method", "paper", "needs")]
    for name, entry in STRATEGIES.items():
        needs = ", ".join(_needs(entry)) or "–"
        rows.append((name, entry.method, entry.paper or "–", needs))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([x.ljust(w) for x, w in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in padded)


def describe(name: str) -> str:
    """One strategy in full: method, options with defaults, and a command.

    Raises ConfigError for a name that is none.
    """
    require_known(name, STRATEGIES, "name")
    entry = STRATEGIES[name]
    text = inspect.cleandoc(entry.function.__doc__ or "")
    parameters = inspect.signature(entry.function).parameters.values()
    options = [
        p
        for p in parameters
        if p.default is not inspect.Parameter.empty and p.name not in CONTEXT
    ]
    shown = ", ".join(f"{p.name} = {p.default!r}" for p in options)
    lines = [
        text,
        "",
        f"options: {shown or 'none'}",
        f"command: {entry.command or _command(entry)}",
    ]
    return "\n".join(lines)


def _needs(entry: Entry) -> list[str]:
    teacher = ["a teacher"] if entry.teacher else []
    return [*teacher, *(f"networks.{name}" for name in entry.networks)]


def _command(entry: Entry) -> str:
    """A command that trains it on the digits."""
    job = "distill" if entry.teacher else "train"
    words = [f"kdjax {job} --strategy.function {entry.function.__name__}"]
    for name in entry.networks:
        model = f"--networks.{name}.model"
        words.append(f"{model}.name resnet {model}.width 8")
    return " ".join(words)
