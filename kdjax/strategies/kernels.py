"""The losses and example weights that a term can name, and what each takes."""

import contextlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_origin

import jax

from kdjax import losses
from kdjax.config import (
    PYTHON,
    ConfigError,
    Scalar,
    Term,
    load_function,
    require,
    require_known,
    to_dict,
)
from kdjax.core import checks
from kdjax.core.types import Array

EMPTY = inspect.Parameter.empty
# Arrays that every run has, bound by the name of the parameter.
BOUND = ("labels", "student_logits", "teacher_logits")


def registered() -> tuple[dict[str, Callable[..., Array]], frozenset[str]]:
    """The losses that a term can name, and the names of relation losses.

    A former name stands for the loss of today.
    """
    terms = {n: entry.function for n, entry in losses.REGISTRY.items() if entry.term}
    former = {old: terms[new] for old, new in losses.ALIASES.items() if new in terms}
    return terms | former, losses.RELATION


@contextlib.contextmanager
def errors_of(term: Term, at: str) -> Iterator[None]:
    """Raise what a kernel refuses as an error of the term's field `at`."""
    try:
        yield
    except ConfigError:
        raise
    except checks.ArgumentError as error:
        name = error.name
        if name not in term.options:
            raise ConfigError(at, reason=str(error)) from error
        field, got = f"{at}.options.{name}", term.options[name]
        shown = str(error.got)
        raise ConfigError(field, error.expected, got, shown=shown) from error
    except ValueError as error:
        raise ConfigError(at, reason=str(error)) from error


class Kernel(NamedTuple):
    """A loss and what it takes.

    name: for messages.
    function: `(student, teacher, **arguments) -> values`.
    custom: of the user's own: its values are checked to be one an example.
    relation: it compares examples, and takes the rows of the whole batch.
    several: it takes a sequence of taps a side.
    taps: the parameters that take the student's and the teacher's further taps.
    bound: the parameters that take labels or logits of the run.
    parameters: all of them by name.
    options: those that a config can set.
    """

    name: str
    function: Callable[..., Array]
    custom: bool
    relation: bool
    several: bool
    taps: tuple[tuple[str, ...], tuple[str, ...]]
    bound: tuple[str, ...]
    parameters: Mapping[str, inspect.Parameter]
    options: Mapping[str, inspect.Parameter]

    @property
    def tempered(self) -> bool:
        return "temperature" in self.parameters


def find_kernel(term: Term, at: str) -> Kernel:
    """The loss that a term names, once its options, taps and temperature fit it.

    at: the term's field, for errors.

    Raises:
      ConfigError: naming the field, what was expected and what came.
    """
    field, loss = f"{at}.loss", term.loss
    known, relations = registered()
    if callable(loss):
        function, name = loss, getattr(loss, "__name__", "the function")
    elif loss.startswith(PYTHON):
        want = f"the function {loss.removeprefix(PYTHON)}, passed from Python"
        raise ConfigError(field, want, loss, shown=f"its name {loss!r}")
    elif ":" in loss:
        function, name = load_function(loss, field), loss
    else:
        require_known(loss, known, field)
        function, name = known[loss], loss
    custom = name not in known or known[name] is not function
    kernel = _describe(
        name, function, custom, not custom and function.__name__ in relations, field
    )
    _check_taps(kernel, term, at)
    _check_temperature(kernel, term, at)
    check_options(kernel.options, term.options, f"{at}.options")
    return kernel


