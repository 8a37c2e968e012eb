"""A ResNet-20 for 32 pixels in every format, read by another runtime than kdjax."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import kdjax
from kdjax import jobs
from kdjax.config import Compute, Data, ModelConfig, Optim
from kdjax.presets import digits_labels

pytestmark = pytest.mark.full

EXAMPLE = pathlib.Path(__file__).parents[2] / "experiments/examples/pytorch_student.py"
SETS = """
import numpy as np


def small():
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (96, 32, 32, 3), np.uint8)
    labels = np.arange(96) % 10
    return {k: (pixels, labels) for k in ("train", "validation", "test")}
"""
STABLEHLO = """
import sys
import jax, jax.export
import numpy as np

program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
np.save(sys.argv[3], np.asarray(program.call(np.load(sys.argv[2]))))
"""
IREE = """
import sys
import iree.runtime as runtime
import numpy as np

module = runtime.load_vm_flatbuffer_file(sys.argv[1], driver="local-task")
np.save(sys.argv[3], module["main"](np.load(sys.argv[2])).to_host())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of four steps, so that the statistics of BatchNorm are no defaults."""
    root = tmp_path_factory.mktemp("cifar")
    (root / "sets.py").write_text(SETS)
    model = ModelConfig(
        "resnet20", norm="batch", resolution=32, normalization="cifar10"
    )
    run = digits_labels(
        workdir=str(root / "run"),
        data=Data(f"{root}/sets.py:small", "train"),
        model=model,
        optim=Optim(warmup=1, lr=1e-2),
        seeds=1,
        steps=4,
        batch=32,
        compute=Compute(data=1),
    )
    return jobs.train(run)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (100, 32, 32, 3), np.uint8)


def logits_elsewhere(images, tmp_path, *command):
    """Logits of a fresh process, called with files of images and of logits."""
    inputs, outputs = tmp_path / "images.npy", tmp_path / "logits.npy"
    np.save(inputs, images)
    subprocess.run(
        [sys.executable, *map(str, command), inputs, outputs], check=True, timeout=120
    )
    return np.load(outputs)


@pytest.mark.parametrize(
    "name, needs, program",
    [
        ("stablehlo", "flatbuffers", STABLEHLO),
        ("iree", "iree.compiler", IREE),
        ("safetensors", "torch", None),
    ],
)
def test_another_runtime_gives_the_logits_of_the_run(
    folder, images, tmp_path, name, needs, program
):
    pytest.importorskip(needs)
    batch = len(images) if name == "iree" else 0
    path = jobs.export(folder, name, out=tmp_path / "out", batch=batch)
    command = (EXAMPLE, path.parent) if program is None else ("-c", program, path)
    logits = logits_elsewhere(images, tmp_path, *command)
    expected = kdjax.load(folder)(images)
    assert np.ptp(expected, axis=-1).min() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_the_card_describes_the_student(folder, tmp_path):
    jobs.export(folder, "safetensors", out=tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    mean = [0.4914, 0.4822, 0.4465]
    assert card["pixels"] == {"mean": mean, "std": [0.2470, 0.2435, 0.2616]}
    assert card["parameters"] == 272_474
    # 40.81 million products with an addition each.
    assert card["flops"] == pytest.approx(2 * 40.81e6, rel=1e-3)
    assert {"accuracy", "calibration_error"} <= card["test"].keys()
