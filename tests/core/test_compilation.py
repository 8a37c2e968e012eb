"""The persistent compilation cache: its folder, its settings and its limits."""

import os
import pathlib

import jax
import pytest

from kdjax.core import compilation
from kdjax.core.compilation import cache_folder, cache_programs

DIRECTORY = "jax_compilation_cache_dir"


@pytest.fixture
def unset(tmp_path, monkeypatch):
    """No folder is set, as in a process of a user; the cache folder is temporary."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    before = getattr(jax.config, DIRECTORY)
    jax.config.update(DIRECTORY, None)
    yield tmp_path / "xdg"
    jax.config.update(DIRECTORY, before)


def test_the_folder_is_the_users_and_of_one_version(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().parent == tmp_path / "kdjax" / "compiled"
    assert cache_folder().name.endswith(f"-jax-{jax.__version__}")
    home = pathlib.Path.home() / ".cache" / "kdjax" / "compiled"
    for no_path in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", no_path)
        assert cache_folder().parent == home


def test_programs_are_kept_within_the_block_alone(unset, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    with cache_programs():
        assert getattr(jax.config, DIRECTORY) == str(cache_folder())
        jax.jit(lambda x: x * 3 + 41)(1.0)
    assert getattr(jax.config, DIRECTORY) is None
    assert any(cache_folder().glob("*-cache"))


def test_a_cache_of_the_user_stays(unset, tmp_path):
    jax.config.update(DIRECTORY, str(tmp_path / "own"))
    with cache_programs():
        assert getattr(jax.config, DIRECTORY) == str(tmp_path / "own")
    jax.config.update(DIRECTORY, None)
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with cache_programs():
            assert getattr(jax.config, DIRECTORY) is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not unset.exists()


def test_a_folder_that_cannot_be_written_is_one_warning(unset):
    unset.write_text("a file")
    with pytest.warns(UserWarning, match="^compilation cache: cannot write") as caught:
        with cache_programs():
            assert getattr(jax.config, DIRECTORY) is None
    assert len(caught) == 1 and "\n" not in str(caught[0].message)


def test_the_oldest_programs_are_deleted_above_the_limit(tmp_path):
    """Of four files of 10 bytes, two fit into 25; no other file is deleted."""
    for age, name in enumerate("abcd"):
        path = tmp_path / "version" / f"{name}-cache"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10))
        os.utime(path, (1000 - age, 1000 - age))
    other = tmp_path / "other"
    other.write_bytes(bytes(100))
    compilation._delete_oldest(tmp_path, 25)
    assert sorted(x.name for x in tmp_path.rglob("*-cache")) == ["a-cache", "b-cache"]
    assert other.exists()


def test_a_torn_program_is_deleted_with_one_warning(unset, monkeypatch):
    """As a process leaves it that is killed while it writes."""
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setattr(compilation, "_WRITING", 0.0)

    def compile_and_list():
        with cache_programs():
            # Comparing arrays would compile a second program.
            assert float(jax.jit(lambda x: x * 3 + 41)(1.0)) == 44
        jax.clear_caches()
        return sorted(cache_folder().glob("*-cache"))

    programs = compile_and_list()
    whole = programs[0].read_bytes()
    if whole.startswith(b"\x28\xb5\x2f\xfd"):
        pytest.skip("JAX compresses by zstandard here")
    programs[0].write_bytes(whole[: len(whole) // 2])
    expected = "^compilation cache: deleted 1 incomplete programs"
    with pytest.warns(UserWarning, match=expected) as caught:
        assert compile_and_list() == programs
    assert len(caught) == 1 and len(programs[0].read_bytes()) > len(whole) // 2


def test_a_program_that_may_be_written_at_the_time_stays(tmp_path):
    path = tmp_path / "a-cache"
    path.write_bytes(b"part")
    os.utime(path, (1000, 1000))
    compilation._delete_torn(tmp_path, 999)
    assert path.exists()
    with pytest.warns(UserWarning, match="deleted 1 incomplete"):
        compilation._delete_torn(tmp_path, 1001)
    assert not path.exists()
