"""Models and losses of a user's own are checked before anything is trained."""

import dataclasses
import io
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import kdjax
from kdjax import setup
from kdjax.config import (
    SOFT,
    ConfigError,
    Custom,
    ModelConfig,
    Optim,
    Scalar,
    Term,
    TrainFirst,
)
from kdjax.core.types import BoundModel
from kdjax.data.datasets import from_arrays
from kdjax.jobs.distilling import check_first_values, prepare
from kdjax.jobs.start import open_job
from kdjax.jobs.trainer import Training
from kdjax.setup.first_values import check_outputs, has_own_losses, mixes_images
from kdjax.train import sharding

WEIGHTS = 0.1 * np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
IMAGES = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 1), np.uint8)
SPLITS = {k: (IMAGES, np.arange(20) % 4) for k in ("train", "validation", "test")}


def flat(images):
    return images.reshape(len(images), -1)


def model(function, weights=WEIGHTS):
    return kdjax.from_function(lambda w, x: function(w, flat(x)), params=weights)


LINEAR = model(lambda w, x: x @ w)
WITHOUT_LAST = model(lambda w, x: jnp.where(jnp.arange(4)[None] < 3, x @ w, -jnp.inf))
MIXING = model(lambda w, x: (x - x.mean(0, keepdims=True)) @ w)
# By the words of the warning.
SUSPICIOUS = {
    "the outputs are probabilities": model(lambda w, x: jax.nn.softmax(x @ w)),
    "the logits of an image depend on the other images": MIXING,
}
NOT_FINITE = {
    "value": model(lambda w, x: x @ w * jnp.nan),
    "weights": model(lambda w, x: x @ w, np.full_like(WEIGHTS, np.nan)),
    "infinity": model(lambda w, x: x @ w + jnp.inf),
    "no class": model(lambda w, x: x @ w - jnp.inf),
}


def check(network, **options):
    source = from_arrays(IMAGES, np.arange(20) % 4, "data")
    check_outputs(BoundModel(network, None, None, 8), source, "model", **options)


@pytest.mark.parametrize("text", SUSPICIOUS)
def test_outputs_that_are_no_logits_are_one_warning(text):
    with pytest.warns(UserWarning, match=f"^model: .*{text}") as caught:
        check(SUSPICIOUS[text])
    assert len(caught) == 1


@pytest.mark.parametrize(
    "network",
    [
        LINEAR,
        WITHOUT_LAST,
        model(lambda w, x: jax.nn.log_softmax(x @ w)),
        model(lambda w, x: jax.nn.sigmoid(x @ w)),
        model(lambda w, x: 0 * x @ w),
    ],
    ids=["linear", "ruled_out", "log_softmax", "sigmoid", "zero"],
)
def test_logits_are_no_warning(network):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(network)


@pytest.mark.parametrize("name", NOT_FINITE)
def test_outputs_that_are_not_finite_are_an_error(name):
    with pytest.raises(ConfigError, match="^model: expected logits that are numbers"):
        check(NOT_FINITE[name])


def test_of_a_trained_teacher_only_mixing_is_new():
    check(NOT_FINITE["value"], is_trained=True)
    with pytest.warns(UserWarning, match="depend on the other images"):
        check(MIXING, is_trained=True)


def test_mixing_is_told_from_rounding():
    several, alone = np.array([[8.0, 0.0], [1.0, 1.0]]), np.array([[8.0, 0.0]] * 2)
    assert not mixes_images(several, alone + 1e-3)
    assert mixes_images(several, alone + 0.1)


def test_own_losses_are_those_of_files_and_functions(tiny_run):
    def term(**changes):
        return {"soft": dataclasses.replace(tiny_run().terms["soft"], **changes)}

    assert not has_own_losses(tiny_run())
    assert not has_own_losses(tiny_run(strategy=Custom("mutual")))
    assert has_own_losses(tiny_run(strategy=Custom("mine.py:mutual")))
    assert has_own_losses(tiny_run(terms=term(loss="mine.py:kl")))
    assert has_own_losses(tiny_run(terms=term(loss=lambda s, t: s.sum(-1))))
    assert has_own_losses(tiny_run(terms=term(example_weights="mine.py:weights")))


NETWORKS = """
import kdjax
import numpy as np


def linear(config, classes):
    weights = 0.1 * np.ones((64, classes), np.float32)
    return kdjax.from_function(lambda w, x: x.reshape(len(x), -1) @ w, params=weights)
"""


