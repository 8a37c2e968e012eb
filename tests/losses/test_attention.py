"""Losses of attention maps, value relations and hidden states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import (
    attention_map_kl,
    attention_map_mse,
    hidden_state_mse,
    layer_map,
    value_relation,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes")
CAUSAL = np.tril(np.ones((4, 4), bool))


def _maps(seed=0, shape=(2, 3, 4, 4)):
    return np.random.default_rng(seed).normal(size=(2, *shape))


def _softmax(x, keep):
    e = np.where(keep, np.exp(np.where(keep, x, 0)), 0)
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def _row_kl(p, q):
    safe = p > 0
    return np.where(safe, p * np.log(np.where(safe, p / np.where(q > 0, q, 1), 1)), 0)


def _padding(batch=2, keys=4):
    """The last key of the first example and the last two of the second are padding."""
    return np.arange(keys)[None, :] < np.array([[3], [2]])[:batch]


def test_mse_is_the_formula(float64):
    student, teacher = _maps()
    value = attention_map_mse(student, teacher)
    np.testing.assert_allclose(value, ((student - teacher) ** 2).mean((1, 2, 3)))
    value = attention_map_mse(student, teacher, where=CAUSAL)
    expected = ((student - teacher) ** 2)[:, :, CAUSAL].mean((1, 2))
    np.testing.assert_allclose(value, expected)
    value = attention_map_mse(student, teacher, where=CAUSAL, variant="all")
    np.testing.assert_allclose(value, expected * CAUSAL.mean())


def test_kl_is_the_formula(float64):
    student, teacher = _maps()
    p, q = _softmax(teacher, CAUSAL), _softmax(student, CAUSAL)
    expected = _row_kl(p, q).sum(-1).mean((1, 2))
    scores = attention_map_kl(student, teacher, inputs="scores", where=CAUSAL)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    weights = attention_map_kl(q, p, where=CAUSAL)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    # A softmax has zeros where the mask is: no mask is needed to compare weights.
    np.testing.assert_allclose(attention_map_kl(q, p), expected, rtol=1e-6)


def test_mean_over_heads_takes_other_numbers_of_heads(float64):
    student, teacher = _maps()
    p, q = _softmax(teacher[:, :2], True), _softmax(student, True)
    expected = _row_kl(p.mean(1), q.mean(1)).sum(-1).mean(-1)
    value = attention_map_kl(
        student,
        teacher[:, :2],
        inputs="scores",
        heads="mean",
        where=np.ones((4, 4), bool),
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    value = attention_map_mse(q, p, heads="mean")
    np.testing.assert_allclose(value, ((p.mean(1) - q.mean(1)) ** 2).mean((1, 2)))
    with pytest.raises(ValueError, match=r"^where: expected .*1, 4, 4"):
        attention_map_mse(q, p, heads="mean", where=np.ones((3, 4, 4), bool))
    with pytest.raises(ValueError, match="^teacher_attention: expected"):
        attention_map_mse(q, p)


@pytest.mark.parametrize("variant", ["weights", "scores"])
def test_what_padding_holds_does_not_matter(variant):
    student, teacher = _maps().astype(np.float32)
    if variant == "weights":
        student, teacher = _softmax(student, True), _softmax(teacher, True)
    where = _padding()[:, None, None, :]
    value = attention_map_kl(student, teacher, inputs=variant, where=where)
    dirty = np.where(where, student, np.nan)
    again = attention_map_kl(dirty, teacher, inputs=variant, where=where)
    np.testing.assert_array_equal(value, again)
    mse = attention_map_mse(student, teacher, where=where)
    np.testing.assert_array_equal(mse, attention_map_mse(dirty, teacher, where=where))


def test_queries_that_see_nothing_are_not_counted():
    student, teacher = _maps().astype(np.float32)
    where = CAUSAL.copy()
    where[3] = False
    value = attention_map_kl(student, teacher, inputs="scores", where=where)
    # Three heads and three queries: the mask needs its full rank.
    cut = attention_map_kl(
        student[:, :, :3],
        teacher[:, :, :3],
        inputs="scores",
        where=where[None, None, :3],
    )
    np.testing.assert_allclose(value, cut, rtol=1e-6)


def test_scores_of_a_head_may_be_shifted():
    student, teacher = _maps().astype(np.float32)
    value = attention_map_kl(student, teacher, inputs="scores")
    moved = attention_map_kl(student + 3, teacher - 2, inputs="scores")
    np.testing.assert_allclose(value, moved, rtol=1e-4)


def test_one_hot_weights_are_finite():
    eye = np.broadcast_to(np.eye(4, dtype=np.float32), (1, 2, 4, 4))
    loss = jax.value_and_grad(lambda s, t: attention_map_kl(s, t).sum(), (0, 1))
    value, gradients = loss(eye, eye[..., ::-1])
    np.testing.assert_allclose(value, np.log(1e12), rtol=1e-3)
    assert all(np.isfinite(g).all() for g in gradients)


def _numpy_relation(student, teacher, keep):
    def relation(v):
        return _softmax(v @ np.swapaxes(v, -1, -2) / np.sqrt(v.shape[-1]), keep)

    return _row_kl(relation(teacher), relation(student)).sum(-1)


def test_value_relation_is_the_formula(float64):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 2))
    expected = _numpy_relation(student, teacher, True).mean((1, 2))
    np.testing.assert_allclose(value_relation(student, teacher), expected, rtol=1e-9)
    real = _padding()
    value = value_relation(student, teacher, where=real)
    rows = _numpy_relation(student, teacher, real[:, None, None, :])
    expected = [r[:, k].mean() for r, k in zip(rows, real, strict=True)]
    np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_value_relation_does_not_see_a_turn():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    turned = values @ turn.astype(np.float32)
    np.testing.assert_allclose(value_relation(turned, values), 0, atol=1e-6)
    # As many heads as the teacher, but of any width.
    with pytest.raises(ValueError, match=r"^teacher_values: expected .*\(2, 3, 4, 5\)"):
        value_relation(values, values[:, :2])


def test_layer_maps():
    assert layer_map(4, 12, kind="attention") == (2, 5, 8, 11)
    assert layer_map(6, 12, kind="attention") == (1, 3, 5, 7, 9, 11)
    assert layer_map(4, 12) == (0, 3, 6, 9, 12)
    assert layer_map(6, 12) == (0, 2, 4, 6, 8, 10, 12)
    assert layer_map(2, 5, kind="last") == (3, 4)
    with pytest.raises(ValueError, match="^teacher_layers: expected a multiple of 5"):
        layer_map(5, 12)
    with pytest.raises(ValueError, match="^student_layers: expected"):
        layer_map(13, 12)
    for layers in ((2.0, 12), ("3", 12), (True, 12)):
        with pytest.raises(ValueError, match="^student_layers: expected a whole"):
            layer_map(*layers)
    with pytest.raises(ValueError, match="^teacher_layers: expected a whole"):
        layer_map(1, 2.0)
    with pytest.raises(ValueError, match="^kind: expected"):
        layer_map(3, 12, kind="skip")


def test_hidden_states_are_the_formula(float64):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 2, 4, 5)), rng.normal(size=(2, 4, 4, 5))
    layers = layer_map(2, 4, kind="attention")
    gap = student - teacher[:, [1, 3]]
    value = hidden_state_mse(student, teacher, layers=layers)
    np.testing.assert_allclose(value, (gap**2).mean((2, 3)).sum(1))
    real = _padding()
    value = hidden_state_mse(
        student, teacher, layers=layers, where=real[:, None, :, None]
    )
    expected = [
        (g[:, k] ** 2).mean((1, 2)).sum() for g, k in zip(gap, real, strict=True)
    ]
    np.testing.assert_allclose(value, expected)

    def unit(x):
        return x / np.sqrt((x**2).sum(-1, keepdims=True))

    value = hidden_state_mse(student, teacher, layers=layers, variant="pkd")
    expected = ((unit(student) - unit(teacher[:, [1, 3]])) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(value, expected)


@pytest.mark.parametrize("layers", [(0, 4), (-1, 0), (2.0, 0), (0, True)])
def test_layers_that_do_not_exist_are_refused(layers):
    student, teacher = np.zeros((2, 2, 3, 4)), np.zeros((2, 4, 3, 4))
    with pytest.raises(ValueError, match=r"^layers: expected .*\[0, 3\]"):
        hidden_state_mse(student, teacher, layers=layers)
    with pytest.raises(ValueError, match="^layers: expected 2 indices"):
        hidden_state_mse(student, teacher, layers=layers[:1])


def test_gradients_are_those_of_finite_differences(float64):
    student, teacher = _maps(shape=(1, 2, 4, 4))
    weights = [_softmax(x, True) for x in (student, teacher)]
    for kernel, arrays in (
        (lambda s, t: attention_map_mse(s, t, where=CAUSAL), (student, teacher)),
        (lambda s, t: attention_map_kl(s, t, inputs="scores"), (student, teacher)),
        (
            lambda s, t: attention_map_kl(
                s, t, heads="mean", where=CAUSAL[None, None, 3:]
            ),
            weights,
        ),
        (lambda s, t: value_relation(s, t, where=_padding(1)), (student, teacher)),
        (lambda s, t: hidden_state_mse(s, t, variant="pkd"), (student, teacher)),
    ):
        arrays = tuple(jnp.asarray(x) for x in arrays)
        check_grads(jax.jit(kernel), arrays, order=1, modes="rev", rtol=1e-5)


def test_unknown_knobs_are_refused():
    x = np.ones((1, 1, 2, 2), np.float32)
    for knob in ("heads", "variant"):
        with pytest.raises(ValueError, match=f"^{knob}: expected one of"):
            attention_map_mse(x, x, **{knob: "other"})
    with pytest.raises(ValueError, match="^inputs: expected one of"):
        attention_map_kl(x, x, inputs="other")
    with pytest.raises(ValueError, match="^eps: expected"):
        attention_map_kl(x, x, eps=0.0)
    with pytest.raises(ValueError, match="^axis: expected"):
        attention_map_kl(x, x, axis=0)
