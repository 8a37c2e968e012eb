"""Adversarial strategies in whole runs, resumed bitwise in the middle of a turn."""

import dataclasses

import chex
import pytest

import kdjax
from kdjax.config import HARD, Custom, ModelConfig, Network, Views
from kdjax.core import runlog
from tests.e2e.linear_runs import TEACHER
from tests.e2e.saved import saved

pytestmark = pytest.mark.full

CODE = """
import jax
import jax.numpy as jnp

from kdjax import from_function
from kdjax.models.generators import LATENT


def maps(config, classes):
    def apply(params, x):
        x = x @ params["conv"]
        return x.mean((1, 2)) @ params["head"], {"stage3": x}

    def init(key, x):
        one, two = jax.random.split(key)
        conv = jax.random.normal(one, (x.shape[-1], config.width))
        return {"conv": conv, "head": jax.random.normal(two, (config.width, classes))}

    return from_function(apply, init=init)


def generator(config, classes):
    def apply(params, codes):
        rows = jnp.tanh(codes @ params["w"])
        return rows, {"image": rows.reshape(len(rows), 8, 8, 1)}

    def init(key, x):
        return {"w": jax.random.normal(jax.random.key(0), (LATENT + classes, 64))}

    return from_function(apply, init=init)
"""
AT = "kdjax.models.generators"


def model(name="mine.py:maps", width=3):
    return ModelConfig(name, width=width, resolution=8)


def fixed_generator():
    return Network(model("mine.py:generator"), frozen=True)


RUNS = {
    "critic_on_logits": {"options": {"student_steps": 2}},
    "critic_on_features": {
        "options": {
            "tap": "stage3",
            "teacher_tap": "logits",
            "penalty": 1.0,
            "student_steps": 2,
        },
    },
    "meal": {"options": {"taps": ["logits"], "weights": [1.0]}},
    "feature_map_online": {"networks": {"peer": Network(model(width=4))}},
    "kdgan": {
        "networks": {"large": Network(model(width=4)), "critic": Network(model())},
        "options": {"student_steps": 2},
    },
    "acgan": {
        "model": model(f"{AT}:spectral_critic", width=1),
        "networks": {"generator": Network(model(f"{AT}:class_generator", width=1))},
        "options": {"generator_steps": 2},
    },
    "generated": {"networks": {"generator": fixed_generator()}},
}
WITHOUT_TEACHER = ("feature_map_online", "kdgan", "acgan")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_resumes_bitwise(name, tiny_run, tmp_path, monkeypatch):
    """A crash after step 6 continues at step 4, within a turn of two steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    given = dict(RUNS[name])
    strategy = Custom(name, options=given.pop("options", {}))
    taught = name not in WITHOUT_TEACHER
    base = tiny_run(
        views=Views(mode="fixed", flip=False),
        strategy=strategy,
        seeds=2,
        evaluate_every=8,
        **{"model": model(), **given},
    )
    if not taught:
        base = dataclasses.replace(base, teacher=None, terms={"hard": HARD})

    def train(folder):
        run = dataclasses.replace(base, workdir=str(tmp_path / folder))
        if taught:
            return kdjax.distill(run, teacher=TEACHER)
        return kdjax.jobs.train(run)

    append = runlog.append_metrics

    def crash(folder, line):
        append(folder, line)
        if line["step"] == 6:
            raise RuntimeError("a crash")

    with monkeypatch.context() as patch:
        patch.setattr(runlog, "append_metrics", crash)
        with pytest.raises(RuntimeError, match="a crash"):
            train("crashed")
    chex.assert_trees_all_equal(saved(train("crashed")), saved(train("whole")))
