"""Networks that compute in bfloat16 and keep their parameters in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax.config import ModelConfig
from kdjax.models import zoo
from kdjax.models.precision import compute_in


def test_products_are_in_bfloat16_and_all_else_in_float32():
    config = ModelConfig(name="resnet8", norm="batch", resolution=16)
    plain = zoo.make_model(config, 10)
    model = compute_in(plain, "bfloat16")
    images = jax.random.normal(jax.random.key(1), (8, 16, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)

    def loss(params, model):
        every = {**variables, "params": params}
        output, state = model.apply(every, images, train=True, rngs=None)
        return jnp.sum(output.logits**2), (output, state)

    derive = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    grads, (output, state) = derive(variables["params"], model)
    exact, (expected, expected_state) = derive(variables["params"], plain)
    every = jax.tree.leaves((variables, grads, tuple(output), state))
    assert {x.dtype for x in every} == {jnp.dtype(jnp.float32)}
    text = str(jax.make_jaxpr(lambda p: loss(p, model)[0])(variables["params"]))
    assert "bf16[8,16,16,16] = conv_general_dilated" in text
    # bfloat16 has 8 bits, and gradients pass 8 layers of it.
    assert distance(output.logits, expected.logits) < 0.03
    assert distance(grads, exact) < 0.15
    assert distance(state, expected_state) < 0.03
    assert not np.array_equal(output.logits, expected.logits)


def distance(tree, other):
    """Norm of the difference, relative to that of `other`."""
    return optax.tree.norm(optax.tree.sub(tree, other)) / optax.tree.norm(other)
