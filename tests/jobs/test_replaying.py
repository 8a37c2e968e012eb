"""A step of a run made again: the same numbers, and where the first NaN comes from."""

import dataclasses

import numpy as np
import pytest

import kdjax
from kdjax import jobs
from kdjax.config import Compute, ConfigError
from kdjax.core import runlog
from kdjax.train.loop import NonFiniteError
from tests.e2e.linear_runs import TEACHER, linear

LOSS = """
import jax.numpy as jnp


def odd(student, teacher):
    value = jnp.sum((student - teacher) ** 2, axis=-1)
    gap = jnp.sin(1e3 * jnp.sum(teacher))
    return value * (1 + 0 * jnp.log(0.9 - gap))  # NaN where the gap is wide
"""


@pytest.fixture
def run(tiny_run, tmp_path):
    (tmp_path / "odd.py").write_text(LOSS)
    base = tiny_run()
    loss = f"{tmp_path}/odd.py:odd"
    term = dataclasses.replace(base.terms["soft"], loss=loss, temperature=None)
    return tiny_run(
        **dict(workdir=str(tmp_path / "run"), seeds=2, steps=40, log_every=1),
        **dict(evaluate_every=3, checkpoint_every=3, compute=Compute(data=1)),
        **dict(terms={"soft": term}, baselines=()),
    )


GIVEN = {"model": linear(), "teacher": TEACHER}


@pytest.mark.full
def test_a_step_with_nan_is_named_and_made_again(run, tmp_path):
    with pytest.raises(
        NonFiniteError, match=r"`kdjax replay .*run --step \d+`"
    ) as error:
        kdjax.distill(run, student=linear(), teacher=TEACHER)
    text = str(error.value)
    step = int(text.partition("at step ")[2].split()[0])
    seed = int(text.partition("(seed ")[2].split()[0])
    files = {x: x.read_bytes() for x in run.folder.rglob("*") if x.is_file()}
    found = jobs.replay(run.folder, step, seed=run.seed + seed, **GIVEN)
    assert np.isnan(found.metrics["loss"])
    assert "odd.py:8" in found.first and "nan" in found.first
    assert "params/student/w" in found.broken and found.start < step
    assert files == {x: x.read_bytes() for x in run.folder.rglob("*") if x.is_file()}
    # The step before it: the numbers of its line, and the batch as a file.
    lines = {x["step"]: x for x in runlog.read_metrics(run.folder) if "soft" in x}
    before = jobs.replay(
        run.folder, step - 1, seed=run.seed + seed, out=tmp_path / "batch.npz", **GIVEN
    )
    assert before.first == "" and before.broken == []
    assert before.metrics["loss"] == pytest.approx(lines[step - 1]["loss"][seed])
    batch = np.load(tmp_path / "batch.npz")
    assert batch["student"].shape == (run.batch, 8, 8, 1)
    np.testing.assert_array_equal(batch["index"], before.examples)
    text = jobs.format_replay(before)
    assert f"step {step - 1}, seed {run.seed + seed}" in text and "none" in text


def test_other_steps_and_seeds_are_refused(run):
    runlog.open_run(run.folder, kdjax.config.to_dict(run))
    for options, text in (
        ({"step": 0}, "step: expected 1 to 40, got 0"),
        ({"step": 41}, "step: expected 1 to 40, got 41"),
        ({"step": 3, "seed": 7}, "seed: expected one of its seeds, 0 to 1, got 7"),
    ):
        with pytest.raises(ConfigError, match=text):
            jobs.replay(run.folder, **options)
    with pytest.raises(runlog.RunFolderError, match="no run in"):
        jobs.replay(run.folder / "nowhere", 1)
