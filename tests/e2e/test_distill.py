"""The whole path on a small run: what it leaves, how it continues, how it stops."""

import dataclasses
import json
import os
import pathlib
import signal

import chex
import jax
import numpy as np
import pytest

import kdjax
from kdjax import jobs, setup
from kdjax.config import (
    HARD,
    ConfigError,
    Ensemble,
    FromRun,
    FromWeights,
    ModelConfig,
    Optim,
    Scalar,
    Term,
    TrainFirst,
    Views,
)
from kdjax.core import runlog
from kdjax.data import datasets
from kdjax.presets import digits, digits_teacher
from kdjax.train import loop
from kdjax.train.checkpoint import Checkpoints
from tests.e2e.saved import saved


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    """One complete distillation with a teacher, a baseline and two seeds."""
    root = tmp_path_factory.mktemp("finished") / "run"
    from kdjax.config import Compute

    optim = Optim(warmup=5, lr=0.01)
    views = Views(area=(0.5, 1.0), flip=False)
    run = digits(
        name="funmatch",
        workdir=str(root),
        seeds=2,
        model=ModelConfig("resnet", depth=8, width=4, resolution=8),
        teacher=TrainFirst(
            ModelConfig("resnet", depth=8, width=4, resolution=8),
            steps=60,
            optim=optim,
        ),
        optim=optim,
        views=views,
        baselines=("labels_mixup",),
        steps=60,
        batch=32,
        evaluate_every=20,
        checkpoint_every=20,
        log_every=10,
        compute=Compute(data=1),
    )
    return run, kdjax.distill(run)


@pytest.mark.full
def test_a_run_leaves_all_its_files(finished):
    run, root = finished
    for folder in (root, root / "teacher", root / "labels_mixup"):
        for name in ("config.json", "metrics.jsonl", "summary.json"):
            assert (folder / name).stat().st_size > 0, (folder, name)
        assert (folder / "report.md").read_text().startswith("#")
        assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
        assert (folder / "checkpoints" / str(run.steps)).is_dir()


@pytest.mark.full
def test_the_config_in_the_folder_is_the_run(finished):
    run, root = finished
    assert setup.read_run(root) == run
    baseline = setup.read_run(root / "labels_mixup")
    assert baseline.terms == {"hard": HARD}
    assert (baseline.model, baseline.optim, baseline.steps) == (
        run.model,
        run.optim,
        run.steps,
    )
    assert baseline.views == run.views


@pytest.mark.full
def test_training_does_what_it_should(finished):
    """The loss falls, the teacher is good, the student comes closer to it."""
    run, root = finished
    lines = runlog.read_metrics(root)
    losses = [np.mean(x["loss"]) for x in lines if x["kind"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    measured = [x for x in lines if x["kind"] == "validation"]
    assert [x["step"] for x in measured] == [20, 40, 60]
    kl = [np.mean(x["kl"]) for x in measured]
    assert kl[-1] < kl[0]
    teacher = runlog.read_summary(root / "teacher")
    assert min(teacher["test"]["accuracy"]) > 0.3  # chance is 0.1
    assert "agreement" not in teacher["test"]
    assert len(runlog.read_summary(root)["test"]["agreement"]) == 2


@pytest.mark.full
def test_the_teacher_is_in_no_student_checkpoint(finished):
    _, root = finished
    names = set(saved(root))
    assert all("teacher" not in name for name in names)
    # A student with GroupNorm has no further state.
    assert {n.split("'")[1] for n in names} == {"params", "opt_state", "step"}


@pytest.mark.full
def test_the_report_has_every_part(finished):
    _, root = finished
    text = (root / "report.md").read_text()
    for name in ("teacher", "labels_mixup", "funmatch"):
        assert f"| {name} |" in text
    assert "curves.png" in text and "±" in text


@pytest.mark.full
def test_the_same_command_again_changes_nothing(finished, capsys):
    run, root = finished
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*.jsonl")}
    kdjax.distill(run)
    assert "finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*.jsonl")} == before


