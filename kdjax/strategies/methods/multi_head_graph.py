"""Multi-head graph distillation (MHGD), Lee, Song 2019, arXiv 1907.02226.

The strategy `graph_heads` is that of the stage before.
"""

import jax
import jax.numpy as jnp
import optax

from kdjax import losses
from kdjax.config import require
from kdjax.core.types import Array, Model, PyTree, Strategy
from kdjax.models.graph_heads import head_matrices
from kdjax.strategies.gradients import clip_each, term_gradients, with_gradient
from kdjax.strategies.methods.graph_heads import (
    TAPS,
    find_maps,
    require_channels,
    require_several,
)
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import require_teacher, task_loss, trace_output

_AT = "strategy.options"


def multi_head_graph(
    student: Model,
    *,
    axis_name: str | None,
    taps: tuple = TAPS,
    teacher_taps: tuple = (),
    weight: float = 1.0,
    clip: bool = True,
    label_weight: float = 1.0,
    soft_weight: float = 0.0,
    temperature: float = 4.0,
) -> Strategy:
    """MHGD: frozen heads make the same graphs of student and teacher.

    L = label_weight * CE(y, p) + soft_weight * KL(p_teacher || p)
        + weight * sum over taps, heads and images of KL(G || G_teacher)

    G = softmax tanh <S v, R u> over the images of the batch, for the strongest right
    singular vectors v of a tap and u of the one before.

    Args:
      taps: the student's, from early to late.
      teacher_taps: the teacher's, of the same shapes. Empty: `taps`.
      weight: that of the authors' code. The sum grows with heads and batch.
      clip: no array of the graphs' gradient is longer than that of the other losses.
        So does the authors' code, where this bound also rises in the first epochs.

    Raises:
      ConfigError: no frozen heads, fewer than 2 taps, another number of teacher taps,
        one that is no map, maps of other shapes, or `clip` without another loss.
    """
    require_several(taps)
    theirs = teacher_taps or taps
    expected = f"{len(taps)} taps, as many as of the student, or none"
    require(len(theirs) == len(taps), f"{_AT}.teacher_taps", expected, theirs)
    ok = bool(label_weight or soft_weight) or not clip
    require(ok, f"{_AT}.clip", "False without label_weight and soft_weight", clip)

    def target_of(batch):
        """The teacher's maps, and the variables of the heads."""
        field = "networks.heads.frozen"
        expected = "True, with the weights of a run that trained them"
        require("heads" in batch.frozen, field, expected, False)
        name = "teacher_taps" if teacher_taps else "taps"
        maps = find_maps(require_teacher(batch), theirs, name)
        require_channels(batch.frozen["heads"], maps)
        return maps, batch.frozen["heads"]

    def init(key, batch):
        image = batch.inputs["image"]
        variables = student.init(key, image)
        ours = find_maps(trace_output(student, variables, image), taps, "taps")
        for name, x, y in zip(taps, ours, target_of(batch)[0], strict=True):
            expected = f"maps of the teacher's shapes, here {y.shape[1:]}"
            got = f"{name} of {x.shape[1:]}"
            require(x.shape[1:] == y.shape[1:], f"{_AT}.taps", expected, got)
        return {"student": variables}

    def values_of(own, state, batch, key):
        """The two losses by name, and the new state."""
        image, params = batch.inputs["image"], {"student": own}
        output, state = apply_network("student", student, params, state, image, key)
        maps, frozen = target_of(batch)
        graphs = graph_loss(find_maps(output, taps, "taps"), maps, frozen, axis_name)
        task = task_loss(output.logits, batch, label_weight, soft_weight, temperature)
        return {"task": task, "graphs": graphs}, state

    def loss(params, state, batch, schedules, key):
        own = params["student"]
        fixed = jax.lax.stop_gradient(own) if clip else own
        values, new = values_of(fixed, state, batch, key)
        total = values["task"] + weight * values["graphs"]
        if clip:

            def weighted(own):
                inner, _ = values_of(own, state, batch, key)
                return {**inner, "graphs": weight * inner["graphs"]}

            each = term_gradients(weighted, fixed, axis_name)
            clipped = clip_each(each["graphs"], each["task"])
            total = with_gradient(total, own, optax.tree.add(each["task"], clipped))
        return {"student": total}, (new, values)

    return Strategy(init, loss, labels=bool(label_weight))


def graph_loss(
    ours: list[Array], theirs: list[Array], heads: PyTree, axis_name: str | None
) -> Array:
    """The published loss: divergences of the graphs, summed over everything.

    ours, theirs: maps `[batch, height, width, channels]` of each tap, of equal shapes.
    heads: the variables of their network.
    """
    pairs = [losses.singular_vectors(x, y) for x, y in zip(ours, theirs, strict=True)]
    # The 1 behind each vector is for the bias of the heads.
    student, teacher = (
        [jnp.pad(x[..., 0], ((0, 0), (0, 1)), constant_values=1) for x in side]
        for side in zip(*pairs, strict=True)
    )
    total = jnp.zeros((), student[0].dtype)
    for i, (sender, receiver) in enumerate(head_matrices(heads)):
        divergences = losses.mhgd(
            student[i + 1],
            teacher[i + 1],
            student_earlier=student[i],
            teacher_earlier=teacher[i],
            sender=sender,
            receiver=receiver,
            axis_name=axis_name,
        )
        total += jnp.mean(divergences)
    return total
