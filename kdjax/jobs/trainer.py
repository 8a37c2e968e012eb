"""Training one run in its folder: from its last checkpoint to its summary."""

import contextlib
import pathlib
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from kdjax import config as configs
from kdjax import reports, setup
from kdjax.cache.plan import describe_targets
from kdjax.config import Run
from kdjax.core import bucket, environment, hosts, runlog
from kdjax.core.liveness import watch_others
from kdjax.core.peak_memory import peak_memory
from kdjax.core.timeline import Timeline, begin, make_writer
from kdjax.core.types import BoundModel, Model, PyTree
from kdjax.data.source import Source
from kdjax.jobs.start import lock_folder
from kdjax.models import zoo
from kdjax.setup.identity import Identity, fingerprint_teacher
from kdjax.train import loop
from kdjax.train.checkpoint import Checkpoints, has_checkpoints
from kdjax.train.progress import Bar, stage
from kdjax.train.state import TrainState
from kdjax.train.trackers import open_trackers


class Training(NamedTuple):
    """One training of a job, with all its inputs.

    run: its config; `run.folder` is its folder.
    data: examples by split.
    mesh: the devices.
    overrides: a line for each object passed from Python.
    identity: of the run and its inputs, without a teacher that is yet to be trained.
    student: a model from Python, in place of the one of `run.model`.
    initial: variables that its networks start from.
    teacher: its teacher; shapes in place of values while that is yet to be trained.
    load_teacher: returns the teacher with values, once it is trained.
    section: of the config, where its fields stand: "teacher" for that of the teacher,
        "teacher.members.1" in an ensemble, else empty.
    """

    run: Run
    data: dict[str, Source]
    mesh: Mesh
    overrides: dict[str, str]
    identity: Identity = Identity()
    student: Model | None = None
    initial: dict[str, setup.InitialVariables] = {}
    teacher: BoundModel | None = None
    load_teacher: Callable[[], BoundModel | None] = lambda: None
    section: str = ""

    @property
    def begun(self) -> bool:
        """True where its folder has a run, finished or not."""
        return runlog.contains_run(self.run.folder)


def train_one(training: Training, console: Console) -> None:
    """Train a run from its last checkpoint, and measure it on the test split.

    A finished run is left as it is.
    """
    run, folder = training.run, training.run.folder
    if runlog.is_finished(folder):
        text = bucket.with_urls(f"{run.name}: finished in {folder}")
        console.print(text, highlight=False)
        if not has_checkpoints(folder):
            text = f"warning: {folder} has lost its checkpoints; evaluate, load and "
            text = bucket.with_urls(f"{text}teachers need them")
            console.print(text, style="yellow", highlight=False, soft_wrap=True)
        return
    teacher = training.load_teacher()
    parts = setup.make_parts(
        run,
        train=training.data["train"],
        student=training.student,
        teacher=teacher,
        mesh=training.mesh,
        initial=training.initial,
    )
    identity = training.identity
    if "teacher" not in identity.content:
        identity = identity.add(fingerprint_teacher(teacher))
    with lock_folder(folder, identity), watch_others(folder, run.compute.lost_after):
        targets = describe_targets(run, parts.train)
        if targets:
            console.print(f"{run.name}: targets: {targets}", highlight=False)
        write = make_writer(folder) if hosts.is_first() else lambda _: None
        with (
            contextlib.closing(Checkpoints(folder)) as checkpoints,
            _recorded(Timeline(write)) as timeline,
        ):
            measure = _make_measure(parts, teacher, training.data)
            state, seconds = _fit(parts, measure, checkpoints, console, timeline)
            with stage(console, f"{run.name}: measuring on the test split"):
                with timeline.spend("evaluation"):
                    test = measure(state, "test")
        hosts.wait_for_all(f"measured {run.name}")
        if hosts.is_first():
            variables = parts.student_variables(state)
            summary = _summary(run, training.data, test, variables, seconds)
            summary["network"] = parts.strategy.student
            summary["log"] = runlog.hash_metrics(folder)
            if run.skip.most:
                summary["skipped"] = _count_skipped(folder)
            if targets:
                summary["targets"] = targets
            runlog.write_json(folder / "summary.json", summary)
            reports.write_report([folder], folder)
        # Else another process might look for the summary before it exists.
        hosts.wait_for_all(f"finished {run.name}")
        bucket.share(folder)


@contextlib.contextmanager
def _recorded(timeline: Timeline) -> Iterator[Timeline]:
    """Write the end of an attempt, and why it came."""
    reason = "finished"
    try:
        yield timeline
    except loop.Interrupted:
        reason = "stopped"
        raise
    except BaseException as error:
        reason = type(error).__name__
        raise
    finally:
        timeline.end(reason)
        begin()


def _make_measure(
    parts: setup.Parts, teacher: BoundModel | None, data: dict[str, Source]
) -> Callable[[TrainState, str], dict[str, list[float]]]:
    """`(state, split) -> metrics` of the student, one number a seed."""
    run = parts.run
    student = BoundModel(parts.student, None, 0, run.model.resolution)
    crop = run.views.evaluation_crop
    measure = setup.make_measure(student, teacher, run.seeds, parts.mesh, crop)
    return lambda state, split: measure(parts.student_variables(state), data[split])


