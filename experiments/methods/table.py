"""The table of methods, their commands and verdicts in `kdjax/strategies/README.md`.

    python -m experiments.methods.table

Prints the table from the reports of `results/`. A test holds the README equal to it.
"""

import pathlib
import re
from typing import NamedTuple

from experiments.methods.terms import CHOSEN, term

EXPERIMENTS = pathlib.Path(__file__).parents[1]
STAGES = "kdjax distill --config experiments/stages"
STRATEGY = "kdjax distill --strategy.function"
ALONE = "kdjax train --strategy.function"
LARGE = "--networks.large.model.name resnet --networks.large.model.width 8"
CRITIC = "--networks.critic.model.name resnet --networks.critic.model.width 8"
PEER = "--networks.peer.model.name resnet --networks.peer.model.width 8"
HARD = "--terms.hard.loss hard_cross_entropy --terms.hard.teacher labels"
SMALL = "--networks.small.model.name resnet --networks.small.model.width 1"


class Row(NamedTuple):
    """A method: its command, and the claim of a report that it has the verdict of.

    report: `FOLDER/FILE` of an experiment; empty where none compares the method.
    """

    method: str
    command: str
    report: str = ""
    claim: str = ""


def one_term(method: str, loss: str) -> Row:
    """A loss beside labels. The command has its taps and weight."""
    made = term(loss)
    parts = [f"--terms.own.loss {loss}"]
    for field in ("student", "teacher"):
        taps = getattr(made, field)
        if taps != "logits":
            names = taps if isinstance(taps, str) else " ".join(taps)
            parts.append(f"--terms.own.{field} {names}")
    if made.projector:
        parts.append("--terms.own.projector True")
    weight, _ = made.scalars
    parts.append(f"--terms.own.weight {weight.value:g}")
    command = f"kdjax distill {' '.join(parts)}"
    chosen = ", chosen" if f"{loss}, chosen" in CHOSEN else ""
    return Row(method, command, "methods/terms", f"{loss}{chosen} above labels")


def stages(method: str, function: str, claim: str = "", report: str = "") -> Row:
    """A method of stages, `FILE.py:FUNCTION`; one without a claim is not compared."""
    report = report or "methods/in_stages"
    return Row(method, f"{STAGES}/{function}", report if claim else "", claim)


def several(method: str, function: str, claim: str) -> Row:
    """A method of several teachers."""
    file = f"several_teachers.py:{function}"
    return stages(method, file, claim, "methods/teachers")


