"""Networks that compute in another precision than that of their parameters."""

from typing import Any

import jax
import jax.numpy as jnp

from kdjax.core.types import Model, Output, PyTree


def cast_floats(tree: PyTree, dtype: Any) -> PyTree:
    """The arrays of floating numbers in another dtype, or their shapes; the rest as it
    is."""

    def cast(x: Any) -> Any:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding)
        return jnp.asarray(x, dtype)

    return jax.tree.map(cast, tree)


def compute_in(model: Model, dtype: Any) -> Model:
    """The same model with its arithmetic in `dtype`, such as "bfloat16".

    Parameters and images are cast when it is applied, and logits and taps come out in
    float32. So parameters in float32 get gradients in float32. Other collections, such
    as BatchNorm's statistics, are not cast, and keep their dtypes.
    """

    def apply(variables, images, *, train=False, rngs=None):
        cast = {**variables, "params": cast_floats(variables["params"], dtype)}
        inputs = cast_floats(images, dtype)
        output, state = model.apply(cast, inputs, train=train, rngs=rngs)
        kept = {k: x for k, x in variables.items() if k != "params"}
        state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), state, kept)
        logits, taps = cast_floats(tuple(output), jnp.float32)
        return Output(logits, taps), state

    return model._replace(apply=apply)
