"""Steps with NaN or a large gradient are left out, counted, and end the run at last."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax
from kdjax.config import Compute, ConfigError, Optim, Skip
from kdjax.core import runlog
from kdjax.core.types import Strategy, View
from kdjax.presets import digits
from kdjax.train import loop, optimizer
from kdjax.train.state import create_state
from kdjax.train.step import make_train_step
from tests.e2e.linear_runs import TEACHER, linear


def make_step(largest):
    """Gradient `scale` in one parameter, and a count of steps in the state."""

    def init(key, batch):
        return {"student": {"params": {"w": jnp.array(1.0)}, "seen": jnp.array(0.0)}}

    def loss(params, state, batch, schedules, key):
        value = params["student"]["w"] * schedules["scale"] + schedules["offset"]
        state = {"student": {"seen": state["student"]["seen"] + 1.0}}
        return {"student": value}, (state, {})

    optim = Optim(
        name="sgd", lr=0.1, wd=0, clip=0, momentum=0.5, warmup=0, schedule="constant"
    )
    update = optimizer.by_network({"student": optimizer.make_optimizer(optim)})
    strategy = Strategy(init, loss, lambda step: {})
    view = lambda *_: View(None, None, None)  # noqa: E731
    step = make_train_step(strategy, update, view=view, largest=largest)
    rates = {"student": optimizer.make_rates(optim, 10)(0)}

    def one(state, scale, offset=0.0):
        numbers = {"scale": jnp.float32(scale), "offset": jnp.float32(offset)}
        inputs = {"seed": 0, "schedules": numbers, "rates": rates}
        return jax.jit(lambda s, x: step(s, x, {}))(state, inputs)

    return one, create_state(init(None, None), update)


@pytest.mark.parametrize(
    ("scale", "offset", "skipped"),
    [
        (1.0, 0.0, 0),
        (4.0, 0.0, 0),
        (4.5, 0.0, 1),
        (np.nan, 0.0, 1),
        (np.inf, 0.0, 1),
        (1.0, np.nan, 1),
    ],
)
def test_a_step_is_left_out_whole(scale, offset, skipped):
    one, state = make_step(largest=4.0)
    state, _ = one(state, 3.0)
    new, metrics = one(state, scale, offset)
    assert metrics["skipped"] == skipped and "norm" not in " ".join(metrics)
    assert new.step == 2
    for before, after in zip(
        jax.tree.leaves(state._replace(step=0)),
        jax.tree.leaves(new._replace(step=0)),
        strict=True,
    ):
        assert np.isfinite(after).all()
        assert (np.array_equal(before, after)) == bool(skipped) or before == after == 0


def test_without_the_option_nothing_is_counted():
    one, state = make_step(largest=None)
    new, metrics = one(state, np.nan)
    assert "skipped" not in metrics and np.isnan(new.params["student"]["w"])


def window(losses, skipped, start=0):
    table = {"loss": np.array(losses, "f"), "skipped": np.array(skipped, "f")}
    return [(start, {**table, "soft": 2 * table["loss"]})]


def test_means_are_of_the_steps_that_were_taken():
    losses, skipped = [[1, 2], [np.nan, 4], [3, np.nan]], [[0, 0], [1, 0], [0, 1]]
    means, in_a_row = loop._means(window(losses, skipped), 0, most=1)
    assert means == {"loss": [2.0, 3.0], "soft": [4.0, 6.0], "skipped": [1.0, 1.0]}
    assert list(in_a_row) == [0, 1]


def test_too_many_in_a_row_end_the_run_also_over_a_line_of_metrics():
    first = window([[1.0], [np.nan]], [[0], [1]])
    _, in_a_row = loop._means(first, 0, most=2)
    second = window([[np.nan], [7.0], [1.0]], [[1], [1], [0]], start=2)
    text = r"skip.most: expected at most 2 in a row, got 3 up to step 4.*loss is 7.0"
    with pytest.raises(loop.NonFiniteError, match=text):
        loop._means(second, in_a_row, most=2)
    loop._means(second, in_a_row, most=3)


def test_a_limit_without_steps_is_refused():
    with pytest.raises(ConfigError, match="skip.above: expected 0 without skip.most"):
        digits(skip=Skip(above=3.0)).check()


LOSS = """
import jax.numpy as jnp


def odd(student, teacher, *, scale: float = 1.0):
    \"\"\"NaN for a batch in which the first logit of the teacher is small.\"\"\"
    value = jnp.sum((student - teacher) ** 2, axis=-1)
    return jnp.where(jnp.sin(1e3 * jnp.sum(teacher)) > 0.5, jnp.nan, value)
"""


@pytest.mark.parametrize("how", ["jit", "pmap"])
def test_a_run_goes_on_and_says_how_many(tiny_run, tmp_path, how):
    (tmp_path / "odd.py").write_text(LOSS)
    base = tiny_run()
    term = dataclasses.replace(
        base.terms["soft"], loss=f"{tmp_path}/odd.py:odd", temperature=None
    )
    run = tiny_run(
        **dict(workdir=str(tmp_path / "run"), steps=12, log_every=4, seeds=2),
        **dict(terms={"soft": term}, skip=Skip(most=8), baselines=()),
        compute=Compute(data=1, how=how),
    )
    kdjax.distill(run, student=linear(), teacher=TEACHER)
    summary = runlog.read_summary(run.folder)
    lines = [x for x in runlog.read_metrics(run.folder) if x["kind"] == "train"]
    counts = np.array([x["skipped"] for x in lines])
    assert summary["skipped"] == list(counts.sum(axis=0))
    assert 0 < counts.sum() < 24
    assert np.isfinite([x["loss"] for x in lines]).all()
    assert np.isfinite(summary["test"]["accuracy"]).all()
    assert json.loads((run.folder / "config.json").read_text())["skip"]["most"] == 8
