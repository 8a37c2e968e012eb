"""Offline distillation: a fixed teacher, a student, and weighted named terms."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses
from kdjax.config import ConfigError, Scalar, Term, require, require_known
from kdjax.core import checks, collectives
from kdjax.core.types import (
    STUDENT,
    Array,
    Batch,
    Model,
    Output,
    PyTree,
    Strategy,
    Targets,
    TopTargets,
)
from kdjax.models import Projector, make_projector, projectors
from kdjax.strategies import gradients, kernels, weighting
from kdjax.strategies.kernels import Kernel
from kdjax.strategies.networks import apply_network
from kdjax.strategies.pairing import expand_pairs, name_projector
from kdjax.strategies.schedules import make_schedule
from kdjax.strategies.weighting import Weights

# Stands in where the targets are the teacher's top-k classes.
_SPARSE: dict[str, Callable[..., Array]] = {
    "softmax_kl": losses.top_k_kl,
    "reverse_softmax_kl": functools.partial(losses.top_k_kl, direction="reverse"),
    "jensen_shannon": losses.top_k_jsd,
}


def offline(
    student: Model,
    terms: Mapping[str, Term],
    *,
    steps: int,
    tail: str = "uniform",
    axis_name: str | None = None,
    gradient_norms: bool = False,
    project_gradients: bool = False,
) -> Strategy:
    """Offline distillation: trains `student` by the weighted sum of `terms`.

    Args:
      student: the model of the network `"student"`.
      terms: by name. A term of constant weight 0 is skipped, with its computation. A
        term with a projector adds a network `"<name> connector"`, unless that has no
        variables.
      steps: length of the run, over which weights and temperatures are scheduled.
      tail: the tail rule of `top_k_kl` and `top_k_jsd`. They stand in for `softmax_kl`,
        `reverse_softmax_kl` and `jensen_shannon` where only the teacher's top-k classes
        are available.
      axis_name: the pmap or shard_map axis over which batches are split; the relation
        terms then gather the whole batch.
      gradient_norms: also measure `gradient of NAME`, the norm of each weighted term's
        gradient in the student's parameters.
      project_gradients: remove conflicts of the terms' gradients in the student, by
        `gradients.resolve_conflicts`.

    Returns:
      A `Strategy` whose metrics are the unweighted terms and, with a teacher, the share
      of the batch on which student and teacher `agree`. Weights, temperatures and the
      numeric options of the terms are its schedules: values of the compiled step.

    Raises:
      ConfigError: a term names a loss, an option or a tap that does not exist, or
        shapes of teacher and student that do not fit.
    """
    active = {k: t for k, t in terms.items() if t.counts}
    shown = f"{', '.join(terms)} of weight 0"
    require(bool(active), "terms", "one term with a weight", shown)
    parts = [
        _Part(
            name,
            field,
            term,
            kernels.find_kernel(term, field),
            weighting.find_weights(term, field),
            tail,
            axis_name,
        )
        for name, field, term in expand_pairs(active)
    ]

    def init(key: Array, batch: Batch) -> dict[str, PyTree]:
        image = batch.inputs["image"]
        networks = {STUDENT: student.init(key, image)}
        output, _ = student.apply(networks[STUDENT], image, train=False, rngs=None)
        if any(part.term.teacher == "logits" for part in parts):
            _check_classes(output, batch.targets)
        for part in parts:
            student_taps, teacher_taps = _pair(part, output, batch)
            if part.term.projector:
                own_key = jax.random.fold_in(key, len(networks))
                projector = _make_projector(part, student_taps, teacher_taps)
                variables = projector.init(own_key)
                if variables:
                    networks[part.projector] = variables
        return networks

    def forward(params, state, batch, schedules, key):
        """Values of the terms, one an example, the student's output and state."""
        image = batch.inputs["image"]
        applied = apply_network(STUDENT, student, params, state, image, key)
        output, state = applied
        values = {}
        for part in parts:
            taps = _pair(part, output, batch)
            ours, state = _project(part, params, state, *taps)
            numbers = schedules[part.name]
            values[part.name] = _value(part, (ours, taps[1]), output, batch, numbers)
        return values, output, state

    def loss(params, state, batch, schedules, key):
        own, constants = params[STUDENT], jax.lax.stop_gradient(params)
        if project_gradients:
            # The projectors alone; the student has the projected gradient below.
            params = {**params, STUDENT: constants[STUDENT]}
        values, output, new = forward(params, state, batch, schedules, key)
        weights = {name: schedules[name]["weight"] for name in values}
        with checks.without_guards():
            total, means = losses.combine(values, weights)
        if batch.targets is not None and _has_logits(batch.targets):
            agree = jnp.argmax(output.logits, axis=-1) == _first_choice(batch.targets)
            means = {**means, "agreement": jnp.mean(agree)}
        if gradient_norms or project_gradients:

            def weighted(own):
                inner = {**constants, STUDENT: own}
                found, _, _ = forward(inner, state, batch, schedules, key)
                return {name: weights[name] * jnp.mean(x) for name, x in found.items()}

            each = gradients.term_gradients(weighted, constants[STUDENT], axis_name)
            if gradient_norms:
                means |= gradients.norms(each)
            if project_gradients:
                # The order differs from step to step, and not from device to device.
                order = jax.random.fold_in(key, len(each))
                together = gradients.resolve_conflicts(each, order)
                total = gradients.with_gradient(total, own, together)
        # Projectors share the student's loss, so they need no scalar of their own.
        return {STUDENT: total}, (new, means)

    def schedules(step: int) -> dict[str, dict[str, Any]]:
        return {name: at(step) for name, at in numbers.items()}

    if project_gradients and len(parts) == 1:
        text = "one term has no gradient to conflict with"
        warnings.warn(f"strategy.project_gradients: {text}", stacklevel=2)
    numbers = {part.name: _numbers(part, steps) for part in parts}
    labels = any(part.reads_labels for part in parts)
    return Strategy(init, loss, schedules, student=STUDENT, labels=labels)


