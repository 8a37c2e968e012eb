"""The network that a strategy evaluates must be the run's model."""

import pytest

from kdjax import setup
from kdjax.config import ConfigError, Custom
from tests.e2e.linear_runs import linear

CODE = """
import jax.numpy as jnp

from kdjax.strategies import Strategy, apply_network, label_loss


def own(student, *, evaluated: str = "student"):
    def init(key, batch):
        return {
            "student": student.init(key, batch.inputs["image"]),
            "scale": {"params": {"value": jnp.ones(())}},
        }

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        logits = output.logits * params["scale"]["value"]
        return {"student": label_loss(logits, batch)}, (state, {})

    return Strategy(init, loss, student=evaluated)
"""


@pytest.mark.parametrize("evaluated", ["student", "scale"])
def test_the_evaluated_network_is_the_model_of_the_run(evaluated, tiny_run, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    strategy = Custom(f"{file}:own", options={"evaluated": evaluated})
    run = tiny_run(strategy=strategy, teacher=None)
    train = setup.load_source(run, "train")

    def check():
        setup.check_fit(run, train=train, student=linear(), teacher=None)

    if evaluated == "student":
        check()
        return
    text = "^strategy.student: expected the network of the run's model, .* got 'scale'"
    with pytest.raises(ConfigError, match=text):
        check()
