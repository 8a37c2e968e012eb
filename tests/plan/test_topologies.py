"""Programs that XLA's compiler for TPUs makes, where it is installed (`plan-tpu`)."""

import importlib.util
import json
import subprocess
import sys

import pytest

# Images on the devices would be exchanged too.
STREAMED = (
    "data.pipeline=host",
    "teacher.kind=weights",
    "teacher.model.name=resnet56",
    "teacher.model.weights=not/here.npz",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not importlib.util.find_spec("libtpu"), reason="needs the extra plan-tpu"
    ),
]


def plan(*words):
    """The figures of the student's training, from the command."""
    command = [sys.executable, "-m", "kdjax", "plan", "cifar10", "--json", *words]
    command += ["--examples", "50000", "--classes", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[-1]


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_gradients_are_all_that_eight_tpus_exchange(norm):
    """The student of CIFAR-10, ResNet-20, with 272,474 parameters in float32.

    Their gradients, the loss and its terms are summed over the devices. BatchNorm adds
    a mean and a variance for each of its 19 layers, forward and backward.
    """
    found = plan("--on", "v5e-8", "--set", f"model.norm={norm}", *STREAMED)
    each = found["collectives"]
    summed = [x for x in each if x["kind"] == "all-reduce"]
    assert {x["group"] for x in summed} == {8}
    # Beside sums, devices exchange a number or two of the random draws.
    assert sum(x["size"] for x in each if x not in summed) <= 64
    # The statistics of 688 channels are twice as many numbers forward, and backward.
    rest = sum(x["size"] for x in summed) - found["held"]["parameters"]
    assert -1024 < rest < 1024 if norm == "group" else 4096 < rest < 16384
    assert found["fits"]


def test_two_slices_exchange_the_gradients_that_each_has_summed():
    """Each of the 8 devices of a slice sends its eighth of the sums to the other."""
    found = plan("--on", "v5e-8", "--slices", "2", "--set", *STREAMED)
    between = [x for x in found["collectives"] if x["between"]]
    assert {x["group"] for x in between} == {2}
    sent = sum(x["size"] for x in between if x["kind"] == "all-reduce")
    eighth = found["held"]["parameters"] / 8
    # Biases and norms have few numbers, and are sent in rows of 128.
    assert eighth < sent < 4 * eighth
    assert sum(x["size"] for x in between if x["kind"] != "all-reduce") < eighth
    assert found["least_seconds"]["network"] > 0
