"""The global batch seen from one device: equal to the whole on 8 faked devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from kdjax import losses
from kdjax.core import collectives

DEVICES, ROWS = 8, 2
SPLIT, WHOLE = PartitionSpec("data"), PartitionSpec()
# Two of them, for the collectives' sake; all of them in tests/losses/test_sharded.py.
RELATION = pytest.mark.parametrize("name", ["rkd_angle", "rkd_distance"])


@pytest.fixture(scope="module")
def mesh():
    assert jax.device_count() == DEVICES
    return jax.make_mesh((DEVICES,), ("data",), (jax.sharding.AxisType.Auto,))


@functools.cache
def _batch():
    rng = np.random.default_rng(0)
    images, weights = rng.normal(size=(DEVICES * ROWS, 4)), rng.normal(size=(4, 3))
    features = rng.normal(size=(DEVICES * ROWS, 5))
    return tuple(x.astype(np.float32) for x in (images, weights, features))


def _split(x):
    return x.reshape(DEVICES, ROWS, *x.shape[1:])


def _shard_map(function, mesh, out=SPLIT):
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=SPLIT, out_specs=out))


def test_without_an_axis_they_are_plain():
    x, tree = np.arange(6.0).reshape(3, 2), {"a": 1.0}
    assert collectives.gather(x, None) is x
    assert collectives.my_rows(x, None) is x
    assert collectives.mean(tree, None) is tree
    np.testing.assert_array_equal(collectives.roll_one(x, None), x[[2, 0, 1]])


@pytest.mark.parametrize("rows", [1, ROWS, 3])
def test_roll_one_is_the_roll_of_the_whole(mesh, rows):
    x = np.arange(DEVICES * rows * 2, dtype=np.float32).reshape(-1, 2)
    expected = np.roll(x, 1, axis=0)
    roll = functools.partial(collectives.roll_one, axis_name="data")
    mapped = jax.pmap(roll, "data")(x.reshape(DEVICES, rows, 2))
    np.testing.assert_array_equal(mapped.reshape(-1, 2), expected)
    np.testing.assert_array_equal(_shard_map(roll, mesh)(x), expected)


def test_gather_and_my_rows(mesh):
    images = _batch()[0]
    gather = functools.partial(collectives.gather, axis_name="data")
    mapped = jax.pmap(gather, "data")(_split(images))
    for whole in mapped:
        np.testing.assert_array_equal(whole, images)

    def there_and_back(x):
        return collectives.my_rows(2 * gather(x), "data")

    mapped = jax.pmap(there_and_back, "data")(_split(images))
    np.testing.assert_array_equal(mapped, 2 * _split(images))
    np.testing.assert_array_equal(_shard_map(there_and_back, mesh)(images), 2 * images)


def test_mean_over_the_devices():
    tree = {"a": np.arange(8.0, dtype=np.float32), "b": np.ones((8, 2), np.float32)}
    mean = jax.pmap(lambda t: collectives.mean(t, "data"), "data")(tree)
    np.testing.assert_array_equal(mean["a"], np.full(8, 3.5))
    np.testing.assert_array_equal(mean["b"], 1)


def _loss(x):
    """Mixes all rows, so that a gradient kept local would be another."""
    return jnp.mean(jnp.square(x - jnp.mean(x, 0, keepdims=True) * x))


def test_gradient_through_gather_is_the_single_device_one(mesh):
    images = _batch()[0]
    expected = jax.grad(_loss)(images)

    def local(x):
        return collectives.mean(_loss(collectives.gather(x, "data")), "data")

    def mapped(x):
        return jax.pmap(local, "data")(_split(x))[0]

    def sharded(x):
        return _shard_map(local, mesh, WHOLE)(x)

    for loss in (mapped, sharded):
        np.testing.assert_allclose(loss(images), _loss(images), rtol=1e-5)
        np.testing.assert_allclose(jax.grad(loss)(images), expected, atol=1e-6)


def _single(name):
    kernel = getattr(losses, name)
    images, weights, features = _batch()

    def loss(weights):
        return kernel(images @ weights, features).mean()

    return jax.jit(jax.value_and_grad(loss))(weights)


@pytest.mark.full
@RELATION
@pytest.mark.parametrize("own_rows", [False, True], ids=["all rows", "own rows"])
def test_relation_kernel_under_pmap(name, own_rows):
    """On gathered features, the mean of the gradients is the single device's."""
    kernel = getattr(losses, name)
    images, weights, features = _batch()

    def loss(weights, images, features):
        student = collectives.gather(images @ weights, "data")
        values = kernel(student, collectives.gather(features, "data"), axis_name=())
        if own_rows:
            values = collectives.my_rows(values, "data")
        return values.mean()

    def step(*args):
        return collectives.mean(jax.value_and_grad(loss)(*args), "data")

    mapped = jax.pmap(step, "data", in_axes=(None, 0, 0))
    value, gradient = mapped(weights, _split(images), _split(features))
    expected_value, expected = _single(name)
    np.testing.assert_allclose(value, np.full(8, expected_value), rtol=1e-5)
    for ours in gradient:
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@RELATION
def test_relation_kernel_under_jit_over_a_mesh(mesh, name):
    kernel = getattr(losses, name)
    images, weights, features = _batch()
    rows = NamedSharding(mesh, SPLIT)
    whole = NamedSharding(mesh, WHOLE)

    def loss(weights, images, features):
        return kernel(images @ weights, features).mean()

    step = jax.jit(
        jax.value_and_grad(loss), in_shardings=(whole, rows, rows), out_shardings=whole
    )
    value, gradient = step(weights, images, features)
    expected_value, expected = _single(name)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


@RELATION
def test_relation_kernel_under_shard_map(mesh, name):
    """Gathered features, own rows of the values; the mean is taken outside."""
    kernel = getattr(losses, name)
    images, weights, features = _batch()

    def local(student, teacher):
        student, teacher = (collectives.gather(x, "data") for x in (student, teacher))
        return collectives.my_rows(kernel(student, teacher, axis_name=()), "data")

    values = _shard_map(local, mesh)

    def loss(weights):
        return values(images @ weights, features).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(weights)
    expected_value, expected = _single(name)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.full
@RELATION
def test_masked_rows_may_sit_on_other_devices(mesh, name):
    """A ragged last batch: the padding fills whole devices."""
    kernel = getattr(losses, name)
    images, weights, features = _batch()
    keep = np.arange(DEVICES * ROWS) < 11
    rows = NamedSharding(mesh, SPLIT)
    args = jax.device_put((images @ weights, features, keep), rows)
    values = jax.jit(lambda s, t, w: kernel(s, t, where=w))(*args)
    expected = kernel((images @ weights)[:11], features[:11])
    np.testing.assert_allclose(values[:11], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(values[11:], 0)
