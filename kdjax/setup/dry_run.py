"""A run without its training: one step traced to check it, or measured for its cost."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import config as configs
from kdjax.cache import reader
from kdjax.config import ConfigError, Run, require
from kdjax.core.dependence import find_dependences
from kdjax.core.flops import count_flops
from kdjax.core.types import Array, BoundModel, Model, PyTree
from kdjax.data.source import Source
from kdjax.models import zoo
from kdjax.setup import batches
from kdjax.setup.load_models import InitialVariables
from kdjax.setup.measure import blank_images
from kdjax.setup.parts import Parts, make_parts
from kdjax.train import sharding
from kdjax.train.loop import stack
from kdjax.train.state import TrainState, network_variables


def check_fit(
    run: Run,
    *,
    train: Source,
    student: Model | None,
    teacher: BoundModel | None,
    initial: Mapping[str, InitialVariables] | None = None,
    step: bool = True,
) -> None:
    """Trace one step of a run for one seed, computing nothing.

    Args:
      train: the training examples.
      student: a model from Python, in place of the one of `run.model`.
      teacher: the teacher; its variables may be shapes.
      initial: variables that networks start from; None loads those of the config.
      step: False traces the networks alone, which takes less.

    Raises ConfigError naming the field or the term, what was expected and what came.
    """
    sharding.make_mesh(run.compute, run.batch)
    store = reader.open_if_named(run, train, teacher)
    one_seed = dataclasses.replace(run, compute=run.compute.on_one_device(), seeds=1)
    if teacher is not None:
        variables = _shapes_of_one_seed(teacher.variables, teacher.axis)
        teacher = teacher._replace(variables=variables, axis=None)
    if initial is not None:
        initial = {
            name: InitialVariables(_shapes_of_one_seed(*x))
            for name, x in initial.items()
        }
    try:
        if teacher is not None:
            _check_variables(teacher, train.shape[-1])
        _check_logits(run, train, student, teacher)
        parts = make_parts(
            one_seed,
            train=train,
            student=student,
            teacher=teacher,
            store=store,
            initial=initial,
        )
        if step:
            _trace_step(parts)
    except Exception as error:
        if teacher is None and store is None and _reads_targets(run, error):
            reason = "this strategy reads a teacher's targets; `kdjax distill` has them"
            raise ConfigError("strategy.function", reason=reason) from error
        if isinstance(error, ConfigError):
            raise
        text = str(error).strip().splitlines() or [""]
        reason = (
            "expected a model, data and terms that fit together, tracing one step "
            f"raised {type(error).__name__}: {text[0]}"
        )
        raise ConfigError(run.name, reason=reason) from error


def _reads_targets(run: Run, error: Exception) -> bool:
    """True for a strategy of the user's own that takes None for targets."""
    cause = error.__cause__ if isinstance(error, ConfigError) else error
    none = isinstance(cause, (AttributeError, TypeError)) and "NoneType" in str(cause)
    return none and isinstance(run.strategy, configs.Custom) and run.teacher is None


def _shapes_of_one_seed(variables: PyTree, axis: int | None) -> PyTree:
    """The shapes of a model's variables, without their axis of seeds."""
    lead = 1 if axis == 0 else 0
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x)[lead:], x.dtype), variables
    )


def _check_variables(teacher: BoundModel, channels: int) -> None:
    """A teacher's variables must have the names and shapes of its model's."""
    init = functools.partial(teacher.model.init, jax.random.key(0))
    images = blank_images(teacher.resolution, channels)
    made = _named_shapes(jax.eval_shape(init, images))
    got = _named_shapes(teacher.variables)
    for name in sorted(made.keys() | got.keys()):
        place = name or "the variables themselves"
        absent = f"without {place}" if name else "with entries"
        shape = f"{place} of shape {made[name]}" if name in made else absent
        came = str(got[name]) if name in got else "none"
        if made.get(name) != got.get(name):
            expected = f"variables of its model, {shape}"
            raise ConfigError("teacher", expected, got.get(name), shown=came)