class _Part(NamedTuple):
    """A term with its kernel and weights, and what all terms of a strategy share.

    at: its field in the config, for errors.
    """

    name: str
    at: str
    term: Term
    kernel: Kernel
    weights: Weights
    tail: str
    axis_name: str | None

    @property
    def projector(self) -> str:
        """Name of the projector, from the student's taps to the teacher's width."""
        return name_projector(self.name)

    @property
    def reads_labels(self) -> bool:
        """True if its loss or its weights depend on labels."""
        by_loss = self.term.teacher == "labels" or "labels" in self.kernel.bound
        return by_loss or weighting.reads_labels(self.weights)


def _value(
    part: _Part,
    taps: tuple[tuple, tuple],
    output: Output,
    batch: Batch,
    schedules: Mapping[str, Any],
) -> Array:
    """The values of a term, one an example or anchor row."""
    # Config and labels were checked on the host, so the step needs no guards.
    with kernels.errors_of(part.term, part.at), checks.without_guards():
        compare = _comparison(part, *taps, output, batch, schedules)
        whole, axis_name = part.kernel.relation, part.axis_name
        return weighting.weigh(
            part.weights, compare, output, batch, axis_name=axis_name, whole=whole
        )


def _numbers(part: _Part, steps: int) -> Callable[[int], dict]:
    """`step -> numbers` of a term that enter the compiled step as values."""
    term, kernel = part.term, part.kernel
    weight, temperature = term.scalars
    scalars = {"weight": weight}
    default = kernels.default_temperature(kernel)
    if kernel.tempered:
        scalars["temperature"] = temperature or Scalar(default or 1.0)
    paths = {name: make_schedule(scalar, steps) for name, scalar in scalars.items()}
    traced = kernels.traced_options(kernel, term.options)
    options = {name: np.float32(value) for name, value in traced.items()}

    def at(step: int) -> dict[str, Any]:
        now = {name: np.float32(path(step)) for name, path in paths.items()}
        return {**now, "options": options} if options else now

    return at


def _make_projector(part: _Part, student_taps: tuple, teacher_taps: tuple) -> Projector:
    """One that maps all taps of the student, each to the shape of the teacher's."""
    names, axis_name = part.term.projectors, part.axis_name
    try:
        pairs = zip(student_taps, teacher_taps, strict=True)
        return projectors.each(
            [make_projector(names, a.shape, b.shape, axis_name) for a, b in pairs]
        )
    except ValueError as error:
        raise ConfigError(f"{part.at}.projector", reason=str(error)) from error


def _project(
    part: _Part,
    params: Mapping[str, PyTree],
    state: dict[str, PyTree],
    student_taps: tuple,
    teacher_taps: tuple,
) -> tuple[tuple, dict[str, PyTree]]:
    """The student's taps behind the projector, and the new state of all networks."""
    if not part.term.projector:
        return student_taps, state
    projector, name = _make_projector(part, student_taps, teacher_taps), part.projector
    if name not in params:
        return projector.apply({}, student_taps)[0], state
    variables = {"params": params[name], **state[name]}
    mapped, new = projector.apply(variables, student_taps)
    return mapped, {**state, name: new}


