"""Losses that a term can name: their taps, options and temperature, checked."""

import contextlib
import dataclasses
import difflib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Union, get_args, get_origin

import jax

from kdjax import losses
from kdjax.config import (
    PYTHON,
    ConfigError,
    Scalar,
    Term,
    as_names,
    load_function,
    require,
    require_known,
    to_dict,
)
from kdjax.core import checks
from kdjax.core.types import Array
from kdjax.losses import registry
from kdjax.models import PROJECTORS
from kdjax.strategies.registry import STRATEGIES
from kdjax.strategies.user_code import guarded, parameters_of

EMPTY = inspect.Parameter.empty
# Arrays that every run has, bound by the name of the parameter.
BOUND = ("labels", "student_logits", "teacher_logits")


def find_entry(loss: Any) -> losses.Entry | None:
    """The registry's entry of a loss that a term can name, by its present or former
    name; None for a loss of the user's own."""
    entry = losses.REGISTRY.get(losses.ALIASES.get(str(loss), str(loss)))
    return entry if entry and entry.term else None


@contextlib.contextmanager
def errors_of(term: Term, at: str) -> Iterator[None]:
    """Raise errors of a kernel as errors of the term's field `at`."""
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
    """A loss and its arguments.

    name: for messages.
    function: `(student, teacher, **arguments) -> values`.
    custom: of the user's own: its values are checked to be one an example.
    relation: it compares examples, and takes the rows of the whole batch.
    several: it takes a sequence of taps of each network.
    taps: the parameters that take the student's and the teacher's further taps.
    feature: a tap to name in errors, of a loss that logits do not fit; else empty.
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
    feature: str
    bound: tuple[str, ...]
    parameters: Mapping[str, inspect.Parameter]
    options: Mapping[str, inspect.Parameter]

    @property
    def tempered(self) -> bool:
        """True if it has a temperature."""
        return "temperature" in self.parameters


def find_kernel(term: Term, at: str) -> Kernel:
    """The loss that a term names; its options, taps and temperature are checked.

    at: the term's field, for errors.

    Raises:
      ConfigError: naming the field, the expected and the actual value.
    """
    field, loss = f"{at}.loss", term.loss
    if callable(loss):
        name = getattr(loss, "__name__", "the function")
        entry = find_entry(name)
        if entry is not None and entry.function is loss:
            kernel = _describe_entry(name, entry)
        else:
            kernel = _describe_custom(name, loss, at)
    elif loss.startswith(PYTHON):
        expected = f"the function {loss.removeprefix(PYTHON)}, passed from Python"
        raise ConfigError(field, expected, loss, shown=f"its name {loss!r}")
    elif ":" in loss:
        kernel = _describe_custom(loss, load_function(loss, field), at)
    else:
        entry = find_entry(loss)
        if entry is None:
            raise _unusable(loss, field)
        kernel = _describe_entry(loss, entry)
    _check_taps(kernel, term, at)
    _check_temperature(kernel, term, at)
    _check_not_fields(kernel, term, at)
    for name in term.projectors:
        require_known(name, PROJECTORS, f"{at}.projector")
    check_options(kernel.options, term.options, f"{at}.options")
    return kernel


def _unusable(loss: str, field: str) -> ConfigError:
    """The error of a name that is no loss of a term, with the reason or near names."""
    entry = losses.REGISTRY.get(losses.ALIASES.get(loss, loss))
    if entry is not None:
        own = f", or train by --strategy.function {entry.name}"
        own = own if entry.name in STRATEGIES else ""
        return ConfigError(field, reason=entry.missing + own)
    if loss in losses.MOVED:
        reason = f"{loss} is no loss: it is kdjax.targets.{losses.MOVED[loss]}"
        return ConfigError(field, reason=reason)
    names = [repr(name) for name in registry.nearest(loss, losses.REGISTRY)]
    hint = f"did you mean {' or '.join(names)}?" if names else ""
    expected = "the name of a loss (`kdjax losses` lists all) or file.py:function"
    return ConfigError(field, expected, loss, hint=hint)


def _describe_custom(name: str, function: Callable[..., Array], at: str) -> Kernel:
    kernel = _describe(name, function, f"{at}.loss")
    return kernel._replace(custom=True, function=guarded(function, at, name))


def _describe_entry(name: str, entry: losses.Entry) -> Kernel:
    kernel = _describe(name, entry.function, "loss")
    recipe = entry.term
    # A few losses of features are published for logits too, by the registry's text.
    fits_logits = recipe is None or "logits" in (*recipe.student, *entry.tap.split())
    feature = "" if fits_logits or recipe is None else recipe.student[0]
    return kernel._replace(relation=entry.relation, feature=feature)


def _describe(name: str, function: Callable[..., Array], field: str) -> Kernel:
    parameters = parameters_of(function)
    named = [p for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
    ok = len(named) >= 2 and all(p.kind is not p.KEYWORD_ONLY for p in named[:2])
    require(ok, field, "a function (student, teacher, ...)", tuple(parameters))
    first, second, *more = named
    several = _holds(first.annotation, Sequence)
    needed = [p.name for p in more if p.default is EMPTY]
    students, teachers = (
        tuple(n for n in needed if n.startswith(network) and n not in BOUND)
        for network in ("student_", "teacher_")
    )
    axes = ("axis_name", "class_axis_name")
    filled = {*students, *teachers, *BOUND, *axes, "temperature", "where"}
    options = {p.name: p for p in more if p.name not in filled and not _is_array(p)}
    return Kernel(
        name,
        function,
        custom=False,
        relation=False,
        several=several,
        taps=(students, teachers),
        feature="",
        bound=tuple(p.name for p in more if p.name in BOUND),
        parameters={p.name: p for p in (first, second, *more)},
        options=options,
    )


def _check_taps(kernel: Kernel, term: Term, at: str) -> None:
    """As many taps of each network as the kernel compares, or labels."""
    needs_labels = list(kernel.parameters)[1] == "labels"
    ok = not needs_labels or term.teacher == "labels"
    require(ok, f"{at}.teacher", f"labels for {kernel.name}", term.teacher)
    for network, taps, more in (
        ("student", term.student, kernel.taps[0]),
        ("teacher", term.teacher, kernel.taps[1]),
    ):
        field = f"{at}.{network}"
        if network == "teacher" and taps == "labels":
            ok = not (kernel.several or more or kernel.feature)
            expected = f"taps of the teacher, which {kernel.name} compares"
        elif kernel.several:
            ok = not isinstance(taps, str)
            expected = f"several taps, as {kernel.name} compares a list of them"
        else:
            ok = len(as_names(taps)) == 1 + len(more)
            names = f"{network}_features, {', '.join(more)}"
            expected = f"{1 + len(more)} taps ({names})" if more else "one tap"
            expected = f"{expected} for {kernel.name}"
        require(ok, field, expected, taps)
        ok = not kernel.feature or "logits" not in as_names(taps)
        example = f"such as {kernel.feature}, as {kernel.name} compares features"
        require(ok, field, f"a tap of the {network}, {example}", taps)


def _check_temperature(kernel: Kernel, term: Term, at: str) -> None:
    field, (_, value) = f"{at}.temperature", term.scalars
    if not kernel.tempered:
        # Configs from before there was None have 1 for every loss.
        plain = value is None or (value.value == 1.0 and value.end is None)
        got = value if value is None or value.end is not None else value.value
        expected = f"none, as {kernel.name} has no temperature (--{field} none)"
        require(plain, field, expected, got)
    elif value is None:
        ok = default_temperature(kernel) is not None
        require(ok, field, f"a number > 0, as {kernel.name} has no default", value)


def _check_not_fields(kernel: Kernel, term: Term, at: str) -> None:
    """Refuse an option that is meant as a field of the term, and name the field."""
    fields = {field.name for field in dataclasses.fields(Term)}
    if not kernel.tempered:
        fields.remove("temperature")
    names = sorted({*kernel.options, *fields})
    for name in term.options:
        near = difflib.get_close_matches(name, names, 1)
        if near and name not in kernel.options and near[0] not in kernel.options:
            field, expected = f"{at}.options.{name}", f"one of {sorted(kernel.options)}"
            raise ConfigError(
                field, expected, name, hint=f"did you mean {at}.{near[0]}?"
            )


def default_temperature(kernel: Kernel) -> float | None:
    """The default temperature of a kernel; None where it has none."""
    if not kernel.tempered:
        return None
    default = kernel.parameters["temperature"].default
    number = isinstance(default, (int, float)) and not isinstance(default, bool)
    return float(default) if number else None


def as_effective(term: Mapping[str, Any]) -> dict[str, Any]:
    """A term of a `config.json` with the present name of its loss and its temperature.

    A missing temperature is the default of the loss. For a loss without one it is
    None, and so is the 1 of configs from before there was None. A loss that is not in
    `kdjax.losses` stays as it is.
    """
    loss, temperature = str(term.get("loss")), term.get("temperature")
    entry = find_entry(loss)
    if entry is None:
        return dict(term)
    kernel = _describe_entry(loss, entry)
    if kernel.tempered:
        default = default_temperature(kernel) or 1.0
        temperature = temperature or to_dict(Scalar(default))
    elif temperature == to_dict(Scalar(1.0)):
        temperature = None
    return {**term, "loss": entry.name, "temperature": temperature}


def check_options(
    parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any], at: str
) -> None:
    """Refuse an unknown option, one of another type, and a missing one."""
    for name, value in options.items():
        require_known(name, parameters, f"{at}.{name}")
        kinds = _kinds(parameters[name].annotation)
        ok = not kinds or any(test(value) for test in kinds.values())
        require(ok, f"{at}.{name}", " or ".join(kinds), value)
    for name, parameter in parameters.items():
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
        expected = f"one value an example, shape ({examples},)"
        checks.refuse(kernel.name, expected, got)


def is_traced(parameter: inspect.Parameter, value: Any) -> bool:
    """True if an option enters the compiled step as a value: a number for a parameter
    annotated `float | Array`. All others are constants of the program."""
    members = get_args(parameter.annotation)
    return float in members and Array in members and _is_real(value)


def traced_options(kernel: Kernel, options: Mapping[str, Any]) -> dict[str, float]:
    """The options of a term that enter the compiled step as values."""
    by_name = kernel.options
    return {k: float(v) for k, v in options.items() if is_traced(by_name[k], v)}


def static_options(kernel: Kernel, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a term that are constants of the program."""
    by_name = kernel.options
    plain = {k: v for k, v in options.items() if not is_traced(by_name[k], v)}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kinds(hint: Any) -> dict[str, Callable[[Any], bool]]:
    """The types that an annotation allows: {in words: test}; empty for all types."""
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
    is_union = get_origin(hint) in (types.UnionType, Union)
    return get_args(hint) if is_union else (hint,)


def _holds(hint: Any, kind: Any) -> bool:
    return any(get_origin(member) is kind for member in _members(hint))


def _is_array(parameter: inspect.Parameter) -> bool:
    """True if a parameter takes arrays alone, which no config can contain."""
    members = [m for m in _members(parameter.annotation) if m is not types.NoneType]
    return bool(members) and all(
        m is jax.Array or jax.Array in get_args(m) for m in members
    )
