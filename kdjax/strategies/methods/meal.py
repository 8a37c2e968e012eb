"""MEAL: many teachers into one student, Shen et al. 2019, arXiv 1812.02425."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses
from kdjax.config import require, require_known
from kdjax.core.types import Array, Model, Output, Strategy
from kdjax.strategies import critics
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import (
    find_tap,
    label_loss,
    require_teacher,
    trace_output,
)

SIMILARITIES = {"l1": losses.hint_l1, "l2": losses.hint_l2}


def meal(
    student: Model,
    *,
    taps: tuple[str, ...] = ("stage1", "stage2", "stage3", "embedding", "logits"),
    teacher_taps: tuple[str, ...] = (),
    weights: tuple[float, ...] = (0.001, 0.01, 0.05, 0.1, 1.0),
    critic_weight: float = 1.0,
    label_weight: float = 0.0,
    similarity: str = "l1",
    bins: int = 128,
    width: int = 128,
    rate: float = 1e-3,
) -> Strategy:
    """MEAL: a critic for each tap, and one teacher of an ensemble drawn at each step.

    L = label_weight * CE(y, p) + sum over taps of weight * distance(x, x_teacher)
        + critic_weight * BCE of the critic of x and x_teacher
    distance: L1 or L2 of pooled features, soft cross-entropy of the logits

    The gradient of each critic is reversed between critic and student, so that one
    step trains all. The critics have no ReLU at their ends, unlike the released ones.

    Args:
      student: learns from all taps.
      taps: activations of the student, up to five in the paper.
      teacher_taps: those of each teacher, pairwise; empty for the same names.
      weights: of the distances, one for each tap.
      similarity: l1 or l2.
      bins: features are pooled to vectors of this size, over channels first.
      width: units of each of a critic's two hidden layers.
      rate: the learning rate of the critics.

    Raises:
      ConfigError: no teacher, an unknown tap, or options that do not fit.
    """
    at, theirs = "strategy.options", teacher_taps or taps
    ok = len(theirs) == len(taps)
    require(ok, f"{at}.teacher_taps", f"{len(taps)}, one for each tap", theirs)
    expected = f"{len(taps)} numbers, one for each tap"
    require(len(weights) == len(taps), f"{at}.weights", expected, weights)
    require_known(similarity, SIMILARITIES, f"{at}.similarity")
    require(bins >= 1, f"{at}.bins", "at least 1", bins)
    critic = critics.mlp_critic(width)

    def student_vectors(output: Output) -> dict[str, Array]:
        return _vectors(output, taps, bins, f"{at}.taps")

    def teacher_vectors(output: Output) -> list[Array]:
        return [*_vectors(output, theirs, bins, f"{at}.teacher_taps").values()]

    def init(key, batch):
        image = batch.inputs["image"]
        networks = {"student": student.init(key, image)}
        output = trace_output(student, networks["student"], image)
        require_teacher(batch, output.logits.shape[-1])
        for member in split_members(batch.targets):
            teacher_vectors(member)
        vectors = jax.eval_shape(student_vectors, output)
        for number, (tap, vector) in enumerate(vectors.items(), 1):
            blank = jnp.zeros(vector.shape, vector.dtype)
            own = jax.random.fold_in(key, number)
            networks[f"critic of {tap}"] = critic.init(own, blank)
        return networks

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        members = [teacher_vectors(x) for x in split_members(batch.targets)]
        chosen = jax.random.randint(key, (), 0, len(members))
        target = [jnp.stack(x)[chosen] for x in zip(*members, strict=True)]
        values = {"student": label_weight * label_loss(output.logits, batch)}
        metrics = {}
        for i, (tap, ours) in enumerate(student_vectors(output).items()):
            compare = losses.soft_cross_entropy if tap == "logits" else None
            compare = compare or SIMILARITIES[similarity]
            distance = metrics[f"distance of {tap}"] = compare(ours, target[i]).mean()
            values["student"] += weights[i] * distance
            own, fake = params[f"critic of {tap}"], losses.reverse_gradient(ours)
            scores = (critics.score(critic, own, x) for x in (fake, target[i]))
            # The mean over both sources, as in the released code.
            source = losses.adversarial_critic(*scores).mean() / 2
            values[f"critic of {tap}"] = critic_weight * source
        return values, (state, metrics)

    optim = {f"critic of {tap}": critics.critic_optim(rate) for tap in taps}
    return Strategy(init, loss, labels=label_weight > 0, optim=optim)


def split_members(targets: Output) -> list[Output]:
    """The outputs of each teacher of an ensemble; those of a single one."""
    members: list[Output] = []
    while f"{len(members)}/logits" in targets.taps:
        prefix = f"{len(members)}/"
        own = {
            name.removeprefix(prefix): tap
            for name, tap in targets.taps.items()
            if name.startswith(prefix)
        }
        members.append(Output(own.pop("logits"), own))
    return members or [targets]


def adaptive_pool(x: Array, bins: int) -> Array:
    """Adaptive average pooling to `[batch, bins]`, by the bounds of torch.

    Bin i is the mean of entries `floor(i n / bins)` to `ceil((i + 1) n / bins)` of
    the n entries, ordered by channel, then by position.
    """
    rows = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
    size = rows.shape[1]
    matrix = np.zeros((size, bins), np.float32)
    for i in range(bins):
        first, last = i * size // bins, -(-(i + 1) * size // bins)
        matrix[first:last, i] = 1 / (last - first)
    matrix = jnp.asarray(matrix, rows.dtype)
    return jnp.dot(rows, matrix, precision="highest")


def _vectors(
    output: Output, taps: tuple[str, ...], bins: int, field: str
) -> dict[str, Array]:
    """The taps as vectors by name; logits stay as they are."""
    found = {tap: find_tap(output, tap, field) for tap in taps}
    return {k: x if k == "logits" else adaptive_pool(x, bins) for k, x in found.items()}
