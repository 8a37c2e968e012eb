"""First values of a run's own functions: outputs of its models and of its losses.

A network that the user wrote, or a loss, may be NaN from its first step. It is checked
on a few training images before anything is trained. The networks and losses of kdjax
are not, so that a usual run starts as fast as without.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax import config as configs
from kdjax.config import ConfigError, Run, require
from kdjax.core.fingerprint import is_abstract
from kdjax.core.types import Array, BoundModel, Model, Output, PyTree
from kdjax.data import streamed
from kdjax.data.source import Source
from kdjax.setup import batches
from kdjax.setup.load_models import InitialVariables
from kdjax.setup.measure import blank_images, predictor
from kdjax.setup.parts import Parts, make_parts
from kdjax.teachers.sanity import are_probabilities, spread_sample
from kdjax.train.compiled import SEED_AXES
from kdjax.train.step import make_train_step

# Images on which a network is checked.
_IMAGES = 4
# Outputs of an image that differ by less, relative to the largest, are the same.
_TOLERANCE = 1e-3


def check_outputs(
    bound: BoundModel,
    source: Source,
    field: str,
    *,
    crop: float = 0.0,
    is_trained: bool = False,
) -> None:
    """Apply a network to a few training images, in evaluation mode.

    Warns of probabilities in place of logits, and of outputs that depend on the other
    images of their batch.

    Args:
      bound: the network; without variables it draws its own.
      field: of the config, for errors and warnings.
      crop: the size of the evaluation crop, as in `config.Views`.
      is_trained: `check_teacher` measures it; only the second warning is left.

    Raises:
      ConfigError: outputs are NaN or infinite. Minus infinity rules a class out.
    """
    indices = np.resize(spread_sample(len(source), _IMAGES), _IMAGES)
    images = streamed.load_images(source, indices)
    repeated = jax.tree.map(lambda x: np.repeat(x[:1], len(x), axis=0), images)
    variables = _of_first_seed(bound.variables, bound.axis)
    if variables is None:
        blank = blank_images(bound.resolution, source.shape[-1])
        variables = _jit(bound.model.init)(jax.random.key(0), blank)
    # One program twice, so that both are rounded alike.
    predict = _jit(predictor(bound.model, bound.resolution, crop))
    several, alone = (
        np.asarray(predict(variables, x), np.float32) for x in (images, repeated)
    )
    if not is_trained:
        finite = np.isfinite(several) | np.isneginf(several)
        ok = finite.all() and np.isfinite(several).any(-1).all()
        expected = f"logits that are numbers for {_IMAGES} training images"
        if not ok:
            raise ConfigError(field, expected, shown="NaN or infinity")
        if are_probabilities(several):
            text = "the outputs are probabilities, and are taken for logits; end the"
            warnings.warn(f"{field}: {text} network before its softmax", stacklevel=2)
    if mixes_images(several, alone):
        text = "in evaluation mode the logits of an image depend on the other images"
        text = f"{field}: {text} of its batch; use running statistics there"
        warnings.warn(text, stacklevel=2)


def mixes_images(several: np.ndarray, alone: np.ndarray) -> bool:
    """True where outputs of the first image depend on the other images.

    Args:
      several: `[images, classes]`, of different images.
      alone: `[images, classes]`, of the first image in each row.

    >>> mixes_images(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 0.0]] * 2))
    False
    >>> mixes_images(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[0.5, 0.0]] * 2))
    True
    """
    both = np.isfinite(several[0]) & np.isfinite(alone[0])
    first, other = several[0][both], alone[0][both]
    difference = np.abs(first - other).max(initial=0)
    return bool(difference > _TOLERANCE * np.abs(first).max(initial=0))


def has_own_losses(run: Run) -> bool:
    """True for a run with a loss, example weights or a strategy of the user's own."""
    if isinstance(run.strategy, configs.Custom):
        return ":" in run.strategy.function
    terms = run.terms.values()
    return any(callable(x.loss) or ":" in f"{x.loss}{x.example_weights}" for x in terms)


