"""Offline distillation: a fixed teacher, a student, and weighted named terms."""

from collections.abc import Callable, Mapping
from typing import Any

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
    known = {n: kernels.find_kernel(t, f"terms.{n}") for n, t in active.items()}
    weights = {n: weighting.find_weights(t, f"terms.{n}") for n, t in active.items()}

    def init(key: Array, batch: Batch) -> dict[str, PyTree]:
        image = batch.inputs["image"]
        networks = {STUDENT: student.init(key, image)}
        output, _ = student.apply(networks[STUDENT], image, train=False, rngs=None)
        _check_classes(output, batch.targets)
        for name, term in active.items():
            ours, theirs = _pair(name, term, output, batch)
            if term.connector:
                own_key = jax.random.fold_in(key, len(networks))
                params = _init_connectors(name, own_key, ours, theirs)
                networks[_connector_name(name)] = {"params": params}
        return networks

    def loss(params, state, batch, schedules, key):
        variables = {"params": params[STUDENT], **state[STUDENT]}
        output, new = student.apply(
            variables, batch.inputs["image"], train=True, rngs={"dropout": key}
        )
        values = {}
        for name, term in active.items():
            ours, theirs = _pair(name, term, output, batch)
            if term.connector:
                ours = _connect(name, params[_connector_name(name)], ours, theirs)
            compare = _comparison(
                known[name],
                term,
                ours,
                theirs,
                output,
                batch,
                schedules[name],
                tail=tail,
                axis_name=axis_name,
            )
            # The config has been checked, and the labels of the data.
            with kernels.errors_of(term, f"terms.{name}"), checks.trusting():
                values[name] = weighting.weigh(
                    weights[name],
                    compare,
                    term,
                    f"terms.{name}",
                    output,
                    batch,
                    axis_name=axis_name,
                    whole=known[name].relation,
                )
        factors = {name: schedules[name]["weight"] for name in values}
        with checks.trusting():
            total, parts = losses.combine(values, factors)
        if batch.targets is not None:
            agree = jnp.argmax(output.logits, axis=-1) == _first_choice(batch.targets)
            parts = {**parts, "agreement": jnp.mean(agree)}
        # Connectors have no gradient of their own to keep apart: one scalar serves all.
        return {STUDENT: total}, ({**state, STUDENT: new}, parts)

    def schedules(step: int) -> dict[str, dict[str, Any]]:
        return {name: at(step) for name, at in numbers.items()}

    numbers = {n: _numbers(known[n], t, steps) for n, t in active.items()}
    labels = any(_reads_labels(known[n], t, weights[n]) for n, t in active.items())
    return Strategy(init, loss, schedules, student=STUDENT, labels=labels)


def _reads_labels(kernel: Kernel, term: Term, weights: Weights | None) -> bool:
    if term.teacher == "labels" or "labels" in kernel.bound:
        return True
    return weights is not None and weighting.reads_labels(weights, term)


def _numbers(kernel: Kernel, term: Term, steps: int) -> Callable[[int], dict]:
    """`step -> numbers` of a term that enter the compiled step as values."""
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


def _connector_name(term: str) -> str:
    return f"{term} connector"


def _connectors(name: str, ours: tuple, theirs: tuple) -> list[connectors.Connector]:
    try:
        pairs = zip(ours, theirs, strict=True)
        return [connectors.linear_connector(a.shape, b.shape) for a, b in pairs]
    except ValueError as error:
        raise ConfigError(f"terms.{name}.connector: {error}") from error


def _init_connectors(name: str, key: Array, ours: tuple, theirs: tuple) -> PyTree:
    """The parameters of one map, or of one map a tap by its number."""
    made = _connectors(name, ours, theirs)
    if len(made) == 1:
        return made[0].init(key)
    return {str(i): x.init(jax.random.fold_in(key, i)) for i, x in enumerate(made)}


def _connect(name: str, params: PyTree, ours: tuple, theirs: tuple) -> tuple:
    made = _connectors(name, ours, theirs)
    if len(made) == 1:
        return (made[0].apply(params, ours[0]),)
    return tuple(x.apply(params[str(i)], ours[i]) for i, x in enumerate(made))


def _pair(
    name: str, term: Term, output: Output, batch: Batch
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The values that a term compares, one or several a side."""
    ours = _taps(f"terms.{name}.student", output, term.student)
    if term.teacher == "labels":
        return ours, (batch.labels,)
    if batch.targets is None:
        raise ConfigError(f"terms.{name}.teacher: expected a teacher, the run has none")
    theirs = _taps(f"terms.{name}.teacher", batch.targets, term.teacher)
    top = any(isinstance(x, TopTargets) for x in theirs)
    ok = not top or term.loss == "softmax_kl"
    want = "softmax_kl, as only the top-k classes of the teacher were kept"
    require(ok, f"terms.{name}.loss", want, term.loss)
    ok = not (top and term.connector)
    require(ok, f"terms.{name}.connector", "False for logits", term.connector)
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
    kernel: Kernel,
    term: Term,
    ours: tuple[Any, ...],
    theirs: tuple[Any, ...],
    output: Output,
    batch: Batch,
    schedules: Mapping[str, Any],
    *,
    tail: str,
    axis_name: str | None,
) -> Callable[..., Array]:
    """A function `(teacher logits=None) -> values`, one an example or anchor row.

    It compares with the logits passed, and without any with the term's own taps.
    """
    rows = _whole_rows if kernel.relation else lambda x, _: x
    ours = tuple(rows(x, axis_name) for x in ours)
    bound = _bound(kernel, term, output, batch)
    bound = {name: rows(x, axis_name) for name, x in bound.items()}
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
            return _top_value(ours[0], theirs[0], schedules["temperature"], tail)
        these = theirs if logits is None else (logits,)
        these = tuple(rows(x, axis_name) for x in these)
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
        teacher_log_normaliser=theirs.log_normaliser,
        temperature=temperature,
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