@pytest.mark.full
def test_another_config_in_the_same_folder_is_refused(finished):
    run, root = finished
    before = (root / "config.json").read_bytes()
    other = dataclasses.replace(
        run, steps=80, optim=dataclasses.replace(run.optim, lr=1.0)
    )
    with pytest.raises(ValueError) as error:
        kdjax.distill(other)
    assert "steps: folder has 60, this run has 80" in str(error.value)
    assert "optim.lr: folder has 0.01, this run has 1.0" in str(error.value)
    assert (root / "config.json").read_bytes() == before


@pytest.mark.full
def test_a_folder_from_before_a_field_was_added_is_the_same_run(finished, capsys):
    run, root = finished
    whole = (root / "config.json").read_bytes()
    config = runlog.read_config(root)
    del config["data"]["classes"], config["terms"]["soft"]["weight"]
    try:
        runlog.write_json(root / "config.json", config)
        kdjax.distill(run)
        assert "finished" in capsys.readouterr().out
        data = dataclasses.replace(run.data, classes=12)
        with pytest.raises(ValueError, match="classes: folder has 0, this run has 12"):
            kdjax.distill(dataclasses.replace(run, data=data))
    finally:
        (root / "config.json").write_bytes(whole)


@pytest.mark.full
def test_evaluate_repeats_the_summary(finished):
    _, root = finished
    summary = runlog.read_summary(root)["test"]
    found = kdjax.evaluate(root)
    assert found.keys() == summary.keys()
    for name in summary:
        np.testing.assert_allclose(found[name], summary[name], rtol=1e-5, atol=1e-6)
    best = kdjax.evaluate(root, split="validation", checkpoint="best")
    lines = [x for x in runlog.read_metrics(root) if x["kind"] == "validation"]
    top = max(np.mean(x["accuracy"]) for x in lines)
    np.testing.assert_allclose(np.mean(best["accuracy"]), top, atol=1e-6)


@pytest.mark.full
def test_a_finished_run_as_the_teacher_of_another(finished, tiny_run):
    run, root = finished
    teacher = FromRun(str(root / "teacher"))
    other = tiny_run(teacher=teacher, seeds=2)
    folder = kdjax.distill(other)
    assert not (folder / "teacher").exists()
    assert runlog.is_finished(folder)
    line = "teacher.run has 2 seeds, this run 3: seed 0 teaches"
    with pytest.warns(UserWarning, match=line):
        kdjax.distill(tiny_run(teacher=teacher, seeds=3, workdir=str(folder) + "3"))


def interrupted_run(run, at, start, monkeypatch):
    """Start a run and send it SIGTERM once it logs step `at`; then start it again."""
    append, after = runlog.append_metrics, min(at + 1, run.steps)

    def kill(folder, line):
        append(folder, line)
        ours = pathlib.Path(folder) == pathlib.Path(run.workdir)
        if ours and line["step"] == at and line["kind"] == "train":
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(runlog, "append_metrics", kill)
        with pytest.raises(loop.Interrupted, match=f"stopped at step {after} of"):
            start(run)
    assert not runlog.is_finished(run.workdir)
    return start(run)


@pytest.mark.full
@pytest.mark.parametrize("compute", ["jit", "pmap"])
def test_continuing_gives_the_bits_of_an_uninterrupted_run(
    tiny_run, tmp_path, monkeypatch, compute
):
    """Data order, view keys, schedules, optimizer, connector, BatchNorm: everything."""
    from kdjax.config import Compute

    terms = {
        "soft": Term(temperature=Scalar(4.0, 1.0, "cosine"), weight=Scalar(0.9)),
        "hard": Term(
            "hard_cross_entropy", Scalar(0.0, 0.1, "linear"), teacher="labels"
        ),
        "hint": Term("hint_l2", student="stage1", teacher="stage1", projector=True),
    }
    run = tiny_run(
        terms=terms,
        seeds=2,
        model=ModelConfig("resnet", depth=8, width=2, norm="batch", resolution=8),
        compute=Compute(how=compute, data=2),
        # Not a divisor of the signal's step: the run stops between its checkpoints.
        checkpoint_every=5,
        log_every=2,
        evaluate_every=3,
    )
    folder = interrupted_run(run, 6, kdjax.distill, monkeypatch)
    whole = kdjax.distill(dataclasses.replace(run, workdir=str(tmp_path / "whole")))
    chex.assert_trees_all_equal(saved(folder), saved(whole))
    strip = lambda line: {k: v for k, v in line.items() if "second" not in k}  # noqa: E731
    ours, theirs = (list(map(strip, runlog.read_metrics(f))) for f in (folder, whole))
    assert [(x["kind"], x["step"]) for x in ours] == [
        (x["kind"], x["step"]) for x in theirs
    ]
    # A line of training is the mean since the one before, or since the run went on.
    different = [x["step"] for x, y in zip(ours, theirs, strict=True) if x != y]
    assert different == [8]