def _pair(
    part: _Part, output: Output, batch: Batch
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The student's and the teacher's values that a term compares, a tuple each."""
    at, term = part.at, part.term
    student_taps = _taps(f"{at}.student", output, term.student)
    if term.teacher == "labels":
        return student_taps, (batch.labels,)
    if batch.targets is None:
        reason = "expected a teacher, the run has none"
        raise ConfigError(f"{at}.teacher", reason=reason)
    teacher_taps = _taps(f"{at}.teacher", batch.targets, term.teacher)
    top = any(isinstance(x, TopTargets) for x in teacher_taps)
    ok = not top or part.kernel.name in _SPARSE
    names = ", ".join(_SPARSE)
    expected = f"one of {names}, as the targets are the teacher's top-k classes"
    require(ok, f"{at}.loss", expected, term.loss)
    ok = not (top and term.projector)
    require(ok, f"{at}.projector", "False for logits", term.projector)
    return student_taps, teacher_taps


def _taps(field: str, output: Targets, taps: str | tuple[str, ...]) -> tuple[Any, ...]:
    names = (taps,) if isinstance(taps, str) else taps
    return tuple(_tap(field, output, name) for name in names)


def _tap(field: str, output: Targets, tap: str) -> Any:
    if tap == "logits":
        return output if isinstance(output, TopTargets) else output.logits
    names = ["logits", "labels"] if field.endswith(".teacher") else ["logits"]
    expected = f"{', '.join(names)} or one of {sorted(output.taps)}"
    require_known(tap, [*names, *output.taps], field, expected)
    require(tap in output.taps, field, "labels alone, or taps", tap)
    return output.taps[tap]


def _first_choice(targets: Targets) -> Array:
    """The teacher's top class of each example."""
    if isinstance(targets, TopTargets):
        return targets.indices[:, 0]
    return jnp.argmax(targets.logits, axis=-1)


def _has_logits(targets: Targets) -> bool:
    """False for a teacher without a head."""
    return isinstance(targets, TopTargets) or targets.logits.shape[-1] > 0


def _check_classes(output: Output, targets: Targets | None) -> None:
    if isinstance(targets, Output):
        classes, got = output.logits.shape[-1], targets.logits.shape[-1]
        expected = f"as many classes as the student ({classes})"
        require(got == classes, "teacher", expected, got)


def _comparison(
    part: _Part,
    student_taps: tuple[Any, ...],
    teacher_taps: tuple[Any, ...],
    output: Output,
    batch: Batch,
    schedules: Mapping[str, Any],
) -> Callable[..., Array]:
    """A function `(teacher logits=None) -> values`, one an example or anchor row.

    It compares with the logits passed, and without any with the term's own taps.
    """
    kernel, term = part.kernel, part.term

    def rows(x: Array) -> Array:
        return _whole_rows(x, part.axis_name) if kernel.relation else x

    student_taps = tuple(map(rows, student_taps))
    bound: dict[str, Any] = {
        k: rows(x) for k, x in _bound(kernel, term, output, batch).items()
    }
    if kernel.relation:
        # The rows of all devices have been gathered.
        bound["axis_name"] = ()
    static = kernels.static_options(kernel, term.options)
    traced = dict(schedules.get("options", {}))
    if kernel.tempered:
        traced["temperature"] = schedules["temperature"]

    def call(teacher_taps: tuple[Any, ...], options: Mapping[str, Any]) -> Array:
        options = {**bound, **static, **options}
        if kernel.several:
            return kernel.function(student_taps, teacher_taps, **options)
        for names, taps in zip(kernel.taps, (student_taps, teacher_taps), strict=True):
            options.update(zip(names, taps[1:], strict=True))
        return kernel.function(student_taps[0], teacher_taps[0], **options)

    def compare(logits: Array | None = None) -> Array:
        if isinstance(teacher_taps[0], TopTargets):
            return _top_value(part, student_taps[0], teacher_taps[0], traced)
        these = tuple(map(rows, teacher_taps if logits is None else (logits,)))
        numbers = kernels.traced_options(kernel, term.options)
        if numbers:
            # Ranges are checked on numbers; traced values of the step pass unchecked.
            jax.eval_shape(lambda: call(these, {**traced, **numbers}))
        value = call(these, traced)
        partner, weight = batch.partner_labels, batch.mix_weight
        if partner is not None and weight is not None:
            # Of mixed labels a loss of one label has the weighted sum for the two.
            second = None
            if term.teacher == "labels":
                second = call((rows(partner),), traced)
            elif "labels" in kernel.bound:
                second = call(these, {**traced, "labels": rows(partner)})
            if second is not None:
                value = weight * value + (1.0 - weight) * second
        if kernel.custom:
            kernels.check_values(kernel, value, len(batch.labels))
        return value

    return compare


def _bound(kernel: Kernel, term: Term, output: Output, batch: Batch) -> dict[str, Any]:
    """Labels and logits of the run that a kernel takes besides its taps."""
    arrays: dict[str, Any] = {}
    for name in kernel.bound:
        if name == "labels" and term.teacher != "labels":
            arrays[name] = batch.labels
        elif name == "student_logits":
            arrays[name] = output.logits
        elif name == "teacher_logits":
            arrays[name] = weighting.all_logits(batch.targets, kernel.name)
    return arrays


def _whole_rows(x: Array, axis_name: str | None) -> Array:
    """`[batch, features]` of the whole batch, gathered from all devices."""
    rows = x.reshape(len(x), -1) if x.ndim > 1 else x
    return collectives.gather(rows, axis_name)


def _top_value(
    part: _Part, logits: Array, targets: TopTargets, options: Mapping[str, Any]
) -> Array:
    return _SPARSE[part.kernel.name](
        logits,
        targets.log_probs,
        teacher_indices=targets.indices,
        teacher_log_normalizer=targets.log_normalizer,
        tail=part.tail,
        **options,
    )
