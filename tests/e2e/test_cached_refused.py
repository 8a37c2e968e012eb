"""No store but the run's own is used, and none is lost."""

import dataclasses
import errno
import io
import pathlib

import numpy as np
import pytest
from rich.console import Console

import kdjax
from kdjax import setup
from kdjax.cache import reader, writer
from kdjax.cache.manifest import make_manifest
from kdjax.cache.store import Column, Store, StoreError, open_store
from kdjax.config import (
    Cache,
    ConfigError,
    Data,
    Ensemble,
    FromWeights,
    ModelConfig,
    Scalar,
    Term,
    replace_cache,
)
from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.core.types import BoundModel
from kdjax.jobs import caching
from kdjax.models import zoo
from tests.e2e.linear_runs import TEACHER, linear, parts_of, stored, taught

STEPS = 50


def test_epochs_of_less_than_one_step_are_refused(small, tmp_path):
    """A tenth of 72 images is no batch of 16."""
    cache = Cache(path=str(tmp_path / "store"), epochs=0.1)
    want = r"epochs: expected 0 \(all\), or at least one .*0.2222 epochs\), got 0.1"
    for refuse in (stored, taught):
        with pytest.raises(ConfigError, match=f"teacher.cache.{want}"):
            refuse(small("run", cache=cache))
    assert not (tmp_path / "run").exists() and not (tmp_path / "store").exists()


def test_a_cache_is_checked_before_the_teacher_is_measured(
    small, tmp_path, monkeypatch
):
    def refuse(*_):
        pytest.fail("the teacher was measured")

    monkeypatch.setattr(caching, "check_teacher", refuse)
    (tmp_path / "file").touch()
    file = f"a folder, got the file {tmp_path}/file"
    for name, path, expected in (
        ("top_k", "store", "0 to 10 classes, got 99"),
        ("path", "file", file),
        ("path", "file/store", file),
    ):
        cache = Cache(path=str(tmp_path / path), top_k=99, epochs=1.0)
        message = f"^teacher.cache.{name}: expected {expected}$"
        with pytest.raises(ConfigError, match=message):
            stored(small("run", cache=cache))
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


@pytest.mark.full
def test_more_classes_than_are_kept_are_refused(small, tmp_path):
    def asking(folder, store, top_k):
        cache = Cache(path=str(tmp_path / f"store {store}"), top_k=top_k, epochs=1.0)
        return small(folder, cache=cache)

    for top_k in (3, 0):
        stored(asking("run", top_k, top_k))
    for store, top_k, want in ((3, 5, "1 to 3"), (3, 0, "1 to 3"), (0, 11, "0 to 10")):
        message = rf"^teacher.cache.top_k: expected {want}, .*, got {top_k}$"
        with pytest.raises(ConfigError, match=message):
            taught(asking("run", store, top_k))
    changing = {"soft": Term(temperature=Scalar(3.0, 1.0, "linear"))}
    run = dataclasses.replace(asking("run", 0, 3), terms=changing)
    with pytest.raises(ConfigError, match="top_k: expected 0 .* one temp.* got 3"):
        taught(run)
    assert not (tmp_path / "run").exists()


def test_the_top_k_classes_are_of_one_temperature(small, tmp_path):
    cache = Cache(path=str(tmp_path / "store"), top_k=3)
    two = {str(t): Term(temperature=Scalar(t)) for t in (1.0, 4.0)}
    left_out = Term("logit_mse", weight=Scalar(0.0))
    small("run", cache=cache, terms={"soft": two["4.0"], "off": left_out}).check()
    message = r"teacher.cache.top_k: expected 0 \(all classes\), or terms of one temp"
    for refuse in (stored, taught):
        with pytest.raises(ConfigError, match=f"^{message}.* got 3$"):
            refuse(small("run", cache=cache, terms=two))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "mean, at", [("logits", 0.0), ("probabilities", 0.0), ("probabilities", 3.0)]
)
def test_a_mean_of_probabilities_is_of_a_temperature(small, mean, at):
    """That of the loss, or its own; a mean of logits serves all."""
    second = FromWeights(ModelConfig("resnet", weights="second.npz", resolution=8))

    def of(temperature):
        run = small("run", terms={"soft": Term(temperature=Scalar(temperature))})
        first = replace_cache(run.teacher, Cache())
        teacher = Ensemble((first, second), mean=mean, mean_at=at)
        run = dataclasses.replace(run, teacher=teacher)
        train = setup.load_source(run, "train")
        return make_manifest(run, train, BoundModel(*TEACHER, None, 8))

    assert (of(1.0) == of(8.0)) == (mean == "logits" or at > 0)
    assert of(1.0) == of(1.0)
    assert of(1.0)["teacher"].get("mean_at", 0.0) == at


