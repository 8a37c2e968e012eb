"""Offline distillation: a fixed teacher, a student, and weighted named terms."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax import losses
from kdjax.config import ConfigError, Scalar, Term, require
from kdjax.core import checks, collectives
from kdjax.core.types import (
    Array,
    Model,
    Output,
    PyTree,
    Strategy,
    Targets,
    TopTargets,
    View,
)
from kdjax.models import connectors

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
      student: the model of the player `"student"`.
      terms: by name. A term of constant weight 0 is left out, with its computation. A
        term with a connector adds a player `"<name> connector"`.
      steps: length of the run, over which weights and temperatures are scheduled.
      tail: the tail rule of `top_k_kl`, which stands in for `softmax_kl` where only the
        likeliest classes were kept of the teacher.
      axis_name: the pmap or shard_map axis over which batches are split; the relation
        terms then gather the whole batch.

    Returns:
      A `Strategy` whose metrics are the unweighted terms and, with a teacher, the share
      of the batch on which student and teacher `agree`.

    Raises:
      ConfigError: a term names a loss, knob or tap that does not exist, or shapes of
        teacher and student that do not fit.
    """
    active = {k: t for k, t in terms.items() if t.counts}
    require(bool(active), "terms", "one term with a weight", dict(terms))
    kernels = {name: _kernel(name, term) for name, term in active.items()}

    def init(key: Array, view: View, targets: Targets | None) -> dict[str, PyTree]:
        players = {STUDENT: student.init(key, view.student)}
        output, _ = student.apply(
            players[STUDENT], view.student, train=False, rngs=None
        )
        _check_classes(output, targets)
        for name, term in active.items():
            ours, theirs = _pair(name, term, output, targets, view)
            if term.connector:
                own_key = jax.random.fold_in(key, len(players))
                connector = _connector(name, ours, theirs)
                players[_connector_name(name)] = {"params": connector.init(own_key)}
        return players

    def loss(params, state, view, targets, knobs, key):
        variables = {"params": params[STUDENT], **state[STUDENT]}
        output, new = student.apply(
            variables, view.student, train=True, rngs={"dropout": key}
        )
        values = {}
        for name, term in active.items():
            ours, theirs = _pair(name, term, output, targets, view)
            if term.connector:
                connector = _connector(name, ours, theirs)
                ours = connector.apply(params[_connector_name(name)], ours)
            if _loss(term) in losses.RELATION:
                ours, theirs = (_whole_rows(x, axis_name) for x in (ours, theirs))
            try:
                # The config has been checked, and the labels of the data.
                with checks.trusting():
                    values[name] = _value(
                        kernels[name], term, ours, theirs, view, knobs[name], tail
                    )
            except ValueError as error:
                raise ConfigError(f"terms.{name}: {error}") from error
        weights = {name: knobs[name]["weight"] for name in values}
        with checks.trusting():
            total, parts = losses.combine(values, weights)
        if targets is not None:
            agree = jnp.argmax(output.logits, axis=-1) == _first_choice(targets)
            parts = {**parts, "agreement": jnp.mean(agree)}
        # Connectors have no gradient of their own to keep apart: one scalar serves all.
        return {STUDENT: total}, ({**state, STUDENT: new}, parts)

    def knobs(step: int) -> dict[str, dict[str, np.float32]]:
        return {
            name: {
                "weight": np.float32(schedules[name][0](step)),
                "temperature": np.float32(schedules[name][1](step)),
            }
            for name in active
        }

    schedules = {
        name: (_schedule(term.weight, steps), _schedule(term.temperature, steps))
        for name, term in active.items()
    }
    return Strategy(init, loss, knobs)


def _kernel(name: str, term: Term) -> Callable[..., Array]:
    known = [k for k, entry in losses.REGISTRY.items() if entry.term]
    require(_loss(term) in known, f"terms.{name}.loss", f"one of {known}", term.loss)
    kernel = getattr(losses, _loss(term))
    tempered = "temperature" in inspect.signature(kernel).parameters
    ok = tempered or term.temperature == Scalar(1.0)
    want = f"1, as {term.loss} has no temperature"
    require(ok, f"terms.{name}.temperature", want, term.temperature)
    return kernel


def _loss(term: Term) -> str:
    """The name of today, of a config that may be older."""
    return losses.ALIASES.get(term.loss, term.loss)


def _connector_name(term: str) -> str:
    return f"{term} connector"


def _connector(name: str, ours: Array, theirs: Array):
    try:
        return connectors.linear_connector(ours.shape, theirs.shape)
    except ValueError as error:
        raise ConfigError(f"terms.{name}.connector: {error}") from error


def _pair(
    name: str, term: Term, output: Output, targets: Targets | None, view: View
) -> tuple[Any, Any]:
    """The two values that a term compares."""
    ours = _tap(f"terms.{name}.student", output, term.student)
    if term.teacher == "labels":
        return ours, view.labels
    if targets is None:
        raise ConfigError(f"terms.{name}.teacher: expected a teacher, the run has none")
    theirs = _tap(f"terms.{name}.teacher", targets, term.teacher)
    ok = not isinstance(theirs, TopTargets) or term.loss == "softmax_kl"
    want = "softmax_kl, as of the teacher only the likeliest classes were kept"
    require(ok, f"terms.{name}.loss", want, term.loss)
    ok = not (isinstance(theirs, TopTargets) and term.connector)
    require(ok, f"terms.{name}.connector", "False for logits", term.connector)
    return ours, theirs


def _tap(field: str, output: Targets, tap: str) -> Any:
    if tap == "logits":
        return output if isinstance(output, TopTargets) else output.logits
    require(tap in output.taps, field, f"logits or one of {sorted(output.taps)}", tap)
    return output.taps[tap]


def _first_choice(targets: Targets) -> Array:
    """The teacher's likeliest class of each example."""
    if isinstance(targets, TopTargets):
        return targets.indices[:, 0]
    return jnp.argmax(targets.logits, axis=-1)


def _check_classes(output: Output, targets: Targets | None) -> None:
    if isinstance(targets, Output):
        ours, theirs = output.logits.shape[-1], targets.logits.shape[-1]
        want = f"as many classes as the student ({ours})"
        require(ours == theirs, "teacher", want, theirs)


def _whole_rows(x: Array, axis_name: str | None) -> Array:
    """`[batch, features]` of the whole batch, wherever its parts lie."""
    return collectives.gather(x.reshape(len(x), -1), axis_name)


def _value(kernel, term: Term, ours, theirs, view: View, knobs, tail) -> Array:
    """One value per example, or per anchor row."""
    if isinstance(theirs, TopTargets):
        return _top_value(ours, theirs, knobs["temperature"], tail)
    takes = inspect.signature(kernel).parameters
    options = {"temperature": knobs["temperature"]} if "temperature" in takes else {}
    if "labels" in takes and term.teacher != "labels":
        options["labels"] = view.labels
    first = kernel(ours, theirs, **options)
    partner, weight = view.partner_labels, view.mix_weight
    if term.teacher != "labels" or partner is None or weight is None:
        return first
    return weight * first + (1.0 - weight) * kernel(ours, partner, **options)


def _top_value(ours, theirs: TopTargets, temperature, tail: str) -> Array:
    return losses.top_k_kl(
        ours,
        theirs.log_probs,
        teacher_indices=theirs.indices,
        teacher_log_normalizer=theirs.log_normaliser,
        temperature=temperature,
        # Configs may still have the value of the release before this one.
        tail="renormalize" if tail == "renormalise" else tail,
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
