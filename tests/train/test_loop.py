"""The loop's own account of its speed."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.train import loop
from kdjax.train.compiled import Compiled
from kdjax.train.state import TrainState

BAR = types.SimpleNamespace(
    show=lambda *_: None, advance=lambda _: None, compiled=lambda _: None
)


@pytest.mark.parametrize("before", [0.0, 100.0])
def test_images_per_second_are_of_training_alone(monkeypatch, before):
    """An update takes 2 s, an evaluation 50 and a checkpoint 30, at steps that are not
    those of the log: every line says 64 images an update / 2 s. A run that is resumed
    adds the seconds spent before. A first checkpoint comes at step 10: 62 s after the
    first call. The next would be after twice the time until its end, 184 s, when the
    regular one of step 14 has doubled the time again."""
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

    def spend(seconds, result=None):
        now[0] += seconds
        return result

    def call(state, batch, given):
        steps = len(batch["index"])
        metrics = {"loss": np.zeros((steps, 1))}
        return spend(2.0 * steps, (state, metrics))

    state = TrainState(jnp.array(0), {"student": jnp.zeros(1)}, {}, (), {})
    checkpoints = types.SimpleNamespace(
        save=lambda *_: spend(30.0),
        wait=lambda: None,
        would_be_best=lambda _: False,
    )
    lines = []
    _, spent = loop.fit(
        Compiled(call=call, enter=lambda x: x, leave=lambda x: x, lower=call),
        state,
        {},
        loop.Plan("run", 30, 64, 10, 6, 14, 4),
        batches=lambda _: iter([{"index": np.zeros(())}] * 30),
        evaluate=lambda _: spend(50.0, {"accuracy": [0.5]}),
        write=lines.append,
        checkpoints=checkpoints,
        bar=BAR,
        seconds=before,
    )
    logged = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in logged] == [10, 20, 30]
    assert [line["images_per_second"] for line in logged] == pytest.approx([32.0] * 3)
    # Evaluations at 6, 12, 18, 24, 30, checkpoints at 10, 14, 28, 30.
    assert now[0] == 30 * 2 + 5 * 50 + 4 * 30
    assert spent == pytest.approx(before + now[0])
    assert lines[0]["seconds"] == pytest.approx(before + 6 * 2 + 50)


def test_early_checkpoints_double_the_time_between_them(monkeypatch):
    """After 10 s of training without the first call, which compiles; then after twice
    the time at which the last one, early or regular, was saved."""
    now = [500.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    early, saved = loop._EarlyCheckpoints(), []
    for seconds in range(200):
        now[0] = 500.0 + seconds
        if early.is_due(logs=False) or seconds == 60:
            early.saved()
            saved.append(seconds)
    assert saved == [10, 20, 40, 60, 120]


def test_hosts_agree_on_early_checkpoints_at_lines_alone(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(loop.jax, "process_count", lambda: 2)
    answers = []
    monkeypatch.setattr(loop.hosts, "agree", lambda due: answers.append(due) or due)
    early = loop._EarlyCheckpoints()
    early.is_due(logs=False)
    now[0] = 11.0
    assert not early.is_due(logs=False) and answers == []
    assert early.is_due(logs=True) and answers == [True]