def test_what_training_does_not_see_is_no_part_of_a_store(small):
    def of(mode, **views):
        run = small("run", mode)
        run = dataclasses.replace(run, views=dataclasses.replace(run.views, **views))
        train = setup.load_source(run, "train")
        return make_manifest(run, train, BoundModel(*TEACHER, None, 8))

    for mode in ("consistent", "function_matching", "fixed"):
        assert of(mode, evaluation_crop=1.25) == of(mode), mode
        assert of(mode, crop_fraction=0.5) == of(mode), mode
    mild = {"crop": "random"}
    assert of("consistent", **mild, area=(0.5, 1.0)) == of("consistent", **mild)
    assert of("consistent", **mild, crop_fraction=0.5) != of("consistent", **mild)
    assert of("consistent", area=(0.5, 1.0)) != of("consistent")
    assert of("fixed", fixed_view="center", crop_fraction=0.5) != of(
        "fixed", fixed_view="center"
    )
    assert of("consistent", mix="cutmix") == of("consistent")
    assert of("function_matching", mix="cutmix") != of("function_matching")
    assert of("fixed", fixed_view="center") != of("fixed")


MODEL = """
from kdjax.models import from_function

def make(config, classes):
    sign = 1
    def apply(variables, images):
        return sign * images.reshape(len(images), -1) @ variables["w"]
    return from_function(apply, params={"w": 1.0})

def other(config, classes):
    return make(config, classes)

import functools

part = functools.partial(make)
"""


def test_a_model_of_ones_own_is_known_by_its_file(small, tmp_path):
    """Other answers from the same variables."""
    file = tmp_path / "mine.py"

    run = small("run", cache=Cache(path=str(tmp_path / "store")))
    train = setup.load_source(run, "train")

    def teacher(text, name="make", **sizes):
        file.write_text(text)
        code = zoo.fingerprint_model(ModelConfig(name=f"{file}:{name}", **sizes))
        return BoundModel(*TEACHER, None, 8, code=(code,))

    def of(*args, **sizes):
        return make_manifest(run, train, teacher(*args, **sizes))

    first, changed = of(MODEL), MODEL.replace("sign = 1", "sign = -1")
    assert of(MODEL) == first and of(MODEL, weights="x.npz") == first
    assert of(changed) != first
    # A function reads what it likes of its config, and a partial has no file.
    assert of(MODEL, "other") != first and of(MODEL, depth=14) != first
    assert of(MODEL, "part") != of(changed, "part")
    assert zoo.fingerprint_model(ModelConfig("resnet", resolution=8)) == ""
    logits = {"logits": Column((2, 16, 10), "float32")}
    writer.create_cache(run, train, teacher(MODEL), logits)
    with pytest.raises(StoreError, match="teacher.code: expected nothing, the store"):
        reader.open_cache(run, train, teacher(MODEL)._replace(code=("",)))
    with pytest.raises(StoreError, match="unfinished"):
        reader.open_cache(run, train, teacher(MODEL))


@pytest.mark.full
def test_a_fixed_store_is_repaired_with_another_batch(small, tmp_path):
    """Blocks keep their size; the batch is no part of what they hold."""
    cache = Cache(path=str(tmp_path / "store"))
    stored(small("run", "fixed", cache))
    whole = open_store(tmp_path / "store").read(slice(0, 72))["logits"]
    open_store(tmp_path / "store").arrays["mark"][16:].write(0).result()
    for batch, gone in ((6, [1, 2, 3, 4]), (36, [])):
        assert open_store(tmp_path / "store").missing() == gone
        stored(small("run", "fixed", cache, batch=batch))
    repaired = open_store(tmp_path / "store").read(slice(0, 72))["logits"]
    np.testing.assert_allclose(repaired, whole, rtol=0, atol=1e-6)


