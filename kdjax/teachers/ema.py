"""Mean teacher: the moving average of the student as its teacher."""

from typing import Any

import jax

from kdjax.core.average import move_average, start_average
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
        return start_average(variables[network])

    def update(state: PyTree, variables: dict[str, PyTree]) -> PyTree:
        return move_average(state, variables[network], decay)

    def targets(state: PyTree, view: View, batch: Any, constants: Any) -> Output:
        output, _ = student.apply(
            state["average"], view.teacher, train=False, rngs=None
        )
        return jax.lax.stop_gradient(output)

    return Teacher(targets, init, update)
