"""Many students: Hinton's loss of each, apart from the others, and their evaluation."""

import functools

import jax
import numpy as np
import pytest

import kdjax
from kdjax import setup
from kdjax.config import ConfigError, Custom, ModelConfig, Network
from kdjax.core.types import Model
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from tests.e2e.linear_runs import TEACHER, linear
from tests.strategies.methods import setting
from tests.strategies.methods.resumption import check_resumes_bitwise
from tests.strategies.methods.setting import CLASSES
from tests.strategies.methods.several import draw_member

NAMES = ("student", "wide", "narrow")


def make(widths=(5, 7, 2), classes=CLASSES, **options):
    models = {n: setting.network(width=w) for n, w in zip(NAMES, widths, strict=True)}
    models["narrow"] = setting.network(classes=classes, width=widths[2])
    student = models.pop("student")
    configs = dict.fromkeys(models, Network(ModelConfig("resnet")))
    strategy = Custom("many_students", options=options)
    run = digits(strategy=strategy, steps=7, networks=configs)
    return make_strategy(run, student, None, classes=CLASSES, networks=models)


@pytest.fixture
def batch():
    return setting.make_batch(draw_member(0))


def test_each_loss_is_that_of_the_student_alone(batch):
    strategy = make(soft_weight=0.7, label_weight=0.2, temperature=3.0)
    params, state = setting.start(strategy, batch)
    values, metrics = setting.evaluate(strategy, params, state, batch)
    assert {*values} == {*NAMES}
    teacher = np.asarray(batch.targets.logits, np.float64)
    for name in NAMES:
        own = setting.doubles(params[name])
        logits = np.float64(batch.inputs["image"]) @ own["hidden"] @ own["head"]
        hard = setting.cross_entropy(logits, batch.labels)
        want = 0.2 * hard + 0.7 * setting.kl(teacher, logits, 3.0)
        np.testing.assert_allclose(values[name], want, rtol=1e-5)
        np.testing.assert_allclose(metrics[f"loss of {name}"], want, rtol=1e-5)
        agree = (logits.argmax(1) == teacher.argmax(1)).mean()
        np.testing.assert_allclose(metrics[f"agreement of {name}"], agree, rtol=1e-6)


def test_no_student_moves_another(batch):
    found = setting.jacobian(make(), batch)
    for name, gradients in found.items():
        for other, gradient in gradients.items():
            assert setting.is_zero(gradient) == (name != other)


def test_it_needs_labels_only_by_their_weight():
    assert make().labels and not make(label_weight=0.0).labels


def test_what_does_not_fit_is_one_line(batch):
    run = digits(strategy=Custom("many_students"))
    text = "^networks: expected one network or more beside the student, got 'none'$"
    with pytest.raises(ConfigError, match=text):
        make_strategy(run, setting.network(), None, classes=CLASSES)
    text = r"^networks.narrow.model: expected as many classes as the student \(4\), got"
    with pytest.raises(ConfigError, match=text):
        make(classes=5).init(jax.random.key(0), batch)
    text = "^teacher: expected a teacher with the logits of all classes, got 'none'$"
    with pytest.raises(ConfigError, match=text):
        make().init(jax.random.key(0), batch._replace(targets=None))


def narrow(config, classes):
    """A network of two hidden units, for a config."""
    hidden = setting.network(classes=classes, width=2)

    def flat(images):
        return images.reshape(len(images), -1)

    def apply(variables, images, **options):
        return hidden.apply(variables, flat(images), **options)

    return Model(lambda key, images: hidden.init(key, flat(images)), apply)


@pytest.mark.full
def test_a_run_resumes_bitwise_and_measures_each(tiny_run, tmp_path):
    """Each network of the finished run can be measured and loaded by its name."""
    config = ModelConfig(f"{__name__}:narrow", resolution=8)
    run = tiny_run(
        strategy=Custom("many_students"),
        networks={"small": Network(config)},
        workdir=str(tmp_path / "whole"),
        steps=4,
        checkpoint_every=2,
        log_every=1,
    )
    job = functools.partial(kdjax.distill, student=linear(), teacher=TEACHER)
    folder = check_resumes_bitwise(job, run, tmp_path / "cut", crash_at=3)
    test = setup.load_source(run, "test")
    for network, model in (("", linear()), ("small", None)):
        which = {"network": network, "model": model}
        metrics = kdjax.evaluate(folder, teacher=TEACHER, **which)
        student = kdjax.load(folder, **which)
        logits = student(np.asarray(test.images))
        accuracy = (logits.argmax(-1) == np.asarray(test.labels)).mean()
        np.testing.assert_allclose(metrics["accuracy"], accuracy, atol=1e-6)
        assert {*student.variables["params"]} == (
            {"hidden", "head"} if network else {"w"}
        )
    text = "^network: expected one of .'small'., got 'large'"
    with pytest.raises(ConfigError, match=text):
        kdjax.evaluate(folder, network="large")
