"""Whether the parts of a run fit together, found out before anything is computed."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import config as configs
from kdjax.cache import reader
from kdjax.config import ConfigError, Run, require
from kdjax.core.types import Array, BoundModel, Model, PyTree
from kdjax.data.source import Source
from kdjax.setup import feeds
from kdjax.setup.parts import Parts, make_parts
from kdjax.train import sharding


def check_fit(
    run: Run, *, train: Source, student: Model | None, teacher: BoundModel | None
) -> None:
    """Trace one update of a run, computing nothing, so that what does not fit is said.

    Raises ConfigError naming the field or the term, what was expected and what came.
    """
    sharding.make_mesh(run.compute, run.batch)
    store = reader.open_if_named(run, train, teacher)
    whole = dataclasses.replace(run, compute=configs.Compute(data=1), seeds=1)
    if teacher is not None and teacher.axis == 0:
        first = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), teacher.variables
        )
        teacher = teacher._replace(variables=first, axis=None)
    try:
        if teacher is not None:
            _check_variables(teacher, train.shape[-1])
        parts = make_parts(
            whole, train=train, student=student, teacher=teacher, store=store
        )
        _check_logits(parts, teacher)
        _trace_update(parts)
    except ConfigError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines() or [""]
        reason = (
            "expected a model, data and terms that fit together, tracing one update "
            f"raised {type(error).__name__}: {text[0]}"
        )
        raise ConfigError(run.name, reason=reason) from error


def _blank(resolution: Any, channels: int) -> Any:
    return jax.tree.map(
        lambda size: jnp.zeros((1, size, size, channels), jnp.float32), resolution
    )


def _check_variables(teacher: BoundModel, channels: int) -> None:
    """A teacher's variables must be those of its model, but for their dtypes."""

    def shapes(variables: PyTree) -> dict[str, tuple[int, ...]]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
        return {jax.tree_util.keystr(path): np.shape(x) for path, x in leaves}

    init = functools.partial(teacher.model.init, jax.random.key(0))
    wants = shapes(jax.eval_shape(init, _blank(teacher.resolution, channels)))
    got = shapes(teacher.variables)
    for name in sorted(wants.keys() | got.keys()):
        want = f"variables of its model, {name} of shape {wants.get(name)}"
        require(wants.get(name) == got.get(name), "teacher", want, got.get(name))


def _check_logits(parts: Parts, teacher: BoundModel | None) -> None:
    """Every label must have a logit."""
    classes, channels = parts.train.classes, parts.train.shape[-1]

    def logits(model: Model, variables: PyTree | None, images: Array) -> Array:
        variables = variables or model.init(jax.random.key(0), images)
        return model.apply(variables, images, train=False, rngs=None)[0].logits

    own = parts.run.model.resolution
    checked = [("model", parts.student, None, own)]
    if teacher is not None:
        at = teacher.resolution
        checked.append(("teacher", teacher.model, teacher.variables, at))
    for field, model, variables, resolution in checked:
        images = _blank(resolution, channels)
        found = jax.eval_shape(functools.partial(logits, model), variables, images)
        want = f"at least {classes} logits (the classes of data.train)"
        require(found.shape[-1] >= classes, field, want, found.shape[-1])


def _trace_update(parts: Parts) -> None:
    def update(batch: Any, given: Any) -> Any:
        states = parts.make_state(np.arange(1), parts.start)
        first = jax.tree.map(lambda x: x[0], states)
        return parts.step(first, batch, given)

    batch, data = feeds.blank_batch(parts)
    given = {k: v for k, v in parts.given.items() if k != "data"}
    if parts.given_axes.get("targets") == 0:
        given["targets"] = {k: x[0] for k, x in given["targets"].items()}
    jax.eval_shape(update, batch, {**given, "data": data})
