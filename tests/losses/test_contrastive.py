"""Contrastive losses and their memory against hand-worked values and NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jax.test_util import check_grads

from kdjax.losses import (
    CRDMemory,
    crd,
    crd_memory_calibrate,
    crd_memory_init,
    crd_memory_lookup,
    crd_memory_update,
    info_nce,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes")
CONSTANTS = {"student_constant": 30.0, "teacher_constant": 50.0, "examples": 20}
update = jax.jit(crd_memory_update)


def _unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def _anchors(rows=5):
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 3)), rng.normal(size=(rows, 3))


def _entries(rows=5, negatives=4):
    rng = np.random.default_rng(2)
    student, teacher = _unit(rng.normal(size=(2, rows, 1 + negatives, 3)))
    return {"student_memory": student, "teacher_memory": teacher}


def _nce(student, teacher, temperature):
    scores = np.exp(_unit(student) @ _unit(teacher).T / temperature)
    return -np.log(np.diagonal(scores) / scores.sum(1))


def _crd(anchors, entries, constant, temperature, examples, eps=1e-7):
    """One direction, as printed: exponentials, quotients and logarithms."""
    values = []
    for u, rows in zip(_unit(anchors), entries, strict=True):
        p = np.exp(rows @ u / temperature) / constant
        c = (len(rows) - 1) / examples
        positive = np.log(p[0] / (p[0] + c + eps))
        values.append(-positive - np.log(c / (p[1:] + c + eps)).sum())
    return np.array(values)


@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce_against_numpy(float64, symmetric):
    student, teacher = _anchors()
    kernel = functools.partial(info_nce, temperature=0.3, symmetric=symmetric)
    values = jax.jit(kernel)(student, teacher)
    expected = _nce(student, teacher, 0.3)
    if symmetric:
        expected = (expected + _nce(teacher, student, 0.3)) / 2
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    keep = np.array([True, True, False, True, False])
    values = jax.jit(kernel)(student, teacher, where=keep)
    expected = kernel(student[keep], teacher[keep])
    np.testing.assert_allclose(values[keep], expected, rtol=1e-9)
    np.testing.assert_array_equal(values[~keep], 0)


def test_info_nce_of_equal_rows_is_the_log_of_their_number():
    same = np.ones((5, 3), np.float32)
    np.testing.assert_allclose(info_nce(same, same), np.log(5), rtol=1e-6)
    only = np.arange(5) == 2
    np.testing.assert_array_equal(info_nce(same, same, where=only), 0)


def test_info_nce_invariances(float64):
    student, teacher = _anchors()
    expected = info_nce(student, teacher)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    scales = np.arange(1.0, 6)[:, None]
    values = info_nce(scales * student @ turn, teacher @ turn / scales)
    np.testing.assert_allclose(values, expected, rtol=1e-9)


@pytest.mark.parametrize("kernel", ["info_nce", "crd"])
def test_gradients_against_differences(float64, kernel):
    entries = _entries()

    def loss(student, teacher):
        if kernel == "info_nce":
            values = info_nce(student, teacher, temperature=0.5, symmetric=True)
        else:
            values = crd(student, teacher, **entries, **CONSTANTS, temperature=0.5)
        return (jnp.arange(1.0, 6) * values).sum()

    check_grads(jax.jit(loss), _anchors(), 1, ("fwd", "rev"), 1e-6, 1e-6)


@pytest.mark.parametrize("negatives, expected", [(4, 2.5020121177), (64, None)])
def test_uniform_scores(float64, negatives, expected):
    """All scores 1 / examples: log(1 + m) + m log((1 + m) / m) in each direction."""
    m = negatives
    formula = np.log(1 + m) + m * np.log((1 + m) / m)
    assert expected is None or abs(formula - expected) < 1e-9
    zero = np.zeros((2, 1 + m, 3))
    values = crd(
        *_anchors(2),
        student_memory=zero,
        teacher_memory=zero,
        student_constant=5.0,
        teacher_constant=5.0,
        examples=5,
        eps=1e-12,
    )
    np.testing.assert_allclose(values, 2 * formula, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_crd_against_numpy(float64, temperature):
    student, teacher = _anchors()
    entries = _entries()
    kernel = functools.partial(crd, temperature=temperature)
    values = jax.jit(kernel)(student, teacher, **entries, **CONSTANTS)
    there = _crd(student, entries["teacher_memory"], 30.0, temperature, 20)
    back = _crd(teacher, entries["student_memory"], 50.0, temperature, 20)
    np.testing.assert_allclose(values, there + back, rtol=1e-9)


def test_crd_refuses_bad_arguments():
    student, teacher = _anchors()
    entries = _entries()

    def call(**changes):
        return crd(student, teacher, **{**entries, **CONSTANTS, **changes})

    for name in (*CONSTANTS, "temperature", "eps"):
        with pytest.raises(ValueError, match=f"^{name}: expected .*above 0"):
            call(**{name: 0.0})
    with pytest.raises(ValueError, match=r"^teacher_memory: expected shape \(5, 5, 3"):
        call(teacher_memory=entries["teacher_memory"][:, :4])
    with pytest.raises(ValueError, match="^student_memory: .*at least 1 negative"):
        call(**{name: x[:, :1] for name, x in entries.items()})
    with pytest.raises(ValueError, match="^teacher_features: expected the shape"):
        info_nce(student, np.ones((5, 4)))


def _memory(examples=20):
    return crd_memory_init(jax.random.key(0), examples, 3)


def test_init_is_of_length_one_on_average():
    memory = crd_memory_init(jax.random.key(1), 500, 16)
    assert memory.student.shape == memory.teacher.shape == (500, 16)
    assert not np.allclose(memory.student, memory.teacher)
    for bank in (memory.student, memory.teacher):
        assert np.abs(bank).max() <= np.sqrt(3 / 16)
        np.testing.assert_allclose(np.mean(np.sum(bank**2, 1)), 1, rtol=0.05)
    assert memory.student_constant == memory.teacher_constant == 0


def test_lookup_puts_the_positive_first():
    memory = _memory()
    positives, negatives = np.array([3, 5]), np.array([[1, 2, 19], [0, 3, -1]])
    student, teacher = jax.jit(crd_memory_lookup)(memory, positives, negatives)
    assert student.shape == teacher.shape == (2, 4, 3)
    np.testing.assert_array_equal(student[0], memory.student[np.array([3, 1, 2, 19])])
    np.testing.assert_array_equal(teacher[1, :3], memory.teacher[np.array([5, 0, 3])])
    assert np.isnan(student[1, 3]).all() and np.isnan(teacher[1, 3]).all()


def test_constants_are_set_once():
    memory = _memory()
    student, teacher = (x.astype(np.float32) for x in _anchors(2))
    entries = crd_memory_lookup(memory, np.array([3, 5]), np.array([[1, 2], [0, 3]]))
    calibrate = jax.jit(functools.partial(crd_memory_calibrate, temperature=0.5))
    once = calibrate(memory, student, teacher, *entries)
    for name, anchors, rows in (
        ("student_constant", student, entries[1]),
        ("teacher_constant", teacher, entries[0]),
    ):
        scores = np.einsum("nd,nmd->nm", _unit(anchors), rows) / 0.5
        constant = getattr(once, name)
        np.testing.assert_allclose(constant, 20 * np.exp(scores).mean(), rtol=1e-5)
    twice = calibrate(once, teacher, student, *entries)
    assert jax.tree.all(jax.tree.map(np.array_equal, once, twice))


def test_update_moves_its_rows_and_no_others():
    memory = _memory()
    student, teacher = (x.astype(np.float32) for x in _anchors(3))
    ids = np.array([4, 17, 0])
    new = update(memory, student, teacher, ids, momentum=0.25)
    others = np.setdiff1d(np.arange(20), ids)
    for bank, old, features in (
        (new.student, memory.student, student),
        (new.teacher, memory.teacher, teacher),
    ):
        np.testing.assert_array_equal(bank[others], old[others])
        expected = _unit(0.25 * np.asarray(old)[ids] + 0.75 * _unit(features))
        np.testing.assert_allclose(bank[ids], expected, rtol=1e-5)
        np.testing.assert_allclose(np.sum(bank[ids] ** 2, 1), 1, rtol=1e-6)


def test_the_last_of_equal_ids_counts_and_foreign_ids_do_not():
    memory = _memory()
    student, teacher = (x.astype(np.float32) for x in _anchors(5))
    new = update(memory, student, teacher, np.array([4, 20, 4, -1, 2]))
    expected = update(memory, student[[2, 4]], teacher[[2, 4]], np.array([4, 2]))
    assert jax.tree.all(jax.tree.map(np.array_equal, new, expected))


def test_a_zero_embedding_keeps_the_memory_finite():
    memory = _memory()._replace(student=jnp.zeros((20, 3)))
    zero = np.zeros((2, 3), np.float32)
    new = update(memory, zero, zero, np.array([0, 1]))
    assert jax.tree.all(jax.tree.map(lambda x: np.isfinite(x).all(), new))


def test_no_gradient_reaches_the_memory_or_comes_back_from_it():
    student, teacher = (x.astype(np.float32) for x in _anchors(2))
    ids, negatives = np.array([3, 5]), np.array([[1, 2], [0, 4]])

    def after(student, teacher, start):
        entries = crd_memory_lookup(start, ids, negatives)
        state = crd_memory_calibrate(start, student, teacher, *entries)
        state = crd_memory_update(state, student, teacher, ids)
        parts = (state.student[ids], state.teacher[ids])
        return sum(
            x.sum() for x in (*parts, state.student_constant, state.teacher_constant)
        )

    slopes = jax.jit(jax.grad(after, (0, 1, 2)))(student, teacher, _memory())
    for slope in jax.tree.leaves(slopes):
        np.testing.assert_array_equal(slope, 0)


def test_a_sharded_memory_is_the_whole_one():
    memory = _memory(24)
    student, teacher = (x.astype(np.float32) for x in _anchors(8))
    ids = np.array([0, 3, 5, 5, 11, 23, -1, 3])
    negatives = np.random.default_rng(3).integers(24, size=(8, 6))

    def step(memory, student, teacher, ids, negatives):
        entries = crd_memory_lookup(memory, ids, negatives)
        memory = crd_memory_calibrate(memory, student, teacher, *entries)
        values = crd(
            student,
            teacher,
            student_memory=entries[0],
            teacher_memory=entries[1],
            student_constant=memory.student_constant,
            teacher_constant=memory.teacher_constant,
            examples=24,
        )
        return values, crd_memory_update(memory, student, teacher, ids)

    ids = np.abs(ids)
    expected = jax.jit(step)(memory, student, teacher, ids, negatives)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*a)) for a in (("data",), ()))
    placed = jax.device_put(memory, CRDMemory(rows, rows, whole, whole))
    batch = jax.device_put((student, teacher, ids, negatives), rows)
    actual = jax.jit(step)(placed, *batch)
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_memory_refuses_bad_arguments():
    memory = _memory()
    student, teacher = _anchors(2)
    with pytest.raises(ValueError, match="^positives: expected .*integer"):
        crd_memory_update(memory, student, teacher, np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"^positives: expected shape \(2,\)"):
        crd_memory_update(memory, student, teacher, np.array([1]))
    with pytest.raises(ValueError, match=r"^student_features: expected shape \(2, 3"):
        crd_memory_update(memory, student[:, :2], teacher[:, :2], np.array([1, 2]))
    with pytest.raises(ValueError, match="^momentum: expected"):
        crd_memory_update(memory, student, teacher, np.array([1, 2]), momentum=1.5)
    with pytest.raises(ValueError, match="^negatives: expected shape"):
        crd_memory_lookup(memory, np.array([1, 2]), np.array([[1]]))
    with pytest.raises(ValueError, match="^examples: expected"):
        crd_memory_init(jax.random.key(0), 0, 3)
