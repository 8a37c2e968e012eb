"""Every variant of every experiment builds at scale tiny, and takes two steps."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console

from kdjax import jobs, setup
from kdjax.config import (
    Cache,
    Compute,
    Ensemble,
    FromRun,
    Run,
    load_function,
    members_of,
    replace_cache,
    to_dict,
)
from kdjax.core import runlog
from kdjax.core.seeds import map_seeds
from kdjax.core.types import BoundModel
from kdjax.data.datasets import from_arrays
from kdjax.data.source import Source
from kdjax.experiments import experiment_files, load_experiment, sweep
from kdjax.experiments.planning import check, plan
from kdjax.models.zoo import make_model
from kdjax.setup import batches, measure
from kdjax.train import compiled, sharding

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
FILES = experiment_files(FOLDER)
BY_NAME = pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
built: set[str] = set()


@BY_NAME
def test_every_scale_of_every_experiment_is_a_good_config(file, tmp_path):
    experiment = load_experiment(file)
    for scale in experiment.durations:
        for task in plan(experiment, tmp_path, scale, seeds=1):
            check(task)


@pytest.mark.full
@BY_NAME
def test_the_step_of_every_variant_can_be_built(file, tmp_path):
    """Traced, with shapes in place of teachers; a step that differs from one built
    before in numbers or in its images alone is not built again."""
    for task in plan(load_experiment(file), tmp_path, "tiny", seeds=1):
        before = {pathlib.Path(b.workdir).name: b for b in task.before}
        for run in (*task.before, task.run):
            source = setup.load_source(run, "train")
            mark = f"{_shape_of(run)} {source.shape} {source.classes}"
            if mark in built:
                continue
            teacher = _teacher(run, before, source)
            own, initial = _alone(run), _initial(run, source)
            parts = {"train": source, "student": None, "teacher": teacher}
            setup.check_fit(own, **parts, initial=initial)
            built.add(mark)


def _shape_of(run: Run) -> str:
    """What of a config shapes its step: neither names and places, nor numbers."""
    values = to_dict(_alone(run))
    names = ("model", "teacher", "views", "terms", "batch", "strategy", "networks")
    kept = {name: values[name] for name in names}
    kept["optim"] = (run.optim.name, run.optim.schedule, run.optim.clip > 0)
    for field in ("area", "aspect", "flip"):
        kept["views"].pop(field)
    if kept["teacher"] is not None:
        for teacher in kept["teacher"].get("members", [kept["teacher"]]):
            for field in ("run", "train", "steps", "optim", "views"):
                teacher.pop(field, None)
    for term in kept["terms"].values():
        term["temperature"] = term["temperature"] and {
            **term["temperature"],
            "value": 0,
        }
        term["weight"]["value"] = term["weight"]["value"] > 0
    return json.dumps(kept, sort_keys=True)


def _alone(run: Run) -> Run:
    """The run without what has to be there before it: a store, the start's weights."""
    model = dataclasses.replace(run.model, weights="", adapt=())
    teacher = replace_cache(run.teacher, Cache())
    return dataclasses.replace(run, model=model, teacher=teacher)


def _initial(run: Run, source: Source) -> dict[str, setup.InitialVariables]:
    """Shapes in place of the weights of the networks beside the student."""
    initial = {}
    for name, network in run.networks.items():
        if network.model.weights:
            own = dataclasses.replace(run, model=network.model)
            made = setup.trace_model(own, source.classes, source.shape[-1])
            initial[name] = setup.InitialVariables(made.variables, 0)
    return initial


def _teacher(run: Run, before: dict[str, Run], source) -> BoundModel | None:
    if run.teacher is None:
        return None

    models = []
    for _, member in members_of(run.teacher):
        if isinstance(member, FromRun):
            own = before[pathlib.Path(member.run).name]
        else:
            model = dataclasses.replace(member.model, weights="")
            own = dataclasses.replace(run, model=model)
        models.append(setup.trace_model(own, source.classes, source.shape[-1]))
    is_ensemble = isinstance(run.teacher, Ensemble)
    return setup.ensemble_teachers(models, run) if is_ensemble else models[0]


@pytest.mark.slow
@BY_NAME
def test_every_variant_takes_two_steps(file, tmp_path):
    experiment = load_experiment(file)
    console = Console(quiet=True)
    sweep(experiment, "tiny", seeds=1, workdir=str(tmp_path), console=console)
    finished = [path.parent for path in tmp_path.glob("*-x1/summary.json")]
    assert len(finished) == len(experiment.variants)
    assert all(runlog.read_summary(path)["steps"] == 2 for path in finished)


CLASSES = {
    "flowers102": 102,
    "oxford_iiit_pet": 37,
    "food101": 101,
    "sun397": 397,
    "imagenet2012": 1_000,
    "cifar10": 10,
}


@pytest.mark.slow
@BY_NAME
def test_the_papers_scale_lowers_on_a_mesh(file, tmp_path):
    """Every student, teacher and optimiser of scale `paper` at full width, resolution
    and batch, its step lowered for 4 x 2 devices; images and weights are shapes."""
    experiment = load_experiment(file)
    tasks = []
    if "paper" in experiment.durations:
        tasks = plan(experiment, tmp_path, "paper", seeds=1)
    for task in tasks:
        members = [member for _, member in members_of(task.run.teacher)]
        mark = f"{task.run.model} {members} {task.run.optim.name} {task.run.data.name}"
        if mark in built:
            continue
        run = dataclasses.replace(_alone(task.run), compute=Compute(data=4, fsdp=2))
        before = {pathlib.Path(b.workdir).name: b for b in task.before}
        source = _blank_source(run)
        text = _lowered(run, source, _teacher(run, before, source)).as_text()
        assert '"data"=4, "fsdp"=2' in text and f"tensor<{run.batch}x" in text
        built.add(mark)