@pytest.mark.full
def test_at_its_last_step_a_run_is_told_to_stop_too(tiny_run, monkeypatch):
    """Else a sweep would go on with the next, and whoever sent the signal wait."""
    run = tiny_run(teacher=None, terms={"hard": HARD}, steps=4, log_every=1)
    assert runlog.is_finished(interrupted_run(run, 4, jobs.train, monkeypatch))


@pytest.mark.full
def test_a_loss_that_is_nan_stops_the_run_and_keeps_the_last_good(tiny_run):
    run = tiny_run(
        teacher=None,
        terms={"hard": HARD},
        optim=Optim(name="sgd", lr=1.0, clip=0, warmup=0, schedule="steps", gamma=1e30),
        model=ModelConfig("resnet", depth=8, width=2, norm="batch", resolution=8),
        steps=16,
        log_every=16,
        checkpoint_every=4,
        evaluate_every=16,
    )
    # The rate explodes after 10 of the 16 updates.
    with pytest.raises(loop.NonFiniteError) as error:
        jobs.train(run)
    text = str(error.value)
    assert "expected a finite number" in text and "Last good checkpoint: step 8" in text
    step = int(text.split("at step ")[1].split()[0])
    assert 11 <= step <= 16
    assert Checkpoints(run.workdir).last_step() == 8
    assert not runlog.is_finished(run.workdir)
    assert all(np.isfinite(x).all() for x in saved(run.workdir).values())


def teacher(**fields):
    """A teacher with these fields of its model: published if they name weights."""
    model = dataclasses.replace(digits_teacher().model, **fields)
    return dict(teacher=(FromWeights if model.weights else TrainFirst)(model))


BAD_RUNS = {
    "batch: expected <= 200 examples, got 256": dict(batch=256),
    "batch: expected a multiple of 8 devices, got 12": dict(
        batch=12, compute="compute 8"
    ),
    "at most the 8 devices there are, got 16": dict(batch=16, compute="compute 16"),
    "terms.soft.loss: expected the name of a loss": dict(
        terms={"soft": Term("kullback")}
    ),
    "terms.soft.temperature.value: expected a finite number, got nan": dict(
        terms={"soft": Term(temperature=Scalar(float("nan")))}
    ),
    "terms.soft.temperature.value: expected a number in [1e-06, 1e+06], got 0": dict(
        terms={"soft": Term(temperature=Scalar(0.0))}
    ),
    "terms.m.temperature: expected none, as logit_mse has no temperature": dict(
        terms={"m": Term("logit_mse", temperature=Scalar(2.0))}
    ),
    "terms.hint.student: did you mean 'stage3'? expected logits or one of": dict(
        terms={"hint": Term("hint_l2", student="stage9", teacher="stage1")}
    ),
    "views.area: expected 0 < low <= high <= 1": dict(views=Views(area=(0.0, 1.0))),
    "views.mode: expected one of ['fixed'": dict(views=Views(mode="sideways")),  # type: ignore
    "data.train: expected a split with examples": "empty",
    "optim.warmup: expected fewer than the 8 steps, got 9": dict(optim=Optim(warmup=9)),
    "terms.hint: teacher_features: expected the shape of student_features": dict(
        terms={"hint": Term("hint_l2", student="stage1", teacher="stage1")},
    ),
    "model.depth: expected 6n": dict(
        model=ModelConfig("resnet", depth=9, resolution=8)
    ),
    "model.name: ": dict(model=ModelConfig(name="resnext", resolution=8)),
    "teacher.model.name: did you mean 'resnet'": teacher(name="resnext"),
    "teacher.model.norm: expected group for bit_r50x1": teacher(
        name="bit_r50x1", norm="batch"
    ),
    "teacher.model.depth: expected 6n": teacher(depth=9),
    "teacher.model.resolution: expected height and width in multiples of 16": teacher(
        name="vit_ti16", resolution=30
    ),
    "teacher.model.normalization: expected images of 3": teacher(
        normalization="cifar10"
    ),
    "teacher.model.weights: nowhere.npz: expected": teacher(weights="nowhere.npz"),
    "teacher.members.1.model.name: did you mean": dict(
        teacher=Ensemble(
            (digits_teacher(), FromWeights(ModelConfig("resnext", weights="x.npz")))
        )
    ),
}


