"""The GPU script on CPU: a dry run, a part that is stopped, and what it counts."""

import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax
from experiments.benchmarks.flops import count_flops
from experiments.benchmarks.gpu import __main__ as script
from experiments.benchmarks.gpu import bit, cifar
from kdjax.config import Model

ROOT = pathlib.Path(__file__).parents[2]
PARTS = ("laws", "cifar", "bit", "kernels", "profile")
NO_TORCH = "torch is not installed"


def start(*options) -> subprocess.Popen:
    """The script, started as a user does."""
    command = [ROOT / "experiments/benchmarks/gpu.sh", *map(str, options)]
    env = {**os.environ, "PYTHON": sys.executable}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=env, **pipes)


def rows_of(out: pathlib.Path, part: str) -> list[dict]:
    """The rows of a part's file, which must be whole."""
    content = json.loads((out / "parts" / f"{part}.json").read_text())
    return content["rows"]


def numbers(row: dict) -> list[float]:
    return [x for x in row["values"].values() if isinstance(x, int | float)]


def test_a_dry_run_measures_every_row_of_every_part(tmp_path):
    out, copy = tmp_path / "out", tmp_path / "copy"
    process = start(out, "--dry", "--copy", copy)
    printed, _ = process.communicate(timeout=900)
    assert process.returncode == 0, printed
    for part in PARTS:
        rows = rows_of(out, part)
        assert rows
        for row in rows:
            assert row["state"] in ("", NO_TORCH), row
            positive = [x for x in numbers(row) if math.isfinite(x) and x >= 0]
            assert len(positive) == len(numbers(row)), row
            assert row["state"] == NO_TORCH or numbers(row), row
    # Errors of a device against itself are the only zeros.
    for row in [x for part in PARTS[1:4] for x in rows_of(out, part)]:
        assert all(x > 0 for x in numbers(row)), row
    text = (copy / "gpu.md").read_text()
    assert text == (out / "gpu.md").read_text()
    assert all(f"## {part}\n" in text for part in PARTS)
    with tarfile.open(copy / "gpu.tar.gz") as tar:
        assert {f"parts/{part}.json" for part in PARTS} <= set(tar.getnames())
    assert sorted(file.name for file in copy.iterdir()) == ["gpu.md", "gpu.tar.gz"]


@pytest.mark.full
@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="needs /proc")
def test_a_part_stopped_in_the_middle_leaves_the_others_whole(tmp_path):
    out = tmp_path / "out"
    options = "--parts", "cifar,kernels,profile", "--limit", "profile=1"
    process = start(out, "--dry", *options)
    file, end = out / "parts" / "cifar.json", time.monotonic() + 300
    while not (file.exists() and not rows_of(out, "cifar")[0]["state"]):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 1, printed
    rows = rows_of(out, "cifar")
    assert not rows[0]["state"] and numbers(rows[0])
    assert {"not run: out of time"} <= {row["state"] for row in rows}
    assert all(not row["state"] and numbers(row) for row in rows_of(out, "kernels"))
    report = (out / "gpu.md").read_text()
    assert re.search(r"- cifar: failed, status -9, .*; \d of \d+ rows measured", report)
    assert re.search(r"- kernels: done in .*; 6 of 6 rows measured", report)
    assert "- profile: stopped at its limit of 1 s; no rows" in report


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--parts", "laws,speed"], "--parts: expected some of laws, .*; got speed"),
        (["--parts", ""], "--parts: expected some of .*; got none"),
        (["--limit", "bit"], "--limit: expected PART=SECONDS, got bit"),
        (["--cifar", "none.npz"], "--cifar: .*; no file none.npz"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(options, line, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.arguments(options)
    assert stopped.value.code == 2
    assert re.fullmatch(f"gpu.sh: {line}\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"x": np.zeros(3)}, "images"),
        ({"images": np.zeros((600, 8, 8, 3), np.uint8)}, "labels"),
        (
            {"images": np.zeros((600, 8, 8, 3), np.uint8), "labels": np.zeros(600)},
            r"got uint8 \(600, 8, 8, 3\) and \(600,\)",
        ),
    ],
)
def test_wrong_images_are_refused(arrays, line, tmp_path, capsys):
    file = tmp_path / "cifar.npz"
    np.savez(file, **arrays)
    with pytest.raises(SystemExit) as stopped:
        script.arguments(["--cifar", str(file)])
    assert stopped.value.code == 2
    assert re.search(line, capsys.readouterr().err)


def test_the_limits_fit_into_eight_minutes():
    assert tuple(script.LIMITS) == PARTS
    assert sum(script.LIMITS.values()) <= 8 * 60 - 15


# Millions of multiplications of one image, as the papers' tables have them.
@pytest.mark.parametrize(
    ("name", "size", "millions"),
    [("resnet20", 32, 40.8), ("resnet56", 32, 125.7), ("resnet50", 224, 4089)],
)
def test_operations_are_those_of_the_papers(name, size, millions):
    classes = 10 if size == 32 else 1000
    config = Model(name=name, norm="batch", resolution=size)
    model = kdjax.make_model(config, classes)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)

    def loss(params, rest, image):
        output, _ = model.apply({**rest, "params": params}, image)
        return jnp.sum(output.logits)

    arguments = variables["params"], variables, image
    forward = count_flops(loss, *arguments)
    assert forward / 2e6 == pytest.approx(millions, rel=2e-3)
    # The gradient of the image is not taken.
    both = count_flops(jax.value_and_grad(loss), *arguments)
    assert 2.9 < both / forward <= 3


def test_a_loop_counts_as_often_as_it_turns():
    def product(x, w):
        return x @ w, None

    square = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    stack = jax.ShapeDtypeStruct((5, 8, 8), jnp.float32)

    def chain(x, stack):
        return jax.lax.scan(product, x, stack)

    assert count_flops(jax.jit(chain), square, stack) == 5 * 2 * 8**3


def test_the_runs_of_full_size_can_be_run():
    for variant in cifar.variants(cifar.FULL).values():
        run = cifar.make_run(cifar.FULL, variant)
        run.check()
        assert cifar.FULL.window % variant.per_call == 0
        for config in (run.model, run.teacher.model):
            kdjax.make_model(config, cifar.CLASSES)
    for px in bit.FULL.resolutions:
        run = bit.make_run(bit.FULL, px, bit.FULL.batches[0])
        run.check()
        for config in (run.model, run.teacher.model):
            kdjax.make_model(config, bit.CLASSES)
