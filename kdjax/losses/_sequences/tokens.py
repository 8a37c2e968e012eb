"""Losses between two models of token sequences.

Logits are `[batch, tokens, vocabulary]`, a mask of real tokens is `[batch, tokens]`.
How the tokens of a sequence become one value is the option `variant`:

- `"tokens"`: such that the plain mean over the batch is the mean over all real tokens
  of the batch, the custom of language models. A value then holds the number of real
  tokens of the batch at hand. For a mean over microbatches, devices or hosts pass
  `denominator`, their count of real tokens together, and add up their losses.
- `"sequence"`: the mean over the sequence's own real tokens, so that short sequences
  weigh as much as long ones.
- `"sum"`: the sum over the sequence's real tokens, the log-likelihood of the whole.

Where no token is masked, the first two are the same.
"""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks, collectives
from kdjax.core.logits import divergence, local_ids
from kdjax.core.numerics import promote_together, tempered_log_softmax
from kdjax.core.reduce import masked_count, masked_mean, masked_sum
from kdjax.core.types import Array
from kdjax.losses._logits.kl import mixture_divergence

VARIANTS = ("sequence", "sum", "tokens")


DIRECTIONS = ("forward", "reverse")


def per_sequence(
    values: Array,
    *,
    variant: str = "tokens",
    denominator: float | Array | None = None,
    where: Array | None = None,
) -> Array:
    """One value per sequence from one value per token.

    For kernels that give a value per token, such as `top_k_kl` and
    `linear_softmax_kl`; the kernels of this module do it themselves.

    Args:
        values: `[batch, tokens]`.
        variant: `"tokens"`, `"sequence"` or `"sum"`; see the module's text.
        denominator: of `"tokens"`, a number of tokens above 0 in place of the real
            tokens of `values`: the plain mean of the result is their sum divided by
            it. The losses of microbatches with the count of all of them add up to the
            mean over all tokens; so do those of devices (by `psum`).
        where: bool, broadcastable to `[batch, tokens]`; the real tokens.

    Returns:
        `[batch]`, at least float32; 0 for a sequence without real tokens.

    Raises:
        ValueError: if the values are not floating, not of rank 2 or empty, the mask
            does not fit, the variant is unknown or has no denominator, or the
            denominator is not above 0.

    Example:
        >>> values = jnp.array([[1.0, 2, 3], [4, 0, 0]])
        >>> real = jnp.array([[True, True, True], [True, False, False]])
        >>> print(per_sequence(values, where=real))
        [3. 2.]
        >>> print(per_sequence(values, where=real, variant="sequence"))
        [2. 4.]
        >>> print(per_sequence(values, where=real, denominator=8).mean())
        1.25
    """
    checks.one_of("variant", variant, VARIANTS)
    if denominator is not None:
        checks.positive("denominator", denominator)
        checks.one_of("variant", variant, ("tokens",))
    checks.floating("values", values)
    checks.rank("values", values, 2)
    checks.not_empty("values", values)
    checks.mask("where", where, values.shape)
    if where is not None:
        where = lax.expand_dims(jnp.asarray(where), range(2 - where.ndim))
    if variant == "sequence":
        return masked_mean(values, 1, where)
    total = masked_sum(values, 1, where)
    if variant == "sum":
        return total
    batch = jnp.asarray(values.shape[0], total.dtype)
    if denominator is None:
        denominator = masked_count(values, None, where)
    return total * (batch / jnp.asarray(denominator, total.dtype))


def _token_mask(student: Array, axis: int, where: Array | None) -> Array | None:
    """A mask that broadcasts to the logits, from one of the tokens or of the logits."""
    vocabulary = checks.axis(axis, "student_logits", student)
    if vocabulary == 0:
        checks.refuse("axis", "the axis of the vocabulary", "the batch's")
    tokens = student.shape[:vocabulary] + student.shape[vocabulary + 1 :]
    if where is not None and len(where.shape) == len(tokens):
        checks.mask("where", where, tokens)
        return jnp.expand_dims(where, vocabulary)
    checks.mask("where", where, student.shape)
    return where


def _real(
    where: Array | None, logits: Array, axis: int, axis_name: str | None
) -> Array | None:
    """The tokens `[batch, tokens]` that have an entry which takes part."""
    if where is None:
        return None
    entries = jnp.broadcast_to(where, logits.shape)
    return collectives.any_true(entries, axis, axis_name)