@pytest.mark.full
def test_a_store_whose_layout_is_damaged_is_repaired(small, tmp_path):
    run = small("run", cache=Cache(path=str(tmp_path / "store"), epochs=1.0))
    stored(run)
    whole = open_store(tmp_path / "store").read(slice(0, 4))["logits"]
    for name in ("logits", "mark"):
        (tmp_path / "store" / name / "zarr.json").write_text("")
        with pytest.raises(StoreError, match=f"cannot open '{name}'.*cache-targets"):
            taught(run)
        stored(run)
        found = open_store(tmp_path / "store").read(slice(0, 4))["logits"]
        np.testing.assert_array_equal(found, whole)


def test_a_fixed_store_has_no_epochs(small, tmp_path):
    cache = Cache(path=str(tmp_path / "store"), epochs=2.0)
    with pytest.raises(ConfigError, match="teacher.cache.epochs: expected 0 with view"):
        stored(small("run", "fixed", cache))


def test_what_is_missing_is_named_with_the_command_that_makes_it(small, tmp_path):
    run = small("run", cache=Cache(path=str(tmp_path / "store"), epochs=2.0))
    stored(run)
    marks = open_store(tmp_path / "store").arrays["mark"]
    marks[3:6].write(0).result()
    marks[8:9].write(0).result()
    message = (
        r"the targets of 4 of 9 steps are missing \(steps 4 to 6, 9 to 9\); "
        "`kdjax cache-targets`"
    )
    with pytest.raises(StoreError, match=message):
        taught(run)


@pytest.mark.full
def test_progress_and_a_full_disk(small, tmp_path, monkeypatch):
    """Three blocks: the disk is full at the second, the same call writes the rest."""
    monkeypatch.setattr(writer, "_BLOCK_STEPS", 4)
    run = small("run", cache=Cache(path=str(tmp_path / "store"), epochs=2.0))
    text = io.StringIO()
    console = Console(file=text, width=200)
    put, calls = Store._put, []

    def full(self, *args):
        calls.append(args)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_put", full)
        message = "cannot write: .*No space left.*; 1 of 3 blocks are there, the same"
        with pytest.raises(StoreError, match=message) as error:
            stored(run, console=console)
    assert "\n" not in str(error.value)
    said = text.getvalue()
    assert "9 records, 11.5 kB; 3 of 3 blocks to compute" in said
    assert "cache: 5 batches, 6.4 kB are left, about 0:00:0" in said
    assert "cache: batch 4/9" in said and "5.1 kB of 11.5 kB  left 0:00:0" in said
    assert "loss" not in said
    text.truncate(0)
    stored(run, console=console)
    assert "2 of 3 blocks to compute" in text.getvalue()
    assert open_store(tmp_path / "store").missing() == []


@pytest.mark.full
def test_a_store_is_kept_apart_and_overwrites_nothing(small, tmp_path):
    for path in ("run", "run/store", "."):
        run = small("run", cache=Cache(path=str(tmp_path / path)))
        with pytest.raises(ConfigError, match="teacher.cache.path: expected a folder"):
            stored(run)
        with pytest.raises(ConfigError, match="teacher.cache.path: expected a folder"):
            taught(run)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "papers").mkdir()
    for name in ("papers/thesis.tex", "file"):
        (tmp_path / name).write_text("precious")
    for name, error, message in (
        ("papers", StoreError, "has files and no"),
        ("file", ConfigError, "expected a folder, got the file"),
    ):
        with pytest.raises(error, match=message):
            stored(small("run", cache=Cache(path=str(tmp_path / name))))
    assert sorted(x.name for x in tmp_path.iterdir()) == ["file", "papers"]
    assert [x.read_text() for x in (tmp_path / "papers").iterdir()] == ["precious"]