@pytest.fixture
def start(tiny_run, tmp_path):
    """A function that prepares a distillation with a teacher to be trained first."""
    (tmp_path / "own_net.py").write_text(NETWORKS)
    config = ModelConfig(f"{tmp_path}/own_net.py:linear", resolution=8)

    def begin(loss="softmax_kl", student=LINEAR, teacher_model=None, **changes):
        teacher = TrainFirst(config, steps=2, optim=Optim(warmup=0))
        terms = {"soft": Term(loss=loss)}
        run = tiny_run(**{"teacher": teacher, "terms": terms, **changes})
        run = dataclasses.replace(
            run, batch=8, data=kdjax.config.Data("arrays", train="train")
        )
        console = Console(file=io.StringIO())
        passed = None if teacher_model is None else (teacher_model, {"params": WEIGHTS})
        prepare(open_job(run, SPLITS, student, passed, console=console))
        return run

    return begin


def nan(student, teacher):
    return student.sum(-1) * jnp.nan


def infinite(student, teacher):
    return jnp.sum(jnp.exp(100 * jnp.abs(student - teacher) + 100), -1)


def constant(student, teacher):
    return jnp.ones(len(student))


def choice(student, teacher):
    return jnp.argmax(student, -1).astype(jnp.float32)


def zero(student, teacher):
    return jnp.sum(student * 0, -1)


def root(student, teacher):
    """A finite value with a gradient of 0 times infinity, which is NaN."""
    return jnp.sqrt(jnp.sum((student - student) ** 2, -1))


def right(student, teacher):
    return jnp.sum((student - teacher) ** 2, -1)


@pytest.mark.parametrize("loss", [nan, infinite])
def test_a_loss_that_is_not_finite_is_an_error_before_the_teacher_is_trained(
    loss, start, tmp_path
):
    message = "^terms.soft: expected finite losses .*, got (nan|inf)$"
    with pytest.raises(ConfigError, match=message):
        start(loss)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss", [constant, choice])
def test_a_loss_without_a_gradient_is_an_error(loss, start):
    with pytest.raises(ConfigError, match="^terms: expected losses that depend on the"):
        start(loss)


def test_a_gradient_that_is_not_finite_is_an_error(start):
    with pytest.raises(ConfigError, match="^terms: expected finite gradients of stud"):
        start(root)


def test_a_loss_whose_gradients_are_0_is_one_warning(start):
    text = "^terms: all gradients of student are 0 for the first batch$"
    with pytest.warns(UserWarning, match=text) as caught:
        start(zero)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start(terms={"soft": Term(zero, weight=Scalar(0.0, 1.0, "linear"))})


def test_a_student_that_is_not_finite_is_named_before_the_teacher_is_trained(start):
    with pytest.raises(ConfigError, match="^model: expected logits that are numbers"):
        start(student=NOT_FINITE["value"])


def test_a_live_teacher_that_mixes_images_is_one_warning(start):
    with pytest.warns(
        UserWarning, match="^teacher: in evaluation mode the logits"
    ) as w:
        start(teacher_model=MIXING)
    assert len(w) == 1


STRATEGY = """
import jax.numpy as jnp
from kdjax.strategies import Strategy, apply_network, init_networks, label_loss


def make(student, *, reads=True):
    def init(key, batch):
        return init_networks({"student": student}, key, batch.inputs["image"])

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        value = label_loss(output.logits, batch) if reads else output.logits.mean()
        return {"student": value}, (state, {})

    return Strategy(init, loss, labels=False)
"""


def test_a_strategy_that_declares_no_labels_and_reads_them_is_an_error(start, tmp_path):
    (tmp_path / "declared.py").write_text(STRATEGY)

    def own(**options):
        return Custom(f"{tmp_path}/declared.py:make", options)

    assert start(strategy=own(reads=False), terms={"soft": SOFT})
    message = "^strategy.function: expected a loss without labels, as labels=False"
    with pytest.raises(ConfigError, match=message):
        start(strategy=own(), terms={"soft": SOFT})


def test_right_losses_and_models_are_no_error(start):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loss in (right, "softmax_kl"):
            assert not start(loss).folder.exists()


def test_networks_and_losses_of_kdjax_are_not_checked(tiny_run, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("checked")

    monkeypatch.setattr(setup, "check_outputs", refuse)
    monkeypatch.setattr(setup, "check_losses", refuse)
    source = from_arrays(IMAGES, np.arange(20) % 4, "data")
    run, data = tiny_run(), {"train": source}
    mesh = sharding.make_mesh(run.compute, run.batch)
    one = Training(run=run, data=data, mesh=mesh, overrides={})
    check_first_values([one._replace(section="teacher"), one])


def test_a_student_without_parameters_or_with_more_logits_is_an_error(start):
    empty = kdjax.from_function(lambda w, x: flat(x)[:, :4], params={})
    with pytest.raises(ConfigError, match="^model: expected a network with parameters"):
        start(student=empty)
    wide = model(lambda w, x: x @ w, np.ones((64, 7), np.float32))
    with pytest.raises(ConfigError, match=r"^model: expected 4 logits .*, got 7$"):
        start(student=wide)