def _describe(
    name: str, function: Callable[..., Array], custom: bool, relation: bool, field: str
) -> Kernel:
    parameters = dict(inspect.signature(function).parameters)
    named = [p for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
    ok = len(named) >= 2 and all(p.kind is not p.KEYWORD_ONLY for p in named[:2])
    require(ok, field, "a function (student, teacher, ...)", tuple(parameters))
    first, second, *more = named
    several = _holds(first.annotation, Sequence)
    needed = [p.name for p in more if p.default is EMPTY]
    students, teachers = (
        tuple(n for n in needed if n.startswith(side) and n not in BOUND)
        for side in ("student_", "teacher_")
    )
    filled = {*students, *teachers, *BOUND, "temperature", "where"}
    options = {p.name: p for p in more if p.name not in filled and not _is_array(p)}
    return Kernel(
        name,
        function,
        custom,
        relation,
        several,
        (students, teachers),
        tuple(p.name for p in more if p.name in BOUND),
        {p.name: p for p in (first, second, *more)},
        options,
    )


def _check_taps(kernel: Kernel, term: Term, at: str) -> None:
    """As many taps a side as the kernel compares, and labels where it wants them."""
    wants = list(kernel.parameters)[1] == "labels"
    ok = not wants or term.teacher == "labels"
    require(ok, f"{at}.teacher", f"labels for {kernel.name}", term.teacher)
    for side, taps, more in (
        ("student", term.student, kernel.taps[0]),
        ("teacher", term.teacher, kernel.taps[1]),
    ):
        field = f"{at}.{side}"
        if side == "teacher" and taps == "labels":
            ok = not (kernel.several or more)
            want = f"taps of the teacher, which {kernel.name} compares"
        elif kernel.several:
            ok = not isinstance(taps, str)
            want = f"several taps, as {kernel.name} compares a list of them"
        else:
            count = 1 if isinstance(taps, str) else len(taps)
            ok = count == 1 + len(more)
            names = f"{side}_features, {', '.join(more)}"
            want = f"{1 + len(more)} taps ({names})" if more else "one tap"
            want = f"{want} for {kernel.name}"
        require(ok, field, want, taps)


def _check_temperature(kernel: Kernel, term: Term, at: str) -> None:
    field, given = f"{at}.temperature", term.temperature
    if not kernel.tempered:
        # Configs from before there was None say 1 for every loss.
        plain = given is None or (given.value == 1.0 and given.end is None)
        want = f"none, as {kernel.name} has no temperature"
        require(plain, field, want, given)
    elif given is None:
        default = default_temperature(kernel)
        want = f"a number > 0, as {kernel.name} has no default"
        require(default is not None, field, want, given)


def default_temperature(kernel: Kernel) -> float | None:
    """The temperature of a kernel that none is given; None where it has none."""
    if not kernel.tempered:
        return None
    default = kernel.parameters["temperature"].default
    number = isinstance(default, (int, float)) and not isinstance(default, bool)
    return float(default) if number else None


def as_effective(term: Mapping[str, Any]) -> dict[str, Any]:
    """A term of a `config.json` with its loss's name of today and its temperature.

    A temperature that is not given is the default of the loss. For a loss without one
    it is None, and so is the 1 that configs from before there was None hold. A loss
    that is not in `kdjax.losses` is left as it is.
    """
    known, loss, given = registered()[0], term.get("loss"), term.get("temperature")
    if loss not in known:
        return dict(term)
    kernel = _describe(str(loss), known[loss], False, False, "loss")
    if kernel.tempered:
        given = given or to_dict(Scalar(default_temperature(kernel) or 1.0))
    elif given == to_dict(Scalar(1.0)):
        given = None
    return {**term, "loss": known[loss].__name__, "temperature": given}


def check_options(
    known: Mapping[str, inspect.Parameter], options: Mapping[str, Any], at: str
) -> None:
    """Refuse an option that a function has not, of another type, or missing."""
    for name, value in options.items():
        require_known(name, known, f"{at}.{name}")
        wanted = _kinds(known[name].annotation)
        ok = not wanted or any(kind(value) for kind in wanted.values())
        require(ok, f"{at}.{name}", " or ".join(wanted), value)
    for name, parameter in known.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ok = name in options or parameter.default is not EMPTY or variadic
        require(ok, f"{at}.{name}", "a value, as it has no default", None)


def check_values(kernel: Kernel, values: Any, examples: int) -> None:
    """Refuse a custom loss that does not return one value an example.

    A ValueError, which `errors_of` makes one of the term.
    """
    shape = getattr(values, "shape", None)
    if shape != (examples,):
        got = f"a {type(values).__name__}" if shape is None else f"shape {shape}"
        want = f"one value an example, shape ({examples},)"
        checks.refuse(kernel.name, want, got)


def is_traced(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether an option enters the compiled step as a value: a number for a parameter
    annotated `float | Array`. All others are constants of the program."""
    members = get_args(parameter.annotation)
    return float in members and Array in members and _is_real(value)


def traced_options(kernel: Kernel, options: Mapping[str, Any]) -> dict[str, float]:
    """The options of a term that enter the compiled step as values."""
    known = kernel.options
    return {k: float(v) for k, v in options.items() if is_traced(known[k], v)}


def static_options(kernel: Kernel, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a term that are constants of the program."""
    known = kernel.options
    plain = {k: v for k, v in options.items() if not is_traced(known[k], v)}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kinds(hint: Any) -> dict[str, Callable[[Any], bool]]:
    """What an option of an annotation may be: {in words: test}; empty for anything."""
    tests: dict[Any, tuple[str, Callable[[Any], bool]]] = {
        float: ("a number", _is_real),
        int: ("a whole number", lambda x: type(x) is int),
        bool: ("True or False", lambda x: type(x) is bool),
        str: ("a name", lambda x: isinstance(x, str)),
        tuple: ("a list", lambda x: isinstance(x, (list, tuple))),
    }
    kinds = {}
    for member in _members(hint):
        origin = get_origin(member) or member
        kind = tuple if origin is Sequence else origin
        if kind in tests:
            words, test = tests[kind]
            kinds[words] = test
    return kinds


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _holds(hint: Any, kind: Any) -> bool:
    return any(get_origin(member) is kind for member in _members(hint))


def _is_array(parameter: inspect.Parameter) -> bool:
    """Whether a parameter takes arrays alone, which no config can hold."""
    members = [m for m in _members(parameter.annotation) if m is not types.NoneType]
    return bool(members) and all(
        m is jax.Array or jax.Array in get_args(m) for m in members
    )
