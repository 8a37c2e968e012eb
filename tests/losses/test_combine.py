"""The weighted sum of several losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import combine, hard_cross_entropy, softmax_kl

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_hinton_fixture(float64):
    """methods.md, 3.5: nine parts teacher at T = 4, one part label."""
    student = np.array([[1.0, 2, 3], [0.5, 0.5, 0]])
    teacher = np.array([[2.0, 1, 0], [0, 3, 1]])
    terms = {
        "kd": softmax_kl(student, teacher, temperature=4.0),
        "label": hard_cross_entropy(student, np.array([0, 1])),
    }
    total, parts = combine(terms, {"kd": 0.9, "label": 0.1})
    np.testing.assert_allclose(total, 1.1004860757, atol=1e-9)
    np.testing.assert_allclose(parts["kd"], 1.0357830812, atol=1e-9)
    np.testing.assert_allclose(parts["label"], 1.6828130262, atol=1e-9)


def test_where_leaves_examples_out_with_their_nan():
    values = np.array([1.0, np.nan, 3.0], np.float32)
    keep = np.array([True, False, True])

    def loss(values):
        return combine({"kd": values}, {"kd": 2.0}, keep)[0]

    value, gradient = jax.value_and_grad(loss)(values)
    assert value == 4.0
    np.testing.assert_array_equal(gradient, [1, 0, 1])


def test_nothing_selected_is_zero():
    total, parts = combine(
        {"kd": np.ones(3, np.float32)}, {"kd": 2.0}, np.zeros(3, bool)
    )
    assert total == 0 and parts["kd"] == 0


def test_weights_may_be_traced():
    terms = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([10.0])}

    def total(weight):
        return combine(terms, {"a": weight, "b": 1})[0]

    value, slope = jax.jit(jax.value_and_grad(total))(4.0)
    assert value == 16.0 and slope == 1.5


def test_half_precision_is_widened():
    terms = {"a": jnp.full(3, 0.1, jnp.bfloat16), "b": jnp.ones(3)}
    total, parts = combine(terms, {"a": np.float64(1.0), "b": jnp.bfloat16(1.0)})
    assert total.dtype == parts["a"].dtype == jnp.float32


def test_the_widest_term_decides(float64):
    terms = {"a": jnp.ones(3, jnp.float32), "b": jnp.ones(3, jnp.float64)}
    assert combine(terms, {"a": 1.0, "b": 1.0})[0].dtype == jnp.float64


@pytest.mark.parametrize(
    "terms, weights, message",
    [
        ({}, {}, "^terms: expected at least one"),
        ({"a": np.ones(2, np.float32)}, {}, r"^weights: .*\['a'\], got \[\]"),
        ({"a": np.ones(2, np.float32)}, {"a": 1, "b": 1}, "^weights: expected"),
        ({"a": np.float32(1)}, {"a": 1}, r"^terms\['a'\]: expected rank"),
        ({"a": np.ones(0, np.float32)}, {"a": 1}, r"^terms\['a'\]: expected at"),
        ({"a": np.ones(2, int)}, {"a": 1}, r"^terms\['a'\]: expected .*floating"),
        ({"a": np.ones(2, np.float32)}, {"a": "3"}, r"^weights\['a'\]: .*got '3'"),
        ({"a": np.ones(2, np.float32)}, {"a": np.nan}, r"^weights\['a'\]: .*got nan"),
        ({"a": np.ones(2, np.float32)}, {"a": -0.5}, r"^weights\['a'\]: .*got -0.5"),
        ({"a": np.ones(2, np.float32)}, {"a": None}, r"^weights\['a'\]: .*got None"),
        ({"a": np.ones(2, np.float32)}, {"a": 1j}, r"^weights\['a'\]: .*got 1j"),
        ({"a": np.ones(2, np.float32)}, {1: 1, "a": 1}, r"^weights: expected one"),
        ([np.ones(2, np.float32)], [1.0], r"^terms: expected a dict by name, got a li"),
    ],
)
def test_bad_arguments_are_refused(terms, weights, message):
    with pytest.raises(ValueError, match=message):
        combine(terms, weights)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="^where: expected"):
        combine({"a": np.ones(2, np.float32)}, {"a": 1}, np.ones(3, bool))


def test_a_mask_of_examples_selects_examples_whatever_else_a_term_has():
    values = np.array([[1.0, 2], [30, 40]], np.float32)
    keep = np.array([True, False])
    total, parts = combine(
        {"a": values, "b": values[:, 0]}, {"a": 1.0, "b": 1.0}, where=keep
    )
    assert (float(parts["a"]), float(parts["b"]), float(total)) == (1.5, 1.0, 2.5)
    each = np.array([[True, False], [True, True]])
    assert float(combine({"a": values}, {"a": 1.0}, each)[0]) == pytest.approx(71 / 3)
