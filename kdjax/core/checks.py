"""Checks made once, while tracing, so that they cost nothing at run time.

Each raises `ArgumentError`, a `ValueError` that names the argument, what was expected
and what came. A traced value has no number yet: where values are checked
(`positive`, `between`, `below`, `holds`), it passes, and leaves a guard behind that
only `jax.experimental.checkify.checkify` makes run. Otherwise the guard is dropped
when the function is compiled.

    checked = checkify.checkify(jax.jit(loss))
    error, value = checked(student, teacher)
    error.throw()   # temperature: expected a finite number above 0, got -1.0
"""

import contextlib
import contextvars
import difflib
import itertools
import math
import operator
from collections.abc import Callable, Collection, Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import checkify

# Far beyond, logits over T or the factor T^2 overflow in float32. As in
# `kdjax.config.bounds`, which does not import JAX.
TEMPERATURES = (1e-6, 1e6)
_no_guards = contextvars.ContextVar("no_guards", default=False)


@contextlib.contextmanager
def without_guards() -> Iterator[None]:
    """Leave no guards: for traced values that were checked before they came here.

    A guard, though dropped in the end, has a number of its own in the process, so that
    a program with guards is seldom found among those that were compiled before.
    """
    token = _no_guards.set(True)
    try:
        yield
    finally:
        _no_guards.reset(token)


class ArgumentError(ValueError):
    """An invalid argument: `NAME: expected EXPECTED, got GOT`.

    name: of the argument. expected, got: in words.
    """

    def __init__(self, name: str, expected: str, got: Any):
        super().__init__(name, expected, got)
        self.name, self.expected, self.got = name, expected, got

    def __str__(self) -> str:
        return f"{self.name}: expected {self.expected}, got {self.got}"


def refuse(name: str, expected: str, got: Any) -> NoReturn:
    """Raise `ArgumentError` for the argument `name`."""
    raise ArgumentError(name, expected, got)


def _has_dtype(x: Any, kind: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, kind)


def _describe(x: Any) -> str:
    return f"dtype {x.dtype}" if hasattr(x, "dtype") else f"a {type(x).__name__}"


def floating(name: str, x: Any) -> None:
    """Refuse anything but an array of real floating numbers."""
    if not is_floating(x):
        refuse_dtype(name, "floating dtype", x)


def is_integer(x: Any) -> bool:
    """True for an array of integers."""
    return _has_dtype(x, jnp.integer)


def is_floating(x: Any) -> bool:
    """True for an array of real floating numbers."""
    return _has_dtype(x, jnp.floating)


def refuse_dtype(name: str, expected: str, x: Any) -> NoReturn:
    """Refuse `x` for its dtype, or for being no array."""
    refuse(name, f"an array of {expected}", _describe(x))


def is_boolean(x: Any) -> bool:
    """True for an array of bool."""
    return _has_dtype(x, jnp.bool_)


def integer(name: str, x: Any, kind: str = "") -> None:
    """Refuse anything but an array of integers; `kind` says what they stand for."""
    if not is_integer(x):
        refuse_dtype(name, f"integer dtype{kind and f' ({kind})'}", x)


def shape(name: str, x: Any, expected: tuple[int, ...]) -> None:
    """Refuse an array whose shape is not exactly `expected`."""
    if tuple(x.shape) != tuple(expected):
        refuse(name, f"shape {tuple(expected)}", f"shape {tuple(x.shape)}")


def same_shape(name: str, x: Any, expected_name: str, expected: Any) -> None:
    """Refuse an array whose shape differs from that of the array `expected`."""
    if x.shape != expected.shape:
        expected_shape = f"the shape of {expected_name}, {expected.shape}"
        refuse(name, expected_shape, f"shape {x.shape}")


def rank(name: str, x: Any, expected: int, *, at_least: bool = False) -> None:
    """Refuse an array with another number of axes (or, `at_least`, with fewer)."""
    if x.ndim < expected or (x.ndim > expected and not at_least):
        bound = "at least " if at_least else ""
        refuse(name, f"rank {bound}{expected}", f"rank {x.ndim}, shape {x.shape}")


def not_empty(name: str, x: Any) -> None:
    """Refuse an array without entries, such as an empty batch."""
    if 0 in x.shape:
        refuse(name, "at least one entry on every axis", f"shape {x.shape}")


def axis(value: int, name: str, x: Any) -> int:
    """The non-negative form of an axis of the array called `name`."""
    try:
        position = operator.index(value)
    except TypeError:
        position = None
    if position is None or isinstance(value, bool):
        refuse("axis", f"an integer axis of {name}, shape {x.shape}", value)
    value = position
    if not -x.ndim <= value < x.ndim:
        refuse("axis", f"an axis of {name}, shape {x.shape}", value)
    return value % x.ndim


def broadcasts(name: str, x: Any, target: tuple[int, ...]) -> None:
    """Refuse an array that does not broadcast to shape `target`."""
    try:
        does_broadcast = jnp.broadcast_shapes(tuple(x.shape), target) == tuple(target)
    except ValueError:
        does_broadcast = False
    if not does_broadcast:
        refuse(name, f"a shape that broadcasts to {target}", f"shape {x.shape}")


def mask(name: str, x: Any, target: tuple[int, ...]) -> None:
    """Refuse a mask that is not boolean, or that may mean other axes of `target`.

    One of a lower rank is of the last axes. It is refused where it fits others too, as
    the mask `[N]` of N examples of N classes does.
    """
    if x is None:
        return
    if not _has_dtype(x, jnp.bool_):
        refuse(name, "an array of bool", _describe(x))
    broadcasts(name, x, target)
    # Along an axis of size 1 a mask is the same, whichever axis that is.
    fitting = {
        tuple(i for i, n in zip(axes, x.shape, strict=True) if n != 1)
        for axes in itertools.combinations(range(len(target)), len(x.shape))
        if all(n in (1, target[i]) for i, n in zip(axes, x.shape, strict=True))
    }
    if len(fitting) > 1:
        several = sorted(fitting)
        expected = f"rank {len(target)}, since it fits axes {several} of {target}"
        refuse(name, expected, f"shape {tuple(x.shape)}")