ROWS = (
    Row(
        "Hinton's loss",
        "kdjax distill --terms.soft.temperature 4",
        "methods/features",
        "Hinton's loss above labels",
    ),
    Row(
        "Function matching",
        "kdjax distill",
        "function_matching/labels",
        "7: mix above labels, last but one",
    ),
    one_term("Reverse KL", "reverse_softmax_kl"),
    one_term("Squared error of logits", "logit_mse"),
    one_term("FitNets in one stage", "hint_l2"),
    stages("FitNets", "fitnets.py:fitnets", "hints first above labels"),
    one_term("RKD, distances", "rkd_distance"),
    one_term("RKD, angles", "rkd_angle"),
    one_term("Attention transfer", "attention_transfer"),
    Row(
        "Attention transfer, gradients",
        f"{STRATEGY} attention_transfer_gradient",
        "methods/features",
        "gradient above labels",
    ),
    one_term("Similarity preserving", "sp"),
    one_term("Correlation congruence", "cc"),
    stages("FSP", "fsp.py:fsp", "flows first above labels"),
    stages(
        "Densely distilled flow", "dense_flow.py:dense_flow", "dense flow above labels"
    ),
    one_term("Neuron selectivity transfer", "nst"),
    one_term("Probabilistic knowledge transfer", "pkt"),
    Row("VID", f"{STRATEGY} vid", "methods/features", "vid above labels"),
    Row("CRD", f"{STRATEGY} crd", "methods/features", "crd above labels"),
    one_term("DKD", "dkd"),
    one_term("DIST", "dist"),
    Row("IRG", f"{STRATEGY} irg", "methods/features", "irg above labels"),
    Row(
        "Jacobian matching",
        f"{STRATEGY} jacobian_matching",
        "methods/features",
        "jacobian above labels",
    ),
    stages(
        "Moonshine",
        "moonshine.py:moonshine",
        "Moonshine's attention above the same cheap network on labels",
    ),
    one_term("Activation boundaries", "ab"),
    stages(
        "Factor transfer",
        "factor_transfer.py:factor_transfer",
        "factors above labels",
    ),
    Row("Overhaul", f"{STRATEGY} ofd", "methods/features", "ofd above labels"),
    Row(
        "Knowledge review",
        f"{STRATEGY} review_kd",
        "methods/features",
        "review above labels",
    ),
    one_term("KD-SVD", "kdsvd"),
    stages(
        "Multi-head graph distillation",
        "multi_head_graph.py:multi_head_graph",
        "graphs of heads above labels",
    ),
    stages(
        "Labels, then soft targets",
        "labels_then_soft.py:labels_then_soft",
        "soft targets after labels above labels",
    ),
    Row(
        "Online distillation",
        f"{ALONE} online {LARGE}",
        "methods/together",
        "a learning teacher above labels",
    ),
    Row(
        "Mutual learning, 2 peers",
        f"{ALONE} mutual",
        "methods/together",
        "two peers above labels",
    ),
    Row(
        "Mutual learning, 4 peers",
        f"{ALONE} mutual --strategy.options.peers 4",
        "methods/together",
        "four peers above two",
    ),
    stages(
        "Born-again networks", "born_again.py:born_again", "one generation above labels"
    ),
    stages("CWTM", "born_again.py:cwtm", "CWTM above labels"),
    stages("DKPP", "born_again.py:dkpp", "DKPP above labels"),
    Row(
        "Early exits",
        f"{ALONE} deep_to_shallow",
        "methods/together",
        "early exits above labels",
    ),
    stages(
        "Tuning on own predictions",
        "tune.py:tune",
        "tuning on own predictions above labels",
    ),
    stages(
        "Teacher assistants", "assistants.py:assistants", "one assistant above none"
    ),
    stages("A ladder of them", "assistants.py:ladder", "the ladder above no assistant"),
    Row("Their best path", "python -m experiments.stages.best_path 8 4 3 2"),
    *(
        Row(
            f"Controller `{name}`",
            f"kdjax distill --strategy.controller {name}",
            "methods/controlled",
            f"{claim} above constants",
        )
        for name, claim in {
            "keep_divergence": "temperature in a band",
            "stop_at_agreement": "stop at agreement",
        }.items()
    ),
    Row(
        "Terms that are divided by their means",
        f"kdjax distill {HARD} --strategy.controller equal_magnitudes",
        "methods/controlled",
        "equal magnitudes above constants",
    ),
    Row(
        "Gradients without conflicts",
        f"kdjax distill {HARD} --strategy.project_gradients True",
        "methods/controlled",
        "without conflicts above constants",
    ),
    Row(
        "Responses, features and relations together",
        "kdjax sweep experiments/claims/kinds.py",
        "claims/kinds",
        "all above responses alone",
    ),
    Row(
        "Mean of several teachers",
        "kdjax sweep experiments/methods/teachers.py --variants mean",
        "methods/teachers",
        "the mean of three above one teacher",
    ),
    several(
        "Teachers weighted by example",
        "oracle",
        "weights of the right teachers above the mean",
    ),
    stages(
        "Specialists with a dustbin class",
        "specialists.py:specialists",
        "specialists above one teacher",
        "methods/teachers",
    ),
    several(
        "Vote on triplets (You et al.)", "majority", "a vote on triplets above the mean"
    ),
    several(
        "Two teachers, two kinds of knowledge",
        "two_teachers",
        "two kinds of knowledge above one",
    ),
    stages(
        "Supervision transfer",
        "supervision_transfer.py:transfer",
        "features of images above labels alone, for edges",
        "methods/teachers",
    ),
    several("Graph of teachers", "graph", "a graph of teachers above labels"),
    one_term("Locality preserving", "locality_preserving"),
    Row(
        "Many students",
        f"{STRATEGY} many_students {SMALL}",
        "methods/together",
        "a student of many above labels",
    ),
    stages(
        "Label-free matching, then labels",
        "label_free.py:label_free",
        "features without labels first above labels",
    ),
    stages(
        "Generated images",
        "generated.py:digits",
        "real and generated images above labels",
        "methods/generated",
    ),
    *(
        Row(name, f"{STRATEGY} {function}", "methods/adversarial", claim)
        for name, function, claim in (
            (
                "Critic on logits",
                "critic_on_logits",
                "critic on logits above labels",
            ),
            (
                "Critic on features",
                "critic_on_features",
                "critic on features above labels",
            ),
            ("MEAL", "meal", "meal above labels"),
        )
    ),
    Row(
        "Feature maps online",
        f"{ALONE} feature_map_online {PEER}",
        "methods/adversarial",
        "feature maps online above labels",
    ),
    Row(
        "KDGAN",
        f"{ALONE} kdgan {LARGE} {CRITIC}",
        "methods/adversarial",
        "kdgan above labels",
    ),
)


def verdicts(report: str) -> dict[str, tuple[str, str]]:
    """The claims of an experiment's report: {claim: (difference, verdict)}.

    Empty without the file.
    """
    folder, _, name = report.partition("/")
    path = EXPERIMENTS / folder / "results" / f"{name}-digits" / "report.md"
    if not path.exists():
        return {}
    lines = [x for x in path.read_text().splitlines() if x.startswith("| ")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    cells = [[cell.strip() for cell in row] for row in rows if len(row) == 6]
    return {claim: (ours, word) for claim, _, ours, _, _, word in cells}


def table() -> str:
    """The Markdown table of all rows."""
    lines = [
        "| method | command | points above | verdict |",
        "| --- | --- | ---: | --- |",
    ]
    for row in ROWS:
        found = verdicts(row.report).get(row.claim) if row.report else None
        ours, word = found or ("–", "not run" if row.report else "–")
        points = ours.removesuffix(" points")
        if found and not row.claim.endswith("above labels"):
            word = f"{word}: {row.claim}"
        lines.append(f"| {row.method} | `{row.command}` | {points} | {word} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
