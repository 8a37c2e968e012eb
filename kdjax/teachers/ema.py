"""Mean teacher: the moving average of the student as its teacher."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.core.types import Model, Output, PyTree, Teacher, View


def moving_average(
    student: Model, *, decay: float = 0.999, network: str = "student"
) -> Teacher:
    """Mean teacher: exponential moving average (EMA) of the student's variables.

    After step t (counted from 0) the variables become `a * average + (1 - a) * student`
    with `a = min(decay, 1 - 1 / (t + 1))`. The teacher begins as a copy of the student,
    and its average is a plain mean until `a` reaches `decay`. Running statistics are
    averaged with the parameters; integers are copied.

    It is applied in evaluation mode, on the teacher's view.

    Args:
      student: the model of the network.
      decay: weight of the old average in a step, in [0, 1).
      network: the name of the averaged network.

    Raises:
      ValueError: `decay` is outside [0, 1).

    Reference:
      Tarvainen, Valpola, "Mean teachers are better role models", 2017,
      arXiv 1703.01780.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay: expected a number in [0, 1), got {decay}")

    def init(variables: dict[str, PyTree]) -> PyTree:
        # A copy: the state is donated, and no buffer may be donated twice.
        average = jax.tree.map(lambda x: jnp.array(x, copy=True), variables[network])
        return {"average": average, "updates": jnp.zeros((), jnp.int32)}

    def update(state: PyTree, variables: dict[str, PyTree]) -> PyTree:
        keep = jnp.minimum(decay, 1 - 1 / (state["updates"] + 1.0))

        def move(new: Any, old: Any) -> Any:
            if not jnp.issubdtype(old.dtype, jnp.floating):
                return new
            moved: Any = optax.incremental_update(new, old, 1 - keep)
            return moved.astype(old.dtype)

        average = jax.tree.map(move, variables[network], state["average"])
        return {"average": average, "updates": state["updates"] + 1}

    def targets(state: PyTree, view: View, batch: Any, constants: Any) -> Output:
        output, _ = student.apply(
            state["average"], view.teacher, train=False, rngs=None
        )
        return jax.lax.stop_gradient(output)

    return Teacher(targets, init, update)
