"""Losses between the hidden states of mapped layers of two networks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import l2_normalize, promote_together
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array

STATE_VARIANTS = ("pkd", "tinybert")


LAYER_MAPS = ("attention", "hidden", "last")


def layer_map(
    student_layers: int, teacher_layers: int, *, kind: str = "hidden"
) -> tuple[int, ...]:
    """Layer map of TinyBERT and PKD: the teacher layer for each student layer.

    With `r = teacher_layers / student_layers`, counting blocks from 0:
    `"attention"`: `(i + 1) r - 1`, the last block of each group of r.
    `"hidden"`: `i r` for `i = 0 ... student_layers`, for lists of hidden states that
    begin with the embeddings and so have one entry more than there are blocks.
    `"last"`: the teacher's last blocks.

    Args:
        student_layers: the number of blocks of the student, at least 1.
        teacher_layers: the number of blocks of the teacher; for `"attention"` and
            `"hidden"` a multiple of the student's.
        kind: `"attention"`, `"hidden"` or `"last"`.

    Returns:
        Indices of teacher layers.

    Raises:
        ValueError: if a number is too small or does not divide, or the kind is
            unknown.

    Example:
        >>> layer_map(4, 12, kind="attention")
        (2, 5, 8, 11)
        >>> layer_map(4, 12)
        (0, 3, 6, 9, 12)

    Reference:
        Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding",
        2020, arXiv 1909.10351.
    """
    checks.one_of("kind", kind, LAYER_MAPS)
    checks.count("teacher_layers", teacher_layers)
    checks.count("student_layers", student_layers, most=teacher_layers)
    if kind == "last":
        return tuple(range(teacher_layers - student_layers, teacher_layers))
    group, rest = divmod(teacher_layers, student_layers)
    if rest:
        expected = f"a multiple of {student_layers}"
        checks.refuse("teacher_layers", expected, teacher_layers)
    if kind == "hidden":
        return tuple(i * group for i in range(student_layers + 1))
    return tuple((i + 1) * group - 1 for i in range(student_layers))


def _check_states(student, teacher, axis, where):
    for name, x in (("student_features", student), ("teacher_features", teacher)):
        checks.floating(name, x)
        checks.rank(name, x, 3, at_least=True)
        checks.not_empty(name, x)
    if checks.axis(axis, "student_features", student) == 0:
        checks.refuse("axis", "the axis of the channels", "the batch's")
    checks.rank("teacher_features", teacher, student.ndim)
    checks.mask("where", where, student.shape)


def _mapped(student: Array, teacher: Array, layers: Sequence[int] | None) -> Array:
    """The teacher's layers that the student's learn from, in the student's order."""
    if layers is not None:
        taught = student.shape[1]
        if len(layers) != taught:
            expected = f"{taught} indices, one for each layer of the student"
            checks.refuse("layers", expected, len(layers))
        for layer in layers:
            checks.count("layers", layer, least=0, most=teacher.shape[1] - 1)
        # Slices: a gather has no gradient for divided examples.
        chosen = [jax.lax.index_in_dim(teacher, int(i), 1) for i in layers]
        teacher = jnp.concatenate(chosen, 1)
    checks.shape("teacher_features", teacher, student.shape)
    return teacher


def hidden_state_mse(
    student_features: Array,
    teacher_features: Array,
    *,
    layers: Sequence[int] | None = None,
    variant: str = "tinybert",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """TinyBERT and PKD hidden states: squared distance of mapped layers.

    `"tinybert"`: `sum_l 1/(P C) sum_pc (s_lpc - t_m(l)pc)^2`, summed over the
    student's layers. `"pkd"`: each state is first divided by its length along
    `axis`, and the layers are averaged, as patient distillation does with the states
    of its first token. The default is `"tinybert"`, of weight 1.

    Args:
        student_features: `[batch, layers, ..., channels]`, stacked states, already
            brought to the teacher's width by an adapter.
        teacher_features: the same shape, or with another number of layers where
            `layers` is given.
        layers: for each layer of the student, the index of the teacher's, as
            `layer_map` gives them; the same one by default.
        variant: `"tinybert"` or `"pkd"`.
        axis: the axis of the channels; not the first. The others keep their order.
        where: bool, broadcastable to `student_features`; the positions and channels
            that take part, for example `[batch, 1, tokens, 1]`.

    Returns:
        `[batch]`, one value per example, at least float32. The published loss is its
        plain mean; its weight is 1 for `"tinybert"`, and to be tuned for `"pkd"`.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes,
            a dtype is not floating, the variant is unknown or an index names no
            layer.

    Example:
        >>> student, teacher = jnp.zeros((2, 2, 5, 8)), jnp.ones((2, 4, 5, 8))
        >>> print(hidden_state_mse(student, teacher, layers=(1, 3)))
        [2. 2.]

    Reference:
        Jiao et al., "TinyBERT", 2020, arXiv 1909.10351; Sun et al., "Patient
        Knowledge Distillation for BERT Model Compression", 2019, arXiv 1908.09355.
    """
    checks.one_of("variant", variant, STATE_VARIANTS)
    _check_states(student_features, teacher_features, axis, where)
    student, teacher = promote_together(student_features, teacher_features)
    where = jnp.broadcast_to(True if where is None else where, student.shape)
    student, teacher, where = (
        jnp.moveaxis(x, axis, -1) for x in (student, teacher, where)
    )
    teacher = _mapped(student, teacher, layers)
    student, teacher = (jnp.where(where, x, 0) for x in (student, teacher))
    if variant == "pkd":
        student, teacher = (l2_normalize(x) for x in (student, teacher))
    rest = range(2, student.ndim)
    error = masked_mean(jnp.square(student - teacher), rest, where)
    combine = masked_sum if variant == "tinybert" else masked_mean
    return combine(error, 1, jnp.any(where, tuple(rest)))
