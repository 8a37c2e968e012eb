"""Two real processes on this machine form one run, equal to one process."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

import kdjax
from kdjax.cache.store import open_store
from kdjax.config import HARD, Cache, Compute, Data, Optim, to_dict
from kdjax.core import runlog
from kdjax.train.checkpoint import Checkpoints
from tests.e2e.linear_runs import TEACHER, linear
from tests.e2e.several import ROOT, together

# Real processes: the full tier.
pytestmark = pytest.mark.full

CONFIG = f"{ROOT / 'experiments' / 'function_matching' / 'digits.py'}:tiny"


def start(workdir, *, processes, devices, options=(), baselines=("labels",)):
    """Start `kdjax distill` as several processes; their exits and outputs."""
    command = [sys.executable, "-m", "kdjax", "distill", "--config", CONFIG]
    command += ["--workdir", str(workdir), "--baselines", *baselines, *options]
    command += ["--compute.several-processes", str(processes > 1)]
    return together(command, processes, devices)


def numbers(folder):
    return [
        (line["kind"], line["step"], np.asarray(line.get("loss", line.get("kl", 0.0))))
        for line in runlog.read_metrics(folder)
    ]


def check_equal(folder, other):
    ours, theirs = numbers(folder), numbers(other)
    assert [x[:2] for x in ours] == [x[:2] for x in theirs]
    # Sums come in another order; a batch dealt out wrongly would be far off.
    for a, b in zip(ours, theirs, strict=True):
        # A small KL is a difference of logarithms: their rounding is absolute.
        np.testing.assert_allclose(a[2], b[2], rtol=2e-5, atol=2e-6)
    both = [Checkpoints(x).read_network("student") for x in (folder, other)]
    # A rounding of 1e-7 is all, until an activation at zero rounds to the other side:
    # 1e-5 then, in one of three trainings of 20 steps, from its eighth step on.
    # The weights that it feeds move, and the others stay.
    gaps = [
        np.abs(a - b).ravel() for a, b in zip(*map(jax.tree.leaves, both), strict=True)
    ]
    gaps = np.concatenate(gaps)
    assert gaps.max() < 5e-5 and np.mean(gaps > 2e-6) < 0.1


@pytest.mark.parametrize(("processes", "fsdp"), [(2, 2), (4, 1)])
def test_processes_equal_one(tmp_path, processes, fsdp):
    """Teacher, baseline and student on 4 devices, of one process and of several.

    After 20 steps, with images on the devices and images that each process decodes.
    """
    # SGD: Adam's division makes a rounding of 1e-7 a difference of 1e-3 in 20 updates.
    student = ("--model.width", "8", "--optim.name", "sgd")
    student += ("--compute.fsdp", str(fsdp))
    layout = (*student, "--teacher.optim.name", "sgd")
    several = {"processes": processes, "devices": 4 // processes}
    codes, outputs = start(tmp_path / "several", options=layout, **several)
    assert codes == [0] * processes, outputs
    assert "funmatch" in outputs[0] or "tiny" in outputs[0]
    assert not any("tiny" in x for x in outputs[1:]), "only the first process speaks"
    codes, outputs = start(tmp_path / "one", processes=1, devices=4, options=layout)
    assert codes == [0], outputs
    for part in ("teacher", "labels", "."):
        check_equal(tmp_path / "several" / part, tmp_path / "one" / part)
    other = *student, "--data.pipeline", "host"
    other += "--teacher.run", str(tmp_path / "one" / "teacher")
    options = {"options": other, "baselines": ()}
    codes, outputs = start(tmp_path / "streamed", **several, **options)
    assert codes == [0] * processes, outputs
    check_equal(tmp_path / "streamed", tmp_path / "one")
    again, outputs = start(tmp_path / "several", processes=1, devices=2, options=layout)
    assert again == [0] and "finished" in outputs[0]


CACHED = """
import sys
from kdjax.core import hosts
hosts.join()
import jax
import kdjax
from kdjax.config import load_config
from kdjax.cache import writer
from tests.e2e.linear_runs import TEACHER, linear

writer._BLOCK_STEPS = 4
run = load_config(sys.argv[1])
kdjax.cache_targets(run, student=linear(), teacher=TEACHER)
print("cached by", jax.process_index(), "of", jax.process_count())
kdjax.distill(run, student=linear(), teacher=TEACHER)
"""


def test_two_processes_cache_and_replay_as_one(tiny_run, tmp_path):
    """Blocks are shared out, each on its process's own devices; 2 x 2 against 1 x 1."""

    def small(name, compute):
        base = tiny_run()
        cache = Cache(path=str(tmp_path / f"store {name}"))
        return dataclasses.replace(
            base,
            workdir=str(tmp_path / f"run {name}"),
            steps=10,
            optim=Optim(name="sgd", warmup=2),
            teacher=dataclasses.replace(base.teacher, cache=cache),
            compute=compute,
        )

    config = tmp_path / "two.json"
    config.write_text(
        json.dumps(to_dict(small("two", Compute(several_processes=True))))
    )
    command = [sys.executable, "-c", CACHED, str(config)]
    codes, outputs = together(command, processes=2, devices=2)
    assert codes == [0, 0], outputs
    for i, output in enumerate(outputs):
        assert f"cached by {i} of 2" in output
    assert "3 of 3 blocks" in outputs[0] and "blocks" not in outputs[1]
    one = small("one", Compute(data=1))
    kdjax.cache_targets(one, student=linear(), teacher=TEACHER)
    kdjax.distill(one, student=linear(), teacher=TEACHER)
    rows = [
        open_store(tmp_path / f"store {name}").read(slice(0, 10))["logits"]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(rows[1], rows[0], rtol=0, atol=2e-6)
    ours, theirs = (numbers(tmp_path / f"run {name}") for name in ("two", "one"))
    assert [x[:2] for x in ours] == [x[:2] for x in theirs]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a[2], b[2], rtol=2e-5, atol=2e-6)