def _token_pair(student, teacher, temperature, axis, where, axis_name):
    """Log-probabilities of both networks, the squared temperature, and the mask."""
    checks.matching_pair("logits", student, teacher)
    checks.rank("student_logits", student, 3)
    where = _token_mask(student, axis, where)
    checks.classes("student_logits", student, axis, axis_name)
    checks.temperature("temperature", temperature)
    student, teacher = (
        tempered_log_softmax(x, temperature, axis, where, axis_name)
        for x in promote_together(student, teacher)
    )
    scale = jnp.square(jnp.asarray(temperature, student.dtype))
    return student, teacher, scale, where


def token_kl(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    direction: str = "forward",
    variant: str = "tokens",
    denominator: float | Array | None = None,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Word-level KD: KL divergence between next-token distributions.

    `T^2 KL(p_t || q_t)` for every real token t, with `p = softmax(teacher_logits / T)`
    and `q = softmax(student_logits / T)`; `KL(q_t || p_t)` in the `"reverse"`
    direction, which makes the student seek a mode of the teacher. Word-level
    distillation of translation models is the forward one.

    Args:
        student_logits: `[batch, tokens, vocabulary]`, before any softmax.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        direction: `"forward"` or `"reverse"`.
        variant: how tokens become one value: `"tokens"`, `"sequence"` or `"sum"`,
            see the module's text. The default is `"tokens"`, with which weights of
            language models were tuned.
        denominator: as in `per_sequence`.
        axis: the axis of the vocabulary.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the vocabulary,
            if any; see `softmax_kl`.
        where: bool, `[batch, tokens]`, the real tokens; or broadcastable to the logits,
            the entries of the vocabulary that take part. A token without any
            influences nothing and is not counted.

    Returns:
        `[batch]`, one value in nats per sequence, at least float32. The published
        loss is its plain mean; it stands with the cross-entropy of the
        labels (in DistilBERT with weight 5, at temperature 2).

    Raises:
        ValueError: if shapes differ, are empty or not of rank 3, a dtype is not
            floating, an option is unknown, or the temperature is not above 0.

    Example:
        >>> student = jnp.array([[[1.0, 2, 3], [0.5, 0.5, 0]]])
        >>> teacher = jnp.array([[[2.0, 1, 0], [0, 3, 1]]])
        >>> print(f"{token_kl(student, teacher)[0]:.4f}")
        0.8206

    Reference:
        Kim, Rush, "Sequence-Level Knowledge Distillation", 2016, arXiv 1606.07947;
        Gu et al., "MiniLLM", 2024, arXiv 2306.08543 (reverse).
    """
    checks.one_of("direction", direction, DIRECTIONS)
    log_student, log_teacher, scale, where = _token_pair(
        student_logits, teacher_logits, temperature, axis, where, class_axis_name
    )
    if direction == "reverse":
        log_student, log_teacher = log_teacher, log_student
    values = scale * divergence(log_teacher, log_student, axis, where, class_axis_name)
    real = _real(where, log_student, axis, class_axis_name)
    return per_sequence(values, variant=variant, denominator=denominator, where=real)


def token_jsd(
    student_logits: Array,
    teacher_logits: Array,
    *,
    beta: float | Array = 0.5,
    temperature: float | Array = 1.0,
    variant: str = "tokens",
    denominator: float | Array | None = None,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """GKD: generalized Jensen-Shannon divergence of next-token distributions.

    `T^2 (b KL(p || m) + (1 - b) KL(q || m))` with `m = b p + (1 - b) q`, `p` the
    teacher's and `q` the student's probabilities at temperature T; `KL(p || q)` for
    `b = 0` and `KL(q || p)` for `b = 1`.

    The ends are the variant of the paper's code and of its successors, and a
    jump: the divergence itself tends to 0 towards both.

    Args:
        student_logits: `[batch, tokens, vocabulary]`, before any softmax.
        teacher_logits: the same shape.
        beta: the share of the teacher in the mixture, in [0, 1].
        temperature: a scalar above 0.
        variant: how tokens become one value, as in `token_kl`.
        denominator: as in `per_sequence`.
        axis: the axis of the vocabulary.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the vocabulary,
            if any; see `softmax_kl`.
        where: bool, `[batch, tokens]` or broadcastable to the logits, as in `token_kl`.

    Returns:
        `[batch]`, one value in nats per sequence, at least float32. The published
        loss is its plain mean, with weight 1, on sequences half of which the student
        has written.

    Raises:
        ValueError: as in `token_kl`, and if `beta` lies outside [0, 1].

    Example:
        >>> student = jnp.array([[[1.0, 2, 3], [0.5, 0.5, 0]]])
        >>> teacher = jnp.array([[[2.0, 1, 0], [0, 3, 1]]])
        >>> print(f"{token_jsd(student, teacher)[0]:.4f}")
        0.1905

    Reference:
        Agarwal et al., "On-Policy Distillation of Language Models: Learning from
        Self-Generated Mistakes" (GKD), 2024, arXiv 2306.13649.
    """
    log_student, log_teacher, scale, where = _token_pair(
        student_logits, teacher_logits, temperature, axis, where, class_axis_name
    )
    values = mixture_divergence(
        log_student, log_teacher, beta, axis, where, class_axis_name
    )
    real = _real(where, log_student, axis, class_axis_name)
    return per_sequence(
        scale * values, variant=variant, denominator=denominator, where=real
    )


def sequence_nll(
    student_logits: Array,
    teacher_tokens: Array,
    *,
    variant: str = "tokens",
    denominator: float | Array | None = None,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Sequence-level KD (SeqKD): negative log-likelihood of the teacher's tokens.

    `-sum_t log q_t(y_t)` over the real tokens t. On the teacher's beam search output
    it is sequence-level distillation, on reference text the ordinary training loss.
    The logits at position t must be the student's output for the tokens before t: the
    shift is the caller's.

    Args:
        student_logits: `[batch, tokens, vocabulary]`, before any softmax.
        teacher_tokens: integer ids `[batch, tokens]`. A negative id (-1 or -100,
            for example) marks padding: it is neither summed nor counted.
        variant: how tokens become one value, as in `token_kl`; `"sum"` is the
            negative log-likelihood of the whole sequence.
        denominator: as in `per_sequence`.
        axis: the axis of the vocabulary.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the vocabulary,
            if any; see `softmax_kl`.
        where: bool, `[batch, tokens]`, the real tokens; or broadcastable to the logits,
            the entries of the vocabulary that take part. A token whose id is not
            among them is padding.

    Returns:
        `[batch]`, one value in nats per sequence, at least float32. The published
        loss is its plain mean, with weight 1.

    Raises:
        ValueError: if shapes do not match, are empty or not of rank 3, a dtype is
            wrong, or the variant is unknown.

    Example:
        >>> student = jnp.array([[[1.0, 2, 3], [0.5, 0.5, 0]]])
        >>> print(f"{sequence_nll(student, jnp.array([[0, 1]]))[0]:.4f}")
        1.6828

    Reference:
        Kim, Rush, "Sequence-Level Knowledge Distillation", 2016, arXiv 1606.07947.
    """
    checks.floating("student_logits", student_logits)
    checks.rank("student_logits", student_logits, 3)
    checks.not_empty("student_logits", student_logits)
    where = _token_mask(student_logits, axis, where)
    checks.classes("student_logits", student_logits, axis, class_axis_name)
    shape = list(student_logits.shape)
    vocabulary = shape.pop(axis)
    checks.integer("teacher_tokens", teacher_tokens, "token ids")
    checks.shape("teacher_tokens", teacher_tokens, tuple(shape))
    devices = 1 if class_axis_name is None else lax.axis_size(class_axis_name)
    checks.below("teacher_tokens", teacher_tokens, vocabulary * devices, "token ids")
    tokens = local_ids(teacher_tokens, vocabulary, class_axis_name)
    mine = (tokens >= 0) & (tokens < vocabulary)
    chosen = jnp.expand_dims(jnp.where(mine, tokens, 0), axis)
    if where is not None:
        where = jnp.broadcast_to(where, student_logits.shape)
        named = jnp.squeeze(jnp.take_along_axis(where, chosen, axis), axis)
        mine = mine & named
    # Of all devices one has the token among its classes.
    mine = jnp.expand_dims(mine, axis)
    real = collectives.any_true(mine, axis, class_axis_name)
    keep = jnp.expand_dims(real, axis)
    keep = keep if where is None else keep & where
    log_student = tempered_log_softmax(student_logits, 1.0, axis, keep, class_axis_name)
    log_chosen = jnp.take_along_axis(log_student, chosen, axis)
    values = -masked_sum(log_chosen, axis, mine, class_axis_name)
    return per_sequence(values, variant=variant, denominator=denominator, where=real)
