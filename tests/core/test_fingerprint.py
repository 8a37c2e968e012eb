"""Fingerprints: the digits of existing folders, and what changes them."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.core import fingerprint
from kdjax.core.fingerprint import (
    fingerprint_arrays,
    fingerprint_bytes,
    fingerprint_code,
    fingerprint_files,
    fingerprint_function,
    fingerprint_images,
    fingerprint_shapes,
    is_abstract,
)

TREE = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": (np.int32(7), jnp.ones(2, jnp.bfloat16)),
}
SHAPES = {
    "params": {
        "w": jax.ShapeDtypeStruct((2, 3), jnp.float32),
        "b": jax.ShapeDtypeStruct((), jnp.int32),
    }
}
CUBE = "def cube(student, teacher):\n    return abs(student - teacher) ** 3\n"


def test_the_digits_of_existing_folders_stay(tmp_path):
    """Those of the first versions; other ones would refuse every folder and cache."""
    assert fingerprint_arrays(TREE) == "3292d5dda89680b6"
    assert fingerprint_shapes(SHAPES) == "347826daf3bfdf43"
    assert fingerprint_shapes(TREE) == "08450f6f497b735f"
    assert fingerprint_code("cube", CUBE.encode()) == "cube 37ecdf045671c637"
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    files = [tmp_path / name for name in ("a", "b", "missing")]
    assert fingerprint_files(files, ["x/a", "x/b", "x/c"]) == (
        "836bd4cb1e2f01009a43df21fca2aa1d68d9d6254fcacee58e9af0f928896304"
    )
    assert fingerprint_images(lambda i: bytes([i]) * 5, 3, 5) == (
        "6232dbc28fb118ee117fa0a28e56ca4d7a170f9149da8bafd3161816536b90a3"
    )


def test_bytes_are_hashed_as_by_sha256():
    """The digits of "abc" in FIPS 180-2, appendix B.1."""
    whole = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    pixels = np.frombuffer(b"bc", np.uint8).data
    assert fingerprint_bytes(b"a", pixels, digits=64) == whole
    assert fingerprint_bytes(b"abc") == whole[:16]


@pytest.mark.parametrize(
    "other",
    [
        {**TREE, "b": TREE["b"] + np.float32(1e-6)},
        {**TREE, "b": TREE["b"].reshape(3, 2)},
        {**TREE, "b": TREE["b"].view(np.int32)},
        {**TREE, "a": TREE["a"][::-1]},
    ],
)
def test_arrays_differ_by_value_shape_dtype_and_order(other):
    assert fingerprint_arrays(other) != fingerprint_arrays(TREE)


def test_shapes_have_no_values():
    ones = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), SHAPES)
    assert fingerprint_shapes(ones) == fingerprint_shapes(SHAPES)
    assert fingerprint_shapes({"other": SHAPES}) != fingerprint_shapes(SHAPES)
    assert is_abstract(SHAPES) and is_abstract({**SHAPES, "more": np.ones(2)})
    assert not is_abstract(ones) and not is_abstract({})


def test_a_function_is_identified_by_its_source():
    def double(x):
        return 2 * x

    def other():
        def double(x):
            return x + x

        return double

    name, digits = fingerprint_function(double).split()
    assert name == double.__qualname__ and len(digits) == 16
    assert digits != fingerprint_function(other()).split()[1]
    # A compiled function has no source: the digits are those of no bytes.
    assert fingerprint_function(np.exp) == "exp e3b0c44298fc1c14"


def flip_bit(path, index):
    """Change one byte of a file and nothing else about it, its times included."""
    times = os.stat(path)
    whole = bytearray(path.read_bytes())
    whole[index] ^= 1
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_of_large_sets_a_sample_is_read(tmp_path, monkeypatch):
    """20 files of 10 bytes in pieces of 4, 4 and 2: every second of 60 pieces."""
    monkeypatch.setattr(fingerprint, "PIECE", 4)
    monkeypatch.setattr(fingerprint, "CHUNK", 7)
    files = [tmp_path / f"{i}" for i in range(20)]
    for i, file in enumerate(files):
        file.write_bytes(bytes(range(i, i + 10)))
    names = [file.name for file in files]
    changed = {}
    for limit in (200, 199):
        monkeypatch.setattr(fingerprint, "LIMIT", limit)
        first = fingerprint_files(files, names)
        for number, index in ((0, 0), (0, 4), (0, 9), (1, 0), (1, 4), (19, 9)):
            flip_bit(files[number], index)
            changed[limit, number, index] = fingerprint_files(files, names) != first
            flip_bit(files[number], index)
        assert fingerprint_files(files, names) == first
        assert fingerprint_files(files, [*names[1:], "x"]) != first
    of_all = [x for (limit, *_), x in changed.items() if limit == 200]
    of_more = [x for (limit, *_), x in changed.items() if limit == 199]
    assert all(of_all)
    # Pieces 0, 2 and 4 are read; 1, 3 and 59 are not.
    assert of_more == [True, False, True, False, True, False]
    files[1].write_bytes(bytes(range(1, 12)))
    assert fingerprint_files(files, names) != first


def test_of_many_images_a_sample_is_read(monkeypatch):
    monkeypatch.setattr(fingerprint, "LIMIT", 10)
    indices = []

    def read(index):
        indices.append(index)
        return bytes([index])

    fingerprint_images(read, 7, 5)
    # 35 bytes of at most 10: every fourth image.
    assert sorted(indices) == [0, 4]
