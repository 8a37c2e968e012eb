"""Keys depend on what they are for, and on nothing else."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.core import keys


def bits(key):
    return np.asarray(jax.random.key_data(key))


def test_example_keys_do_not_depend_on_the_batch():
    epochs, examples = jnp.array([0, 3, 3, 1]), jnp.array([7, 7, 2, 9])
    whole = bits(keys.example_keys(5, "crop", epochs, examples))
    for i in range(4):
        alone = keys.example_keys(5, "crop", epochs[i : i + 1], examples[i : i + 1])
        np.testing.assert_array_equal(bits(alone)[0], whole[i])


def test_each_part_of_the_name_matters():
    one = jnp.array([4])
    base = bits(keys.example_keys(1, "crop", one, one))
    others = [
        keys.example_keys(2, "crop", one, one),
        keys.example_keys(1, "mix", one, one),
        keys.example_keys(1, "crop", one + 1, one),
        keys.example_keys(1, "crop", one, one + 1),
    ]
    for other in others:
        assert (bits(other) != base).any()
    assert (bits(keys.step_key(1, "mix", 3)) != bits(keys.step_key(1, "mix", 4))).any()


def test_seed_may_be_traced():
    traced = jax.jit(lambda seed: keys.step_key(seed, "mix", 3))(np.int32(11))
    np.testing.assert_array_equal(bits(traced), bits(keys.step_key(11, "mix", 3)))
