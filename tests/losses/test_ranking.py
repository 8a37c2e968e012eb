"""Orders: of neighbors and of items, against loops in NumPy and differences."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import dark_rank, ranking_distillation

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

KEEP = np.array([True, False, True, True, True, True, False])


def _random(rows=7):
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 3)) / 2, rng.normal(size=(rows, 5)) / 2


def _log_order(scores):
    return sum(s - np.log(np.exp(scores[i:]).sum()) for i, s in enumerate(scores))


def _dark_rank(student, teacher, variant, count=4):
    """Loops: HardDarkRank's list likelihood, or the divergence over all orders."""
    values = []
    for i in range(len(student)):
        d_s, d_t = (np.sqrt(((x - x[i]) ** 2).sum(-1)) for x in (student, teacher))
        near = [j for j in np.argsort(d_t) if j != i][:count]
        s, t = -3 * d_s[near] ** 3, -3 * d_t[near] ** 3
        if variant == "hard":
            values.append(-_log_order(s))
            continue
        orders = [list(o) for o in itertools.permutations(range(len(near)))]
        p, q = ([_log_order(x[o]) for o in orders] for x in (t, s))
        values.append(sum(np.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
    return np.array(values)


@pytest.mark.parametrize("variant", ["hard", "soft"])
def test_dark_rank_against_loops(variant):
    student, teacher = _random()
    kernel = jax.jit(functools.partial(dark_rank, variant=variant))
    values = kernel(student, teacher)
    np.testing.assert_allclose(values, _dark_rank(student, teacher, variant), rtol=1e-9)
    values = np.asarray(kernel(student, teacher, where=KEEP))
    np.testing.assert_array_equal(values[~KEEP], 0)
    expected = _dark_rank(student[KEEP], teacher[KEEP], variant)
    np.testing.assert_allclose(values[KEEP], expected, rtol=1e-9)
    # Two of three others take part: fewer candidates than asked for.
    few = np.array([True, True, True, False])
    values = dark_rank(student[:4], teacher[:4], variant=variant, where=few)
    expected = _dark_rank(student[:3], teacher[:3], variant)
    np.testing.assert_allclose(values[:3], expected, rtol=1e-9)


@pytest.mark.full
@pytest.mark.parametrize("variant", ["hard", "soft"])
def test_dark_rank_gradients_against_differences(variant):
    student, teacher = _random(5)

    def loss(student, teacher):
        values = dark_rank(student, teacher, variant=variant, neighbors=3)
        return (jnp.arange(1.0, 6) * values).sum()

    pair = student / 2, teacher / 2
    check_grads(jax.jit(loss), pair, 1, ("fwd", "rev"), 1e-6, 1e-6)


@pytest.mark.full
def test_dark_rank_of_the_teacher_s_own_order_is_likelier_than_of_another():
    _, teacher = _random()
    right = dark_rank(2 * teacher, teacher).mean()
    assert right < dark_rank(2 * teacher[::-1], teacher).mean()
    np.testing.assert_allclose(
        dark_rank(teacher, teacher, variant="soft"), 0, atol=1e-12
    )


def test_dark_rank_refuses():
    student, teacher = _random()
    with pytest.raises(ValueError, match=r"^neighbors: expected .*\[1, 6\], got 7"):
        dark_rank(student, teacher, neighbors=7)
    with pytest.raises(ValueError, match="^student_features: .*at least 3.*got 2"):
        dark_rank(student[:2], teacher[:2])


def _ranking(student, teacher, top, decay, sharpness=None):
    values = []
    for s, t in zip(student, teacher, strict=True):
        items = np.argsort(-t)[:top]
        w = np.exp(-np.arange(len(items)) / decay)
        w /= w.sum()
        if sharpness is not None:
            rank = np.array([(s > s[j]).sum() for j in items])
            w = w * np.maximum(0, np.tanh(sharpness * (rank - np.arange(len(items)))))
        values.append((w * np.log1p(np.exp(-s[items]))).sum())
    return np.array(values)


@pytest.mark.parametrize("sharpness", [None, 0.4])
def test_ranking_against_loops(sharpness):
    student, teacher = 2 * np.random.default_rng(1).normal(size=(2, 6, 9))
    knobs = {"top": 4, "decay": 2.0, "sharpness": sharpness}
    expected = _ranking(student, teacher, **knobs)
    assert (expected > 0).any()
    kernel = jax.jit(functools.partial(ranking_distillation, **knobs))
    np.testing.assert_allclose(kernel(student, teacher), expected, rtol=1e-9)
    known = np.arange(9) < 3
    expected = _ranking(student[:, :3], teacher[:, :3], **knobs)
    values = kernel(student, teacher, where=known)
    np.testing.assert_allclose(values, expected, rtol=1e-9)

    def loss(student):
        return (jnp.arange(1.0, 7) * kernel(student, teacher)).sum()

    check_grads(loss, (student,), 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_ranking_discrepancy_spares_what_is_high_enough():
    """methods.md, J10: 0 when the student ranks at least as well."""
    teacher = np.array([[4.0, 3, 2, 1]])
    student = np.array([[9.0, 8, -1, -2]])
    values = ranking_distillation(student, teacher, top=2, sharpness=0.1)
    np.testing.assert_array_equal(values, 0)
    assert ranking_distillation(student[:, ::-1], teacher, top=2, sharpness=0.1) > 0
