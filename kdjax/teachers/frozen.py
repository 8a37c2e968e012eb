"""Frozen teacher: a fixed model that runs live on the view of the student."""

from typing import Any

import jax

from kdjax.core.types import Model, Output, PyTree, Teacher, View


def frozen(model: Model, *, name: str = "teacher") -> Teacher:
    """Frozen teacher: a model in evaluation mode that never changes.

    model: any `Model`; its running statistics are used and not updated.
    name: the entry of `constants` with its variables.

    Its targets pass no gradient, and no activations are stored for a backward pass.
    """

    def targets(state: PyTree, view: View, batch: Any, constants: Any) -> Output:
        # The barriers keep XLA from fusing the teacher with the rest of the step, so
        # that live and cached targets are rounded alike.
        images = jax.lax.optimization_barrier(view.teacher)
        output, _ = model.apply(constants[name], images, train=False, rngs=None)
        return jax.lax.optimization_barrier(jax.lax.stop_gradient(output))

    return Teacher(targets)
