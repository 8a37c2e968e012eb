"""A fixed model run on the fly on the very view that the student sees."""

from collections.abc import Callable
from typing import Any

import jax

from kdjax.core.types import Model, Output, View


def frozen(model: Model, *, name: str = "teacher") -> Callable[[Any, View], Output]:
    """A teacher that is applied in evaluation mode and never changes.

    model: any `Model`; its running statistics are used and not updated.
    name: the entry of `given` that holds its variables.

    Returns `(given, view) -> Output` with no gradient through it.
    """

    def targets(given: Any, view: View) -> Output:
        output, _ = model.apply(given[name], view.teacher, train=False, rngs=None)
        return jax.lax.stop_gradient(output)

    return targets