def _lowered(
    run: Run, source: Source, teacher: BoundModel | None
) -> jax.stages.Lowered:
    parts = setup.make_parts(run, train=source, teacher=teacher)
    mesh = parts.mesh
    seeds = np.arange(1, dtype=np.int32)
    state = sharding.abstract_sharded(parts.make_state, mesh, seeds, parts.start)
    batch, data = jax.eval_shape(lambda: batches.blank_batch(parts))
    rows = NamedSharding(mesh, PartitionSpec(None, sharding.BATCH_AXES))

    def row(x):
        return jax.ShapeDtypeStruct((1, *x.shape), x.dtype, sharding=rows)

    batch["rows"] = jax.tree.map(row, batch["rows"])
    batch["seed"] = jax.ShapeDtypeStruct((1,), np.int32)
    given = {"data": data}
    if "teacher" in parts.constants:
        held = parts.constants["teacher"]
        where = sharding.state_sharding(mesh, held, lead=0)
        given["teacher"] = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), held, where
        )
    axes = (0, compiled.SEED_AXES, parts.constant_axes)
    step = map_seeds(parts.step, axes, 1, unroll=True)
    return jax.jit(step).lower(state, batch, given)


def _blank_source(run: Run) -> Source:
    """A batch of images of the right size that takes no memory."""
    side = run.data.store or 32
    images = np.broadcast_to(np.uint8(0), (run.batch, side, side, 3))
    return from_arrays(images, np.full(run.batch, CLASSES[run.data.name] - 1))


@pytest.mark.slow
def test_the_papers_networks_take_a_step(tmp_path, monkeypatch):
    """BiT R152x2 to R50x1 on flowers, drawn at random, by the public command on 2 x 2
    devices: 8 images an update and an evaluation, the rest as at scale `paper`.

    Takes 14 GB of memory; on 4 x 2 devices more than 23.
    """
    monkeypatch.setattr(measure, "BATCH", 8)
    file, classes = FOLDER / "function_matching/consistency.py", CLASSES["flowers102"]
    run = load_experiment(file).run("mix", "paper", 1)
    asked = run.teacher
    assert asked is not None
    side, size = run.data.store, asked.model.resolution
    images = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)
    labels = np.linspace(0, classes - 1, 8).astype(np.int32)
    names = ("train", "validation", "test")
    model = dataclasses.replace(asked.model, weights="")
    run = dataclasses.replace(
        run,
        workdir=str(tmp_path / "run"),
        data=dataclasses.replace(run.data, **{k: k for k in names}),
        teacher=dataclasses.replace(asked, model=model),
        compute=Compute(data=2, fsdp=2),
        optim=dataclasses.replace(run.optim, warmup=0),
        steps=1,
        batch=8,
        evaluate_every=1,
        checkpoint_every=1,
    )
    teacher = make_model(asked.model, classes)
    drawn = jax.jit(teacher.init)(jax.random.key(0), np.zeros((1, size, size, 3), "f"))
    # Heads begin at zero: without another one teacher and student would agree.
    head = drawn["params"]["head"]
    head["kernel"] = jax.random.normal(jax.random.key(1), head["kernel"].shape)
    splits = {k: (images, labels) for k in names}
    folder = jobs.distill(run, splits=splits, teacher=(teacher, drawn))
    lines = [x for x in runlog.read_metrics(folder) if x["kind"] == "train"]
    assert [x["step"] for x in lines] == [1] and lines[0]["loss"][0] > 0
    summary = runlog.read_summary(folder)
    assert summary is not None and np.isfinite(summary["test"]["kl"]).all()


@pytest.mark.full
def test_the_teacher_of_vehicles_answers_for_them_alone(monkeypatch):
    """Its four logits are the published network's for the classes that the images of
    its set are of, in the order of their labels there."""
    images = np.arange(20 * 32 * 32 * 3, dtype=np.uint32).reshape(20, 32, 32, 3) % 251
    labels = np.tile(np.arange(10), 2)
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    whole = from_arrays(images.astype(np.uint8), labels)
    whole = dataclasses.replace(whole, names=tuple(names))
    monkeypatch.setattr("kdjax.data.datasets.load_splits", lambda _: {"train": whole})
    run = load_experiment(FOLDER / "function_matching/out_of_domain.py").run(
        "own", "cifar", 1
    )
    part = load_function(run.data.name, "data.name")()["train"]
    assert part.names == ("airplane", "automobile", "ship", "truck")
    assert part.classes == 4 and part.labels.tolist() == [0, 1, 2, 3] * 2
    places = [0, 1, 8, 9, 10, 11, 18, 19]
    for i, place in enumerate(places):
        np.testing.assert_array_equal(part.read(i), whole.read(place))

    assert run.teacher is not None
    asked = run.teacher.model
    plain = make_model(dataclasses.replace(asked, name="resnet56"), 10)
    narrow = make_model(asked, 4)
    seen = images[:2].astype(np.float32) / 127.5 - 1
    variables = plain.init(jax.random.key(0), seen)
    logits = narrow.apply(variables, seen, train=False, rngs=None)[0].logits
    every = plain.apply(variables, seen, train=False, rngs=None)[0].logits
    assert np.ptp(every) > 0.01
    np.testing.assert_array_equal(logits, every[:, [0, 1, 8, 9]])
