import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import linear_projector


def test_it_is_the_matrix_product_at_every_place():
    projector = linear_projector((2, 4, 5, 3), (2, 4, 5, 7))
    params = projector.init(jax.random.key(0))
    features = jax.random.normal(jax.random.key(1), (2, 4, 5, 3))
    assert {name: p.shape for name, p in params.items()} == {"kernel": (3, 7)}
    kernel = np.asarray(params["kernel"], np.float64)
    out = projector.apply(params, features)
    for place in [(0, 0, 0), (1, 3, 4), (1, 2, 0)]:
        expected = np.asarray(features[place], np.float64) @ kernel
        np.testing.assert_allclose(out[place], expected, rtol=1e-5, atol=1e-6)
    assert out.shape == (2, 4, 5, 7)


def test_it_keeps_the_scale_of_the_features():
    projector = linear_projector((256, 64), (256, 128))
    features = 3.0 * jax.random.normal(jax.random.key(1), (256, 64))
    out = projector.apply(projector.init(jax.random.key(0)), features)
    assert 2.7 < float(out.std()) < 3.3


def test_it_is_differentiable_and_stacks():
    projector = linear_projector((4, 3), (4, 2))
    x = jax.random.normal(jax.random.key(1), (4, 3))
    keys = jax.random.split(jax.random.key(0), 5)
    params = jax.vmap(projector.init)(keys)
    grad = jax.grad(lambda p: projector.apply(p, x)[:, 0].sum())
    gradient = jax.jit(jax.vmap(grad))(params)["kernel"]
    expected = np.stack([np.asarray(x).sum(0), np.zeros(3)], -1)
    np.testing.assert_allclose(
        gradient, np.broadcast_to(expected, (5, 3, 2)), atol=1e-6
    )


@pytest.mark.parametrize(
    "student, teacher",
    [((2, 4, 4, 3), (2, 8, 8, 3)), ((2, 3), (3, 3)), ((2, 3), (2, 1, 3)), ((3,), (3,))],
)
def test_it_does_not_resize(student, teacher):
    with pytest.raises(ValueError) as error:
        linear_projector(student, teacher)
    assert str(student) in str(error.value) and str(teacher) in str(error.value)


def test_other_features_are_refused():
    projector = linear_projector((2, 3), (2, 4))
    params = projector.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"features: expected 3 .*\(2, 4\)"):
        projector.apply(params, jnp.zeros((2, 4)))
