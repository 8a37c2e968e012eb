"""A teacher replayed from its store teaches as it does live."""

import dataclasses
import functools
import os
import pathlib

import jax
import numpy as np
import pytest

import kdjax
from kdjax import setup
from kdjax.cache.store import StoreError, open_store
from kdjax.config import (
    Cache,
    Compute,
    ConfigError,
    Data,
    ModelConfig,
    Scalar,
    Term,
    Views,
)
from kdjax.core import runlog
from kdjax.core.types import TopTargets, make_batch
from kdjax.jobs import caching
from kdjax.models import from_function
from kdjax.teachers.frozen import frozen
from kdjax.train import sharding
from tests.e2e.linear_runs import TEACHER, parts_of, stored, taught


@pytest.mark.full
@pytest.mark.parametrize("mode", ["function_matching", "independent", "fixed"])
def test_all_classes_replayed_are_the_live_teacher_to_the_bit(small, tmp_path, mode):
    live = taught(small("live", mode))
    run = small("cached", mode, Cache(path=str(tmp_path / "store")))
    stored(run)
    np.testing.assert_array_equal(taught(run), live)
    kind = open_store(tmp_path / "store").manifest["kind"]
    assert kind == ("fixed" if mode == "fixed" else "replayed")


@pytest.mark.full
def test_the_likeliest_classes_come_close(small, tmp_path):
    """Of 10 classes; what is not kept is spread evenly."""
    live = taught(small("live"))
    for top_k, bound in ((9, 0.02), (3, 0.4)):
        cache = Cache(path=str(tmp_path / f"top{top_k}"), top_k=top_k)
        run = small(f"cached{top_k}", cache=cache)
        stored(run)
        gap = np.linalg.norm(taught(run) - live) / np.linalg.norm(live)
        assert 0 < gap < bound, (top_k, gap)


@pytest.mark.full
def test_fewer_epochs_are_replayed_in_cycles(small, tmp_path):
    cache = Cache(path=str(tmp_path / "store"), epochs=2.0)
    run = small("cached", cache=cache)
    stored(run)
    store = open_store(tmp_path / "store")
    assert store.records == round(2 * 72 / 16)
    taught(run)
    said = "the first 9 steps (2 epochs); then the same views again, 5.556 times"
    folder = pathlib.Path(run.workdir)
    assert said in runlog.read_summary(folder)["targets"]
    assert said in (folder / "report.md").read_text()
    parts = parts_of(run)
    coming = setup.make_batches(parts)(0)
    seen = [next(coming) for _ in range(store.records + 1)]
    first, again = seen[0], seen[store.records]
    assert again["step"] == first["step"] == 0
    for name, x in first["rows"].items():
        jax.tree.map(np.testing.assert_array_equal, x, again["rows"][name])


@pytest.mark.full
@pytest.mark.parametrize("mode", ["function_matching", "fixed"])
def test_a_store_of_more_classes_is_read_for_fewer(small, tmp_path, mode):
    def asking(store, top_k, **changes):
        epochs = 0.0 if mode == "fixed" else 1.0
        cache = Cache(str(tmp_path / f"store {store}"), epochs, top_k)
        return small("never", mode, cache, **changes)

    def targets(run):
        parts = parts_of(run)
        given = setup.place_constants(parts)
        rows = next(setup.make_batches(parts)(0))["rows"]
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
    np.testing.assert_allclose(of_all.log_normalizer, want.log_normalizer, rtol=1e-5)
    assert targets(asking(5, 5)).log_probs.shape == (16, 5)
    # Only logits can be read at another temperature.
    other = {"soft": Term(temperature=Scalar(2.0))}
    assert isinstance(targets(asking(0, 3, terms=other)), TopTargets)
    with pytest.raises(StoreError, match="terms.temperature: expected 2.0"):
        parts_of(asking(5, 3, terms=other))
    with pytest.raises(StoreError, match="top_k: expected 3, the store has 5"):
        stored(asking(5, 3))