def _check_parameters(params: PyTree) -> None:
    """A student needs parameters, and a gradient floating numbers."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    if not leaves:
        expected = "a network with parameters to train"
        raise ConfigError("model", expected, shown="none")
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "params"
        ok = jnp.issubdtype(leaf.dtype, jnp.inexact)
        expected = f"parameters of floating dtype, {name} too"
        require(ok, "model", expected, str(leaf.dtype))


def _logits(model: Model, variables: PyTree, images: Array) -> Array:
    return model.apply(variables, images, train=False, rngs=None)[0].logits


def _initial_logits(
    model: Model, variables: PyTree | None, images: Array
) -> tuple[Array, PyTree]:
    """The logits, and the variables: by default those that the model draws."""
    variables = variables or model.init(jax.random.key(0), images)
    return _logits(model, variables, images), variables


def _check_logits(
    run: Run, train: Source, student: Model | None, teacher: BoundModel | None
) -> None:
    """Every class must have a logit, and the student parameters.

    More logits than classes are left to strategies of their own.
    """
    classes, channels = train.classes, train.shape[-1]
    custom = isinstance(run.strategy, configs.Custom)

    student = student or zoo.make_model(run.model, classes)
    models = [("model", student, None, run.model.resolution)]
    if teacher is not None and teacher.has_logits:
        bound = teacher.model, teacher.variables, teacher.resolution
        models.append(("teacher", *bound))
    for field, model, variables, resolution in models:
        # Of a batch of one, a network that loses or joins rows may look right.
        images = jax.tree.map(
            lambda x: jnp.repeat(x, 2, 0), blank_images(resolution, channels)
        )
        output, made = jax.eval_shape(
            functools.partial(_initial_logits, model), variables, images
        )
        if field == "model":
            _check_parameters(made.get("params"))
        expected = "logits [2, classes] of a batch of 2 images"
        require(output.shape[:1] == (2,), field, expected, output.shape)
        count = output.shape[-1]
        least = "at least " if custom else ""
        expected = f"{least}{classes} logits (the classes of data.train; data.classes "
        expected += "sets their number)"
        require(count == classes or custom and count > classes, field, expected, count)


def _trace_step(parts: Parts) -> None:
    """Trace the first step; a student that no loss depends on is an error.

    Unless the strategy itself gives it a rate of 0, as that of a paraphraser does.
    """

    def first_state(start: PyTree) -> TrainState:
        states = parts.make_state(np.arange(1), start)
        return jax.tree.map(lambda x: x[0], states)

    batch, data = batches.blank_batch(parts)
    constants = {**parts.constants, "data": data}
    if parts.constant_axes.get("targets") == 0:
        constants["targets"] = {k: x[0] for k, x in constants["targets"].items()}
    arguments = jax.eval_shape(first_state, parts.start), batch, constants
    _check_evaluated(parts, arguments[0])
    program, (new, _) = jax.make_jaxpr(parts.step, return_shape=True)(*arguments)
    moments = _student_moments(new, parts.strategy.student)
    own = parts.strategy.optim.get(parts.strategy.student)
    learns = own is None or own.lr > 0
    if (
        learns
        and moments
        and not find_dependences(program, moments) & _data_inputs(*arguments)
    ):
        expected = "losses that depend on the outputs of the student"
        got = "a gradient of 0 for each of its parameters"
        custom = isinstance(parts.run.strategy, configs.Custom)
        field = "strategy.function" if custom else "terms"
        raise ConfigError(field, expected, shown=got)


def _check_evaluated(parts: Parts, state: TrainState) -> None:
    """The network that is evaluated must have the variables of the run's model."""
    images = blank_images(parts.run.model.resolution, parts.train.shape[-1])
    made = jax.eval_shape(parts.student.init, jax.random.key(0), images)
    name = parts.strategy.student
    found = network_variables(state, name)
    if _named_shapes(made) != _named_shapes(found):
        expected = "the network of the run's model, which is evaluated"
        raise ConfigError("strategy.student", expected, name)


def _named_shapes(variables: PyTree) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    return {jax.tree_util.keystr(path): np.shape(x) for path, x in leaves}


def _student_moments(state: TrainState, student: str) -> list[int]:
    """Indices of the optimizer's moments of the student among a state's leaves."""
    marked = jax.tree.map(lambda _: False, state)
    inner = marked.opt_state.inner_states
    moments = jax.tree.map(
        lambda x: jnp.issubdtype(x.dtype, jnp.floating),
        state.opt_state.inner_states.get(student),
    )
    opt_state = marked.opt_state._replace(inner_states={**inner, student: moments})
    leaves = jax.tree.leaves(marked._replace(opt_state=opt_state))
    return [i for i, is_moment in enumerate(leaves) if is_moment]


def _data_inputs(state: TrainState, batch: dict[str, Any], constants: Any) -> set[int]:
    """Indices of what a gradient comes from, among the leaves of a step's arguments.

    The rest decays moments and parameters.
    """
    marked: Any = jax.tree.map(lambda _: False, (state, batch, constants))
    state_, batch_, constants_ = marked
    batch_ = {**batch_, **{k: _all_true(batch_[k]) for k in ("rows", "seed")}}
    state_ = state_._replace(model_state=_all_true(state_.model_state))
    leaves = jax.tree.leaves((state_, batch_, _all_true(constants_)))
    return {i for i, is_data in enumerate(leaves) if is_data}


def _all_true(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda _: True, tree)


def image_flops(bound: BoundModel, channels: int) -> int:
    """FLOPs of a model for one image, in evaluation mode (`count_flops`).

    bound: its variables may be shapes.
    """
    variables = _shapes_of_one_seed(bound.variables, bound.axis)
    images = blank_images(bound.resolution, channels)
    return count_flops(functools.partial(_logits, bound.model), variables, images)


class StepCost(NamedTuple):
    """The cost of a step, measured.

    compile_seconds: of tracing and compiling its program; less from a warm cache.
    seconds: of one step of all seeds, a median.
    memory: bytes of the program on one device: arguments, results and temporary arrays.
    """

    compile_seconds: float
    seconds: float
    memory: int


# Steps are repeated until they have taken so many seconds.
_MEASURED = 2.0


def measure_step(parts: Parts, steps_per_call: int) -> tuple[StepCost, TrainState]:
    """Compile the step of a run, and measure it on its first batches.

    Returns:
      The cost, and a state after these steps.
    """
    run = parts.run
    step, state = parts.compile_step(), parts.create_state()
    constants = batches.place_constants(parts)
    coming = batches.make_batches(parts)(0)
    count = min(steps_per_call, run.steps)
    batch = stack([next(coming) for _ in range(count)])
    running = step.enter(state)
    begun = time.perf_counter()
    memory = step.lower(running, batch, constants).compile().memory_analysis()
    compile_seconds = time.perf_counter() - begun
    times: list[float] = []
    while not times[1:] or (len(times) < 10 and sum(times) < _MEASURED):
        begun = time.perf_counter()
        running, _ = jax.block_until_ready(step.call(running, batch, constants))
        times.append((time.perf_counter() - begun) / count)
    # The first call compiles again where no cache has the program.
    seconds = float(np.median(times[1:]))
    return StepCost(compile_seconds, seconds, _total(memory)), step.leave(running)


def _total(memory: Any) -> int:
    """Bytes of a compiled program, donated arguments counted once; 0 if not known."""
    if memory is None:
        return 0
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return held - memory.alias_size_in_bytes + memory.temp_size_in_bytes
