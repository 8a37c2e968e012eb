"""A fixed model run on the fly on the very view that the student sees."""

from typing import Any

import jax

from kdjax.core.types import Model, Output, PyTree, Teacher, View


def frozen(model: Model, *, name: str = "teacher") -> Teacher:
    """A teacher that is applied in evaluation mode and never changes.

    model: any `Model`; its running statistics are used and not updated.
    name: the entry of `constants` that holds its variables.

    There is no gradient through its targets, and nothing is kept for a backward pass.
    """

    def targets(state: PyTree, view: View, batch: Any, constants: Any) -> Output:
        # The barriers keep XLA from fusing the teacher with what is around it, so that
        # it rounds alike here and where its targets are computed ahead of time.
        images = jax.lax.optimization_barrier(view.teacher)
        output, _ = model.apply(constants[name], images, train=False, rngs=None)
        return jax.lax.optimization_barrier(jax.lax.stop_gradient(output))

    return Teacher(targets)
