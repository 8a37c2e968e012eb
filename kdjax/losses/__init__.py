"""Distillation losses as pure functions of arrays; importing them needs only jax.

A kernel is called as

    name(student_x, teacher_x, *, knobs, axis=-1, where=None) -> one value per example

and keeps these laws, which `tests/contracts/test_losses.py` holds every one of them to:

- The plain mean of the values is the published loss, in the reduction its weights were
  tuned for. There is no `reduction`, no weight and no hidden state: `combine` weighs.
- Tempered losses carry the temperature squared inside. Sums run in at least float32:
  half precision is widened, float64 stays.
- No kernel stops a gradient; whoever owns the teacher does.
- Values and gradients of both arguments are finite for every finite input.
- Shapes and dtypes are checked while tracing, and the error names the argument.
- `where` selects entries inside the reduced axes (classes, channels, positions), and is
  then the same as slicing. In the kernels of `RELATION` it selects examples. Nothing
  that is left out, NaN included, reaches a value or a gradient.
- The kernels of `RELATION` mean the global batch; see `kdjax.core.collectives`.
"""

from kdjax.losses.combine import combine
from kdjax.losses.feature import hint_l2
from kdjax.losses.relation import rkd_angle, rkd_distance
from kdjax.losses.response import (
    hard_cross_entropy,
    logit_mse,
    soft_cross_entropy,
    softmax_kl,
)

RELATION = frozenset({"rkd_angle", "rkd_distance"})

__all__ = [
    "RELATION",
    "combine",
    "hard_cross_entropy",
    "hint_l2",
    "logit_mse",
    "rkd_angle",
    "rkd_distance",
    "soft_cross_entropy",
    "softmax_kl",
]
