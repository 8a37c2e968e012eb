"""torch is not needed here: a stand-in says what the converter may ask of it."""

import sys
import types

import numpy as np
import pytest

from kdjax.models.weights import convert_pth
from kdjax.models.weights.files import read_arrays


class Tensor:
    def __init__(self, values, dtype="float32"):
        self.values, self.dtype = np.asarray(values, np.float32), dtype

    def contiguous(self):
        assert self.dtype != "bfloat16"
        return self

    def float(self):
        return Tensor(self.values)

    def numpy(self):
        return self.values


@pytest.fixture
def torch(monkeypatch):
    """A module `torch` whose files hold what the test says."""
    module = types.ModuleType("torch")
    module.Tensor, module.bfloat16 = Tensor, "bfloat16"

    def load(path, map_location, weights_only):
        assert weights_only is True and map_location == "cpu"
        if isinstance(module.content, Exception):
            raise module.content
        return module.content

    module.load = load
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


TENSORS = {"a.weight": Tensor([[1, 2]]), "b": Tensor([3], "bfloat16")}


@pytest.mark.parametrize(
    "content, key",
    [
        (TENSORS, None),
        ({"state_dict": TENSORS, "epoch": 3}, None),
        ({"model": TENSORS}, None),
        ({"model": {}, "state_dict": TENSORS}, "state_dict"),
        ({"ema": TENSORS, "epoch": 3}, "ema"),
    ],
)
def test_tensors_are_found_and_written(torch, content, key, tmp_path, capsys):
    torch.content = content
    target = tmp_path / "out.safetensors"
    options = ["--key", key] if key else []
    convert_pth.main(["in.pth", str(target), *options])
    arrays = read_arrays(target)
    assert sorted(arrays) == ["a.weight", "b"]
    np.testing.assert_array_equal(arrays["a.weight"], [[1, 2]])
    assert arrays["b"].dtype == np.float32
    assert capsys.readouterr().out == f"{target}: 2 tensors\n"


@pytest.mark.parametrize(
    "content, key, text",
    [
        (RuntimeError("Unsupported global"), None, "got: Unsupported global"),
        ([1], None, "expected a dictionary, got list"),
        ({}, None, "expected tensors only, got none"),
        ({"weights": TENSORS, "epoch": 3}, None, r"got \['weights', 'epoch'\]; say"),
        ({"model": {}, "state_dict": {}}, None, "expected --key, one of"),
        (TENSORS, "ema", r"--key, one of \['a.weight', 'b'\], got 'ema'"),
    ],
)
def test_what_cannot_be_converted_is_said(torch, content, key, text, tmp_path):
    torch.content = content
    with pytest.raises(ValueError, match=f"^in.pth: .*{text}"):
        convert_pth.convert("in.pth", tmp_path / "out.safetensors", key)


def test_the_target_is_safetensors(torch):
    with pytest.raises(ValueError, match="out.npz: expected a name that ends in"):
        convert_pth.convert("in.pth", "out.npz")


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="convert_pth: expected torch to read"):
        convert_pth.main(["in.pth", "out.safetensors"])
