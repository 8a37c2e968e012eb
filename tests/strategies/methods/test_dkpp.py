"""DKPP: the teacher's largest entry stays, and the others change places."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ConfigError, Custom
from kdjax.core.types import Batch, Output
from kdjax.models import from_function
from kdjax.presets import digits
from kdjax.strategies import make_strategy

TEACHER, OWN, LABEL = [[0.5, 3.0, -1.0]], [[0.2, -0.4, 1.0]], 2


def make(**options):
    init = lambda key, x: jnp.zeros((1, 3))  # noqa: E731
    student = from_function(lambda params, x: params, init=init)
    run = digits(strategy=Custom("dkpp", options=options), steps=7)
    return make_strategy(run, student, None, classes=3)


def batch(teacher):
    targets = Output(jnp.array(teacher), {})
    return Batch({"image": jnp.zeros((1, 1))}, jnp.array([LABEL]), targets)


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def kl(teacher, temperature):
    p, q = (log_softmax(np.asarray(x) / temperature) for x in (teacher, OWN[0]))
    return temperature**2 * (np.exp(p) * (p - q)).sum()


def test_the_loss_is_that_of_one_of_the_orders():
    """Of three classes two may change places; each step draws one order."""
    strategy = make(weight=2.0, label_weight=0.5, temperature=2.0)
    params, state = {"student": jnp.array(OWN)}, {"student": {}}
    call = jax.jit(lambda key: strategy.loss(params, state, batch(TEACHER), {}, key))
    keys = map(jax.random.key, range(12))
    values = np.array([call(key)[0]["student"] for key in keys])
    hard = -log_softmax(OWN)[0, LABEL]
    orders = [[a, 3.0, b] for a, b in itertools.permutations((0.5, -1.0))]
    wants = np.array([0.5 * hard + 2.0 * kl(order, 2.0) for order in orders])
    nearest = np.abs(values[:, None] - wants).argmin(-1)
    np.testing.assert_allclose(values, wants[nearest], rtol=1e-5)
    assert set(nearest) == {0, 1}


@pytest.mark.parametrize(
    ("option", "value"),
    [("weight", -1.0), ("label_weight", -1.0), ("temperature", 0.0)],
)
def test_a_bad_option_is_refused(option, value):
    with pytest.raises(ConfigError, match=f"^strategy.options.{option}: expected"):
        make(**{option: value})


def test_it_needs_a_teacher():
    with pytest.raises(ConfigError, match="^teacher: expected a teacher with"):
        make().init(jax.random.key(0), batch(TEACHER)._replace(targets=None))
