"""A teacher replayed from its store teaches as it does live; no other store is used."""

import dataclasses
import errno
import io
import os
import pathlib

import jax
import numpy as np
import pytest
from rich.console import Console

import kdjax
from kdjax import build
from kdjax.config import (
    Cache,
    Compute,
    ConfigError,
    Data,
    Model,
    Optim,
    Scalar,
    Term,
    Views,
)
from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.core.types import TopTargets
from kdjax.data.store import Store, StoreError, open_store
from kdjax.jobs import caching
from kdjax.models import from_function
from kdjax.teachers.frozen import frozen
from kdjax.train import sharding

STEPS = 50


def linear(seed=None, classes=10):
    """A linear model of 8x8 grey images, with weights of its own if seeded."""

    def apply(params, x):
        return x.reshape(len(x), -1) @ params["w"]

    def init(key, images):
        return {"w": 0.1 * jax.random.normal(key, (images[0].size, classes))}

    model = from_function(apply, init=init)
    if seed is None:
        return model
    return model, model.init(jax.random.key(seed), np.zeros((1, 8, 8, 1), "f"))


TEACHER = linear(seed=7)


@pytest.fixture
def small(tiny_run, tmp_path):
    """A run of 50 updates of a small network under a linear teacher."""

    def make(folder, mode="function_matching", cache=None, **changes):
        base = tiny_run()
        teacher = dataclasses.replace(base.teacher, cache=cache or Cache())
        run = tiny_run(
            workdir=str(tmp_path / folder),
            seeds=2,
            steps=STEPS,
            batch=16,
            evaluate_every=STEPS,
            checkpoint_every=STEPS,
            log_every=10,
            data=Data(train="train[:72]"),
            optim=Optim(warmup=5),
            views=Views(mode=mode, flip=True),
            terms={"soft": Term(temperature=Scalar(3.0))},
            teacher=teacher,
        )
        return dataclasses.replace(run, **changes)

    return make


def taught(run, **given):
    """The student's variables after the whole run."""
    folder = kdjax.distill(run, student=linear(), teacher=TEACHER, **given)
    mesh = sharding.make_mesh(Compute(data=1), 1)
    trained = build.load_trained(folder, mesh, model=linear())
    return jax.device_get(trained.variables["params"]["w"])


def stored(run, **given):
    return kdjax.cache_targets(run, teacher=TEACHER, **given)


@pytest.mark.parametrize("mode", ["function_matching", "independent", "fixed"])
def test_all_classes_replayed_are_the_live_teacher_to_the_bit(small, tmp_path, mode):
    live = taught(small("live", mode))
    run = small("cached", mode, Cache(path=str(tmp_path / "store")))
    stored(run)
    np.testing.assert_array_equal(taught(run), live)
    kind = open_store(tmp_path / "store").manifest["kind"]
    assert kind == ("fixed" if mode == "fixed" else "replayed")


def test_passes_of_less_than_one_update_are_refused(small, tmp_path):
    """A tenth of 72 images is no batch of 16."""
    cache = Cache(path=str(tmp_path / "store"), epochs=0.1)
    want = r"epochs: expected 0 \(all\), or at least one .*0.2222 passes\), got 0.1"
    for refuse in (stored, taught):
        with pytest.raises(ConfigError, match=f"teacher.cache.{want}"):
            refuse(small("run", cache=cache))
    assert not (tmp_path / "run").exists() and not (tmp_path / "store").exists()


def test_the_likeliest_classes_come_close(small, tmp_path):
    """Of 10 classes; what is not kept is spread evenly."""
    live = taught(small("live"))
    for top_k, bound in ((9, 0.02), (3, 0.4)):
        cache = Cache(path=str(tmp_path / f"top{top_k}"), top_k=top_k)
        run = small(f"cached{top_k}", cache=cache)
        stored(run)
        gap = np.linalg.norm(taught(run) - live) / np.linalg.norm(live)
        assert 0 < gap < bound, (top_k, gap)