@pytest.mark.parametrize("message", BAD_RUNS)
def test_bad_input_is_named_before_anything_is_written(tiny_run, message, tmp_path):
    from kdjax.config import Compute, Data

    changes = BAD_RUNS[message]
    if changes == "empty":
        changes = dict(data=Data("digits", train="train[3:3]"))
    changes = dict(changes)
    if str(changes.get("compute", "")).startswith("compute"):
        changes["compute"] = Compute(data=int(changes["compute"].split()[1]))
    run = tiny_run(**changes)
    with pytest.raises(ValueError) as error:
        kdjax.distill(run)
    assert message in str(error.value)
    assert not pathlib.Path(run.workdir).exists()


@pytest.mark.full
def test_student_and_teacher_with_different_classes(tiny_run, tmp_path):
    five = {
        name: (x[y < 5], y[y < 5])
        for name, (x, y) in datasets.load_splits("digits").items()
    }
    from kdjax.config import Data

    data = Data("digits", train="train[:64]")
    teacher = tiny_run(
        teacher=None, terms={"hard": HARD}, data=data, workdir=str(tmp_path / "five")
    )
    folder = jobs.train(teacher, splits=five)
    run = tiny_run(teacher=FromRun(str(folder)), workdir=str(tmp_path / "ten"))
    with pytest.raises(ConfigError, match=r"^teacher: expected 10 logits .*, got 5$"):
        kdjax.distill(run)
    assert not (tmp_path / "ten").exists()


@pytest.mark.full
def test_a_checkpoint_of_another_architecture(tiny_run, tmp_path):
    """Another model's checkpoint put in the folder is refused, and stays."""
    import shutil

    wide = tiny_run(
        teacher=None,
        terms={"hard": HARD},
        model=ModelConfig("resnet", width=4, resolution=8),
        workdir=str(tmp_path / "w"),
    )
    jobs.train(wide)
    slim = tiny_run(teacher=None, terms={"hard": HARD}, workdir=str(tmp_path / "s"))
    runlog.open_run(slim.workdir, kdjax.config.to_dict(slim))
    shutil.copytree(tmp_path / "w" / "checkpoints", tmp_path / "s" / "checkpoints")
    before = sorted(p.name for p in (tmp_path / "s" / "checkpoints").iterdir())
    with pytest.raises(Exception, match="another architecture") as error:
        jobs.train(slim)
    assert "params/student" in str(error.value)
    assert sorted(p.name for p in (tmp_path / "s" / "checkpoints").iterdir()) == before


def test_a_foreign_folder_is_refused_and_left_alone(tiny_run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="workdir: .* has no config.json"):
        kdjax.distill(tiny_run(workdir=str(tmp_path / "mine")))
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def linear(classes):
    """A plain function as a model, over flattened images."""
    import jax.numpy as jnp

    def init(key, images):
        shape = (int(np.prod(images.shape[1:])), classes)
        return {"w": 0.01 * jax.random.normal(key, shape), "b": jnp.zeros(classes)}

    def apply(params, images):
        return images.reshape(len(images), -1) @ params["w"] + params["b"][None]

    return kdjax.from_function(apply, init=init)