def check_losses(
    run: Run,
    *,
    train: Source,
    student: Model | None,
    teacher: BoundModel | None,
    initial: Mapping[str, InitialVariables],
) -> None:
    """Compute the losses and gradients of the first step of a run, for one seed.

    Warns of a network whose gradients are all 0. With turns, no gradient is checked. A
    teacher that is yet to be trained has random variables here, and outputs of unit
    scale.

    Args: as of `check_fit`.

    Raises:
      ConfigError: naming the term whose value is NaN or infinite, or a network with
        such gradients, or a strategy that declares `labels=False` and has another loss
        with other labels.
    """
    one_seed = dataclasses.replace(run, compute=run.compute.on_one_device(), seeds=1)
    first = {
        name: InitialVariables(jax.device_get(_of_first_seed(*x)))
        for name, x in initial.items()
    }
    make = functools.partial(
        make_parts,
        one_seed,
        student=student,
        teacher=None if teacher is None else _draw(teacher, train.shape[-1]),
        initial=first,
    )
    parts = make(train=train)
    metrics, gradients = jax.device_get(_first_step(parts))
    custom = isinstance(run.strategy, configs.Custom)
    name, field = "loss", "strategy.function" if custom else "terms"
    if not np.isfinite(metrics["loss"]):
        terms = [k for k in run.terms if not np.isfinite(metrics.get(k, 0.0))]
        if terms and not custom:
            name, field = terms[0], f"terms.{terms[0]}"
        expected = "finite losses for the first batch and the initial student"
        raise ConfigError(field, expected, shown=str(metrics[name]))
    for network, gradient in gradients.items():
        expected = f"finite gradients of {network} for the first batch"
        if not gradient["finite"]:
            raise ConfigError(field, expected, shown="NaN or infinity")
    still = [name for name, x in gradients.items() if x["zero"]]
    if still and not _is_scheduled(run, parts):
        text = f"all gradients of {', '.join(still)} are 0 for the first batch"
        warnings.warn(f"{field}: {text}", stacklevel=2)
    if custom and not parts.strategy.labels:
        labels = (train.labels + 1) % max(train.classes, 1)
        other = make(train=dataclasses.replace(train, labels=labels))
        loss = jax.device_get(_first_step(other)[0])["loss"]
        expected = "a loss without labels, as labels=False declares"
        got = "another loss with other labels"
        require(np.isclose(loss, metrics["loss"], rtol=1e-4), field, expected, got)


def _is_scheduled(run: Run, parts: Parts) -> bool:
    """True where a weight may be 0 in the first step and not later."""
    if isinstance(run.strategy, configs.Custom):
        return bool(parts.strategy.schedules(0))
    return any(x.scalars[0].end is not None for x in run.terms.values())


def _first_step(parts: Parts) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """The metrics of the first step for the first seed, and what its gradients are.

    Returns:
      `(metrics, {network: {"finite", "zero"}})`, without networks in a run with turns.
    """
    coming = next(batches.make_batches(parts)(0))
    batch = {
        k: jax.tree.map(lambda a: a[0], x) if SEED_AXES[k] == 0 else x
        for k, x in coming.items()
    }

    def record(updates: Any, state: Any, params: Any = None, **_: Any):
        return jax.tree.map(jnp.zeros_like, updates), updates

    # An optimizer that moves nothing, and whose state is the gradients.
    recorder = optax.GradientTransformationExtraArgs(lambda params: {}, record)
    step = make_train_step(
        parts.strategy,
        recorder,
        view=parts.view,
        teacher=parts.teacher,
        frozen=parts.frozen,
    )

    def first(start: PyTree, batch: Any, constants: Any):
        states = parts.make_state(np.array([parts.run.seed]), start)
        state = jax.tree.map(lambda x: x[0], states)
        if parts.strategy.turns:
            return parts.step(state, batch, constants)[1], {}
        new, metrics = step(state, batch, constants)
        gradients = {
            name: {
                "finite": jnp.all(jnp.array([jnp.isfinite(x).all() for x in leaves])),
                "zero": jnp.all(jnp.array([(x == 0).all() for x in leaves])),
            }
            for name, tree in new.opt_state.items()
            if (leaves := jax.tree.leaves(tree))
        }
        return metrics, gradients

    return _jit(first)(parts.start, batch, batches.place_constants(parts))


def _draw(teacher: BoundModel, channels: int) -> BoundModel:
    """A teacher with values, for one seed."""
    if not is_abstract(teacher.variables):
        first = _of_first_seed(teacher.variables, teacher.axis)
        return teacher._replace(variables=first, axis=None)
    blank = blank_images(teacher.resolution, channels)
    variables = _jit(teacher.model.init)(jax.random.key(0), blank)

    def apply(variables, images, *, train=False, rngs=None):
        # A deep network without trained statistics has outputs of any size.
        output, state = teacher.model.apply(variables, images, train=train, rngs=rngs)
        return Output(*jax.tree.map(_to_unit_scale, tuple(output))), state

    model = teacher.model._replace(apply=apply)
    return teacher._replace(model=model, variables=variables, axis=None)


def _to_unit_scale(x: Array) -> Array:
    return x / jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(x))), 1e-6)


def _of_first_seed(variables: PyTree, axis: int | None) -> PyTree:
    return variables if axis is None else jax.tree.map(lambda x: x[0], variables)


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is run once or twice.

    On CPU it is compiled without LLVM's optimizer, in a fourth of the time.
    """
    on_cpu = jax.default_backend() == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    return jax.jit(function, compiler_options=options)