def _count_skipped(folder: pathlib.Path) -> list[int]:
    """The steps that were left out, by seed."""
    lines = [x for x in runlog.read_metrics(folder) if "skipped" in x]
    return [int(n) for n in np.sum([x["skipped"] for x in lines], axis=0)]


def _summary(
    run: Run,
    data: dict[str, Source],
    test: dict[str, list[float]],
    variables: PyTree,
    seconds: float,
) -> dict[str, Any]:
    """The fields of `summary.json`. variables: the student's, of all seeds."""
    train = data["train"]
    return {
        "name": run.name,
        "steps": run.steps,
        "examples": len(train),
        "seeds": list(range(run.seed, run.seed + run.seeds)),
        "parameters": zoo.count_parameters(variables) // run.seeds,
        "classes": train.classes,
        "class_names": train.names,
        "channels": train.shape[-1],
        "left_out": {k: len(v.skipped) for k, v in data.items() if v.skipped},
        "seconds": round(seconds, 1),
        "test": test,
        "memory": peak_memory(),
        "command": environment.command(),
        "machine": environment.machine(),
        "versions": environment.versions(),
    }


def _fit(
    parts: setup.Parts,
    measure: Callable[[TrainState, str], dict[str, list[float]]],
    checkpoints: Checkpoints,
    console: Console,
    timeline: Timeline,
) -> tuple[TrainState, float]:
    """The trained state and the seconds spent, from the last checkpoint on."""
    run, folder = parts.run, parts.run.folder
    step = parts.compile_step()
    before = time.monotonic()
    state, seconds, start = _resume(parts, checkpoints)
    restore = time.monotonic() - before if start else 0.0
    if start:
        console.print(f"{run.name}: continuing at step {start}", highlight=False)
    # Lines after the last checkpoint will be written again.
    if hosts.is_first():
        runlog.truncate_metrics(folder, start)
    trackers = run.trackers if hosts.is_first() else ()
    tracked = open_trackers(trackers, folder, run.name, configs.to_dict(run), start)
    with Bar(run.name, run.steps, start, console) as bar, tracked as track:

        def write(line: dict[str, Any]) -> None:
            if hosts.is_first():
                runlog.append_metrics(folder, line)
                track(line)

        timeline.start(start, restore)
        try:
            return loop.fit(
                step,
                state,
                setup.place_constants(parts),
                make_plan(run),
                batches=setup.make_batches(parts),
                evaluate=lambda state: measure(state, "validation"),
                write=write,
                checkpoints=checkpoints,
                bar=bar,
                seconds=seconds,
                timeline=timeline,
            )
        except loop.NonFiniteError as error:
            checkpoints.wait()
            last = checkpoints.last_step()
            kept = f"step {last}" if last else "none yet"
            text = f"{run.name}: {error}. Last good checkpoint: {kept}"
            found = re.search(r"at step (\d+)", str(error))
            step_number = found[1] if found else "N"
            text += f". `kdjax replay {folder} --step {step_number}` makes it again"
            raise loop.NonFiniteError(text) from None
        except loop.Interrupted as error:
            text = f"{run.name}: {error}; the same command continues there"
            raise loop.Interrupted(text, error.number) from None


def _resume(
    parts: setup.Parts, checkpoints: Checkpoints
) -> tuple[TrainState, float, int]:
    """The state to train from, the seconds spent so far, and the step."""
    run = parts.run
    state, step = first_state(parts, checkpoints)
    if not step:
        return state, 0.0, 0
    lines = runlog.recover_metrics(run.folder, step)
    last = max((line["step"] for line in lines), default=0)
    file, problem = run.folder / "metrics.jsonl", ""
    if last < step - step % run.log_every:
        problem = f"lines of steps {last + 1} to {step} are lost; figures lack them"
    elif not checkpoints.has_log(step):
        problem = f"lines up to step {step} have changed since they were written; "
        problem += "figures show what is there"
    if problem and hosts.is_first():
        warnings.warn(f"{file}: {problem}", stacklevel=2)
    return state, lines[-1]["seconds"] if lines else 0.0, step


def first_state(
    parts: setup.Parts, checkpoints: Checkpoints, before: int | None = None
) -> tuple[TrainState, int]:
    """The state to train from, and its step: that of the last checkpoint that is whole.

    before: of the checkpoints of earlier steps than this; damaged ones then stay where
        they are.
    """
    like = parts.state_shapes()
    if before is None:
        state = checkpoints.restore_whole(like)
    else:
        steps = [x for x in checkpoints.steps() if x < before]
        state = checkpoints.restore(like, steps[-1]) if steps else None
    if state is None:
        return parts.create_state(), 0
    return state, int(np.max(jax.device_get(state.step)))


def make_plan(run: Run) -> loop.Plan:
    """The length of a run and its intervals, for `loop.fit`."""
    on_cpu = jax.default_backend() == "cpu"
    return loop.Plan(
        name=run.name,
        steps=run.steps,
        images_per_step=run.batch * run.seeds,
        log_every=run.log_every,
        skip=run.skip.most,
        evaluate_every=run.evaluate_every,
        checkpoint_every=run.checkpoint_every,
        # A convolution inside a loop is more than ten times slower on CPU.
        steps_per_call=run.compute.steps_per_call or (1 if on_cpu else 16),
    )