def arrays(classes=4, seed=0, shape=(6, 6, 3)):
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.integers(0, 256, (n, *shape), dtype=np.uint8),
            np.arange(n) % classes,
        )
        for name, n in (("train", 40), ("validation", 10), ("test", 10))
    }


@pytest.fixture
def own_run(tiny_run):
    from kdjax.config import Data

    return tiny_run(data=Data("digits", train="train"))


def own_teacher(classes=4, seed=3):
    import jax.numpy as jnp

    model = linear(classes)
    return model, model.init(jax.random.key(seed), jnp.zeros((1, 8, 8, 3)))


def test_a_model_and_data_of_the_users_own(own_run):
    """A plain function as the student, arrays as the data, a teacher in memory."""
    given = dict(splits=arrays(), student=linear(4), teacher=own_teacher())
    folder = kdjax.distill(own_run, **given)
    summary = runlog.read_summary(folder)
    assert summary["parameters"] == 8 * 8 * 3 * 4 + 4
    assert json.loads((folder / "summary.json").read_text())["classes"] == 4
    with pytest.raises(ConfigError, match="splits: expected what this run was given"):
        kdjax.evaluate(folder)
    found = kdjax.evaluate(
        folder, splits=given["splits"], model=given["student"], teacher=given["teacher"]
    )
    for name, values in summary["test"].items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)
    alone = kdjax.evaluate(folder, splits=given["splits"], model=given["student"])
    assert alone["accuracy"] == found["accuracy"] and "agreement" not in alone


@pytest.mark.full
def test_other_data_or_another_teacher_is_another_run(own_run):
    given = dict(splits=arrays(), student=linear(4), teacher=own_teacher())
    kdjax.distill(own_run, **given)
    plain = linear(4)

    def init(key, images):
        return {**plain.init(key, images)["params"], "more": np.zeros(3)}

    def apply(params, images):
        return images.reshape(len(images), -1) @ params["w"] + params["b"][None]

    wider = kdjax.from_function(apply, init=init)
    summary = pathlib.Path(own_run.workdir) / "summary.json"
    for finished in (True, False):
        if not finished:
            summary.unlink()
        for change, field in (
            (dict(splits=arrays(seed=1)), "data.test: its images"),
            (dict(teacher=own_teacher(seed=4)), "teacher: the weights"),
            (dict(splits=None, student=None, teacher=None), "given.model: folder has"),
            (dict(teacher=None), "given.teacher: folder has"),
            (dict(student=wider), "model: the shapes"),
        ):
            text = f"holds another run:\n  {field}"
            with pytest.raises(ValueError, match=text):
                kdjax.distill(own_run, **{**given, **change})
            assert not (summary.parent / "teacher").exists()
    kdjax.distill(own_run, **given)


@pytest.mark.full
def test_the_best_step_is_kept_though_no_checkpoint_was_due(tiny_run):
    run = tiny_run(
        teacher=None,
        terms={"hard": HARD},
        steps=21,
        evaluate_every=3,
        checkpoint_every=10,
        optim=Optim(lr=0.05, warmup=1),
    )
    folder = jobs.train(run)
    lines = [x for x in runlog.read_metrics(folder) if x["kind"] == "validation"]
    accuracy = {x["step"]: np.mean(x["accuracy"]) for x in lines}
    assert list(accuracy) == [3, 6, 9, 12, 15, 18, 21]
    kept = Checkpoints(folder)
    assert accuracy[kept.best_step()] == max(accuracy.values())
    assert kept.last_step() == 21


def test_parameters_that_are_nan_are_never_saved(own_run):
    """A finite loss whose gradient is NaN: found before the checkpoint."""
    import jax.numpy as jnp

    student = linear(4)

    def spoilt(variables, images, *, train=False, rngs=None):
        output, state = student.apply(variables, images, train=train, rngs=rngs)
        nothing = jnp.sqrt(0 * variables["params"]["w"].sum())
        return output._replace(logits=output.logits + nothing), state

    run = dataclasses.replace(
        own_run, steps=1, optim=Optim(warmup=0), teacher=None, terms={"hard": HARD}
    )
    broken = student._replace(apply=spoilt)
    with pytest.raises(loop.NonFiniteError, match="parameters: .* step 1.*none yet"):
        jobs.train(run, splits=arrays(), model=broken)
    assert Checkpoints(run.workdir).last_step() is None
    assert not runlog.is_finished(run.workdir)


