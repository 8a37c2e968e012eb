import io
import json
import os
import pickle
import resource
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.weights import WeightsError
from kdjax.models.weights.files import read_arrays, read_shapes, write_arrays

ARRAYS = {"a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4)}


def equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], strict=True)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_what_is_written_is_read(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    write_arrays(path, {**ARRAYS, "turned": ARRAYS["a/kernel"].T, "n": np.array(3)})
    read = read_arrays(path)
    equal(read, {**ARRAYS, "turned": ARRAYS["a/kernel"].T, "n": np.array(3)})


def test_half_precision_survives(tmp_path):
    half = {"x": np.asarray(jnp.arange(4.0, dtype=jnp.bfloat16))}
    for suffix in ("npz", "safetensors"):
        write_arrays(tmp_path / f"x.{suffix}", half)
        read = read_arrays(tmp_path / f"x.{suffix}")["x"]
        np.testing.assert_array_equal(read.astype(np.float32), [0, 1, 2, 3])


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_full_disk_leaves_the_old_file_whole(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    write_arrays(path, ARRAYS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(WeightsError, match=f"x.{suffix}: cannot be .*too large"):
            write_arrays(path, {"large": np.ones(99_999)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    equal(read_arrays(path), ARRAYS)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_folder_that_is_not_there(suffix, tmp_path):
    path = tmp_path / "none" / f"x.{suffix}"
    text = f"x.{suffix}: expected a folder {path.parent}, got nothing there$"
    with pytest.raises(WeightsError, match=text):
        write_arrays(path, ARRAYS)
    assert not path.parent.exists()


def test_half_precision_that_npz_has_no_word_for(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, half=np.asarray(jnp.ones(2, jnp.bfloat16)))
    text = (
        r"^\S+x.npz: expected arrays of numbers, got dtype \|V2 in half, .*safetensors"
    )
    with pytest.raises(WeightsError, match=text):
        read_arrays(path)


@pytest.mark.parametrize("suffix", ["pth", "PTH", "pt", "bin", "pkl", "ckpt", "tar"])
def test_a_pickle_is_refused_unread(suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    with pytest.raises(WeightsError, match="kdjax.models.weights.convert_pth IN.pth"):
        read_arrays(path)  # Not even whether it is there is looked at.


class Harmful:
    ran = False

    def __reduce__(self):
        return (setattr, (Harmful, "ran", True))


def test_a_pickle_under_another_name_does_not_run(tmp_path):
    inside = tmp_path / "inside.npz"
    array = np.empty(1, object)
    array[0] = Harmful()
    np.savez(inside, x=array)
    plain = tmp_path / "plain.npz"
    plain.write_bytes(pickle.dumps(Harmful()))
    named = tmp_path / "named.safetensors"
    named.write_bytes(pickle.dumps(Harmful()))
    for path in (inside, plain, named):
        with pytest.raises(WeightsError, match=f"{path.name}: expected a whole") as got:
            read_arrays(path)
        assert "\n" not in str(got.value)
    assert not Harmful.ran


def test_a_pytorch_archive_under_another_name(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("archive/data.pkl", b"anything")
    with pytest.raises(WeightsError, match="archive/data.pkl, which is no array"):
        read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_file_that_was_cut_off(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    write_arrays(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WeightsError, match=f"x.{suffix}: expected a whole .{suffix}"):
        read_arrays(path)


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "json"])
@pytest.mark.parametrize("kind", ["empty", "text", "cut", "array", "list"])
def test_what_is_no_such_file_is_one_clear_line(kind, suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    whole = tmp_path / "whole.npz"
    write_arrays(whole, ARRAYS)
    array = io.BytesIO()
    np.save(array, ARRAYS["b"])
    content = {
        "empty": b"",
        "text": b"not a file of weights " * 99,
        "cut": whole.read_bytes()[:99],
        "array": array.getvalue(),
        "list": b"[1, 2]",
    }
    path.write_bytes(content[kind])
    with pytest.raises(WeightsError) as got:
        read_arrays(path)
    text = str(got.value)
    expected = "got an empty file" if kind == "empty" else f"expected a whole .{suffix}"
    assert text.startswith(f"{path}: expected ") and expected in text
    advice = ("pickle", "object", "context manager", "indices")
    assert "\n" not in text and not any(word in text for word in advice)


def test_other_files(tmp_path):
    with pytest.raises(WeightsError, match="x.h5: expected .npz, .safetensors, or"):
        read_arrays(tmp_path / "x.h5")
    with pytest.raises(WeightsError, match="x.npz: expected a file, got nothing"):
        read_arrays(tmp_path / "x.npz")
    with pytest.raises(WeightsError, match="folder with the model.json .* without it"):
        read_arrays(tmp_path)
    with pytest.raises(WeightsError, match="ends in .npz or .safetensors, got '.h5'"):
        write_arrays(tmp_path / "x.h5", ARRAYS)


# --- TensorFlow.js --------------------------------------------------------------------


def tfjs(folder, weights, data, shards=2):
    """A folder as the converter of TensorFlow.js writes it."""
    folder.mkdir()
    size = -(-len(data) // shards)
    names = [f"group1-shard{i + 1}of{shards}.bin" for i in range(shards)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(data[i * size : (i + 1) * size])
    manifest = [{"paths": names, "weights": weights}]
    text = json.dumps({"format": "layers-model", "weightsManifest": manifest})
    (folder / "model.json").write_text(text)
    return folder


FLOATS = np.arange(10, dtype="<f4")
WEIGHTS = [
    {"name": "conv1/kernel", "shape": [2, 3], "dtype": "float32"},
    {"name": "conv1/bias", "shape": [4], "dtype": "float32"},
]


def test_shards_are_joined_and_cut_by_shape(tmp_path):
    folder = tfjs(tmp_path / "model", WEIGHTS, FLOATS.tobytes(), shards=3)
    expected = {"conv1/kernel": FLOATS[:6].reshape(2, 3), "conv1/bias": FLOATS[6:]}
    equal(read_arrays(folder), expected)
    equal(read_arrays(folder / "model.json"), expected)


def test_damage_in_shards_is_named(tmp_path):
    short = tfjs(tmp_path / "short", WEIGHTS, FLOATS.tobytes()[:-4])
    with pytest.raises(WeightsError, match="model.json: expected a whole .json"):
        read_arrays(short)
    long = tfjs(tmp_path / "long", WEIGHTS, FLOATS.tobytes() + b"1234")
    with pytest.raises(WeightsError, match="44 bytes in the shards, 40 in the list"):
        read_arrays(long)
    gone = tfjs(tmp_path / "gone", WEIGHTS, FLOATS.tobytes())
    (gone / "group1-shard2of2.bin").unlink()
    with pytest.raises(WeightsError, match="group1-shard2of2.bin"):
        read_arrays(gone)


def test_quantized_shards_are_refused(tmp_path):
    weights = [{**WEIGHTS[0], "quantization": {"dtype": "uint8", "scale": 1, "min": 0}}]
    folder = tfjs(tmp_path / "model", weights, bytes(6))
    with pytest.raises(WeightsError, match="conv1/kernel, which is not plain float32"):
        read_arrays(folder)


def npz_claiming(path, shape, content=b""):
    """An .npz file with one array of that shape in its header."""
    header = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + content)
    return path


def safetensors_claiming(path, dtype, shape, content=b"abcd"):
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(content)]}
    header = json.dumps({"a": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content)
    return path


def tfjs_claiming(path, shape):
    weight = {"name": "a", "dtype": "float32", "shape": shape}
    manifest = [{"paths": ["b.bin"], "weights": [weight]}]
    path.mkdir()
    (path / "b.bin").write_bytes(bytes(8))
    (path / "model.json").write_text(json.dumps({"weightsManifest": manifest}))
    return path


@pytest.mark.parametrize("shape", [(2**42,), (2**62, 2**62), (-1,), (3,)])
def test_an_npz_of_more_than_its_bytes(tmp_path, shape):
    path = npz_claiming(tmp_path / "x.npz", shape, bytes(8))
    for read in (read_arrays, read_shapes):
        with pytest.raises(WeightsError, match="a of shape .*, with 8 bytes"):
            read(path)


def test_a_compressed_npz_is_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros((500, 500), "f"))
    assert read_arrays(tmp_path / "x.npz")["a"].shape == (500, 500)


@pytest.mark.parametrize(
    ("dtype", "shape", "text"),
    [
        ("F8_E4M3", [4], "a: expected a type that NumPy has, got F8_E4M3"),
        ("F32", [-1], "expected a whole .safetensors file"),
        ("F32", [2**62], "expected a whole .safetensors file"),
    ],
)
def test_safetensors_that_claim_what_they_have_not(tmp_path, dtype, shape, text):
    path = safetensors_claiming(tmp_path / "x.safetensors", dtype, shape)
    with pytest.raises(WeightsError, match=text):
        read_arrays(path)


@pytest.mark.parametrize("shape", [[-1], [2**40], ["2"], [1.5], "2", None])
def test_a_tfjs_manifest_of_other_shapes(tmp_path, shape):
    with pytest.raises(WeightsError, match="expected a whole .json file"):
        read_arrays(tfjs_claiming(tmp_path / "x", shape))


def test_a_pipe_is_no_file_of_weights(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(WeightsError, match="got what is no regular file"):
        read_arrays(tmp_path / "x.npz")
