"""Other teachers than one live model: published, several, averaged, in bfloat16."""

import dataclasses
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import kdjax
from kdjax import config, jobs, setup
from kdjax.config import (
    Cache,
    Compute,
    ConfigError,
    Data,
    Ensemble,
    FromRun,
    FromWeights,
    ModelConfig,
    MovingAverage,
    Scalar,
    Term,
    TrainFirst,
)
from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.core.types import BoundModel
from kdjax.models import from_function, make_model
from kdjax.models.weights import save_weights
from kdjax.presets import digits_teacher
from kdjax.setup import load_teachers
from kdjax.train import sharding
from kdjax.train.checkpoint import Checkpoints

# Runs of convolutional networks: the full tier.
pytestmark = pytest.mark.full

SMALL = ModelConfig("resnet", depth=8, width=2, resolution=8)


def linear():
    """A linear model of 8x8 grey images."""
    return from_function(
        lambda params, x: x.reshape(len(x), -1) @ params["w"],
        init=lambda key, x: {"w": 0.1 * jax.random.normal(key, (x[0].size, 10))},
    )


def variables(seed, size=8):
    return linear().init(jax.random.key(seed), np.zeros((1, size, size, 1), "f"))


def final(folder):
    mesh = sharding.make_mesh(Compute(data=1), 1)
    return jax.device_get(setup.load_trained(folder, mesh, model=linear()).variables)


@pytest.fixture
def weights(tmp_path):
    """Published weights of a small network, for 10 classes."""
    model = make_model(SMALL, classes=10)
    found = model.init(jax.random.key(5), np.zeros((1, 8, 8, 1), "f"))
    save_weights(found, tmp_path / "weights.safetensors")
    return str(tmp_path / "weights.safetensors"), found


def test_the_student_follows_its_own_average(tiny_run):
    """Two terms: labels move it, its average holds it back."""
    terms = {
        "hard": Term("hard_cross_entropy", teacher="labels"),
        "self": Term("softmax_kl", weight=Scalar(0.5)),
    }
    run = tiny_run(terms=terms, teacher=MovingAverage(decay=0.9))
    folder = kdjax.distill(run, student=linear())
    assert not (folder / "teacher").exists()
    lines = [x for x in runlog.read_metrics(folder) if x["kind"] == "train"]
    assert lines[0]["self"][0] < lines[-1]["self"][0]
    mesh = sharding.make_mesh(Compute(data=1), 1)
    train = setup.load_source(run, "train")
    parts = setup.make_parts(run, train=train, student=linear())
    seeds = np.arange(1, dtype=np.int32)
    like = sharding.abstract_sharded(parts.make_state, mesh, seeds, parts.start)
    state = Checkpoints(folder).restore(like)
    average = np.asarray(state.teacher["average"]["params"]["w"])
    assert state.teacher["updates"] == run.steps
    gap = np.abs(average - np.asarray(state.params["student"]["w"])).max()
    assert 0 < gap < 0.05


