"""The moving average follows the student, and no gradient follows it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.core.types import Model, Output, View
from kdjax.teachers.ema import moving_average


def student():
    def apply(variables, images, *, train=False, rngs=None):
        assert not train
        w, s = variables["params"]["w"], variables["stats"]["mean"]
        return Output(images @ w - s, {}), {"stats": variables["stats"]}

    return Model(lambda key, images: None, apply)


def variables(value):
    stats = {"mean": jnp.float32(2 * value), "count": jnp.int32(value)}
    return {"student": {"params": {"w": jnp.full((2, 3), value)}, "stats": stats}}


def test_it_begins_as_a_mean_and_goes_on_as_an_average():
    teacher = moving_average(student(), decay=0.6)
    state = teacher.init(variables(jnp.float32(5.0)))
    values, averages = [1.0, 3.0, 8.0, 2.0], []
    for value in values:
        state = teacher.update(state, variables(jnp.float32(value)))
        averages.append(float(state["average"]["params"]["w"][0, 0]))
    # a = 0, 1/2, 0.6 (not 2/3), 0.6
    third = 0.6 * 2.0 + 0.4 * 8.0
    expected = [1.0, 2.0, third, 0.6 * third + 0.4 * 2.0]
    np.testing.assert_allclose(averages, expected, rtol=1e-6)
    stats = state["average"]["stats"]
    np.testing.assert_allclose(stats["mean"], 2 * expected[-1], rtol=1e-6)
    assert stats["count"] == 2 and stats["count"].dtype == jnp.int32


def test_targets_are_the_averages_answer_without_a_gradient():
    teacher = moving_average(student())
    images = jnp.array([[1.0, 2.0]])
    view = View(0 * images, images, jnp.zeros(1, jnp.int32))
    state = teacher.init(variables(jnp.float32(4.0)))

    def total(value):
        begun = teacher.init(variables(value))
        return teacher.targets(begun, view, {}, {}).logits.sum()

    found = teacher.targets(state, view, {}, {}).logits
    np.testing.assert_allclose(found, [[12.0 - 8.0] * 3])
    assert jax.grad(total)(jnp.float32(4.0)) == 0


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay: expected a number in \[0, 1\)"):
        moving_average(student(), decay=decay)