def test_fewer_passes_are_replayed_in_a_circle(small, tmp_path):
    cache = Cache(path=str(tmp_path / "store"), epochs=2.0)
    run = small("cached", cache=cache)
    stored(run)
    store = open_store(tmp_path / "store")
    assert store.rows == round(2 * 72 / 16)
    taught(run)
    said = "the first 9 updates (2 passes); then the same views again, 5.556 times"
    folder = pathlib.Path(run.workdir)
    assert said in runlog.read_summary(folder)["targets"]
    assert said in (folder / "report.md").read_text()
    parts = parts_of(run)
    coming = build.make_batches(parts)(0)
    seen = [next(coming) for _ in range(store.rows + 1)]
    first, again = seen[0], seen[store.rows]
    assert again["step"] == first["step"] == 0
    for name, x in first["rows"].items():
        jax.tree.map(np.testing.assert_array_equal, x, again["rows"][name])


def parts_of(run):
    return build.make_parts(
        run,
        train=build.load_source(run, "train"),
        student=linear(),
        teacher=build.Trained(*TEACHER, None, 8),
    )


def test_passes_are_read_as_asked_and_never_more_than_there_are(small, tmp_path):
    def asking(epochs):
        return small("run", cache=Cache(path=str(tmp_path / "store"), epochs=epochs))

    stored(asking(2.0))
    fewer = parts_of(asking(1.0))
    assert (fewer.store.rows, fewer.plan_step(3), fewer.plan_step(4)) == (4, 3, 0)
    # All of the run's is more than there is.
    for epochs, got in ((0.0, "50 updates"), (3.0, "14 updates")):
        message = rf"teacher.cache.epochs: expected at most the 9 .*\(2 passes\).*{got}"
        with pytest.raises(ConfigError, match=message):
            taught(asking(epochs))
    with pytest.raises(ConfigError, match="epochs: expected the 9 .* was made for"):
        stored(asking(1.0))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["function_matching", "fixed"])
def test_a_store_of_more_classes_is_read_for_fewer(small, tmp_path, mode):
    def asking(store, top_k, **changes):
        cache = Cache(path=str(tmp_path / f"store {store}"), top_k=top_k, epochs=1.0)
        return small("never", mode, cache, **changes)

    def targets(run):
        parts = parts_of(run)
        given = build.place_given(parts)
        rows = next(build.make_batches(parts)(0))["rows"]
        batch = {"rows": jax.tree.map(lambda x: x[0], rows)}
        return parts.teacher.targets({}, None, batch, given)

    for top_k in (3, 5, 0):
        stored(asking(top_k, top_k))
    want = targets(asking(3, 3))
    assert isinstance(want, TopTargets) and want.log_probs.shape == (16, 3)
    jax.tree.map(np.testing.assert_array_equal, targets(asking(5, 3)), want)
    of_all = targets(asking(0, 3))
    np.testing.assert_array_equal(of_all.indices, want.indices)
    np.testing.assert_allclose(of_all.log_probs, want.log_probs, rtol=1e-3)
    np.testing.assert_allclose(of_all.log_normaliser, want.log_normaliser, rtol=1e-5)
    assert targets(asking(5, 5)).log_probs.shape == (16, 5)
    # Only logits can be read at another temperature.
    other = {"soft": Term(temperature=Scalar(2.0))}
    assert isinstance(targets(asking(0, 3, terms=other)), TopTargets)
    with pytest.raises(StoreError, match="terms.temperature: expected 2.0"):
        parts_of(asking(5, 3, terms=other))
    with pytest.raises(StoreError, match="top_k: expected 3, the store has 5"):
        stored(asking(5, 3))


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
    with pytest.raises(ConfigError, match="cache.top_k: expected 0 .* changes, got 3"):
        taught(run)
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_named_with_the_command_that_makes_it(small, tmp_path):
    run = small("run", cache=Cache(path=str(tmp_path / "store"), epochs=2.0))
    stored(run)
    marks = open_store(tmp_path / "store").arrays["mark"]
    marks[3:6].write(0).result()
    marks[8:9].write(0).result()
    message = (
        r"the targets of 4 of 9 updates are missing \(updates 4 to 6, 9 to 9\); "
        "`kdjax cache-targets`"
    )
    with pytest.raises(StoreError, match=message):
        taught(run)