def test_published_weights_teach_and_start_a_student(tiny_run, weights):
    path, found = weights
    published = dataclasses.replace(SMALL, weights=path)
    run = tiny_run(teacher=FromWeights(published), model=published, steps=1)
    run = dataclasses.replace(
        run,
        optim=dataclasses.replace(run.optim, warmup=0, lr=0.0, wd=0.0),
        evaluate_every=1,
        checkpoint_every=1,
    )
    folder = kdjax.distill(run)
    assert not (folder / "teacher").exists()
    test = runlog.read_summary(folder)["test"]
    assert test["agreement"] == [1.0] and abs(test["kl"][0]) < 1e-6
    mesh = sharding.make_mesh(Compute(data=1), 1)
    own = setup.load_trained(folder, mesh).variables
    for x, y in zip(jax.tree.leaves(own), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(x[0], y)


def test_weights_that_do_not_fit_are_named_before_anything_is_written(
    tiny_run, weights, tmp_path
):
    path, _ = weights
    wide = ModelConfig("resnet", depth=8, width=4, resolution=8)
    wide = dataclasses.replace(wide, weights=path)
    for field, run in {
        "teacher.model": tiny_run(teacher=FromWeights(wide)),
        "model": tiny_run(model=wide),
        "teacher.members.1.model": tiny_run(
            teacher=Ensemble((TrainFirst(SMALL), FromWeights(wide)))
        ),
    }.items():
        with pytest.raises(ConfigError, match=rf"(?s)^{field}.weights: .*misshapen"):
            kdjax.distill(run)
    gone = ModelConfig("resnet", weights=str(tmp_path / "nowhere.npz"), resolution=8)
    with pytest.raises(ConfigError, match="teacher.model.weights: .*nowhere.npz"):
        kdjax.distill(tiny_run(teacher=FromWeights(gone)))
    assert not pathlib.Path(tiny_run().workdir).exists()


def test_several_teachers_each_at_its_resolution(tiny_run, weights):
    path, _ = weights
    members = (
        digits_teacher(),
        FromWeights(dataclasses.replace(SMALL, weights=path)),
        FromWeights(dataclasses.replace(SMALL, resolution=12, weights=path)),
    )
    teacher = Ensemble(members, weights=(1.0, 3.0, 1.0), mean="probabilities")
    terms = {"soft": Term(temperature=Scalar(4.0))}
    run = tiny_run(teacher=teacher, terms=terms)
    folder = kdjax.distill(run, teacher=(linear(), variables(1)), student=linear())
    test = runlog.read_summary(folder)["test"]
    assert set(test) >= {"agreement", "kl"}
    moving = {"soft": Term(temperature=Scalar(4.0, 1.0, "linear"))}
    other = tiny_run(teacher=teacher, terms=moving, workdir=str(folder) + "2")
    with pytest.raises(ConfigError, match="teacher.mean: expected logits, or terms"):
        kdjax.distill(other, teacher=(linear(), variables(1)), student=linear())
    told = dataclasses.replace(teacher, mean_at=4.0)
    dataclasses.replace(other, teacher=told).check()


@pytest.mark.parametrize(
    "teacher, kind",
    [
        (MovingAverage(), "average"),
        (FromRun("runs/x"), "run"),
        (FromWeights(ModelConfig("resnet", weights="x.npz")), "weights"),
        (Ensemble((FromRun("runs/x"), FromRun("runs/y"))), "ensemble"),
    ],
)
def test_a_teacher_from_python_replaces_one_of_kind_train(tiny_run, teacher, kind):
    message = f"teacher.kind: expected train, for a teacher passed .* got '{kind}'"
    with pytest.raises(ConfigError, match=message):
        kdjax.distill(tiny_run(teacher=teacher), teacher=(linear(), variables(1)))
    assert not pathlib.Path(tiny_run().workdir).exists()


def test_a_teacher_from_python_sees_the_pixels_that_the_config_names(tiny_run):
    """0 to 1 in place of -1 to 1: the same answers of a model that undoes it."""
    inner = linear()

    def apply(v, images, *, train=False, rngs=None):
        return inner.apply(v, 2 * images - 1, train=train, rngs=rngs)

    found = []
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), variables(1))
    for name, model in (("symmetric", inner), ("unit", inner._replace(apply=apply))):
        folder = f"{tiny_run().workdir} {name}"
        teacher = TrainFirst(ModelConfig("resnet", normalization=name, resolution=8))
        run = tiny_run(teacher=teacher, workdir=folder)
        kdjax.distill(run, teacher=(model, wide), student=linear())
        found.append(runlog.read_metrics(folder)[0]["loss"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_teacher_whose_answers_are_no_numbers_is_named(tiny_run, value):
    broken = jax.tree.map(lambda x: np.full_like(x, value), variables(1))
    with pytest.raises(ConfigError, match="^teacher: expected logits that are numbers"):
        kdjax.distill(tiny_run(teacher=digits_teacher()), teacher=(linear(), broken))
    assert not pathlib.Path(tiny_run().workdir).exists()


def test_a_run_goes_on_with_the_weights_that_it_began_with(tiny_run, weights, tmp_path):
    path, found = weights
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(pathlib.Path(path).read_bytes())
    published = dataclasses.replace(SMALL, weights=str(mine))
    run = tiny_run(teacher=FromWeights(published))
    folder = kdjax.distill(run, student=linear())
    kdjax.distill(run, student=linear())
    save_weights(jax.tree.map(lambda x: x + 0.01, found), mine)
    for finished in (True, False):
        if not finished:
            (folder / "summary.json").unlink()
        with pytest.raises(
            RunFolderError, match="weights or code of .*mine.safetensors ch"
        ):
            kdjax.distill(run, student=linear())


def test_a_teacher_trained_first_is_known_to_every_run(tiny_run):
    """Also to a folder from before content was written down."""
    run = tiny_run(model=SMALL, baselines=("labels",))
    folder = kdjax.distill(run)
    for part in (folder, folder / "labels"):
        config = runlog.read_config(part)
        assert {"train", "validation", "test", "teacher"} == config["content"].keys()
    before = runlog.read_config(folder)
    known = before.pop("content")
    runlog.write_json(folder / "config.json", before)
    (folder / "summary.json").unlink()
    kdjax.distill(run)
    assert runlog.read_config(folder)["content"] == known
    other = tiny_run(workdir=f"{folder} other", model=SMALL, seed=3)
    shutil.rmtree(folder / "teacher/checkpoints")
    others = kdjax.distill(other) / "teacher/checkpoints"
    shutil.copytree(others, folder / "teacher/checkpoints")
    (folder / "summary.json").unlink()
    with pytest.raises(RunFolderError, match="teacher: the weights or code changed"):
        kdjax.distill(run)


def test_the_classes_of_a_teachers_run_are_compared_by_name(tiny_run, tmp_path):
    def animals(folder, names):
        for split in ("train", "validation", "test"):
            for i, name in enumerate(names):
                path = tmp_path / folder / split / name
                path.mkdir(parents=True)
                for j in range(4):
                    pixels = np.full((8, 8), 40 * i + j, np.uint8)
                    Image.fromarray(pixels).save(path / f"{j}.png")
        return Data(f"folder:{tmp_path / folder}", "train", "validation", "test")

    first, second = animals("first", ("cat", "dog")), animals("second", ("dog", "eel"))
    small = {"batch": 4, "steps": 2, "evaluate_every": 2, "checkpoint_every": 2}
    hard = {"hard": Term("hard_cross_entropy", teacher="labels")}
    run = tiny_run(data=first, terms=hard, teacher=None, model=SMALL, **small)
    run = dataclasses.replace(run, optim=dataclasses.replace(run.optim, warmup=1))
    folder = jobs.train(run)

    def load(data):
        run = tiny_run(data=data, teacher=FromRun(str(folder)))
        source, mesh = setup.load_source(run, "train"), sharding.make_mesh(Compute(), 8)
        return setup.load_teacher(run, source, mesh)

    assert load(first).axis == 0
    want = r"teacher.run: expected .* same order, got \['cat', 'dog'\] and \['dog', 'ee"
    with pytest.raises(ConfigError, match=want):
        load(second)
    # A run's images are those that it began with.
    image = tmp_path / "first/train/cat/0.png"
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(image)
    with pytest.raises(
        RunFolderError, match="data.train: its images or labels changed"
    ):
        jobs.train(run)


def test_a_member_of_other_classes_is_named(tiny_run, tmp_path, monkeypatch):
    summary = {"steps": 1, "test": {"accuracy": [0.5]}}
    for name in ("config.json", "summary.json"):
        runlog.write_json(tmp_path / name, summary)
    wide = from_function(
        lambda params, x: x.reshape(len(x), -1) @ params["w"],
        init=lambda key, x: {"w": jax.numpy.zeros((x[0].size, 7))},
    )
    other = BoundModel(
        wide, wide.init(jax.random.key(0), np.zeros((1, 8, 8, 1))), None, 8
    )
    monkeypatch.setattr(load_teachers, "_load_run", lambda *args: other)
    run = tiny_run(teacher=Ensemble((digits_teacher(), FromRun(str(tmp_path)))))
    message = "teacher.members.1: expected 10 classes, as the first member has, got 7"
    with pytest.raises(ConfigError, match=message):
        kdjax.distill(run, teacher=(linear(), variables(1)))
    assert not pathlib.Path(run.workdir).exists()


def test_a_teacher_in_bfloat16_is_close(tiny_run):
    kls = {}
    for precision in ("float32", "bfloat16"):
        teacher = TrainFirst(ModelConfig("resnet", resolution=8), precision=precision)
        run = tiny_run(teacher=teacher, workdir=str(tiny_run().workdir) + precision)
        given = dict(teacher=(linear(), variables(2)), student=linear())
        kls[precision] = final(kdjax.distill(run, **given))["params"]["w"]
    gap = np.abs(kls["float32"] - kls["bfloat16"]).max()
    assert 0 < gap < 1e-3


def test_an_earlier_checkpoint_of_a_run_as_its_teacher(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    terms = {"hard": Term("hard_cross_entropy", teacher="labels")}
    folder = kdjax.jobs.train(tiny_run(workdir="~/run", teacher=None, terms=terms))
    assert folder == tmp_path / "run" and runlog.is_finished(folder)
    best = Checkpoints(folder).best_step()
    teacher = FromRun("~/run", step=best)
    kdjax.distill(tiny_run(teacher=teacher, workdir=str(tmp_path / "self")))
    wrong = dataclasses.replace(teacher, step=3)
    run = tiny_run(teacher=wrong, workdir=str(tmp_path / "other"))
    kept = Checkpoints(folder).steps()
    text = rf"^teacher.step: expected a step .*{re.escape(str(kept))}, got 3$"
    with pytest.raises(ConfigError, match=text):
        kdjax.distill(run)
    assert not (tmp_path / "other").exists()


def test_a_run_folder_that_cannot_teach_is_named(tiny_run, tmp_path):
    folder = tmp_path / "early"
    runlog.open_run(folder, config.to_dict(tiny_run()))
    text = f"^teacher.run: {folder}: expected a finished run, it has no whole "
    with pytest.raises(ConfigError, match=text):
        kdjax.distill(tiny_run(teacher=FromRun(str(folder))))
    runlog.write_json(folder / "summary.json", {"test": {"accuracy": [0.5]}})
    named = ModelConfig("resnet", weights=str(folder), resolution=8)
    for field, teacher in {
        "teacher": FromWeights(named),
        "teacher.members.1": Ensemble((TrainFirst(SMALL), FromWeights(named))),
    }.items():
        text = (
            rf"^{field}.model.weights: expected .*{field}.run\), got the run {folder}$"
        )
        with pytest.raises(ConfigError, match=text):
            kdjax.distill(tiny_run(teacher=teacher))
    assert not pathlib.Path(tiny_run().workdir).exists()


@pytest.mark.parametrize(
    "teacher, message",
    [
        (MovingAverage(1.0), "teacher.decay: expected a number >= 0 and < 1, got 1.0"),
        (FromRun("runs/x", step=-1), "teacher.step: expected >= 0, got -1"),
        (FromRun("runs/none"), "teacher.run: no run in runs/none: there is no"),
        (
            digits_teacher(cache=Cache(path="targets", tail="bucket")),
            "teacher.cache.tail: expected uniform with all classes",
        ),
    ],
)
def test_what_cannot_be_a_teacher_is_named(tiny_run, teacher, message):
    run = tiny_run(teacher=teacher)
    with pytest.raises(ConfigError, match=message):
        kdjax.distill(run)
    assert not pathlib.Path(run.workdir).exists()


def test_images_without_labels_have_the_classes_of_the_other_splits(tiny_run):
    rng = np.random.default_rng(0)

    def images(n):
        return rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)

    labelled = images(20), np.arange(20) % 10
    splits = {"train": (images(40), None), "validation": labelled, "test": labelled}
    run = tiny_run(
        steps=4, teacher=digits_teacher(), data=Data("digits", train="train")
    )
    given = dict(splits=splits, student=linear())
    folder = kdjax.distill(run, teacher=(linear(), variables(1)), **given)
    assert runlog.read_summary(folder)["classes"] == 10
    with pytest.raises(
        ConfigError, match=r"splits: .*evaluate\(folder, splits=\.\.\.\)"
    ):
        kdjax.evaluate(folder)
