"""Offline distillation: a fixed teacher, a student, and weighted named terms."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax import losses
from kdjax.config import ConfigError, Scalar, Term, require, require_known
from kdjax.core import checks, collectives
from kdjax.core.types import (
    Array,
    Batch,
    Model,
    Output,
    PyTree,
    Strategy,
    Targets,
    TopTargets,
)
from kdjax.models import connectors
from kdjax.strategies import kernels, weighting
from kdjax.strategies.kernels import Kernel
from kdjax.strategies.weighting import Weights

STUDENT = "student"


def offline(
    student: Model,
    terms: Mapping[str, Term],
    *,
    steps: int,
    tail: str = "uniform",
    axis_name: str | None = None,
) -> Strategy:
    """Teach `student` by the weighted sum of `terms`.

    Args:
      student: the model of the network `"student"`.
      terms: by name. A term of constant weight 0 is left out, with its computation. A
        term with a connector adds a network `"<name> connector"`.
      steps: length of the run, over which weights and temperatures are scheduled.
      tail: the tail rule of `top_k_kl`, which stands in for `softmax_kl` where only the
        top-k classes were kept of the teacher.
      axis_name: the pmap or shard_map axis over which batches are split; the relation
        terms then gather the whole batch.

    Returns:
      A `Strategy` whose metrics are the unweighted terms and, with a teacher, the share
      of the batch on which student and teacher `agree`. Weights, temperatures and the
      numeric options of the terms are its schedules: values of the compiled step.

    Raises:
      ConfigError: a term names a loss, an option or a tap that does not exist, or
        shapes of teacher and student that do not fit.
    """
    active = {k: t for k, t in terms.items() if t.counts}
    require(bool(active), "terms", "one term with a weight", dict(terms))
    parts = [
        _Part(
            name,
            term,
            kernels.find_kernel(term, f"terms.{name}"),
            weighting.find_weights(term, f"terms.{name}"),
            tail,
            axis_name,
        )
        for name, term in active.items()
    ]

    def init(key: Array, batch: Batch) -> dict[str, PyTree]:
        image = batch.inputs["image"]
        networks = {STUDENT: student.init(key, image)}
        output, _ = student.apply(networks[STUDENT], image, train=False, rngs=None)
        _check_classes(output, batch.targets)
        for part in parts:
            ours, theirs = _pair(part, output, batch)
            if part.term.projector:
                own_key = jax.random.fold_in(key, len(networks))
                params = _init_connectors(part, own_key, ours, theirs)
                networks[part.connector] = {"params": params}
        return networks

    def loss(params, state, batch, schedules, key):
        variables = {"params": params[STUDENT], **state[STUDENT]}
        output, new = student.apply(
            variables, batch.inputs["image"], train=True, rngs={"dropout": key}
        )
        values = {
            part.name: _value(part, params, output, batch, schedules[part.name])
            for part in parts
        }
        weights = {name: schedules[name]["weight"] for name in values}
        with checks.without_guards():
            total, means = losses.combine(values, weights)
        if batch.targets is not None:
            agree = jnp.argmax(output.logits, axis=-1) == _first_choice(batch.targets)
            means = {**means, "agreement": jnp.mean(agree)}
        # Connectors have no gradient of their own to keep apart: one scalar serves all.
        return {STUDENT: total}, ({**state, STUDENT: new}, means)

    def schedules(step: int) -> dict[str, dict[str, Any]]:
        return {name: at(step) for name, at in numbers.items()}

    numbers = {part.name: _numbers(part, steps) for part in parts}
    labels = any(part.reads_labels for part in parts)
    return Strategy(init, loss, schedules, student=STUDENT, labels=labels)


class _Part(NamedTuple):
    """A term with its kernel and weights, and what all terms of a strategy share."""

    name: str
    term: Term
    kernel: Kernel
    weights: Weights
    tail: str
    axis_name: str | None

    @property
    def at(self) -> str:
        return f"terms.{self.name}"

    @property
    def connector(self) -> str:
        """The network that maps the student's taps to the teacher's width."""
        return f"{self.name} connector"

    @property
    def reads_labels(self) -> bool:
        own = self.term.teacher == "labels" or "labels" in self.kernel.bound
        return own or weighting.reads_labels(self.weights)


def _value(
    part: _Part,
    params: Mapping[str, PyTree],
    output: Output,
    batch: Batch,
    schedules: Mapping[str, Any],
) -> Array:
    """The values of a term, one an example or anchor row."""
    ours, theirs = _pair(part, output, batch)
    if part.term.projector:
        ours = _connect(part, params[part.connector], ours, theirs)
    # The config has been checked, and the labels of the data.
    with kernels.errors_of(part.term, part.at), checks.without_guards():
        compare = _comparison(part, ours, theirs, output, batch, schedules)
        whole, axis_name = part.kernel.relation, part.axis_name
        return weighting.weigh(
            part.weights, compare, output, batch, axis_name=axis_name, whole=whole
        )


def _numbers(part: _Part, steps: int) -> Callable[[int], dict]:
    """`step -> numbers` of a term that enter the compiled step as values."""
    term, kernel = part.term, part.kernel
    scalars = {"weight": term.weight}
    default = kernels.default_temperature(kernel)
    if kernel.tempered:
        scalars["temperature"] = term.temperature or Scalar(default or 1.0)
    paths = {name: _schedule(scalar, steps) for name, scalar in scalars.items()}
    traced = kernels.traced_options(kernel, term.options)
    options = {name: np.float32(value) for name, value in traced.items()}

    def at(step: int) -> dict[str, Any]:
        now = {name: np.float32(path(step)) for name, path in paths.items()}
        return {**now, "options": options} if options else now

    return at


def _connectors(part: _Part, ours: tuple, theirs: tuple) -> list[connectors.Connector]:
    try:
        pairs = zip(ours, theirs, strict=True)
        return [connectors.linear_connector(a.shape, b.shape) for a, b in pairs]
    except ValueError as error:
        raise ConfigError(f"{part.at}.projector", reason=str(error)) from error


def _init_connectors(part: _Part, key: Array, ours: tuple, theirs: tuple) -> PyTree:
    """The parameters of one map, or of one map a tap by its number."""
    made = _connectors(part, ours, theirs)
    if len(made) == 1:
        return made[0].init(key)
    return {str(i): x.init(jax.random.fold_in(key, i)) for i, x in enumerate(made)}


def _connect(part: _Part, params: PyTree, ours: tuple, theirs: tuple) -> tuple:
    made = _connectors(part, ours, theirs)
    if len(made) == 1:
        return (made[0].apply(params, ours[0]),)
    return tuple(x.apply(params[str(i)], ours[i]) for i, x in enumerate(made))


def _pair(
    part: _Part, output: Output, batch: Batch
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The values that a term compares, one or several a side."""
    at, term = part.at, part.term
    ours = _taps(f"{at}.student", output, term.student)
    if term.teacher == "labels":
        return ours, (batch.labels,)
    if batch.targets is None:
        reason = "expected a teacher, the run has none"
        raise ConfigError(f"{at}.teacher", reason=reason)
    theirs = _taps(f"{at}.teacher", batch.targets, term.teacher)
    top = any(isinstance(x, TopTargets) for x in theirs)
    ok = not top or term.loss == "softmax_kl"
    want = "softmax_kl, as only the top-k classes of the teacher were kept"
    require(ok, f"{at}.loss", want, term.loss)
    ok = not (top and term.projector)
    require(ok, f"{at}.projector", "False for logits", term.projector)
    return ours, theirs


