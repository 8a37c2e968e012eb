"""How examples, and targets computed ahead of time, reach a step."""

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


def place_given(parts: Parts) -> dict[str, Any]:
    """What does not change during training, on the devices."""
    mesh = parts.mesh
    held = resident.shard(parts.train, mesh) if parts.feed == "device" else {}
    given = {**parts.given, "data": held}
    if "teacher" in given:
        lead = 1 if parts.given_axes["teacher"] == 0 else 0
        where = sharding.state_sharding(mesh, given["teacher"], lead=lead)
        given["teacher"] = jax.device_put(given["teacher"], where)
    if "targets" in given:
        given["targets"] = jax.device_put(given["targets"], sharding.replicated(mesh))
    if parts.run.compute.how == "pmap":
        given = jax.device_get(given)
    return given


def make_batches(parts: Parts) -> Callable[[int], Iterator[dict[str, Any]]]:
    """`start -> batches` of the updates from `start` on.

    A batch holds `seed` `[seeds]`, `step`, the `schedules` of the strategy, the
    `rates` of the optimizers, the `turn`, and `rows` with arrays `[seeds, batch, ...]`:
    `index` and `epoch`, and what the feed and the store of targets add.
    """
    rows_at = _rows(parts)
    simple = parts.feed == "device" and parts.store is None
    seeds = _seeds(parts)

    def whole(step: int, rows: dict[str, Any]) -> dict[str, Any]:
        named = np.int32(parts.plan_step(step))
        return {"seed": seeds, "step": named, "rows": rows, **numbers(parts, step)}

    def batches(start: int) -> Iterator[dict[str, Any]]:
        if simple:
            for step in itertools.count(start):
                yield whole(step, rows_at(step))
        made = streamed.stream(rows_at, start, parts.run.steps)
        placed = streamed.prefetch(made, _put(parts))
        for step, rows in zip(itertools.count(start), placed, strict=False):
            yield whole(step, rows)

    return batches


def numbers(parts: Parts, step: int) -> dict[str, Any]:
    """What all seeds share: schedules, rates of the optimizers, and the turn."""
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


def _seeds(parts: Parts) -> np.ndarray:
    run = parts.run
    return np.arange(run.seed, run.seed + run.seeds, dtype=np.int32)


def _rows(parts: Parts) -> Callable[[int], dict[str, Any]]:
    """`step -> {name: [seeds, rows of this process, ...]}`; may run in a thread."""
    run, source, store = parts.run, parts.train, parts.store
    options = {"batch": run.batch, "seeds": [int(seed) for seed in _seeds(parts)]}
    local = slice(None)
    make = functools.partial(order.rows_at, n=len(source), **options)
    if parts.feed == "host":
        local = streamed.local_rows(parts.mesh, run.batch)
        how = {"crop": parts.host_crop, "workers": run.data.workers}
        make = streamed.make_assembler(source, rows=local, **options, **how)

    def rows_at(step: int) -> dict[str, Any]:
        step = parts.plan_step(step)
        rows: dict[str, Any] = make(step)
        if store is not None:
            stored = store.read(slice(step, step + 1))
            rows["targets"] = {k: x[0][:, local] for k, x in stored.items()}
        return rows

    return rows_at


def _put(parts: Parts) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Send this process's rows to its devices (under pmap the step does that)."""
    mesh, size = parts.mesh, parts.run.batch
    if parts.run.compute.how == "pmap":
        return lambda rows: rows
    whole = np.arange(size)
    local = streamed.local_rows(mesh, size) if parts.feed == "host" else whole

    def put(rows: dict[str, Any]) -> dict[str, Any]:
        return streamed.shard(rows, mesh, local, size)

    return put


def blank_batch(parts: Parts) -> tuple[dict[str, Any], dict[str, Array]]:
    """The first batch and the resident data of one seed, zeros for what is decoded."""
    run, source, n = parts.run, parts.train, parts.run.batch
    places, epochs = order.batch_at(0, n=len(source), batch=n, seed=run.seed)
    rows: dict[str, Any] = {"index": places, "epoch": epochs}
    data: dict[str, Any] = {}
    plain = {"label": jnp.zeros(n, jnp.int32), "id": jnp.zeros(n, jnp.int32)}
    if source.resizes:
        plain["size"] = jnp.ones((n, 2), jnp.int32)
    image = jnp.zeros((n, *source.shape), jnp.uint8)
    if parts.feed == "device":
        data = {k: jnp.zeros(x.shape, x.dtype) for k, x in _shapes(parts).items()}
    elif parts.host_crop is None:
        rows.update(plain, image=image)
    else:
        rows.update(plain, **_blank_crops(parts))
    if parts.store is not None:
        rows["targets"] = targets.blank_step(parts.store)
    about = {"seed": np.int32(run.seed), "step": np.int32(0), **numbers(parts, 0)}
    return {**about, "rows": rows}, data


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

    found = {"student": blank(crop.student_size)}
    one_crop = parts.run.views.mode in ("consistent", "function_matching")
    if crop.teacher_size != crop.student_size or not one_crop:
        found["teacher"] = blank(crop.teacher_size)
    return found
