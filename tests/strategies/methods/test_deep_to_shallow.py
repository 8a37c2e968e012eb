"""Be Your Own Teacher, against its formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax
from kdjax import jobs
from kdjax.config import ConfigError, Custom, labels_only
from kdjax.core import runlog
from kdjax.core.types import Batch
from kdjax.models import from_function
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from tests.e2e.saved import saved
from tests.strategies.methods.resumption import check_resumes_bitwise

N, CLASSES, WIDTH = 5, 3, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(N, 6))
LABELS = RNG.integers(0, CLASSES, N)


def apply(params, images):
    first = jnp.tanh(images @ params["first"])
    last = jnp.tanh(first @ params["last"])
    return last @ params["head"], {"stage1": first, "embedding": last}


def start(key, images):
    keys = jax.random.split(key, 3)
    shapes = {"first": (6, WIDTH), "last": (WIDTH, WIDTH), "head": (WIDTH, CLASSES)}
    return {
        name: jax.random.normal(k, shape)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


STUDENT = from_function(apply, init=start)


def make(**options):
    options = {"taps": "stage1", **options}
    run = digits(strategy=Custom("deep_to_shallow", options=options), steps=7)
    return make_strategy(run, STUDENT, None, classes=CLASSES)


def batch(**mixing):
    image = jnp.asarray(IMAGES, jnp.float32)
    return Batch({"image": image}, jnp.asarray(LABELS), **mixing)


def split(strategy):
    variables = strategy.init(jax.random.key(3), batch())
    params = {name: x["params"] for name, x in variables.items()}
    return params, {name: {} for name in params}


def total(strategy, params, state, **mixing):
    call = jax.jit(lambda p, b: strategy.loss(p, state, b, {}, jax.random.key(1)))
    return call(params, batch(**mixing))


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def cross_entropy(logits, labels):
    return -log_softmax(logits)[np.arange(N), labels].mean()


def test_the_loss_is_the_formula():
    """CE of the last, and (1 - a) CE + a T^2 KL + w |F - F_C|^2 of the exit."""
    options = {"alpha": 0.3, "temperature": 2.0, "hint_weight": 0.5}
    strategy = make(**options, hint_variant="fitnets")
    params, state = split(strategy)
    assert sorted(params) == ["exit1", "student"]
    values, (_, metrics) = total(strategy, params, state)
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    first = np.tanh(IMAGES @ wide["student"]["first"])
    last = np.tanh(first @ wide["student"]["last"])
    deep = last @ wide["student"]["head"]
    dense = wide["exit1"]["Dense_0"]
    shallow = first @ dense["kernel"] + dense["bias"]
    p, q = log_softmax(deep / 2), log_softmax(shallow / 2)
    soft = 4 * (np.exp(p) * (p - q)).sum(-1).mean()
    near = ((first - last) ** 2).sum(-1).mean() / 2
    hard = cross_entropy(shallow, LABELS)
    exit1 = 0.7 * hard + 0.3 * soft + 0.5 * near
    own = cross_entropy(deep, LABELS)
    np.testing.assert_allclose(values["student"], own + exit1, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss of exit1"], exit1, rtol=1e-5)
    right = (shallow.argmax(-1) == LABELS).mean()
    np.testing.assert_allclose(metrics["accuracy of exit1"], right, rtol=1e-6)
    both = np.exp(log_softmax(shallow)) + np.exp(log_softmax(deep))
    right = (both.argmax(-1) == LABELS).mean()
    np.testing.assert_allclose(metrics["accuracy of the ensemble"], right, rtol=1e-6)


def test_the_last_exit_learns_from_labels_alone():
    """Above the exit the gradient is that of the cross-entropy alone."""
    strategy = make(alpha=0.9, hint_weight=1.0, hint_variant="mean")
    params, state = split(strategy)
    grads = jax.jit(jax.grad(lambda p: total(strategy, p, state)[0]["student"]))(params)

    def plain(params):
        logits, _ = apply(params, jnp.asarray(IMAGES, jnp.float32))
        chosen = jax.nn.log_softmax(logits)[jnp.arange(N), LABELS]
        return -chosen.mean()

    alone = jax.jit(jax.grad(plain))(params["student"])
    for name in ("last", "head"):
        np.testing.assert_allclose(grads["student"][name], alone[name], rtol=1e-5)
    moved = np.abs(grads["student"]["first"] - alone["first"]).max()
    assert moved > 1e-2 and np.any(grads["exit1"]["Dense_0"]["kernel"])


def test_mixed_labels_are_of_both_images():
    strategy = make()
    params, state = split(strategy)
    partner = jnp.asarray((LABELS + 1) % CLASSES)
    mixing = {"partner_labels": partner, "mix_weight": jnp.float32(0.25)}
    got = total(strategy, params, state, **mixing)[0]["student"]
    one = total(strategy, params, state)[0]["student"]
    whole = {**mixing, "mix_weight": jnp.float32(0.0)}
    other = total(strategy, params, state, **whole)[0]["student"]
    np.testing.assert_allclose(got, 0.25 * one + 0.75 * other, rtol=1e-5)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("taps", (), "at least one tap of the student"),
        ("alpha", 1.5, "a number from 0 to 1, got 1.5"),
        ("temperature", 0.0, "a number in [1e-06, 1e+06]"),
        ("hint_weight", -1.0, "a number >= 0"),
        ("hint_variant", "root", "'root'"),
        ("norm", "none", "'none'"),
    ],
)
def test_a_bad_option_is_refused(option, value, expected):
    with pytest.raises(ConfigError, match=f"^strategy.options.{option}: ") as error:
        make(**{option: value})
    assert expected in str(error.value)


@pytest.mark.parametrize("option", ["taps", "features"])
def test_a_tap_that_the_student_has_not_is_refused(option):
    with pytest.raises(ConfigError, match=f"^strategy.options.{option}: .*'stage7'"):
        make(**{option: "stage7"}).init(jax.random.key(0), batch())


@pytest.mark.full
def test_a_run_resumes_bitwise_and_exports_the_network_alone(tiny_run, tmp_path):
    """The exits are networks of the run, and no part of the student."""
    changes = {"teacher": None, "strategy": Custom("deep_to_shallow")}
    run = labels_only(tiny_run(checkpoint_every=4, evaluate_every=4), **changes)
    folder = check_resumes_bitwise(jobs.train, run, tmp_path / "begun", crash_at=6)
    names = saved(folder)
    for name in ("student", "exit1", "exit2"):
        assert any(f"['{name}']" in key for key in names)
    student = kdjax.load(folder)
    assert set(student.variables) == {"params"}
    assert "Dense_0" in student.variables["params"]
    line = [x for x in runlog.read_metrics(folder) if x["kind"] == "train"][-1]
    assert {"accuracy of exit1", "accuracy of the ensemble"} <= set(line)
