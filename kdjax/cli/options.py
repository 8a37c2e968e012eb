"""Options of the commands that take a `Run`: its fields, by dotted path."""

import dataclasses
import difflib

import tyro

from kdjax.config import ConfigError, Run, load_config, require, set_fields

_ADVICE = """Options are the fields of kdjax.config.Run. A later option wins.
--config FILE.py:FUNCTION or --config RUN/config.json replaces the defaults shown here.
--set PATH=VALUE sets any field.

A new NAME in --terms.NAME.FIELD adds a term. --terms.NAME.options.OPTION sets an option
of its loss; `kdjax losses NAME` shows them.

A teacher is of kind run, weights, train, average or ensemble. A field of one kind, such
as --teacher.run or --teacher.model.weights, chooses it. Help after such an option shows
the fields of that kind.

--strategy.function FILE.py:FUNCTION names a strategy of your own, and
--strategy.options.OPTION sets its options."""


def parse_run(command: str, description: str, args: list[str], default: Run) -> Run:
    """A checked `Run` from the options after a command; prints the text of --help.

    Raises:
      ConfigError: an option that is none, or of a value that is not possible.
    """
    is_help = bool({"-h", "--help"} & {*args})
    args, reference = _take_config([x for x in args if x not in ("-h", "--help")])
    if reference is not None:
        default = load_config(reference)
    run = set_fields(default, _read_options(args))
    if is_help:
        _print_help(command, description, run)
    run.check()
    return run


def _print_help(command: str, description: str, run: Run) -> None:
    tyro.cli(
        Run,
        prog=f"kdjax {command}",
        description=f"{description}\n\n{_ADVICE}",
        args=["--help"],
        default=run,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
    )


def _take_config(args: list[str]) -> tuple[list[str], str | None]:
    """The arguments without `--config VALUE` or `--config=VALUE`, and its value."""
    for i, arg in enumerate(args):
        if arg == "--config":
            if i + 1 == len(args) or args[i + 1].startswith("--"):
                raise ConfigError("config", "FILE.py:FUNCTION", shown="nothing")
            return args[:i] + args[i + 2 :], args[i + 1]
        if arg.startswith("--config="):
            return args[:i] + args[i + 1 :], arg.removeprefix("--config=")
    return args, None


def _read_options(args: list[str]) -> list[tuple[str, list[str]]]:
    """(path, words) of each option, in order: `--PATH WORDS`, `--set PATH=WORD`."""
    changes: list[tuple[str, list[str]]] = []
    coming = list(args)
    while coming:
        name, equals, value = coming.pop(0).partition("=")
        if not name.startswith("--"):
            raise ConfigError(name, "an option, --FIELD VALUE", shown=repr(name))
        path, words = name.removeprefix("--"), [value] if equals else []
        while not equals and coming and not coming[0].startswith("--"):
            words.append(coming.pop(0))
        if path == "set":
            text = " ".join(words)
            path, equals, value = text.partition("=")
            require(bool(path and equals), "set", "PATH=VALUE", text)
            words = [value]
        else:
            _check_option(path)
        changes.append((path, words))
    return changes


def _check_option(path: str) -> None:
    """Refuse an option whose first name is no field of `Run`."""
    names = [field.name for field in dataclasses.fields(Run)]
    first = path.partition(".")[0].replace("-", "_")
    if first not in names:
        near = difflib.get_close_matches(first, names, 1)
        hint = f"did you mean --{near[0]}?" if near else ""
        expected = "a field of Run (--help shows them)"
        raise ConfigError(f"--{path}", expected, hint=hint, shown=f"--{path}")
