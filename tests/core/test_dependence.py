"""Dependence of outputs on inputs, where derivatives vanish before anything runs."""

import jax
import jax.numpy as jnp
import pytest

from kdjax.core.dependence import find_dependences


def test_inputs_of_an_output_are_found():
    def function(x, y, z):
        return x, jnp.sin(y) * 2 + x, jnp.ones(3), z

    program = jax.make_jaxpr(function)(1.0, 2.0, 3.0)
    assert find_dependences(program, [1]) == {0, 1}
    assert find_dependences(program, [0, 3]) == {0, 2}
    assert find_dependences(program, [2]) == set()


LOSSES = {
    "depends": (lambda w, x: (w @ x) ** 2, {0, 1}),
    "constant": (lambda w, x: x.sum(), set()),
    "argmax": (lambda w, x: x[jnp.argmax(w)], set()),
    "stopped": (lambda w, x: (jax.lax.stop_gradient(w) @ x) ** 2, set()),
    "decay": (lambda w, x: (w @ w) / 2, {0}),
    # A program within the program counts whole.
    "inner": (jax.jit(lambda w, x: w @ x), {0, 1}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_gradient_of_zero_depends_on_nothing(name):
    loss, expected = LOSSES[name]
    program = jax.make_jaxpr(jax.grad(loss))(jnp.ones(3), jnp.arange(3.0))
    assert find_dependences(program, [0]) <= expected
    assert bool(find_dependences(program, [0])) == bool(expected)