def test_every_label_needs_a_logit(own_run):
    teacher = own_teacher(classes=3)
    bad = {
        r"model: expected 4 logits .*, got 3": dict(student=linear(3), teacher=teacher),
        r"teacher: expected (as many classes|4 logits)": dict(
            student=linear(4), teacher=teacher
        ),
    }
    for message, given in bad.items():
        with pytest.raises(ConfigError, match=message):
            kdjax.distill(own_run, splits=arrays(), **given)
    assert not pathlib.Path(own_run.workdir).exists()


def test_variables_that_are_not_the_teachers_are_named(own_run):
    model, variables = own_teacher()
    for wrong in ({"params": {}}, variables["params"], None, {"params": 3.0}):
        with pytest.raises(ConfigError, match="teacher: expected .*variables"):
            kdjax.distill(
                own_run, splits=arrays(), student=linear(4), teacher=(model, wrong)
            )
    assert not pathlib.Path(own_run.workdir).exists()


def change(split, part):
    splits = arrays()
    splits[split] = part
    return splits


GREY = np.zeros((10, 6, 6, 1), np.uint8)
BAD_SPLITS = {
    r"data.validation: expected images as in data.train \(6, 6, 3\)": change(
        "validation", (GREY, np.arange(10) % 4)
    ),
    r"data.test: expected labels below 4 .*got 9": change(
        "test", (arrays()["test"][0], np.arange(10))
    ),
    r"data.test \(test\): expected a pair \(images, labels\), got 'NoneType'": change(
        "test", None
    ),
    r"data.test \(test\): expected arrays": change("test", ([[1], [1, 2]], [0, 1])),
    r"data.train \(train\) images: expected uint8": change(
        "train", (np.zeros((4, 0, 0, 3), np.uint8), np.zeros(4, int))
    ),
    r"data.train \(train\) labels: expected class ids": change(
        "train", (arrays()["train"][0], np.full(40, 2**33))
    ),
}


@pytest.mark.parametrize("message", BAD_SPLITS)
def test_splits_that_cannot_be_used_are_named(own_run, message):
    with pytest.raises(ConfigError, match=message):
        kdjax.distill(own_run, splits=BAD_SPLITS[message], student=linear(4))
    assert not pathlib.Path(own_run.workdir).exists()


def test_what_a_users_function_raises_is_named(own_run, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def data(): raise KeyError('gone')\ndef model(config, classes): return 1 / 0\n"
    )
    (tmp_path / "torn.py").write_text("def data(:\n")
    for field, value, message in (
        ("data", f"{tmp_path}/mine.py:data", "data.name: data raised KeyError: 'gone'"),
        ("data", f"{tmp_path}/torn.py:data", "data.name: cannot import .*SyntaxError"),
        ("model", f"{tmp_path}/mine.py:model", "model.name: model raised ZeroDivision"),
    ):
        part = dataclasses.replace(getattr(own_run, field), name=value)
        run = dataclasses.replace(own_run, **{field: part})
        with pytest.raises(ConfigError, match=message):
            kdjax.distill(run, splits=None if field == "data" else arrays())
    with pytest.raises(ConfigError, match="student: expected a kdjax Model .*'int'"):
        kdjax.distill(own_run, splits=arrays(), student=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="teacher: expected a pair"):
        kdjax.distill(own_run, splits=arrays(), teacher=linear(4))
    assert not pathlib.Path(own_run.workdir).exists()


def test_a_model_that_cannot_take_the_images_is_said(own_run):
    student = linear(4)

    def apply(variables, images, *, train=False, rngs=None):
        return student.apply(variables, images[..., :1], train=train, rngs=rngs)

    with pytest.raises(ConfigError, match="tiny: expected a model, data and terms"):
        kdjax.distill(own_run, splits=arrays(), student=student._replace(apply=apply))