def test_progress_and_a_full_disk(small, tmp_path, monkeypatch):
    """Three blocks: the disk is full at the second, the same call writes the rest."""
    monkeypatch.setattr(caching, "_BLOCK_UPDATES", 4)
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
    assert "9 rows, 11.5 kB; 3 of 3 blocks to compute" in said
    assert "cache: 5 batches, 6.4 kB are left, about 0:00:0" in said
    assert "cache: batch 4/9" in said and "5.1 kB of 11.5 kB  left 0:00:0" in said
    assert "loss" not in said
    text.truncate(0)
    stored(run, console=console)
    assert "2 of 3 blocks to compute" in text.getvalue()
    assert open_store(tmp_path / "store").missing() == []


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
    for name, message in (("papers", "has files and no"), ("file", "cannot read")):
        with pytest.raises(StoreError, match=message):
            stored(small("run", cache=Cache(path=str(tmp_path / name))))
    assert sorted(x.name for x in tmp_path.iterdir()) == ["file", "papers"]
    assert [x.read_text() for x in (tmp_path / "papers").iterdir()] == ["precious"]


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
    message = r"teacher.run: expected the run folder of a trained .*teacher.model.weig"
    with pytest.raises(ConfigError, match=message):
        kdjax.cache_targets(run)
    assert not list(tmp_path.iterdir())


def test_pmap_and_several_devices_store_the_same(small, tmp_path):
    rows = []
    for compute in (Compute(data=1), Compute(how="pmap", data=4)):
        path = tmp_path / f"store {compute.how}"
        cache = Cache(path=str(path), epochs=1.0)
        stored(dataclasses.replace(small("run", cache=cache), compute=compute))
        rows.append(open_store(path).read(slice(0, 4))["logits"])
    np.testing.assert_allclose(rows[1], rows[0], rtol=0, atol=1e-5)


def test_only_what_is_stored_comes_out_of_the_program(small, tmp_path):
    """One more output is another program to XLA, and another rounding."""
    run = small("run")
    parts = parts_of(run)
    batch, given = next(build.make_batches(parts)(0)), build.place_given(parts)
    model = from_function(lambda v, x: (x.sum((1, 2)), {"a": x, "b": x}), params={})
    asked = parts._replace(teacher=frozen(model))
    for taps in ((), ("b",)):
        answer = caching._answer(asked, Cache(taps=taps))
        found = jax.eval_shape(answer, batch, given)
        assert set(found.taps) == set(taps)
    with pytest.raises(ValueError, match="taps: expected some of .*'a', 'b'.*got 'c'"):
        jax.eval_shape(caching._answer(asked, Cache(taps=("c",))), batch, given)


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
    mended = open_store(tmp_path / "store").read(slice(0, STEPS))
    np.testing.assert_array_equal(mended["logits"], whole["logits"])


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
            run, data=Data(train="train[:80]")
        ),
        "crop: expected 'host'": dataclasses.replace(
            run, data=Data(train="train[:72]", feed="streamed", crop="host")
        ),
    }
    for message, other in others.items():
        with pytest.raises(StoreError, match=message):
            kdjax.distill(other, student=linear(), teacher=TEACHER)
    with pytest.raises(StoreError, match="teacher.variables: expected"):
        kdjax.distill(run, student=linear(), teacher=linear(seed=8))
    assert not pathlib.Path(run.workdir).exists()


def test_the_mean_over_crops_is_fixed(small, tmp_path):
    cache = Cache(path=str(tmp_path / "store"), crops=3)
    run = small("cached", "fixed", cache)
    stored(run)
    rows = open_store(tmp_path / "store").read(slice(0, 72))["logits"][:, 0]
    np.testing.assert_allclose(np.exp(rows).sum(-1), 1.0, rtol=1e-5)
    one = small("one", "fixed", Cache(path=str(tmp_path / "store 1"), crops=1))
    stored(one)
    assert not np.allclose(
        rows, open_store(tmp_path / "store 1").read(slice(0, 72))["logits"][:, 0]
    )
    taught(run)
    for refuse in (stored, taught):
        with pytest.raises(ConfigError, match="teacher.cache.crops: expected 0 unless"):
            refuse(small("other", "consistent", cache))
    assert not (tmp_path / "other").exists()


