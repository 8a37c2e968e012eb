"""Copies of run folders in a bucket, over a bucket in memory."""

import contextlib
import pathlib
import threading

import pytest
import tensorstore as ts
from filelock import FileLock

from kdjax.core import bucket, runlog
from kdjax.core.user_cache import user_cache

URL = "gs://kdjax-test/runs/one"


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The files of the bucket, and a cache of its own for the copy."""
    context = ts.Context()

    def open_memory(url, few=False):
        place = url.removeprefix("gs://")
        spec = {"driver": "memory", "path": f"{place}/"}
        return ts.KvStore.open(spec, context=context).result()

    monkeypatch.setattr(bucket, "_open", open_memory)
    monkeypatch.setattr(bucket, "_equal", {})
    monkeypatch.setattr(bucket.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return open_memory(URL)


def put(stored, **files):
    for name, content in files.items():
        stored.write(name.replace("__", "/"), content).result()


def names(stored):
    return {x.decode() for x in stored.list().result()}


def test_paths_and_urls(stored):
    folder = bucket.open_folder(URL)
    assert folder == user_cache() / "buckets" / "kdjax-test" / "runs" / "one"
    # A `Path` keeps one slash, and a slash at the end means nothing.
    for path in (pathlib.Path(URL), f"{URL}/"):
        assert bucket.open_folder(path) == folder
    assert bucket.find_url(folder) == URL
    assert bucket.find_url(folder / "teacher") == f"{URL}/teacher"
    assert bucket.with_urls(f"see {folder}/report.md") == f"see {URL}/report.md"
    local = pathlib.Path("runs") / "one"
    assert bucket.open_folder("runs/one") == local
    assert bucket.find_url(local) is None
    assert bucket.find_place(local) == local


def test_the_copy_becomes_equal_to_the_bucket(stored):
    put(stored, config=b"1", inner__log=b"2", checkpoints__5__x=b"3")
    put(stored, **{".kdjax-writer": b"4", "inner__checkpoints__5__x": b"5"})
    folder = bucket.open_folder(URL)
    files = {x.relative_to(folder).as_posix() for x in folder.rglob("*") if x.is_file()}
    assert files - {".kdjax-lock"} == {"config", "inner/log"}
    assert (folder / "inner" / "log").read_bytes() == b"2"
    put(stored, config=b"changed")
    stored.write("inner/log", None).result()
    (folder / "of this machine").write_bytes(b"6")
    bucket.open_folder(URL)
    assert (folder / "config").read_bytes() == b"changed"
    # A folder without files would be taken for content.
    assert {x.name for x in folder.iterdir()} <= {"config", ".kdjax-lock"}


def test_what_has_changed_is_sent(stored):
    put(stored, config=b"1", old=b"2")
    folder = bucket.open_folder(URL)
    (folder / "log").write_bytes(b"3")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "x").write_bytes(b"4")
    (folder / ".kdjax-lock").write_bytes(b"")
    (folder / "old").unlink()
    # A file that is equal is not sent again.
    stored.write("config", b"of another").result()
    bucket.push(folder)
    assert names(stored) == {"config", "log"}
    assert stored.read("config").result().value == b"of another"
    (folder / "config").write_bytes(b"own, and longer")
    bucket.push(folder)
    assert stored.read("config").result().value == b"own, and longer"


def test_the_summary_is_sent_last(stored, monkeypatch):
    """Before it, a run counts as unfinished."""
    folder = bucket.open_folder(URL)
    for name in ("summary.json", "metrics.jsonl", "curves.png"):
        (folder / name).write_bytes(b"1")
    order = []

    class Recorder:
        def write(self, name, content):
            order.append(name)
            return stored.write(name, content)

    monkeypatch.setattr(bucket, "_open", lambda url, few=False: Recorder())
    bucket.push(folder)
    assert sorted(order[:2]) == ["curves.png", "metrics.jsonl"]
    assert order[2:] == ["summary.json"]


def test_files_are_sent_in_the_block_and_at_its_end(stored, monkeypatch):
    monkeypatch.setattr(bucket, "_PAUSE", 0.01)
    folder = bucket.open_folder(URL)
    seen = threading.Event()
    with bucket.writing(folder):
        # The folder of a run inside is the same bucket's.
        with bucket.writing(folder / "teacher"):
            (folder / "log").write_bytes(b"1")
        for _ in range(500):
            if "log" in names(stored):
                seen.set()
                break
            seen.wait(0.01)
        assert seen.is_set()
        (folder / "last").write_bytes(b"2")
    assert {"log", "last"} <= names(stored)


def test_files_are_sent_when_a_run_fails(stored):
    folder = bucket.open_folder(URL)
    with pytest.raises(KeyError, match="why"), bucket.writing(folder):
        (folder / "events").write_bytes(b"1")
        raise KeyError("why")
    assert "events" in names(stored)


def test_the_last_to_begin_has_the_bucket(stored):
    folder = bucket.open_folder(URL)
    with contextlib.ExitStack() as stack:
        stack.enter_context(bucket.writing(folder))
        bucket.push(folder)
        stored.write(".kdjax-writer", b"another").result()
        (folder / "log").write_bytes(b"1")
        expected = f"^workdir: {URL}: another process trains in it now$"
        for inner in (folder, folder / "teacher"):
            with pytest.raises(runlog.RunFolderError, match=expected):
                bucket.push(inner)
        stack.pop_all()
    assert "log" not in names(stored)
    bucket._own.clear()


@pytest.mark.parametrize("name", ["a/../../b", "a//b", "..", "a\0b"])
def test_a_name_that_leaves_the_folder_is_refused(stored, name):
    put(stored, **{name: b"1"})
    with pytest.raises(runlog.RunFolderError, match=f"cannot read {URL}: .* no name"):
        bucket.open_folder(URL)


@pytest.mark.parametrize("url", ["gs://b", "gs://b/", "gs://b/../x", "gs://b//x"])
def test_a_whole_bucket_is_no_folder(stored, url):
    with pytest.raises(runlog.RunFolderError, match="^folder: expected gs://bucket/pa"):
        bucket.open_folder(url, "folder")
    assert not (user_cache() / "buckets").exists()


def test_a_copy_in_use_is_left_as_it_is(stored, monkeypatch):
    """Another process of this machine trains in it, or around it."""
    monkeypatch.setattr(bucket, "_WAIT", 0.01)
    put(stored, config=b"1", teacher__config=b"2")
    folder = bucket.open_folder(URL)
    (folder / "config").write_bytes(b"newer")
    with FileLock(folder / runlog.LOCK, is_singleton=False):
        bucket.open_folder(URL)
        bucket.open_folder(f"{URL}/teacher")
        assert (folder / "config").read_bytes() == b"newer"
    bucket.open_folder(URL)
    assert (folder / "config").read_bytes() == b"1"


def test_gcsfs_is_asked_for(stored, monkeypatch):
    monkeypatch.setattr(bucket.importlib.util, "find_spec", lambda name: None)
    expected = rf"^teacher.run: {URL} needs gcsfs: pip install 'kdjax\[gs\]'$"
    with pytest.raises(runlog.RunFolderError, match=expected):
        bucket.open_folder(URL, "teacher.run")
    assert not (user_cache() / "buckets").exists()
