"""The process that compiles a run for hardware that is not there.

    python -m kdjax.jobs.planned < request.json > figures.json

It is started by `kdjax.jobs.plan`, with the variables that the compiler needs.
"""

import dataclasses
import hashlib
import io
import json
import os
import sys
import time
from typing import Any

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from rich.console import Console

from kdjax import config as configs
from kdjax import setup
from kdjax.config import Compute, ConfigError, FromWeights, Run, TrainFirst
from kdjax.core import environment, runlog
from kdjax.core.compilation import cache_folder
from kdjax.core.flops import count_flops
from kdjax.core.types import BoundModel, PyTree
from kdjax.data import pipeline
from kdjax.data.datasets import Splits, from_arrays
from kdjax.data.memory import blank
from kdjax.jobs.distilling import plan_trainings
from kdjax.jobs.start import open_job
from kdjax.jobs.trainer import Training
from kdjax.plan.bisection import find_largest
from kdjax.plan.compilers import planned_devices, slices_of
from kdjax.plan.forecast import Figures, from_values, to_values
from kdjax.plan.hardware import Hardware, find_hardware
from kdjax.plan.traffic import find_collectives
from kdjax.setup.shapes import step_shapes
from kdjax.train import sharding

# Fields that follow from the program alone.
_COMPILED = ("program", "problem", "accessed", "collectives")
# Steps of one program, but on CPU.
_STEPS = 16


def plan_here(request: dict[str, Any]) -> list[Figures]:
    """The figures of each training of a run, in this process.

    request: `run` as plain values; `on`, `slices`, `exact`; `examples` and `classes` of
        data that are not here, or 0; `largest_batch`.
    """
    run = configs.from_dict(request["run"])
    hardware = find_hardware(request["on"], request["slices"])
    trainings = _trainings(run, request["examples"], request["classes"])
    make = _Compiler(hardware, run.compute, request["exact"])
    figures = [make(training) for training in trainings]
    if request["largest_batch"]:
        figures.append(_find_largest(trainings[-1], make, figures[-1], hardware))
    return figures


def _trainings(run: Run, examples: int, classes: int) -> list[Training]:
    """The trainings of a run, with data that have shapes alone."""
    run, given = _without_files(run)
    # The mesh of a job is of this machine's devices, which train nothing here.
    local = dataclasses.replace(run, compute=run.compute.on_one_device())
    splits = _blank_splits(run, examples, classes) if examples else None
    outline = open_job(local, splits, console=Console(file=io.StringIO()))
    trainings = plan_trainings(outline)[given:]
    data = {name: blank(source) for name, source in outline.data.items()}
    return [
        x._replace(data={**data, "train": blank(x.data["train"])}) for x in trainings
    ]


def _without_files(run: Run) -> tuple[Run, int]:
    """A run without published weights that are not here, of the same shapes.

    Also the number of trainings that it does not have: that of such a teacher.
    """
    given, teacher = 0, run.teacher
    if _is_missing(run.model.weights):
        model = dataclasses.replace(run.model, weights="")
        run = dataclasses.replace(run, model=model)
    if isinstance(teacher, FromWeights) and _is_missing(teacher.model.weights):
        model = dataclasses.replace(teacher.model, weights="")
        fields = {"precision": teacher.precision, "cache": teacher.cache}
        first = TrainFirst(model, outputs=teacher.outputs, **fields)
        run, given = dataclasses.replace(run, teacher=first), 1
    return run, given


def _is_missing(weights: str) -> bool:
    """True for a file that is not here, or that a hub has: nothing is downloaded."""
    return bool(weights) and not os.path.exists(os.path.expanduser(weights))


def _blank_splits(run: Run, examples: int, classes: int) -> Splits:
    side = run.data.store or run.model.resolution
    labels = np.arange(examples, dtype=np.int32) % classes
    images = np.broadcast_to(np.uint8(0), (examples, side, side, 3))
    small = slice(0, max(classes, 1))
    return {
        "train": from_arrays(images, labels),
        "validation": from_arrays(images[small], labels[small]),
        "test": from_arrays(images[small], labels[small]),
    }