def classes(name: str, x: Any, axis: int, axis_name: str | None = None) -> None:
    """Refuse logits of a single class, whose softmax is 1 whatever they are.

    Where the mapped axis `axis_name` divides the classes, a device may have one.
    """
    if x.shape[axis] == 1 and axis_name is None:
        expected = "at least 2 classes (`sigmoid_kl` compares single logits)"
        refuse(name, expected, f"1, shape {x.shape}")


def matching_pair(kind: str, student: Any, teacher: Any) -> None:
    """Check `student_<kind>` and `teacher_<kind>`: floating, alike, not empty."""
    floating(f"student_{kind}", student)
    floating(f"teacher_{kind}", teacher)
    same_shape(f"teacher_{kind}", teacher, f"student_{kind}", student)
    not_empty(f"student_{kind}", student)


def _number(name: str, value: Any, expected: str) -> float | None:
    """A scalar as a float, or None where it is traced."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not (plain or is_integer(value) or is_floating(value)):
        got = _describe(value) if hasattr(value, "dtype") else repr(value)
        refuse(name, expected, got)
    if jnp.shape(value) != ():
        refuse(name, expected, f"shape {jnp.shape(value)}")
    if isinstance(value, Tracer):
        return None
    return float(value)


def _guard(name: str, ok: Any, expected: str, got: Any) -> None:
    """A deferred `refuse`: checkify raises it at run time where `ok` is false."""
    if _no_guards.get():
        return
    checkify.debug_check(ok, f"{name}: expected {expected}, got {{got}}", got=got)


def _real(value: Any) -> Any:
    """A traced scalar in a floating dtype, to compare with numbers of any kind."""
    value = jnp.asarray(value)
    return value if _has_dtype(value, jnp.floating) else value.astype(jnp.float32)


def number(name: str, value: Any) -> None:
    """Refuse anything but a real scalar, traced or not."""
    _number(name, value, "a scalar")


def positive(name: str, value: Any) -> None:
    """Refuse a number that is zero, negative, infinite or not a number."""
    between(name, value, 0, above=True)


def between(
    name: str, value: Any, low: float, high: float = math.inf, *, above: bool = False
) -> None:
    """Refuse a number outside [low, high], one at `low` if it must be above that, and
    one that is infinite."""
    expected = f"a number in {'(' if above else '['}{low}, {high}]"
    if high == math.inf:
        bound = (
            "" if low == -math.inf else f" {'above' if above else 'of at least'} {low}"
        )
        expected = f"a finite number{bound}"
    number = _number(name, value, expected)
    real = _real(value) if number is None else number
    ok = (real > low if above else real >= low) & (real <= high)
    ok &= (real > -math.inf) & (real < math.inf)
    if number is None:
        _guard(name, ok, expected, value)
    elif not ok:
        refuse(name, expected, number)


def temperature(name: str, value: Any) -> None:
    """Refuse a temperature outside of `TEMPERATURES`."""
    between(name, value, *TEMPERATURES)


def count(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Refuse what is no whole number from `least` to `most`: it fixes a shape."""
    bounds = f"of at least {least}" if most is None else f"in [{least}, {most}]"
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        refuse(name, f"a whole number {bounds}", repr(value))


def _is_readable(x: Any) -> bool:
    """True where this process can read the array: not that of other hosts alone."""
    return not isinstance(x, jax.Array) or x.is_fully_addressable


def below(name: str, ids: Any, limit: int, kind: str = "class ids") -> None:
    """Refuse ids of `limit` or more; negative ones stand for none, and pass."""
    expected = f"{kind} below {limit}, or negative for none"
    if ids.size == 0:
        return
    if isinstance(ids, Tracer):
        top = jnp.max(ids).astype(jnp.int32)
        _guard(name, top < limit, expected, top)
    elif _is_readable(ids) and (top := int(np.max(np.asarray(ids)))) >= limit:
        refuse(name, expected, top)


def holds(
    name: str, test: Callable[..., Any], expected: str, got: Any, *others: Any
) -> None:
    """Refuse an array `got` with an entry that fails a test.

    `test(numpy, got, *others) -> bool` of the shape of `got`, with `numpy` or
    `jax.numpy` as its first argument.
    """
    arrays = (got, *others)
    if any(isinstance(x, Tracer) for x in arrays):
        ok = test(jnp, *arrays)
        # The least entry that fails: a reduction works on Explicit meshes too.
        _guard(name, jnp.all(ok), expected, jnp.min(jnp.where(ok, jnp.max(got), got)))
    elif all(_is_readable(x) for x in arrays):
        ok = np.ravel(test(np, *(np.asarray(x) for x in arrays)))
        if not ok.all():
            refuse(name, expected, np.ravel(got)[np.argmin(ok)])


def boolean(name: str, value: Any) -> None:
    """Refuse an option that is not True or False: it chooses between programs."""
    if not isinstance(value, bool | np.bool_):
        refuse(name, "True or False", repr(value))


def one_of(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuse a value that is not among those allowed, and name the nearest."""
    if value in allowed:
        return
    names = [x for x in allowed if isinstance(x, str) and isinstance(value, str)]
    near = difflib.get_close_matches(str(value).lower(), names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    refuse(name, f"one of {sorted(allowed)}", f"{value!r:.80}{hint}")