def _taps(field: str, output: Targets, taps: str | tuple[str, ...]) -> tuple[Any, ...]:
    names = (taps,) if isinstance(taps, str) else taps
    return tuple(_tap(field, output, name) for name in names)


def _tap(field: str, output: Targets, tap: str) -> Any:
    if tap == "logits":
        return output if isinstance(output, TopTargets) else output.logits
    want = f"logits or one of {sorted(output.taps)}"
    require_known(tap, ["logits", *output.taps], field, want)
    return output.taps[tap]


def _first_choice(targets: Targets) -> Array:
    """The teacher's top class of each example."""
    if isinstance(targets, TopTargets):
        return targets.indices[:, 0]
    return jnp.argmax(targets.logits, axis=-1)


def _check_classes(output: Output, targets: Targets | None) -> None:
    if isinstance(targets, Output):
        ours, theirs = output.logits.shape[-1], targets.logits.shape[-1]
        want = f"as many classes as the student ({ours})"
        require(ours == theirs, "teacher", want, theirs)


def _comparison(
    part: _Part,
    ours: tuple[Any, ...],
    theirs: tuple[Any, ...],
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

    ours = tuple(map(rows, ours))
    bound = {k: rows(x) for k, x in _bound(kernel, term, output, batch).items()}
    static = kernels.static_options(kernel, term.options)
    traced = dict(schedules.get("options", {}))
    if kernel.tempered:
        traced["temperature"] = schedules["temperature"]

    def call(theirs: tuple[Any, ...], options: Mapping[str, Any]) -> Array:
        options = {**bound, **static, **options}
        if kernel.several:
            return kernel.function(ours, theirs, **options)
        for names, taps in zip(kernel.taps, (ours, theirs), strict=True):
            options.update(zip(names, taps[1:], strict=True))
        return kernel.function(ours[0], theirs[0], **options)

    def compare(logits: Array | None = None) -> Array:
        if isinstance(theirs[0], TopTargets):
            return _top_value(ours[0], theirs[0], schedules["temperature"], part.tail)
        these = tuple(map(rows, theirs if logits is None else (logits,)))
        numbers = kernels.traced_options(kernel, term.options)
        if numbers:
            # Out of range is seen in a number, and not in a value of the step.
            jax.eval_shape(lambda: call(these, {**traced, **numbers}))
        first = call(these, traced)
        partner, weight = batch.partner_labels, batch.mix_weight
        if term.teacher == "labels" and partner is not None and weight is not None:
            first = weight * first + (1.0 - weight) * call((partner,), traced)
        if kernel.custom:
            kernels.check_values(kernel, first, len(batch.labels))
        return first

    return compare


def _bound(kernel: Kernel, term: Term, output: Output, batch: Batch) -> dict[str, Any]:
    """What a kernel takes of every run beside its taps."""
    found: dict[str, Any] = {}
    for name in kernel.bound:
        if name == "labels" and term.teacher != "labels":
            found[name] = batch.labels
        elif name == "student_logits":
            found[name] = output.logits
        elif name == "teacher_logits":
            found[name] = weighting.all_logits(batch.targets, kernel.name)
    return found


def _whole_rows(x: Array, axis_name: str | None) -> Array:
    """`[batch, features]` of the whole batch, wherever its parts lie."""
    rows = x.reshape(len(x), -1) if x.ndim > 1 else x
    return collectives.gather(rows, axis_name)


def _top_value(ours, theirs: TopTargets, temperature, tail: str) -> Array:
    return losses.top_k_kl(
        ours,
        theirs.log_probs,
        teacher_indices=theirs.indices,
        teacher_log_normalizer=theirs.log_normalizer,
        temperature=temperature,
        # Configs may still have the value of the release before this one.
        tail=tail,
    )


def _schedule(scalar: Scalar, steps: int) -> Callable[[int], float]:
    """The value at each step of a run, by an optax schedule."""
    start, end, last = scalar.value, scalar.end, max(1, steps - 1)
    if scalar.schedule == "constant" or end is None:
        return lambda step: start
    if scalar.schedule == "linear":
        share = optax.linear_schedule(1.0, 0.0, last)
    else:
        share = optax.cosine_decay_schedule(1.0, last)
    # Of all steps at once: one at a time would wait for the device that trains.
    shares = np.asarray(jax.jit(share)(jnp.arange(last + 1)), float)
    return lambda step: end + (start - end) * shares[min(step, last)]
