"""Arguments of the commands that are functions: checked, then passed."""

import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, get_args, get_origin, get_type_hints

import tyro

from kdjax.config import ConfigError, near_names, parse_words, suggest
from kdjax.core import bucket

HELP = ("-h", "--help")


def call(function: Callable[..., Any], prog: str, args: list[str]) -> None:
    """Call a function with the arguments of a command line, or print its help.

    Parameters marked as positional take the words that follow no option.

    Raises:
      ConfigError: an unknown option, a wrong value, or a missing argument.
    """
    if any(arg in HELP for arg in args):
        tyro.cli(function, prog=prog, args=["--help"])
        return
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    positional = [k for k, hint in hints.items() if _is_positional(hint)]
    plain = {k: _plain(hint) for k, hint in hints.items()}
    options = {k: hint for k, hint in plain.items() if k not in positional}
    words, values = _split(args, options, prog)
    for name in positional:
        several = get_origin(plain[name]) is tuple
        taken, words = (words, []) if several else (words[:1], words[1:])
        if taken or several:
            values[name] = parse_words(plain[name], taken, name)
    if words:
        names = [f"--{name.replace('_', '-')}" for name in options]
        hint = suggest(near_names(words[0], names, 1))
        expected = f"no more arguments ({prog} --help)"
        raise ConfigError(words[0], expected, words[0], hint=hint)
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in values and parameter.default is parameter.empty:
            expected = f"{prog} {name.upper()} (--help)"
            raise ConfigError(name, expected, shown="nothing")
    function(**values)


def fail(text: str, status: int = 2) -> NoReturn:
    """Print one line on what is wrong, and end the process."""
    print(f"kdjax: {bucket.with_urls(text)}", file=sys.stderr)
    raise SystemExit(status)


def complete(function: Callable[..., Any], words: list[str]) -> list[str]:
    """Options of a command, or the choices of the one before the last of `words`."""
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    options = {
        f"--{k.replace('_', '-')}": _plain(hint)
        for k, hint in hints.items()
        if not _is_positional(hint)
    }
    before = words[-2] if len(words) > 1 else ""
    if before in options:
        return [x for x in get_args(options[before]) if isinstance(x, str)]
    return [*options, "--help"] if words[-1].startswith("-") else []


def _split(
    args: list[str], options: dict[str, Any], prog: str
) -> tuple[list[str], dict[str, Any]]:
    """Words without an option, and the values of the options."""
    free: list[str] = []
    values: dict[str, Any] = {}
    coming = list(args)
    while coming:
        arg = coming.pop(0)
        if not arg.startswith("--"):
            free.append(arg)
            continue
        option, equals, value = arg.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if options.get(name.removeprefix("no_")) is bool and not equals:
            values[name.removeprefix("no_")] = not name.startswith("no_")
            continue
        if name not in options:
            names = [f"--{x.replace('_', '-')}" for x in options]
            hint = suggest(near_names(option, names, 1))
            expected = f"an option of {prog}: {', '.join(names)}"
            raise ConfigError(option, expected, shown=option, hint=hint)
        words = [value] if equals else []
        several = get_origin(options[name]) is tuple
        while not equals and coming and not coming[0].startswith("--"):
            words.append(coming.pop(0))
            if not several:
                break
        values[name] = parse_words(options[name], words, name)
    return free, values


def _is_positional(hint: Any) -> bool:
    return tyro.conf.Positional in _notes(hint)


def _notes(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _plain(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint
