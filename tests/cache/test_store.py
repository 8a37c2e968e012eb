"""The store: resumable, checked, and refused where it is of something else."""

import json
import resource
import shutil
import time

import numpy as np
import pytest

from kdjax.cache.store import (
    Column,
    StoreError,
    create_store,
    open_store,
    read_manifest,
)

ARRAYS = {"logits": Column((3,), "float16"), "best": Column((), "uint16")}
OF = {"teacher": "abc", "views": {"mode": "consistent", "area": [0.05, 1.0]}}


def make(path, manifest=OF):
    return create_store(path, manifest, ARRAYS, records=10, block=4)


def values(block):
    rng = np.random.default_rng(block)
    n = 2 if block == 2 else 4
    logits = rng.normal(size=(n, 3)).astype(np.float16)
    return {"logits": logits, "best": rng.integers(9, size=n).astype(np.uint16)}


@pytest.fixture
def full(tmp_path):
    store = make(tmp_path / "store")
    for block in range(store.blocks):
        store.write(block, values(block))
    return tmp_path / "store"


def chunk_files(path, name):
    return sorted(x for x in (path / name / "c").rglob("*") if x.is_file())


def test_what_is_written_is_read_again(full):
    store = open_store(full, OF)
    whole = {k: np.concatenate([values(b)[k] for b in range(3)]) for k in ARRAYS}
    for rows in (slice(0, 10), slice(3, 6), np.array([9, 0, 4, 4])):
        found = store.read(rows)
        assert set(found) == set(ARRAYS)
        for name, array in found.items():
            np.testing.assert_array_equal(array, whole[name][rows])
            assert array.dtype == ARRAYS[name].dtype
    assert store.missing() == []


def test_blocks_that_are_not_written_are_missing(tmp_path):
    store = make(tmp_path / "store")
    assert (store.blocks, store.missing()) == (3, [0, 1, 2])
    store.write(1, values(1))
    again = make(tmp_path / "store")
    assert again.missing() == [0, 2]
    np.testing.assert_array_equal(again.read(slice(4, 8))["best"], values(1)["best"])
    with pytest.raises(StoreError, match="unfinished, records 3 to 5 are missing"):
        again.read(slice(3, 6))


def test_a_block_half_written_is_missing(tmp_path):
    store = make(tmp_path / "store")
    with pytest.raises(StoreError, match="cannot write"):
        store.write(0, {**values(0), "best": np.zeros((3, 3), np.uint16)})
    assert store.missing() == [0, 1, 2]


@pytest.mark.parametrize("damage", ["flip a bit", "cut off", "empty"])
@pytest.mark.parametrize("block", [1, 2])
def test_a_damaged_chunk_is_never_used(full, damage, block):
    chunk = chunk_files(full, "logits")[block]
    data = bytearray(chunk.read_bytes())
    if damage == "flip a bit":
        data[5] ^= 1
    chunk.write_bytes(data[: {"cut off": 7, "empty": 0}.get(damage, len(data))])
    store = open_store(full)
    with pytest.raises(StoreError, match="damaged chunk of 'logits'"):
        store.read(slice(4 * block, 4 * block + 1))
    np.testing.assert_array_equal(store.read(slice(0, 4))["best"], values(0)["best"])
    assert store.missing() == [block]
    store.write(block, values(block))
    assert open_store(full).missing() == []


@pytest.mark.parametrize("copied", [("logits",), ("logits", "best", "mark")])
def test_records_of_another_store_do_not_pass(full, tmp_path, copied):
    """Their chunks are whole and of the right shape; only what they are of differs."""
    other = make(tmp_path / "other", {**OF, "teacher": "def"})
    for block in range(3):
        logits = -values(block)["logits"]
        other.write(block, {**values(block), "logits": logits})
    for name in copied:
        chunk_files(full, name)[1].write_bytes(
            chunk_files(tmp_path / "other", name)[1].read_bytes()
        )
    store = open_store(full)
    with pytest.raises(
        StoreError, match="records 4 to 7 are damaged or of another store"
    ):
        store.read(slice(4, 8))
    with pytest.raises(StoreError, match="records 5 to 9 are damaged or of another"):
        store.read(np.array([9, 5]))
    assert store.missing() == [1] and store.unfinished() == []


