"""Inputs, programs and masks that the laws of the loss kernels share.

`test_laws.py` holds the laws on the first case of every formula, for the gate.
`test_losses.py` holds all of them on every case, for the full tier.
"""

import functools
import importlib
import inspect
import pkgutil

import jax
import numpy as np
import pytest

from kdjax import losses
from tests import lawbook
from tests.lawbook import Case

CASES: list[Case] = [
    case
    for module in pkgutil.iter_modules(lawbook.__path__)
    for case in importlib.import_module(f"tests.lawbook.{module.name}").CASES
]


def identity(case):
    knobs = ",".join(f"{k}={v}" for k, v in case.knobs)
    return f"{case.name}[{knobs}]" + ("-ids" if case.teacher == "ids" else "")


def cases(which=lambda case: True):
    chosen = [c for c in CASES if which(c)]
    return pytest.mark.parametrize("case", chosen, ids=identity)


def signature(case):
    return inspect.signature(getattr(losses, case.name)).parameters


def form(case):
    """A kernel and the knobs that choose between its formulas."""
    return case.name, *((k, v) for k, v in case.knobs if isinstance(v, str))


# The first case of each formula: enough for what does not depend on numbers.
_FIRST = {form(case): case for case in reversed(CASES)}

every = cases()
forms = cases(lambda c: _FIRST[form(c)] is c)
paired = cases(lambda c: c.teacher != "ids")
masked = cases(lambda c: c.mask is not None and c.teacher != "ids")
maskable = cases(lambda c: c.mask is not None)
tempered = cases(lambda c: "temperature" in signature(c))


def rows_of(case):
    return max(4, case.min_rows)


def inputs(case, seed=0, rows=None, scale=1.0, dtype=np.float32):
    """(student, teacher, keyword arrays) drawn for a case."""
    rows = rows_of(case) if rows is None else rows
    rng = np.random.default_rng(seed)
    student = case.positive(scale * rng.normal(size=(rows, *case.student)))
    if case.teacher == "ids":
        teacher = rng.integers(case.student[-1], size=rows)
    else:
        shape = case.student if case.teacher is None else case.teacher
        teacher = case.positive(scale * rng.normal(size=(rows, *shape))).astype(dtype)
    arrays = {
        k: x.astype(dtype) if np.issubdtype(np.asarray(x).dtype, np.floating) else x
        for k, x in case.arrays(rng, rows).items()
    }
    return student.astype(dtype), teacher, arrays


@functools.cache
def compiled(case):
    kernel = functools.partial(getattr(losses, case.name), **dict(case.knobs))

    def mean(student, teacher, arrays, where):
        mask = {} if case.mask is None else {"where": where}
        values = kernel(student, teacher, **arrays, **mask)
        return values.mean(), values

    arguments = 0 if case.teacher == "ids" else (0, 1)
    return jax.jit(jax.grad(mean, arguments, has_aux=True))


def results(case, student, teacher, arrays, where=None):
    """Values and the gradients of their mean in every floating argument."""
    gradients, values = compiled(case)(student, teacher, arrays, where)
    return np.asarray(values), [np.asarray(g) for g in jax.tree.leaves(gradients)]


def assert_finite(case, student, teacher, arrays, where=None):
    values, gradients = results(case, student, teacher, arrays, where)
    assert values.shape == student.shape[:1]
    assert np.isfinite(values).all(), values
    for gradient in gradients:
        assert np.isfinite(gradient).all(), gradient
    return values, gradients


def call(case, student, teacher, arrays, **more):
    options = {**dict(case.knobs), **arrays, **more}
    return getattr(losses, case.name)(student, teacher, **options)


def take(case, arrays, order):
    """The keyword arrays of some examples, in their order."""
    return {k: x[order] if k in case.rowwise else x for k, x in arrays.items()}


def some_out(case, student):
    """A mask that leaves the last entry of the masked axis out."""
    return np.arange(student.shape[case.mask]) < student.shape[case.mask] - 1


def shaped(case, mask, student):
    """The mask as the kernel takes it: `[N]` of examples, else of the full rank."""
    if case.mask == 0:
        return mask
    axis = case.mask % student.ndim
    return mask.reshape([-1 if i == axis else 1 for i in range(student.ndim)])


def without(case, x, mask):
    return np.compress(mask, x, axis=case.mask)


def arrays_without(case, arrays, mask):
    kept = {}
    for name, x in arrays.items():
        cut = name in case.rowwise if case.mask == 0 else name in case.maskwise
        kept[name] = (
            np.compress(mask, x, axis=0 if case.mask == 0 else -1) if cut else x
        )
    return kept


def visible_labels(case, arrays, mask):
    """Labels that name a class that takes part."""
    if case.mask == -1 and "labels" in arrays:
        return {**arrays, "labels": arrays["labels"] % mask.sum()}
    return arrays


EXTREMES = (
    *("huge, opposed", "huge, noisy", "saturated teacher", "saturated both ways"),
    *("constant student", "constant teacher", "equal student rows", "equal rows"),
    *("duplicate student", "duplicates", "zero", "zero student", "zero teacher"),
    *("tiny", "near duplicates", "fewest examples"),
)


def extreme(case, name):
    """Finite inputs that break textbook formulas, by name."""
    student, teacher, arrays = inputs(case)
    if case.teacher == "ids":
        other = np.zeros_like(student)
    else:
        other = teacher
    twice = np.arange(len(student)) // 2
    s0, t0 = np.zeros_like(student), np.zeros_like(other)

    def signs(x):
        return np.where(np.arange(x.size) % 2, -1e4, 1e4).reshape(x.shape)

    def one_hot(x):
        return np.where(np.arange(x.shape[-1]) == 0, 1e3, -1e3) + np.zeros_like(x)

    few = slice(0, case.min_rows)
    pairs = {
        "huge, opposed": (signs(student), -signs(other)),
        "huge, noisy": (1e4 * student, 1e4 * other),
        "saturated teacher": (student, one_hot(other)),
        "saturated both ways": (-one_hot(student), one_hot(other)),
        "constant student": (s0 + 2, other),
        "constant teacher": (student, t0 + 2),
        "equal student rows": (s0 + student[:1], other),
        "equal rows": (s0 + student[:1], t0 + other[:1]),
        "duplicate student": (student[twice], other),
        "duplicates": (student[twice], other[twice]),
        "zero": (s0, t0),
        "zero student": (s0, other),
        "zero teacher": (student, t0),
        "tiny": (1e-20 * student, 1e-20 * other),
        "near duplicates": (1 + 1e-6 * student, other),
        "fewest examples": (student[few], other[few]),
    }
    a, b = (case.positive(x).astype(np.float32) for x in pairs[name])
    if case.teacher == "ids":
        return a, teacher[: len(a)], take(case, arrays, slice(0, len(a)))
    return a, b, take(case, arrays, slice(0, len(a)))
