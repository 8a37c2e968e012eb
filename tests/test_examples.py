"""The examples of experiments/examples, each at a tiny size."""

import dataclasses

import jax
import numpy as np
import pytest

import kdjax
from experiments.examples import (
    cifar10,
    early_exits,
    features,
    one_loss,
    sharded_relation,
)
from kdjax.config import Compute, ConfigError, ModelConfig, Optim, TrainFirst, to_dict
from kdjax.core import runlog
from kdjax.models import from_function


def test_one_loss():
    gradient = np.asarray(one_loss.main())
    assert (gradient[:6] != 0).any(-1).all() and not gradient[6:].any()
    np.testing.assert_allclose(gradient.sum(-1), 0.0, atol=1e-6)


def test_a_sharded_relation():
    one, every = sharded_relation.main()
    np.testing.assert_allclose(every, one, rtol=1e-5)
    assert one > 0


def maps(width):
    """A linear network with the taps of a small ResNet, `width` channels wide."""

    def apply(params, images):
        x = images @ params["w"]
        stages = {f"stage{i}": x for i in (1, 2, 3)}
        return x.mean((1, 2)) @ params["head"], stages

    def init(key, images):
        w = jax.random.normal(key, (images.shape[-1], width))
        return {"w": w, "head": jax.random.normal(key, (width, 10))}

    return from_function(apply, init=init)


def shortened(run, workdir, **changes):
    return dataclasses.replace(
        run,
        workdir=str(workdir),
        seeds=1,
        steps=4,
        batch=8,
        optim=Optim(warmup=1),
        baselines=(),
        compute=Compute(data=1),
        **changes,
    )


def test_features(tmp_path):
    teacher = maps(8)
    variables = teacher.init(jax.random.key(1), np.zeros((1, 8, 8, 1), np.float32))
    run = shortened(features.run(), tmp_path / "run")
    folder = kdjax.distill(run, student=maps(2), teacher=(teacher, variables))
    lines = [x for x in runlog.read_metrics(folder) if x["kind"] == "train"]
    assert {"soft", "hint", "attention"} <= lines[-1].keys()


def test_cifar10(tmp_path, monkeypatch):
    """Complete; without the weights their variable is named before anything is read."""
    monkeypatch.delenv("KDJAX_WEIGHTS", raising=False)
    run = cifar10.run()
    run.check()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 32, 32, 3), np.uint8)
    split = images, np.arange(16) % 10
    splits = dict.fromkeys(("train", "validation", "test"), split)
    data = dataclasses.replace(run.data, train="train", validation="validation")
    run = shortened(run, tmp_path / "run", data=data)
    with pytest.raises(ConfigError, match=r"teacher.model.weights: .*KDJAX_WEIGHTS"):
        kdjax.distill(run, splits=splits)
    teacher = TrainFirst(ModelConfig("resnet56", resolution=32))
    run = dataclasses.replace(run, teacher=teacher)
    model = maps(4)
    variables = model.init(jax.random.key(1), np.zeros((1, 32, 32, 3), np.float32))
    kdjax.distill(run, splits=splits, student=maps(2), teacher=(model, variables))
    assert runlog.read_config(tmp_path / "run")["views"] == to_dict(run)["views"]


@pytest.mark.full
def test_early_exits(tmp_path):
    """The last exit is the exported student; more confidence costs no fewer FLOPs."""
    run = shortened(early_exits.run(), tmp_path / "run")
    folder = kdjax.jobs.train(run)
    rows = early_exits.main(str(folder))
    test = kdjax.evaluate(str(folder), split="test")
    assert rows["exit 3"][0] == pytest.approx(test["accuracy"][0], abs=1e-6)
    costs = [cost for name, (_, cost) in rows.items() if "confidence" in name]
    assert costs == sorted(costs) and costs[0] == rows["exit 1"][1]
    assert rows["confidence > 1.0"] == rows["exit 3"]
