"""Teachers of another label space: selected, padded and merged classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from kdjax import losses, targets

pytestmark = pytest.mark.usefixtures("strict_dtypes")
MERGED = np.array([2, 0, -1, 2, 0, 2, 4])


def _reference(logits, class_map, classes, temperature=1.0):
    """Probabilities at the temperature, added up in float64."""
    p = np.exp(np.float64(logits) / temperature)
    sums = np.stack([p[..., class_map == k].sum(-1) for k in range(classes)], -1)
    with np.errstate(divide="ignore"):
        return temperature * np.log(sums)


def _logits(*shape, seed=0):
    return 2 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_merged_classes_are_sums_of_probabilities(temperature):
    logits = _logits(4, 7)
    expected = _reference(logits, MERGED, 5, temperature)
    options = {"classes": 5, "temperature": temperature}
    found = targets.map_logits(logits, MERGED, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.isneginf(found[:, [1, 3]]).all()
    moved = targets.map_logits(logits.T, MERGED, axis=0, **options)
    np.testing.assert_array_equal(moved, found.T)


def test_a_traced_map_is_a_constant_one():
    logits = _logits(2, 3, 7)
    for class_map in (MERGED, np.array([3, 2, -1, 0, 1, -1, -1])):
        expected = targets.map_logits(logits, class_map, classes=5)
        found = jax.jit(lambda m: targets.map_logits(logits, m, classes=5))(class_map)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_padded_vocabularies_are_those_of_the_words():
    """A teacher of 152,064 entries and a student of 151,936: 151,665 words in both."""
    words, teacher_size, student_size = 151_665, 152_064, 151_936
    teacher, student = _logits(1, teacher_size), _logits(1, student_size, seed=1)
    class_map = np.arange(teacher_size)
    class_map[words:] = -1

    def loss(student, teacher):
        mapped = targets.map_logits(teacher, class_map, classes=student_size)
        return losses.softmax_kl(student, mapped, where=~jnp.isneginf(mapped)).mean()

    def cut(student, teacher):
        return losses.softmax_kl(student[:, :words], teacher[:, :words]).mean()

    found, expected = (
        jax.jit(jax.value_and_grad(f, (0, 1)))(student, teacher) for f in (loss, cut)
    )
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-9)


def test_the_gradient_is_the_share_of_the_group():
    """Two of a group at log 1 and log 3: a quarter and three quarters."""
    logits = jnp.log(jnp.array([1.0, 3.0, 5.0]))
    class_map = np.array([0, 0, -1])

    def first(logits, temperature):
        options = {"classes": 2, "temperature": temperature}
        return targets.map_logits(logits, class_map, **options)[0]

    slope = jax.grad(first)(logits, 1.0)
    np.testing.assert_allclose(slope, [0.25, 0.75, 0], rtol=1e-6)
    # d/dT of T log(1 + 3^(1/T)) at T = 1: log 4 - 3/4 log 3.
    slope = jax.grad(first, 1)(logits, 1.0)
    np.testing.assert_allclose(slope, np.log(4) - 0.75 * np.log(3), rtol=1e-5)


@pytest.mark.parametrize("traced", [False, True])
def test_extremes_are_finite_or_ruled_out(traced):
    """One of a group is ruled out, a group, a class that maps to none."""
    logits = np.array([[-np.inf, 3e3, 9e3, -3e3, -np.inf, -3e3, -5e3]], np.float32)

    def loss(logits, class_map):
        mapped = targets.map_logits(logits, class_map, classes=5)
        some = jnp.isneginf(mapped)
        return jnp.where(some, 0, mapped).sum(), mapped

    if traced:
        loss = jax.jit(loss)
    slope, mapped = jax.grad(loss, has_aux=True)(logits, MERGED)
    expected = [[3e3, -np.inf, -3e3 + np.log(2), -np.inf, -5e3]]
    np.testing.assert_allclose(mapped, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, [[0, 1, 0, 0.5, 0, 0.5, 1]], atol=1e-6)


def test_errors_name_the_argument():
    logits = _logits(2, 3)
    with pytest.raises(ValueError, match=r"^class_map: expected shape \(3,\)"):
        targets.map_logits(logits, np.arange(4), classes=4)
    with pytest.raises(ValueError, match=r"^class_map: expected class ids below 2"):
        targets.map_logits(logits, np.arange(3), classes=2)
    with pytest.raises(ValueError, match="^class_map: expected .*integer"):
        targets.map_logits(logits, np.ones(3), classes=2)
    with pytest.raises(ValueError, match="^temperature: expected"):
        targets.map_logits(logits, np.arange(3), classes=3, temperature=0.0)
    with pytest.raises(ValueError, match="^axis: expected"):
        targets.map_logits(logits, np.arange(3), classes=3, axis=2)

    def mapped(class_map):
        return targets.map_logits(logits, class_map, classes=2)

    error, _ = jax.jit(checkify.checkify(mapped))(jnp.arange(3))
    with pytest.raises(checkify.JaxRuntimeError, match="^class_map: expected"):
        error.throw()


def test_explicit_axes_have_the_values_of_one_device():
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Explicit,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    logits = _logits(8, 7)
    expected = _reference(logits, MERGED, 5)[:, [0, 2, 4]]

    def total(x):
        mapped = targets.map_logits(x, MERGED, classes=5)
        return mapped[:, 0].sum(), mapped

    slopes, mapped = jax.jit(jax.grad(total, has_aux=True))(
        jax.device_put(logits, rows)
    )
    np.testing.assert_allclose(np.asarray(mapped)[:, [0, 2, 4]], expected, rtol=2e-5)
    pair = np.exp(np.float64(logits[:, [1, 4]]))
    share = pair / pair.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(slopes)[:, [1, 4]], share, rtol=2e-5)
    assert not np.asarray(slopes)[:, [0, 2, 3, 5, 6]].any()