RESUMED = """
import sys
from kdjax.core import hosts
hosts.join()
import kdjax
from kdjax.config import load_config
from kdjax.train import sharding
from tests.e2e.linear_runs import linear

sharding.SHARED_FROM = 8
kdjax.jobs.train(load_config(sys.argv[1]), model=linear())
"""


def test_a_part_of_one_process_is_damaged(tiny_run, tmp_path):
    """Both go back to the checkpoint before, and end as an undisturbed run."""
    layout = {"fsdp": 2, "several_processes": True}
    run = dataclasses.replace(
        tiny_run(),
        **dict(teacher=None, terms={"hard": HARD}, compute=Compute(**layout)),
        **dict(workdir=str(tmp_path / "run"), steps=4, log_every=1),
        **dict(evaluate_every=2, checkpoint_every=2, optim=Optim(warmup=1)),
    )
    config = tmp_path / "two.json"
    config.write_text(json.dumps(to_dict(run)))
    command = [sys.executable, "-c", RESUMED, str(config)]
    codes, outputs = together(command, processes=2, devices=1)
    assert codes == [0, 0], outputs
    expected = numbers(run.folder)
    (run.folder / "summary.json").unlink()
    parts = sorted((run.folder / "checkpoints/4/default").glob("params*/c/*/*/*"))
    assert len(parts) == 2
    parts[-1].write_bytes(parts[-1].read_bytes()[:9])
    codes, outputs = together(command, processes=2, devices=1)
    assert codes == [0, 0], outputs
    assert "steps 3 to 4 are trained again" in outputs[0]
    for ours, theirs in zip(numbers(run.folder), expected, strict=True):
        assert ours[:2] == theirs[:2]
        np.testing.assert_array_equal(ours[2], theirs[2])


STOPPED = """
import os, sys
from kdjax.core import hosts, runlog
if sys.argv[2] != "1":
    hosts.join()
import kdjax
from kdjax.config import load_config
from tests.e2e.linear_runs import linear

append = runlog.append_metrics

def crash(folder, line):
    append(folder, line)
    if line["step"] == int(sys.argv[3]):
        os._exit(9)

runlog.append_metrics = crash
kdjax.jobs.train(load_config(sys.argv[1]), model=linear())
"""


@pytest.mark.parametrize("counts", [(2, 1), (1, 2)])
def test_a_run_goes_on_in_another_number_of_processes(tiny_run, tmp_path, counts):
    def train(folder, processes, until=0):
        compute = Compute(several_processes=processes > 1)
        run = dataclasses.replace(
            tiny_run(),
            **dict(teacher=None, terms={"hard": HARD}, compute=compute),
            **dict(workdir=str(tmp_path / folder), steps=8, log_every=1),
            **dict(evaluate_every=8, checkpoint_every=2),
            optim=Optim(name="sgd", warmup=2),
        )
        config = tmp_path / f"{folder} {processes}.json"
        config.write_text(json.dumps(to_dict(run)))
        command = [sys.executable, "-c", STOPPED, str(config), str(processes)]
        command += [str(until)]
        codes, outputs = together(command, processes, 2 // processes)
        assert (codes == [0] * processes) == (not until), outputs
        return run.folder

    train("run", counts[0], until=5)
    folder = train("run", counts[1])
    check_equal(folder, train("whole", counts[0]))


ODD = """
import os, sys
config, what = sys.argv[1:]
odd = os.environ["JAX_PROCESS_ID"] == "1"
if odd and what == "devices":
    os.environ["JAX_NUM_CPU_DEVICES"] = "2"
from kdjax.core import hosts
hosts.join()
import dataclasses
import numpy as np
import kdjax
from kdjax.config import ConfigError, load_config
from tests.e2e.linear_runs import linear

run = load_config(config)
if odd and what == "steps":
    run = dataclasses.replace(run, steps=9)
images = np.arange(40 * 8 * 8 * 1, dtype=np.uint8).reshape(40, 8, 8, 1)
rest = images, np.arange(40) % 10
if odd and what == "images":
    images = images ^ np.eye(40, dtype=np.uint8)[:, 3].reshape(40, 1, 1, 1)
data = images, np.arange(40) % 10
with hosts.leave_at_once():
    try:
        splits = {"train": data, "validation": rest, "test": rest}
        kdjax.jobs.train(run, model=linear(), splits=splits)
    except ConfigError as error:
        sys.exit(str(error))
"""
NAMED = {
    "devices": "devices everywhere, got process 1 of 2 with 2 x cpu",
    "steps": "config, code and data everywhere, got process 1 of 2 with other steps",
    "images": "config, code and data everywhere, got process 1 of 2 with other content "
    "of `train`",
}


@pytest.mark.parametrize("what", NAMED)
def test_a_process_that_differs_is_named(tiny_run, tmp_path, what):
    """By all processes, before anything is written."""
    run = dataclasses.replace(
        tiny_run(),
        **dict(teacher=None, terms={"hard": HARD}, workdir=str(tmp_path / "run")),
        **dict(data=Data("digits", "train", "validation", "test"), steps=8),
        compute=Compute(several_processes=True),
    )
    config = tmp_path / "differs.json"
    config.write_text(json.dumps(to_dict(run)))
    command = [sys.executable, "-c", ODD, str(config), what]
    codes, outputs = together(command, processes=2, devices=1)
    assert codes == [1, 1]
    for output in outputs:
        assert f"compute.several_processes: expected the same {NAMED[what]}" in output
        assert "Traceback" not in output
    assert not (tmp_path / "run").exists()