@pytest.mark.full
def test_pmap_and_several_devices_store_the_same(small, tmp_path):
    rows = []
    for compute in (Compute(data=1), Compute(how="pmap", data=4)):
        path = tmp_path / f"store {compute.how}"
        cache = Cache(path=str(path), epochs=1.0)
        stored(dataclasses.replace(small("run", cache=cache), compute=compute))
        rows.append(open_store(path).read(slice(0, 4))["logits"])
    np.testing.assert_allclose(rows[1], rows[0], rtol=0, atol=1e-5)


@pytest.mark.full
def test_only_what_is_stored_comes_out_of_the_program(small, tmp_path):
    """One more output is another program to XLA, and another rounding."""
    run = small("run")
    parts = parts_of(run)
    batch, given = next(setup.make_batches(parts)(0)), setup.place_constants(parts)
    model = from_function(lambda v, x: (x.sum((1, 2)), {"a": x, "b": x}), params={})
    asked = parts._replace(teacher=frozen(model))
    for taps in ((), ("b",)):
        answer = caching._make_teacher_fn(asked, Cache(taps=taps))
        found = jax.eval_shape(answer, batch, given)
        assert set(found.taps) == set(taps)
    with pytest.raises(ValueError, match="taps: expected some of .*'a', 'b'.*got 'c'"):
        jax.eval_shape(
            caching._make_teacher_fn(asked, Cache(taps=("c",))), batch, given
        )


@pytest.mark.full
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


@pytest.mark.full
def test_networks_with_convolutions_are_alike_to_the_bit_too(small, tmp_path):
    model = kdjax.make_model(
        ModelConfig("resnet", depth=8, width=4, resolution=8), classes=10
    )
    teacher = model, model.init(jax.random.key(3), np.zeros((1, 8, 8, 1), "f"))
    outcomes = []
    for folder, path in (("live", ""), ("cached", str(tmp_path / "store"))):
        run = small(folder, cache=Cache(path=path))
        run = dataclasses.replace(run, seeds=1, steps=20)
        if path:
            kdjax.cache_targets(run, teacher=teacher)
        mesh = sharding.make_mesh(Compute(data=1), 1)
        trained = setup.load_trained(kdjax.distill(run, teacher=teacher), mesh)
        outcomes.append(jax.device_get(trained.variables))
    jax.tree.map(np.testing.assert_array_equal, *outcomes)


@pytest.mark.full
def test_streamed_teaches_as_resident(small):
    resident = taught(small("resident"))
    data = Data("digits", train="train[:72]", pipeline="host")
    run = dataclasses.replace(small("streamed"), data=data)
    np.testing.assert_array_equal(taught(run), resident)
    # A feed is no part of a run: the other one finds it finished.
    again = dataclasses.replace(run, data=dataclasses.replace(data, pipeline="device"))
    np.testing.assert_array_equal(taught(again), resident)


@pytest.mark.full
@pytest.mark.parametrize("how", ["jit", "pmap"])
def test_streamed_and_cached_over_several_devices(small, tmp_path, how):
    one = taught(small("one"))
    run = small("cached", cache=Cache(path=str(tmp_path / "store")))
    stored(run)
    data = Data("digits", train="train[:72]", pipeline="host")
    compute = Compute(how=how, data=4)
    several = taught(dataclasses.replace(run, data=data, compute=compute))
    np.testing.assert_allclose(several, one, rtol=0, atol=2e-4)


@pytest.mark.full
def test_crops_cut_on_the_host_teach_as_those_of_the_device(small):
    """Views are equal but for the few pixels that lie halfway between two levels."""
    views = Views(flip=True, method="cubic")
    device = taught(small("device", views=views))
    data = Data("digits", train="train[:72]", pipeline="host", crop="host")
    host = taught(small("host", views=views, data=data))
    gap = np.linalg.norm(host - device) / np.linalg.norm(device)
    assert gap < 5e-4


