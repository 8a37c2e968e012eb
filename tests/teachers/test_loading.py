"""Loading teachers: their seeds, their classes, functions that bring variables."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax
from kdjax import setup
from kdjax.config import ConfigError, FromRun, FromWeights, ModelConfig
from kdjax.core.types import BoundModel
from kdjax.data.datasets import from_arrays
from kdjax.models.weights.families import CIFAR10
from kdjax.models.weights.files import write_arrays
from kdjax.setup.load_teachers import load_teacher
from tests.models.weights import trees

THREE = kdjax.presets.digits(seeds=3, seed=4)


def trained(seeds):
    values = {"params": jnp.arange(10.0 * seeds).reshape(seeds, 10)}
    model = kdjax.from_function(lambda params, x: x, {})
    return BoundModel(model, values, 0, 8)


def test_a_teacher_of_several_seeds_teaches_with_its_first():
    run = kdjax.presets.digits(seeds=1)
    line = r"^t.run has 3 seeds, this run 1: seed 4 teaches \(t.seed takes another\)"
    with pytest.warns(UserWarning, match=line):
        found = setup.fit_seeds(trained(3), THREE, run, None, "t")
    assert found.axis is None
    np.testing.assert_array_equal(found.variables["params"], np.arange(10.0))


def test_one_of_its_seeds_by_number():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seeds in (1, 2, 3):
            run = kdjax.presets.digits(seeds=seeds)
            found = setup.fit_seeds(trained(3), THREE, run, 6)
            assert found.axis is None
            np.testing.assert_array_equal(found.variables["params"], np.arange(20, 30))
        same = setup.fit_seeds(trained(3), THREE, kdjax.presets.digits(seeds=3))
        assert same.axis == 0 and same.variables["params"].shape == (3, 10)
        one = dataclasses.replace(THREE, seeds=1)
        shared = setup.fit_seeds(trained(1), one, kdjax.presets.digits(seeds=3))
        assert shared.axis is None
    for seed in (3, 7):
        with pytest.raises(ConfigError, match="^t.seed: expected .* 4 to 6, got"):
            setup.fit_seeds(trained(3), THREE, run, seed, "t")


def test_the_seed_is_an_option_of_the_command_line():
    run = kdjax.config.set_fields(
        THREE, [("teacher.run", ["runs/x"]), ("teacher.seed", ["2"])]
    )
    assert run.teacher == FromRun("runs/x", seed=2)


def source(names, classes=10):
    images = np.zeros((20, 8, 8, 3), np.uint8)
    whole = from_arrays(images, np.arange(20, dtype=np.int32) % classes, "data")
    return dataclasses.replace(whole, names=tuple(names))


@pytest.fixture
def published(tmp_path):
    file = tmp_path / "resnet20.safetensors"
    write_arrays(file, trees.akamaster(20))
    model = ModelConfig(weights=str(file), resolution=8)
    run = kdjax.presets.digits(seeds=1, teacher=FromWeights(model))
    return setup.complete_models(run)[0]


def test_classes_of_published_weights_are_compared(published):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for names in (CIFAR10, (), tuple("0123456789")):
            teacher = load_teacher(published, source(names), None)
            assert teacher.normalization == ("imagenet",)
    other = (*CIFAR10[1:], CIFAR10[0])
    line = r"^teacher.model.weights: expected the classes of the data in the order"
    with pytest.raises(ConfigError, match=line):
        load_teacher(published, source(other), None)
    renamed = ("plane", "car", *CIFAR10[2:])
    line = "its classes are airplane, .*; those of the data, .* same order, are plane"
    with pytest.warns(UserWarning, match=line):
        load_teacher(published, source(renamed), None)
    line = "^teacher.model.weights: expected a network of 5 classes, .* got 10"
    with pytest.raises(ConfigError, match=line):
        load_teacher(published, source((), 5), None)


OWN = """
import kdjax
import jax

def fixed(config, classes):
    weights = {"w": 0.5 * jax.numpy.ones((192, classes))}
    return kdjax.from_function(lambda p, x: x.reshape(len(x), -1) @ p["w"], weights)

def random(config, classes):
    draw = lambda key, x: {"w": jax.random.normal(key, (192, classes))}
    return kdjax.from_function(lambda p, x: x.reshape(len(x), -1) @ p["w"], init=draw)
"""


def test_a_function_may_bring_its_variables(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    model = ModelConfig(f"{file}:fixed", resolution=8)
    run = kdjax.presets.digits(seeds=1, teacher=FromWeights(model))
    run.check()
    teacher = load_teacher(run, source(()), None)
    np.testing.assert_array_equal(teacher.variables["params"]["w"], 0.5)
    model = dataclasses.replace(model, name=f"{file}:random")
    run = dataclasses.replace(run, teacher=FromWeights(model))
    with pytest.raises(ConfigError, match="^teacher.model.weights: .*for every key"):
        load_teacher(run, source(()), None)


def test_a_function_on_the_host():
    shapes = []

    def predict(images):
        assert type(images) is np.ndarray and images.dtype == np.float32
        shapes.append(images.shape)
        return images.reshape(len(images), -1)[:, :3] * 2

    model = kdjax.from_host(predict, classes=3)
    images = jax.random.normal(jax.random.key(0), (2, 5, 4, 4, 1))
    variables = model.init(jax.random.key(0), images[0])
    assert variables == {"params": {}}

    @jax.jit
    def logits(images):
        return jax.vmap(lambda x: model.apply(variables, x)[0].logits)(images)

    expected = 2 * np.asarray(images).reshape(2, 5, 16)[..., :3]
    np.testing.assert_array_equal(logits(images), expected)
    assert shapes == [(10, 4, 4, 1)]
    wrong = kdjax.from_host(lambda images: images[:, 0, 0, 0], classes=3)
    with pytest.raises(Exception, match=r"predict: expected outputs of shape \(5, 3\)"):
        jax.block_until_ready(wrong.apply(variables, images[0]))
    with pytest.raises(ValueError, match="^train: expected False"):
        model.apply(variables, images[0], train=True)


def test_a_teacher_that_is_trained_here_has_logits():
    teacher = kdjax.presets.digits_teacher(outputs="probabilities")
    run = kdjax.presets.digits(seeds=1, teacher=teacher)
    with pytest.raises(ConfigError, match="^teacher.outputs: expected logits, of a te"):
        load_teacher(run, source(()), None, trained=False)


READS = """
from kdjax.core.types import Strategy


def reads(student):
    def init(key, batch):
        return {"student": student.init(key, batch.inputs["image"])}

    def loss(params, state, batch, schedules, key):
        return {"student": batch.targets.logits.sum()}, (state, {})

    return Strategy(init, loss)
"""


def test_a_strategy_without_the_teacher_that_it_reads_is_one_line(tmp_path):
    (tmp_path / "reads.py").write_text(READS)
    strategy = kdjax.config.Custom(f"{tmp_path}/reads.py:reads")
    run = kdjax.presets.digits(teacher=None, baselines=(), strategy=strategy, batch=8)
    linear = kdjax.from_function(
        lambda w, x: x.reshape(len(x), -1) @ w, np.zeros((192, 10), np.float32)
    )
    line = "^strategy.function: this strategy reads a teacher's targets; `kdjax distill"
    with pytest.raises(ConfigError, match=line):
        setup.check_fit(run, train=source(()), student=linear, teacher=None)
