"""Batches of a run: the arrays that change with each step, and the constants."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.cache import targets
from kdjax.core.types import Array
from kdjax.data import order, resident, streamed
from kdjax.setup.parts import Parts
from kdjax.train import sharding
from kdjax.train.turns import turn_at


def place_constants(parts: Parts) -> dict[str, Any]:
    """The arrays that no step changes, on the devices: data, teacher, targets."""
    mesh, constants = parts.mesh, dict(parts.constants)
    constants["data"] = {}
    if parts.pipeline == "device":
        constants["data"] = resident.shard(parts.train, mesh)
    for name, where in constant_shardings(parts).items():
        constants[name] = jax.device_put(constants[name], where)
    if parts.run.compute.how == "pmap":
        constants = jax.device_get(constants)
    return constants


def constant_shardings(parts: Parts) -> dict[str, Any]:
    """Shardings of the constants but the data: frozen networks as those that learn, and
    targets that are copied."""
    mesh, constants, found = parts.mesh, parts.constants, {}
    copied = sharding.replicated(mesh)
    for name in constants:
        if name in parts.frozen:
            lead = 1 if parts.constant_axes[name] == 0 else 0
            options = {"lead": lead, "shard": parts.run.compute.shard}
            named = {name: constants[name]}
            found |= sharding.state_sharding(mesh, named, **options)
        elif name == "targets":
            found[name] = jax.tree.map(lambda _: copied, constants[name])
    return found


def make_batches(parts: Parts) -> Callable[[int], Iterator[dict[str, Any]]]:
    """`start -> batches` of the steps from `start` on.

    A batch holds `seed` `[seeds]`, `step`, the `schedules` of the strategy, the
    `rates` of the optimizers, the `turn`, and `rows` with arrays `[seeds, batch, ...]`:
    `index` and `epoch`, images of the host pipeline, and `targets` of a cache.
    """
    rows_at = _make_rows(parts)
    on_device = parts.pipeline == "device" and parts.store is None
    seeds = parts.seeds

    def whole(step: int, rows: dict[str, Any]) -> dict[str, Any]:
        cycled = np.int32(parts.cycle_step(step))
        return {"seed": seeds, "step": cycled, "rows": rows, **scalars(parts, step)}

    def batches(start: int) -> Iterator[dict[str, Any]]:
        if on_device:
            for step in itertools.count(start):
                yield whole(step, rows_at(step))
        assembled = streamed.stream(rows_at, start, parts.run.steps)
        on_devices = streamed.prefetch(assembled, _make_put(parts))
        for step, rows in zip(itertools.count(start), on_devices, strict=False):
            yield whole(step, rows)

    return batches


def scalars(parts: Parts, step: int) -> dict[str, Any]:
    """Numbers of a step, shared by all seeds: schedules, optimizer rates, the turn."""
    return {
        "schedules": jax.tree.map(_as_array, parts.strategy.schedules(step)),
        "rates": parts.rates(step),
        "turn": turn_at(parts.strategy.turns, step),
    }


def _as_array(x: Any) -> Any:
    """A Python number as an array of 32 bits; arrays stay."""
    if isinstance(x, (bool, int, float)):
        return np.asarray(x, np.float32 if isinstance(x, float) else np.int32)
    return x


def _make_rows(parts: Parts) -> Callable[[int], dict[str, Any]]:
    """`step -> {name: [seeds, rows of this process, ...]}`; may run in a thread."""
    run, source, store = parts.run, parts.train, parts.store
    options: dict[str, Any] = {"batch": run.batch}
    options["seeds"] = [int(seed) for seed in parts.seeds]
    local = slice(None)
    make = functools.partial(order.rows_at, n=len(source), **options)
    if parts.pipeline == "host":
        local = streamed.local_rows(parts.mesh, run.batch)
        options |= {"crop": parts.host_crop, "workers": run.data.workers}
        make = streamed.make_assembler(source, rows=local, **options)

    def rows_at(step: int) -> dict[str, Any]:
        step = parts.cycle_step(step)
        rows: dict[str, Any] = make(step)
        if store is not None:
            stored = store.read(slice(step, step + 1))
            rows["targets"] = {k: x[0][:, local] for k, x in stored.items()}
        return rows

    return rows_at


def _make_put(parts: Parts) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that sends this process's rows to its devices.

    Under pmap the step does that.
    """
    mesh, size = parts.mesh, parts.run.batch
    if parts.run.compute.how == "pmap":
        return lambda rows: rows
    whole = np.arange(size)
    local = streamed.local_rows(mesh, size) if parts.pipeline == "host" else whole

    def put(rows: dict[str, Any]) -> dict[str, Any]:
        return streamed.shard(rows, mesh, local, size)

    return put


def blank_batch(parts: Parts) -> tuple[dict[str, Any], dict[str, Array]]:
    """The first batch and the resident data of one seed, with blank images."""
    run, source, n = parts.run, parts.train, parts.run.batch
    indices, epochs = order.batch_at(0, n=len(source), batch=n, seed=run.seed)
    rows: dict[str, Any] = {"index": indices, "epoch": epochs}
    data: dict[str, Any] = {}
    labels = {"label": jnp.zeros(n, jnp.int32), "id": jnp.zeros(n, jnp.int32)}
    if source.resizes:
        labels["size"] = jnp.ones((n, 2), jnp.int32)
    image = jnp.zeros((n, *source.shape), jnp.uint8)
    if parts.pipeline == "device":
        data = {k: jnp.zeros(x.shape, x.dtype) for k, x in _shapes(parts).items()}
    elif parts.host_crop is None:
        rows.update(labels, image=image)
    else:
        rows.update(labels, **_blank_crops(parts))
    if parts.store is not None:
        rows["targets"] = targets.blank_step(parts.store)
    first = {"seed": np.int32(run.seed), "step": np.int32(0), **scalars(parts, 0)}
    return {**first, "rows": rows}, data


def _shapes(parts: Parts) -> dict[str, Any]:
    return {
        k: jax.ShapeDtypeStruct(x.shape, x.dtype)
        for k, x in resident.to_arrays(parts.train).items()
    }


def _blank_crops(parts: Parts) -> dict[str, Array]:
    crop, channels = parts.host_crop, parts.train.shape[-1]
    assert crop is not None

    def blank(size: int) -> Array:
        return jnp.zeros((parts.run.batch, size, size, channels), jnp.uint8)

    crops = {"student": blank(crop.student_size)}
    one_crop = parts.run.views.mode in ("consistent", "function_matching")
    if crop.teacher_size != crop.student_size or not one_crop:
        crops["teacher"] = blank(crop.teacher_size)
    return crops