@pytest.mark.full
@pytest.mark.data
@pytest.mark.parametrize("depth", [20, 56])
def test_published_networks_are_alike_to_the_bit(small, tmp_path, depth):
    """Weights as trained, images of 32 pixels, batches of 64."""
    folder = os.environ.get("KDJAX_WEIGHTS")
    if not folder:
        pytest.skip("KDJAX_WEIGHTS names no folder of weights")
    weights = f"{folder}/cifar10_resnet{depth}.safetensors"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (128, 32, 32, 3), dtype=np.uint8)
    splits = {k: (images, np.arange(128) % 10) for k in ("train", "test")}
    network = ModelConfig(
        depth=depth,
        width=16,
        norm="batch",
        resolution=32,
        weights=weights,
        normalization="cifar10",
        name="resnet",
    )
    outcomes = []
    for folder, path in (("live", ""), ("cached", str(tmp_path / "store"))):
        run = small(folder, cache=Cache(path=path))
        run = dataclasses.replace(
            run,
            seeds=1,
            batch=64,
            data=Data("digits", "train", "test[:64]", "test[64:]"),
            model=ModelConfig("resnet", resolution=32),
            teacher=dataclasses.replace(run.teacher, model=network),
        )
        if path:
            kdjax.cache_targets(run, splits=splits)
        mesh = sharding.make_mesh(Compute(data=1), 1)
        trained = setup.load_trained(kdjax.distill(run, splits=splits), mesh)
        outcomes.append(jax.device_get(trained.variables))
    jax.tree.map(np.testing.assert_array_equal, *outcomes)


@pytest.mark.full
def test_the_tail_rule_of_the_config_reaches_the_loss(small, tmp_path):
    """The first step's loss by NumPy: 3 of 10 classes kept, temperature 3."""

    def asking(tail):
        cache = Cache(str(tmp_path / "store"), epochs=1.0, top_k=3, tail=tail)
        return small("run", "consistent", cache, seeds=1)

    stored(asking("uniform"))
    w = 0.1 * np.eye(64, 10, dtype="f")
    parts = parts_of(asking("uniform"))
    batch, given = next(setup.make_batches(parts)(0)), setup.place_constants(parts)
    one = {k: jax.tree.map(lambda x: x[0], batch[k]) for k in ("seed", "rows")}
    batch = {**batch, **one}
    view = jax.jit(lambda: parts.view(0, batch, given))()
    targets = parts.teacher.targets({}, view, batch, given)

    def first_loss(tail):
        params, state = {"student": {"w": w}}, {"student": {}}
        strategy, numbers = parts_of(asking(tail)).strategy, batch["schedules"]
        inputs = make_batch(view, targets, {})
        losses, _ = strategy.loss(params, state, inputs, numbers, None)
        return losses["student"]

    pixels = np.float64(view.student).reshape(16, -1)
    logits = pixels @ np.float64(TEACHER[1]["params"]["w"]), pixels @ np.float64(w)
    p, q = (np.exp(x / 3) / np.exp(x / 3).sum(-1, keepdims=True) for x in logits)
    order = np.argsort(-p, axis=-1)
    p, q = (np.take_along_axis(x, order, -1) for x in (p, q))

    def by_hand(p, q):
        return 9 * (p * np.log(p / q)).sum(-1).mean()

    evened = np.c_[p[:, :3], np.tile(p[:, 3:].mean(-1, keepdims=True), 7)]
    bucket = (np.c_[x[:, :3], x[:, 3:].sum(-1)] for x in (p, q))
    kept = (x[:, :3] / x[:, :3].sum(-1, keepdims=True) for x in (p, q))
    # Targets are kept in half precision.
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3)
    close(first_loss("uniform"), by_hand(evened, q))
    close(first_loss("bucket"), by_hand(*bucket))
    close(first_loss("renormalize"), by_hand(*kept))