def test_records_at_another_index_do_not_pass(full):
    for name in ("logits", "best", "mark"):
        first, second, _ = chunk_files(full, name)
        second.write_bytes(first.read_bytes())
    assert open_store(full).missing() == [1]


def test_the_first_records_alone(tmp_path):
    store = make(tmp_path / "store")
    store.write(0, values(0))
    assert store.unfinished() == [slice(4, 10)]
    short = store.first(4)
    assert (short.records, short.blocks, short.unfinished()) == (4, 1, [])
    assert short.nbytes == 4 * (6 + 2)


def test_a_store_that_is_there_keeps_its_blocks(full):
    again = create_store(full, OF, ARRAYS, records=10, block=7)
    assert again.block == 4 and again.missing() == []
    with pytest.raises(StoreError, match="layout.rows: expected 11, the store has 10"):
        create_store(full, OF, ARRAYS, records=11, block=4)


@pytest.mark.parametrize("name", ["mark", "logits", "best"])
def test_a_chunk_that_is_gone_is_missing(full, name):
    chunk_files(full, name)[2].unlink()
    store = open_store(full)
    assert store.missing() == [2]
    assert store.unfinished() == ([slice(8, 10)] if name == "mark" else [])
    with pytest.raises(StoreError, match="damaged|unfinished"):
        store.read(slice(8, 10))


def test_a_block_of_zeros_is_not_missing(tmp_path):
    store = make(tmp_path / "store")
    zeros = {"logits": np.zeros((4, 3), np.float16), "best": np.zeros(4, np.uint16)}
    store.write(0, zeros)
    assert store.missing() == [1, 2] and not store.read(slice(0, 4))["best"].any()


def test_arrays_without_a_manifest_are_nobodys(full):
    (full / "manifest.json").unlink()
    with pytest.raises(StoreError, match="it has files and no manifest.json"):
        make(full)


def test_a_store_of_something_else_is_refused(full):
    other = {"teacher": "abc", "views": {"mode": "fixed"}}
    message = r"views.mode: expected 'fixed', the store has 'consistent'"
    with pytest.raises(StoreError, match=message):
        open_store(full, other)
    with pytest.raises(StoreError, match="seed: expected 3, the store has nothing"):
        open_store(full, {"seed": 3})
    want = "seed: .* nothing; views.mode: .*'consistent'; views.area: expected nothing"
    with pytest.raises(StoreError, match=want):
        open_store(full, {"seed": 3, **other})
    with pytest.raises(StoreError, match="teacher: expected 'x', the store has 'abc'"):
        make(full, {"teacher": "x"})
    less = {"views": OF["views"]}
    want = "teacher: expected nothing, the store has 'abc'$"
    with pytest.raises(StoreError, match=want):
        open_store(full, less)
    assert open_store(full, less, unknown=["teacher"]).missing() == []
    assert open_store(full, OF).missing() == []


