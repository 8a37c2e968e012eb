"""Weights and masks of the examples of a term."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax import targets
from kdjax.config import Term, load_function, require, require_known
from kdjax.core import collectives
from kdjax.core.types import Array, Batch, Output, Targets
from kdjax.strategies import kernels
from kdjax.strategies.user_code import guarded, parameters_of
from kdjax.teachers.ensemble import split_members

SEVERAL = "teacher_weights"
NAMES = ("confidence_weights", "fidelity_weights", "reliability_mask", SEVERAL)


class Weights(NamedTuple):
    """A function to weights of examples, `(arrays, **options) -> [batch]`, and a mask.

    at: the term's field, for errors.
    name, function: empty and None where all examples have the same weight.
    arrays: its parameters that are bound by name: `student_logits`, `teacher_logits`,
        `labels`, and all others as notes of the batch or taps of the teacher.
    mask: the name of a note of the batch; empty for none.
    """

    at: str
    name: str
    function: Callable[..., Array] | None
    arrays: tuple[str, ...]
    options: Mapping[str, Any]
    mask: str


def find_weights(term: Term, at: str) -> Weights:
    """The weights that a term names, with their options checked.

    Raises:
      ConfigError: naming the field, the expected and the actual value.
    """
    field, name = f"{at}.example_weights", term.example_weights
    if not name:
        return Weights(at, name, None, (), {}, term.mask)
    if ":" in name:
        function = guarded(load_function(name, field), field, name)
    else:
        require_known(name, NAMES, field)
        function = getattr(targets, name)
    parameters = parameters_of(function)
    ok = name != SEVERAL or term.teacher == "logits"
    require(ok, f"{at}.teacher", f"logits, with {SEVERAL}", term.teacher)
    arrays = tuple(p.name for p in parameters.values() if _is_bound(p))
    accepted = {k: p for k, p in parameters.items() if k not in (*arrays, "where")}
    kernels.check_options(accepted, term.example_options, f"{at}.example_options")
    return Weights(at, name, function, arrays, term.example_options, term.mask)


def _is_bound(parameter: inspect.Parameter) -> bool:
    array = parameter.annotation is jax.Array and parameter.default is kernels.EMPTY
    return array or parameter.name in kernels.BOUND


def reads_labels(weights: Weights) -> bool:
    """True if the weights depend on labels."""
    oracle = weights.options.get("rule") == "oracle"
    return "labels" in weights.arrays and (weights.name != SEVERAL or oracle)


def weigh(
    weights: Weights,
    compare: Callable[..., Array],
    output: Output,
    batch: Batch,
    *,
    axis_name: str | None,
    whole: bool,
) -> Array:
    """The values of a term, each times the weight of its example.

    The plain mean of the result is the weighted mean by the rule of the weights:
    those of `confidence_weights` have mean 1, those of `teacher_weights` sum to 1 over
    the teachers of an example, and a mask selects. Weights pass no gradient.

    Args:
      compare: `(logits=None) -> values`, against these logits, or the term's taps.
      whole: the values are of the whole batch, not of this device's part.
    """
    options = {"axis_name": axis_name, "whole": whole}
    if weights.name == SEVERAL:
        members = _members(batch.targets)
        shares = _call(weights, jnp.stack(members), output, batch, axis_name, axis=1)
        pairs = zip(members, shares, strict=True)
        parts = [_times(compare(logits), share, **options) for logits, share in pairs]
        values = sum(parts[1:], parts[0])
    elif weights.function is not None:
        share = _call(weights, None, output, batch, axis_name, axis=0)
        values = _times(compare(), share, **options)
    else:
        values = compare()
    if weights.mask:
        expected = f"a note of the batch, one of {sorted(batch.notes)}"
        require_known(weights.mask, batch.notes, f"{weights.at}.mask", expected)
        mask = collectives.gather(batch.notes[weights.mask], axis_name)
        values = _times(values, mask, **options)
    return values


def all_logits(targets: Targets | None, name: str) -> Array:
    """The teacher's logits of all classes; ValueError without them."""
    if not isinstance(targets, Output):
        got = "none" if targets is None else "the top-k classes"
        raise ValueError(f"{name}: expected the teacher's logits, got {got}")
    return targets.logits


def _members(targets: Targets | None) -> list[Array]:
    """The logits of each of several teachers."""
    several = split_members(targets) if isinstance(targets, Output) else []
    if not several:
        taps = targets.taps if targets is not None else {}
        expected = "several teachers, run live (taps 0/logits, 1/logits, ...)"
        raise ValueError(f"{SEVERAL}: expected {expected}, got the taps {sorted(taps)}")
    return [member.logits for member in several]


def _call(
    weights: Weights,
    members: Array | None,
    output: Output,
    batch: Batch,
    axis_name: str | None,
    axis: int,
) -> Array:
    """The weights of the whole batch, whose examples lie along `axis`."""
    arrays = {}
    for name in weights.arrays:
        if members is not None and name == "teacher_logits":
            arrays[name] = members
        elif name == "labels":
            arrays[name] = batch.labels
        elif name == "student_logits":
            arrays[name] = output.logits
        elif name == "teacher_logits":
            arrays[name] = all_logits(batch.targets, weights.name)
        else:
            arrays[name] = _named(name, weights.name, batch)

    def whole(x: Array, at: int) -> Array:
        if axis_name is None:
            return x
        return jnp.moveaxis(
            collectives.gather(jnp.moveaxis(x, at, 0), axis_name), 0, at
        )

    stacked = {"teacher_logits"} if members is not None else set()
    arrays = {k: whole(x, axis if k in stacked else 0) for k, x in arrays.items()}
    assert weights.function is not None
    values = weights.function(**jax.lax.stop_gradient(arrays), **weights.options)
    examples = len(whole(batch.labels, 0))
    if jnp.ndim(values) != axis + 1 or values.shape[axis] != examples:
        expected = f"one weight an example, shape ({examples},)"
        got = jnp.shape(values)
        raise ValueError(f"{weights.name}: expected {expected}, got {got}")
    return jax.lax.stop_gradient(values)


def _named(name: str, function: str, batch: Batch) -> Array:
    taps = batch.targets.taps if batch.targets is not None else {}
    arrays = {**taps, **batch.notes}
    if name not in arrays:
        expected = f"{name} as a note of the batch or a tap of the teacher"
        raise ValueError(f"{function}: expected {expected}, got {sorted(arrays)}")
    return arrays[name]


def _times(
    values: Array, weights: Array, *, axis_name: str | None, whole: bool
) -> Array:
    """Values times weights of the whole batch; with a mask, over its share of examples.

    Values of masked examples are replaced, so that a NaN there has no effect.
    """
    local = weights if whole else collectives.my_rows(weights, axis_name)
    local = local.reshape(local.shape + (1,) * (values.ndim - local.ndim))
    if weights.dtype != jnp.bool_:
        return values * local.astype(values.dtype)
    share = jnp.mean(weights.astype(values.dtype))
    return jnp.where(local, values, 0) / jnp.where(share == 0, 1, share)
