"""The streamed feed: the resident one's batches, whoever makes them."""

import itertools

import jax
import numpy as np
import pytest

from kdjax.augment import geometry, views
from kdjax.config import Compute, ConfigError, Views
from kdjax.data import datasets, memory, order, pipeline, resident, source, streamed
from kdjax.data.images import ImageError
from kdjax.train import sharding

SEEDS, BATCH, STEPS = (3, 4), 8, 20


def lazy(n=30, shape=(12, 10, 3)):
    """Images that are read one by one."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    whole = datasets.from_arrays(images, np.arange(n) % 5)
    return source.dataclasses.replace(
        whole, read=lambda place: images[place], images=None
    )


def first_batches(made, host=0, hosts=1, ahead=2, **options):
    rows = slice(host * BATCH // hosts, (host + 1) * BATCH // hosts)
    assemble = streamed.make_assembler(
        made, batch=BATCH, seeds=SEEDS, rows=rows, **options
    )
    return list(streamed.stream(assemble, 0, STEPS, ahead=ahead))


def host_crop(student=6, teacher=9, **changes):
    return streamed.HostCrop(views.host_draw(Views(**changes)), student, teacher)


@pytest.fixture(scope="module")
def whole_batches():
    """What one host makes, by crop on the device and on the host."""
    return {
        crop: first_batches(lazy(), workers=0, ahead=0, crop=crop and host_crop())
        for crop in (None, True)
    }


@pytest.mark.parametrize("crop", [None, True])
@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_the_same_20_batches_for_any_hosts_and_workers(
    whole_batches, crop, hosts, workers
):
    options = {"workers": workers, "crop": crop and host_crop()}
    parts = [
        first_batches(lazy(), host, hosts, ahead=workers, **options)
        for host in range(hosts)
    ]
    for step, want in enumerate(whole_batches[crop]):
        for name, x in want.items():
            blocks = [part[step][name] for part in parts]
            np.testing.assert_array_equal(np.concatenate(blocks, axis=1), x)
    pixels = ["student", "teacher"] if crop else ["image"]
    want = {"index", "epoch", "label", "id", *pixels}
    assert set(whole_batches[crop][0]) == want


def test_worker_processes_make_the_same_batches(whole_batches):
    options = {"batch": BATCH, "seeds": SEEDS, "workers": 0}
    assemble = streamed.make_assembler(lazy(), crop=host_crop(), **options)
    got = list(streamed.stream(assemble, 0, 4, ahead=1, processes=2))
    assert len(got) == 4
    for one, want in zip(got, whole_batches[True], strict=False):
        jax.tree.map(np.testing.assert_array_equal, one, want)


@pytest.mark.parametrize("store", [0, 7])
def test_what_reaches_the_devices_is_what_the_resident_feed_looks_up(store):
    made = source.resize_all(lazy(), store)
    mesh = sharding.make_mesh(Compute(data=4), BATCH)
    rows = streamed.local_rows(mesh, BATCH)
    assert rows.tolist() == list(range(BATCH))
    assemble = streamed.make_assembler(made, batch=BATCH, seeds=SEEDS, rows=rows)
    batches = streamed.stream(assemble, 5, 9)
    placed = streamed.prefetch(
        batches, lambda batch: streamed.shard(batch, mesh, rows, BATCH)
    )
    data = resident.shard(memory.decode_all(made), mesh)
    look_up = jax.jit(resident.take)
    seen = 0
    for step, got in enumerate(placed, start=5):
        for row, seed in enumerate(SEEDS):
            places, epochs = order.batch_at(step, n=30, batch=BATCH, seed=seed)
            want = look_up(data, places)
            assert set(got) == {*want, "index", "epoch"}
            for name, x in want.items():
                np.testing.assert_array_equal(got[name][row], x)
            np.testing.assert_array_equal(got["index"][row], places)
            np.testing.assert_array_equal(got["epoch"][row], epochs)
        shards = {s.data.shape[1] for s in got["image"].addressable_shards}
        assert shards == {BATCH // 4}
        seen += 1
    assert seen == 4 and ("size" in got) == bool(store)


def test_to_go_on_is_to_start_at_another_step(whole_batches):
    assemble = streamed.make_assembler(lazy(), batch=BATCH, seeds=SEEDS)
    got = streamed.stream(assemble, 13, STEPS)
    for one, want in itertools.zip_longest(got, whole_batches[None][13:]):
        jax.tree.map(np.testing.assert_array_equal, one, want)


@pytest.mark.parametrize(
    "mode, method, antialias",
    [
        ("function_matching", "linear", False),
        ("independent", "linear", True),
        ("independent", "cubic", False),
        ("function_matching", "cubic", True),
        ("independent", "lanczos3", False),
    ],
)
def test_crops_on_the_host_are_those_of_the_device(mode, method, antialias):
    """Every image of an epoch through both feeds, up to the finished views: equal but
    for one level, in one of a thousand values, where one lies halfway between two."""
    made, config = (
        lazy(),
        Views(mode=mode, method=method, antialias=antialias, flip=True),
    )
    crop = streamed.HostCrop(views.host_draw(config), 6, 9, method, antialias)
    held = memory.decode_all(made)

    @jax.jit
    def both(images, labels, ids, epochs, student, teacher):
        named = views.name_views(ids, epochs, np.int32(0), config)
        draw = views.draw_views(SEEDS[0], named, config, (12, 10))
        sizes = {"student_size": 6, "teacher_size": 9}
        how = {"method": method, "antialias": antialias}
        on_device = views.apply_views(draw, images, labels, **sizes, **how)
        return on_device, views.finish_views(draw, student, teacher, labels)

    gaps = []
    for step, batch in enumerate(first_batches_of(made, crop, 4)):
        places, epochs = order.batch_at(step, n=30, batch=BATCH, seed=SEEDS[0])
        rows = (x[places] for x in (held.images, held.labels, held.ids))
        want, got = both(*rows, epochs, batch["student"][0], batch["teacher"][0])
        for side in ("student", "teacher"):
            x, y = (np.asarray(getattr(v, side), np.float64) for v in (got, want))
            gaps.append(np.abs(x - y).ravel() * 127.5)
    gaps = np.concatenate(gaps)
    assert gaps.max() < 1.001 and (gaps > 0.001).mean() < 1e-3


def first_batches_of(made, crop, stop):
    assemble = streamed.make_assembler(made, batch=BATCH, seeds=SEEDS, crop=crop)
    return list(streamed.stream(assemble, 0, stop))


def test_one_view_for_both_sides_is_cut_once():
    (batch,) = first_batches_of(lazy(), host_crop(teacher=6), 1)
    assert "teacher" not in batch and batch["student"].shape == (2, 8, 6, 6, 3)
    (batch,) = first_batches_of(lazy(), host_crop(6, 6, mode="independent"), 1)
    assert (batch["teacher"] != batch["student"]).any()


def test_images_of_any_size_are_cut_by_their_own_aspect():
    """A tall and a wide image: boxes of the aspect asked for, in pixels."""
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (8 + 40 * (i % 2), 40, 3), np.uint8) for i in range(8)
    ]
    made = source.dataclasses.replace(lazy(8), read=lambda place: images[place])
    seen = []

    def draw(seed, epochs, examples, sizes):
        crops = views.host_draw(Views(aspect=(1.0, 1.0)))(seed, epochs, examples, sizes)
        seen.append((sizes, crops[0].box))
        return crops

    first_batches_of(made, streamed.HostCrop(draw, 4, 4), 1)
    sizes, box = seen[0]
    assert sorted({tuple(x) for x in sizes}) == [(8, 40), (48, 40)]
    sides = box[:, 2:] * sizes
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], 1.0, rtol=1e-5)
    whole = geometry.whole_image(8)
    assert (np.asarray(whole.box)[:, 2:] >= box[:, 2:]).all()


def test_a_damaged_image_ends_the_stream_with_its_name():
    def read(place):
        raise ImageError(f"cat {place}.jpg: cannot be decoded")

    made = source.dataclasses.replace(lazy(), read=read)
    assemble = streamed.make_assembler(made, batch=BATCH, seeds=SEEDS)
    with pytest.raises(ImageError, match=r"cat \d+.jpg: cannot be decoded"):
        list(streamed.stream(assemble, 0, 2))


def test_the_feed_is_chosen_by_size_or_by_force():
    made = lazy()
    assert pipeline.decoded_bytes(made) == 30 * 12 * 10 * 3
    assert pipeline.choose_pipeline(made, 10_800) == "device"
    assert pipeline.choose_pipeline(made, 10_799) == "host"
    assert pipeline.choose_pipeline(made, 10_799, "device") == "device"
    assert pipeline.choose_pipeline(made, 10_800, "host") == "host"
    with pytest.raises(ConfigError, match="data.pipeline: expected auto or device"):
        pipeline.choose_pipeline(made, 1, "carrier pigeon")
    mesh = sharding.make_mesh(Compute(data=2), 2)
    assert pipeline.device_budget(mesh) == 4 * 2**30