def test_no_store_and_no_manifest(tmp_path, full):
    with pytest.raises(StoreError, match="expected a store, it has no manifest"):
        open_store(tmp_path / "nowhere")
    assert read_manifest(tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()
    (full / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="manifest.json is damaged"):
        open_store(full)
    others = (
        '{"name": "a web page"}',
        "[1]",
        '{"layout": {"arrays": {}, "rows": "9", "block": 4}}',
        '{"layout": {"arrays": [], "rows": 9, "block": 4}}',
        '{"layout": {"arrays": {}, "rows": 9, "block": 4}}',
        '{"layout": {"arrays": {"logits": 3}, "rows": 9, "block": 4}}',
        # Names of places outside the store, sizes and types that no array has.
        '{"layout": {"arrays": {"/a": [[2], "uint8"]}, "rows": 9, "block": 4}}',
        '{"layout": {"arrays": {"../a": [[2], "uint8"]}, "rows": 9, "block": 4}}',
        '{"layout": {"arrays": {"a": [[-2], "uint8"]}, "rows": 9, "block": 4}}',
        '{"layout": {"arrays": {"a": [[1e3], "uint8"]}, "rows": 9, "block": 4}}',
        '{"layout": {"arrays": {"a": [[2], "object"]}, "rows": 9, "block": 4}}',
        '{"layout": {"arrays": {"a": [[2], "uint8"]}, "rows": true, "block": 4}}',
        '{"layout": {"arrays": {"a": [[2], "uint8"]}, "rows": 9, "block": 1e9}}',
    )
    for other in others:
        (full / "manifest.json").write_text(other)
        with pytest.raises(StoreError, match="manifest.json is no store's"):
            make(full)
        assert (full / "manifest.json").read_text() == other


def test_reading_writes_nothing(full):
    shutil.rmtree(full / "best")
    with pytest.raises(StoreError, match="cannot open 'best': .*cache-targets"):
        open_store(full)
    assert not (full / "best").exists()


def test_a_changed_manifest_is_damaged(full):
    """One letter, of a field's name or of its value."""
    file = full / "manifest.json"
    whole = file.read_text()
    for old, new in (
        ("teacher", "teachar"),
        ("abc", "abd"),
        ('"rows": 10', '"rows": 9'),
    ):
        file.write_text(whole.replace(old, new))
        with pytest.raises(StoreError, match="manifest.json is damaged, its checksum"):
            open_store(full)
    file.write_text(whole)
    assert open_store(full).missing() == []


def test_a_manifest_from_before_checksums_is_read(full):
    manifest = json.loads((full / "manifest.json").read_text())
    del manifest["checksum"]
    (full / "manifest.json").write_text(json.dumps(manifest))
    assert open_store(full).missing() == []


@pytest.mark.parametrize("text", ["{", '{"zarr_format": 2}'])
def test_a_damaged_layout_is_reported_and_repaired(full, text):
    (full / "best" / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match="cannot open 'best': .*cache-targets"):
        open_store(full)
    assert make(full).missing() == [] and open_store(full).missing() == []


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make("~/store")
    assert open_store(tmp_path / "store").records == 10


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/store: cannot (read|write)"):
        make(tmp_path / "file" / "store")


def test_the_size_of_a_record():
    assert [x.nbytes for x in ARRAYS.values()] == [6, 2]


def test_a_write_that_fails_says_so(full):
    store = open_store(full)
    for chunk in chunk_files(full, "best"):
        chunk.unlink()
    (full / "best" / "c").rmdir()
    (full / "best" / "c").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=r"store: cannot write: \S"):
        store.write(0, values(0))


@pytest.mark.full
def test_a_bucket_that_cannot_be_reached_is_said_in_seconds(monkeypatch):
    """Left alone, TensorStore tries for minutes."""
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", "http://127.0.0.1:1")
    begun = time.monotonic()
    with pytest.raises(StoreError, match="^gs://bucket/x: cannot read: .*retry"):
        read_manifest("gs://bucket/x")
    assert time.monotonic() - begun < 30


def test_a_full_disk_is_one_line_and_costs_nothing_before_it(tmp_path):
    """The kernel itself refuses: no file may be larger than 1 000 bytes."""
    rows = {"logits": Column((300,), "float32")}
    block = {"logits": np.ones((4, 300), np.float32)}
    store = create_store(tmp_path / "store", OF, rows, records=12, block=4)
    store.write(0, block)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot write: .*File too large") as error:
            store.write(1, block)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    again = create_store(tmp_path / "store", OF, rows, records=12, block=4)
    assert again.missing() == [1, 2]
    again.write(1, block)
    assert again.missing() == [2]
