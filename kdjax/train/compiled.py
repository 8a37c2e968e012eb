"""The two ways to compile one step: `jax.jit` over a mesh, and `jax.pmap`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from kdjax.core.seeds import map_seeds
from kdjax.train import sharding
from kdjax.train.state import TrainState
from kdjax.train.step import Metrics, Step, StepInputs, over_steps

PMAP_AXIS = "batch"

# Entries of a batch, by how they relate to seeds: `rows` holds `[seeds, batch, ...]`
# arrays; all but `seed` and `rows` is shared by all seeds.
_SHARED = ("step", "schedules", "rates", "turn")
SEED_AXES = {"seed": 0, "rows": 0, **dict.fromkeys(_SHARED)}


class Compiled(NamedTuple):
    """A compiled step with the way in and out of its form of the state.

    call: `(state, batch, constants) -> (state, metrics)`; `batch` as numpy arrays
        `[steps, ...]`, metrics `[steps, seeds]`. The state passed in is consumed.
    enter: a state as `create_sharded` makes it, to the form that `call` takes.
    leave: back again, for evaluation and checkpoints.
    lower: the program of `call` for its arguments, or their shapes with shardings, to
        be compiled ahead of time.
    """

    call: Callable[[Any, StepInputs, Any], tuple[Any, Metrics]]
    enter: Callable[[TrainState], Any]
    leave: Callable[[Any], TrainState]
    lower: Callable[[Any, StepInputs, Any], jax.stages.Lowered]


def compile_step(
    step: Step,
    mesh: Mesh,
    constant_axes: dict[str, int | None],
    seeds: int,
    how: str,
    *,
    unroll: bool | None = None,
    shard: Mapping[str, int] | None = None,
) -> Compiled:
    """Compile one pure update for all seeds, over the devices of a mesh.

    Args:
      step: from `make_train_step`, with `axis_name` PMAP_AXIS for pmap, None for jit.
      mesh: its devices share every batch.
      constant_axes: for each constant, 0 if it has one value a seed, else None.
      seeds: the number of seeds.
      how: "jit" or "pmap", equal in value.
      unroll: write the seeds out one after another; None does so on CPU alone.
      shard: axes of parameters by pattern, as of `sharding.state_sharding`.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    one_by_one = on_cpu if unroll is None else unroll
    axes = 0, SEED_AXES, constant_axes
    all_seeds = map_seeds(step, axes, seeds, unroll=one_by_one)
    if how == "pmap":
        return _pmap(all_seeds, mesh)
    return _jit(all_seeds, mesh, shard)


def _steps(step: Step) -> Step:
    """`step` for `[steps, ...]` batches; a single one is not put into a loop."""

    def run(state: TrainState, batch: StepInputs, constants: Any):
        if len(batch["seed"]) > 1:
            return over_steps(step)(state, batch, constants)
        state, metrics = step(state, jax.tree.map(lambda x: x[0], batch), constants)
        return state, jax.tree.map(lambda x: x[None], metrics)

    return run


def _jit(step: Step, mesh: Mesh, shard: Mapping[str, int] | None) -> Compiled:
    def run(state: TrainState, batch: StepInputs, constants: Any):
        new, metrics = _steps(step)(state, batch, constants)
        where = sharding.state_sharding(mesh, new, shard=shard)
        new = jax.lax.with_sharding_constraint(new, where)
        return new, jax.lax.with_sharding_constraint(metrics, sharding.replicated(mesh))

    compiled = jax.jit(run, donate_argnums=0)

    def put(path: tuple, x: Any) -> Any:
        if isinstance(x, jax.Array | jax.ShapeDtypeStruct):
            return x
        divided = path[0].key == "rows"
        return sharding.put(mesh, np.asarray(x), 2 if divided else None)

    def place(batch: StepInputs) -> StepInputs:
        if mesh.size == 1 and jax.process_count() == 1:
            return batch
        return jax.tree_util.tree_map_with_path(put, batch)

    def call(state: TrainState, batch: StepInputs, constants: Any):
        return compiled(state, place(batch), constants)

    def lower(state: TrainState, batch: StepInputs, constants: Any):
        return compiled.lower(state, place(batch), constants)

    return Compiled(call, lambda state: state, lambda state: state, lower)


def _pmap(step: Step, mesh: Mesh) -> Compiled:
    devices = list(mesh.devices.flat)
    axes = {name: 0 if name == "rows" else None for name in SEED_AXES}
    mapped = jax.pmap(
        _steps(step),
        axis_name=PMAP_AXIS,
        in_axes=(0, axes, None),
        devices=devices,
        donate_argnums=0,
    )

    def divide(x: np.ndarray) -> np.ndarray:
        """`[steps, seeds, batch]` to `[devices, steps, seeds, batch / devices]`."""
        steps, seeds, batch = x.shape[:3]
        local_batch = batch // len(devices)
        parts = x.reshape(steps, seeds, len(devices), local_batch, *x.shape[3:])
        return np.moveaxis(parts, 2, 0)

    def split(batch: StepInputs) -> StepInputs:
        return {**batch, "rows": jax.tree.map(divide, batch["rows"])}

    def call(state: TrainState, batch: StepInputs, constants: Any):
        state, metrics = mapped(state, split(batch), constants)
        return state, jax.tree.map(lambda x: x[0], metrics)

    def lower(state: TrainState, batch: StepInputs, constants: Any):
        return mapped.lower(state, split(batch), constants)

    def enter(state: TrainState) -> TrainState:
        host = jax.device_get(state)
        return jax.tree.map(lambda x: np.stack([x] * len(devices)), host)

    def leave(state: TrainState) -> TrainState:
        one = jax.tree.map(lambda x: np.asarray(x[0]), state)
        return jax.device_put(one, sharding.state_sharding(mesh, one))

    return Compiled(call, enter, leave, lower)