class _Compiler:
    """Compiles trainings for some hardware, and keeps what came of them."""

    def __init__(self, hardware: Hardware, compute: Compute, exact: bool):
        self._hardware, self._compute, self._exact = hardware, compute, exact
        self._devices = planned_devices(hardware)

    def __call__(self, training: Training) -> Figures:
        run, hardware = self._run(training), self._hardware
        mesh = sharding.make_mesh(run.compute, run.batch, self._devices)
        teacher = training.teacher
        parts = setup.make_parts(
            run,
            train=training.data["train"],
            student=training.student,
            teacher=teacher,
            mesh=mesh,
            initial=training.initial,
        )
        on_cpu = hardware.platform == "cpu"
        steps = run.compute.steps_per_call or (1 if on_cpu else _STEPS)
        steps = min(steps, run.steps)
        step = parts.compile_step()
        arguments = step_shapes(parts, steps)
        live = teacher if "teacher" in parts.constants else None
        student = BoundModel(parts.student, _variables(parts), 0, run.model.resolution)
        channels = parts.train.shape[-1]
        figures = Figures(
            name=run.name,
            on=hardware.name,
            devices=mesh.size,
            **{"batch": run.batch, "seeds": run.seeds, "steps": run.steps},
            examples=len(parts.train),
            steps_per_call=steps,
            held=_held(*arguments),
            program={},
            problem="",
            flops=_step_flops(parts, arguments) * run.seeds / mesh.size,
            student_flops=setup.image_flops(student, channels),
            teacher_flops=live and setup.image_flops(live, channels),
            **{"accessed": 0.0, "collectives": [], "compile_seconds": 0.0},
        )
        return self._compile(step.lower(*arguments), figures)

    def _run(self, training: Training) -> Run:
        run, source = training.run, training.data["train"]
        choice = run.data.pipeline
        memory = self._hardware.chip.memory * self._hardware.devices
        if choice == "auto" and memory:
            budget = int(pipeline.MEMORY_FRACTION * memory)
            choice = "device" if pipeline.decoded_bytes(source) <= budget else "host"
        data = dataclasses.replace(run.data, pipeline=choice)
        return dataclasses.replace(run, compute=self._compute, data=data)

    def _compile(self, lowered: jax.stages.Lowered, figures: Figures) -> Figures:
        """The figures with those of the compiler, or with what it said."""
        text = lowered.as_text()
        kept = _kept_file(text, self._hardware, self._exact)
        if kept.is_file():
            # Runs of other lengths and sets have the same program.
            found = from_values(json.loads(kept.read_text()))
            own = {name: getattr(found, name) for name in _COMPILED}
            return dataclasses.replace(figures, **own)
        begun = time.monotonic()
        try:
            program = lowered.compile()
        except JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            problem = str(error).splitlines()[0]
            figures = dataclasses.replace(figures, problem=problem)
        else:
            figures = _measure(program, figures, slices_of(self._hardware))
        seconds = time.monotonic() - begun
        figures = dataclasses.replace(figures, compile_seconds=seconds)
        kept.parent.mkdir(parents=True, exist_ok=True)
        runlog.write_json(kept, to_values(figures))
        return figures


def _kept_file(text: str, hardware: Hardware, exact: bool):
    """The file of a program's figures, as this kdjax and this jax take them."""
    code = environment.code_digest()
    key = hashlib.sha256(f"{hardware} {exact} {code}\n{text}".encode()).hexdigest()
    return cache_folder().parent / "plans" / f"{jax.__version__}-{key[:32]}.json"


def _measure(
    program: jax.stages.Compiled, figures: Figures, slice_of: list[int]
) -> Figures:
    memory: Any = program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    total = held - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    code = memory.generated_code_size_in_bytes
    cost = program.cost_analysis()
    cost = (cost[0] if isinstance(cost, list) else cost) or {}
    return dataclasses.replace(
        figures,
        program={
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "code": code,
            "total": total + code,
        },
        # The loop over steps is in the text once, and counts once.
        accessed=float(cost.get("bytes accessed", 0.0)),
        collectives=find_collectives(program.as_text() or "", slice_of),
    )


def _variables(parts: setup.Parts) -> PyTree:
    shapes = jax.eval_shape(
        parts.make_state, np.arange(parts.run.seeds, dtype=np.int32), parts.start
    )
    return parts.student_variables(shapes)


def _step_flops(parts: setup.Parts, arguments: tuple) -> int:
    """FLOPs of one step of one seed, over all devices."""
    state, batch, constants = arguments

    def first(tree: PyTree, lead: int) -> PyTree:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[lead:], x.dtype), tree
        )

    rows = {k: first(x, 2 if k in ("rows", "seed") else 1) for k, x in batch.items()}
    axes = parts.constant_axes
    fixed = {k: first(x, 1 if axes[k] == 0 else 0) for k, x in constants.items()}
    return count_flops(parts.step, first(state, 1), rows, fixed)


def _held(state: PyTree, batch: PyTree, constants: dict[str, Any]) -> dict[str, int]:
    """Bytes on one device, by what they hold."""
    others = {k: v for k, v in constants.items() if k not in ("teacher", "data")}
    return {
        "parameters": _bytes(state.params),
        "optimizer": _bytes(state.opt_state),
        "statistics": _bytes([state.model_state, state.averages]),
        "teacher": _bytes(constants.get("teacher", {})),
        "data": _bytes([constants["data"], others]),
        "batch": _bytes(batch),
    }


def _bytes(tree: PyTree) -> int:
    def size(x: jax.ShapeDtypeStruct) -> int:
        shape = x.sharding.shard_shape(x.shape) if x.sharding else x.shape
        return int(np.prod(shape)) * x.dtype.itemsize

    return sum(map(size, jax.tree.leaves(tree)))


def _find_largest(
    training: Training, make: _Compiler, first: Figures, hardware: Hardware
) -> Figures:
    """The figures of the largest batch that fits, as `find_largest` finds it."""
    # Equal parts of a batch on every device.
    unit = first.devices * training.run.compute.accumulate
    found: dict[int, Figures] = {}

    def fits(units: int) -> bool:
        run = dataclasses.replace(training.run, batch=units * unit)
        found[units] = make(training._replace(run=run))
        return bool(found[units].fits(hardware))

    most = first.examples // unit
    units = find_largest(fits, start=first.batch // unit, most=most)
    if not units:
        reason = f"no batch fits on {hardware.name}, {unit} images neither"
        raise ConfigError("batch", reason=reason)
    return dataclasses.replace(found[units], name=f"{first.name}, largest batch")


def main() -> None:
    try:
        answer = {"figures": [to_values(x) for x in plan_here(json.load(sys.stdin))]}
    except ConfigError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
