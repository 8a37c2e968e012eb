"""A function on the host teaches live and through a target cache, equally."""

import dataclasses
import json

import numpy as np
import pytest

import kdjax
from kdjax.config import Cache, FromWeights, ModelConfig, Views

NUMPY = """
import kdjax
import numpy as np

weights = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)


def teacher(config, classes):
    return kdjax.from_host(lambda x: x.reshape(len(x), -1) @ weights, classes)
"""
ONNX = """
import kdjax
import onnxruntime

session = onnxruntime.InferenceSession("{file}")


def teacher(config, classes):
    return kdjax.from_host(lambda x: session.run(None, {{"images": x}})[0], classes)
"""


def write_onnx(file):
    """The same linear network as an ONNX model; skips without its packages."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("images", kind, ["n", 8, 8, 1])],
        [helper.make_tensor_value_info("logits", kind, ["n", 10])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), file)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["numpy", "onnx"])
def test_live_and_cached(kind, tiny_run, tmp_path):
    if kind == "onnx":
        write_onnx(str(tmp_path / "teacher.onnx"))
    file = tmp_path / "host.py"
    code = ONNX.format(file=tmp_path / "teacher.onnx") if kind == "onnx" else NUMPY
    file.write_text(code)
    teacher = FromWeights(ModelConfig(f"{file}:teacher", resolution=8))
    linear = kdjax.from_function(
        lambda w, x: x.reshape(len(x), -1) @ w, np.zeros((64, 10), np.float32)
    )
    # With flips the views differ from step to step.
    base = {"seeds": 2, "steps": 4, "views": Views(mode="consistent")}
    live = tiny_run(teacher=teacher, **base)
    metrics = []
    for name, cache in (("live", Cache()), ("cached", Cache(str(tmp_path / "store")))):
        run = dataclasses.replace(
            live,
            workdir=str(tmp_path / name),
            teacher=dataclasses.replace(teacher, cache=cache),
        )
        if cache.path:
            kdjax.cache_targets(run, student=linear)
        folder = kdjax.distill(run, student=linear)
        metrics.append(json.loads((folder / "summary.json").read_text())["test"])
    assert metrics[0] == metrics[1]
    # It has learned from this teacher: zeros agree with nothing.
    assert min(metrics[0]["kl"]) > 0 and min(metrics[0]["agreement"]) > 0.2