def test_networks_with_convolutions_are_alike_to_the_bit_too(small, tmp_path):
    model = kdjax.make_model(Model(depth=8, width=4), classes=10)
    teacher = model, model.init(jax.random.key(3), np.zeros((1, 8, 8, 1), "f"))
    outcomes = []
    for folder, path in (("live", ""), ("cached", str(tmp_path / "store"))):
        run = small(folder, cache=Cache(path=path))
        run = dataclasses.replace(run, seeds=1, steps=20)
        if path:
            kdjax.cache_targets(run, teacher=teacher)
        mesh = sharding.make_mesh(Compute(data=1), 1)
        trained = build.load_trained(kdjax.distill(run, teacher=teacher), mesh)
        outcomes.append(jax.device_get(trained.variables))
    jax.tree.map(np.testing.assert_array_equal, *outcomes)


def test_streamed_teaches_as_resident(small):
    resident = taught(small("resident"))
    data = Data(train="train[:72]", feed="streamed")
    run = dataclasses.replace(small("streamed"), data=data)
    np.testing.assert_array_equal(taught(run), resident)
    # A feed is no part of a run: the other one finds it finished.
    again = dataclasses.replace(run, data=dataclasses.replace(data, feed="resident"))
    np.testing.assert_array_equal(taught(again), resident)


@pytest.mark.parametrize("how", ["jit", "pmap"])
def test_streamed_and_cached_over_several_devices(small, tmp_path, how):
    one = taught(small("one"))
    run = small("cached", cache=Cache(path=str(tmp_path / "store")))
    stored(run)
    data = Data(train="train[:72]", feed="streamed")
    compute = Compute(how=how, data=4)
    several = taught(dataclasses.replace(run, data=data, compute=compute))
    np.testing.assert_allclose(several, one, rtol=0, atol=2e-4)


def test_crops_cut_on_the_host_teach_as_those_of_the_device(small):
    """Views are equal but for the few pixels that lie halfway between two levels."""
    views = Views(flip=True, method="cubic")
    device = taught(small("device", views=views))
    data = Data(train="train[:72]", feed="streamed", crop="host")
    host = taught(small("host", views=views, data=data))
    gap = np.linalg.norm(host - device) / np.linalg.norm(device)
    assert gap < 5e-4


@pytest.mark.data
@pytest.mark.parametrize("depth", [20, 56])
def test_published_networks_are_alike_to_the_bit(small, tmp_path, depth):
    """Weights as trained, images of 32 pixels, batches of 64."""
    folder = os.environ.get("KDJAX_WEIGHTS", "/work/shared/weights")
    weights = f"{folder}/cifar10_resnet{depth}.safetensors"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (128, 32, 32, 3), dtype=np.uint8)
    splits = {k: (images, np.arange(128) % 10) for k in ("train", "test")}
    network = Model(
        depth=depth,
        width=16,
        norm="batch",
        resolution=32,
        weights=weights,
        pixels="cifar10",
    )
    outcomes = []
    for folder, path in (("live", ""), ("cached", str(tmp_path / "store"))):
        run = small(folder, cache=Cache(path=path))
        run = dataclasses.replace(
            run,
            seeds=1,
            batch=64,
            data=Data(train="train", validation="test", test="test"),
            model=Model(resolution=32),
            teacher=dataclasses.replace(run.teacher, model=network),
        )
        if path:
            kdjax.cache_targets(run, splits=splits)
        mesh = sharding.make_mesh(Compute(data=1), 1)
        trained = build.load_trained(kdjax.distill(run, splits=splits), mesh)
        outcomes.append(jax.device_get(trained.variables))
    jax.tree.map(np.testing.assert_array_equal, *outcomes)