@pytest.mark.full
def test_a_finished_run_needs_its_store_no_more_and_one_may_move(small, tmp_path):
    run = small("run", cache=Cache(path=str(tmp_path / "store"), epochs=1.0))
    stored(run)
    taught(run)
    moved = small("run", cache=Cache(path=str(tmp_path / "moved"), epochs=1.0))
    (tmp_path / "store").rename(tmp_path / "moved")
    # Neither the old place nor the new one is read again.
    for again in (run, moved):
        taught(again)
    with pytest.raises(RunFolderError, match="teacher.cache.path"):
        taught(small("run"))
    # Unfinished, it goes on with the store at its new place, and with none at the old.
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(StoreError, match="store"):
        taught(run)
    taught(moved)
    assert runlog.is_finished(tmp_path / "run")


def test_a_teacher_must_be_there(small, tmp_path):
    run = small("run", cache=Cache(path=str(tmp_path / "store")))
    message = "teacher.kind: expected run or weights, or a trained teacher .* 'train'$"
    with pytest.raises(ConfigError, match=message):
        kdjax.cache_targets(run)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_or_damaged_store_is_finished_by_the_same_call(small, tmp_path):
    run = small("cached", cache=Cache(path=str(tmp_path / "store")))
    stored(run)
    whole = open_store(tmp_path / "store").read(slice(0, STEPS))
    chunks = (tmp_path / "store" / "logits" / "c").rglob("*")
    chunk = next(x for x in chunks if x.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(StoreError, match="damaged chunk of 'logits'"):
        taught(run)
    stored(run)
    repaired = open_store(tmp_path / "store").read(slice(0, STEPS))
    np.testing.assert_array_equal(repaired["logits"], whole["logits"])


def test_a_store_of_something_else_is_refused_by_field(small, tmp_path):
    cache = Cache(path=str(tmp_path / "store"))
    run = small("cached", cache=cache)
    with pytest.raises(StoreError, match="expected a store in .*kdjax cache-targets"):
        taught(run)
    assert not pathlib.Path(run.workdir).exists()
    stored(run)
    others = {
        "seed: expected 5, the store has 0": dataclasses.replace(run, seed=5),
        "batch: expected 8, the store has 16": dataclasses.replace(run, batch=8),
        "seeds: expected 3, the store has 2": dataclasses.replace(run, seeds=3),
        "teacher.precision: expected 'bfloat16'": dataclasses.replace(
            run, teacher=dataclasses.replace(run.teacher, precision="bfloat16")
        ),
        "views.mode: expected 'fixed'": dataclasses.replace(
            run, views=dataclasses.replace(run.views, mode="fixed")
        ),
        "views.flip: expected False": dataclasses.replace(
            run, views=dataclasses.replace(run.views, flip=False)
        ),
        "data.content: expected": dataclasses.replace(
            run, data=Data("digits", train="train[:80]")
        ),
        "cache.crops: expected 3, the store has nothing": small(
            "cached", "fixed", dataclasses.replace(cache, crops=3)
        ),
        "crop: expected 'host'": dataclasses.replace(
            run,
            data=Data("digits", train="train[:72]", pipeline="host", crop="host"),
        ),
    }
    for message, other in others.items():
        with pytest.raises(StoreError, match=message):
            kdjax.distill(other, student=linear(), teacher=TEACHER)
    with pytest.raises(StoreError, match="teacher.variables: expected"):
        kdjax.distill(run, student=linear(), teacher=linear(seed=8))
    assert not pathlib.Path(run.workdir).exists()


@pytest.mark.full
def test_fewer_epochs_are_read_and_never_more_than_are_stored(small, tmp_path):
    def asking(epochs):
        return small("run", cache=Cache(path=str(tmp_path / "store"), epochs=epochs))

    stored(asking(2.0))
    fewer = parts_of(asking(1.0))
    assert (fewer.store.records, fewer.cycle_step(3), fewer.cycle_step(4)) == (4, 3, 0)
    # All of the run's is more than there is.
    for epochs, got in ((0.0, "50 steps"), (3.0, "14 steps")):
        message = rf"teacher.cache.epochs: expected at most the 9 .*\(2 epochs\).*{got}"
        with pytest.raises(ConfigError, match=message):
            taught(asking(epochs))
    with pytest.raises(ConfigError, match="epochs: expected the 9 .* was made for"):
        stored(asking(1.0))
    assert not (tmp_path / "run").exists()
