"""What the laws need to know of each kernel; `tests/contracts/test_losses.py` reads it.

Each family has a module here with a list `CASES`. A kernel joins by its entry in
`kdjax.losses.REGISTRY`, marked `kernel`, and by having at least one case.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


def _no_arrays(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    return {}


class Case(NamedTuple):
    """One kernel with one setting of its knobs.

    name: as in `kdjax.losses`.
    student, teacher: shapes of the two arguments without the leading axis of examples;
        the teacher's is the student's where None. `"ids"` for integer class ids
        (`[rows]`), drawn below the last number of the student's shape.
    knobs: static keyword arguments.
    arrays: `(rng, rows) -> keyword arrays` that the kernel needs besides (labels,
        weights, variances). `rowwise` lists those whose first axis is the examples.
    rowwise: names of `arrays` with one entry an example, sliced and permuted with them.
    relation: whether values compare examples, so that they need the whole batch.
    zero_if_equal: whether equal inputs give 0 (a divergence).
    nonnegative: whether no input gives a negative value.
    mask: what `where` selects: the axis of the arguments (0: examples of a relation,
        -1: classes or channels, 1: positions ...), None if the kernel has no `where`.
    min_rows: the smallest batch that the kernel accepts.
    teacher_gradient: whether values depend smoothly on the teacher.
    maskwise: names of `arrays` whose last axis is the one that `where` selects.
    positive: makes inputs that the kernel accepts, such as attention weights that sum
        to 1, of the raw normal numbers; identity by default.
    """

    name: str
    student: tuple[int, ...] = (3,)
    teacher: tuple[int, ...] | str | None = None
    knobs: tuple[tuple[str, Any], ...] = ()
    arrays: Callable[[np.random.Generator, int], dict[str, Any]] = _no_arrays
    rowwise: tuple[str, ...] = ()
    relation: bool = False
    zero_if_equal: bool = True
    nonnegative: bool = True
    mask: int | None = -1
    min_rows: int = 1
    teacher_gradient: bool = True
    positive: Callable[[np.ndarray], np.ndarray] = lambda x: x
    maskwise: tuple[str, ...] = ()
