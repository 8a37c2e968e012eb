"""Options of the commands that take a `Run`: its fields, by dotted path."""

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from kdjax import presets
from kdjax.cli import fields
from kdjax.cli.help import print_all, print_help
from kdjax.config import (
    ConfigError,
    Custom,
    Run,
    Stages,
    Term,
    TrainFirst,
    load_config,
    near_names,
    require,
    set_fields,
)

HELP = ("-h", "--help", "--help-all")


def find_run(text: str) -> Run:
    """The `Run` that an argument names.

    text: a run folder, its config.json, FILE.py:FUNCTION or a preset.
    """
    folder = pathlib.Path(text)
    is_folder = (folder / "config.json").is_file()
    is_preset = text in presets.PRESETS and not is_folder
    is_config = text.endswith(".json") or (":" in text and not folder.is_dir())
    forms = "a run folder (with config.json), a config.json or FILE.py:FUNCTION"
    require(is_folder or is_preset or is_config, "run", forms, text)
    if is_preset:
        return presets.find_preset(text)
    config = load_config(str(folder / "config.json") if is_folder else text)
    expected = "a function returning a Run, not stages"
    require(isinstance(config, Run), "run", expected, text)
    assert isinstance(config, Run)
    return dataclasses.replace(config, workdir=text) if is_folder else config


def parse_run(command: str, args: list[str]) -> Run:
    """`parse_job` of a command that runs no stages."""
    run = parse_job(command, args)
    if isinstance(run, Stages):
        reason = "these are stages; `kdjax distill` runs them"
        raise ConfigError("config", reason=reason)
    return run


def parse_job(command: str, args: list[str]) -> Run | Stages:
    """A checked `Run` from the words after a command; prints the text of --help.

    `Stages` where `--config` names a function that returns them.

    The words are `[PRESET] [--FIELD VALUE ...]`. `--config` takes the place of the
    preset.

    Raises:
      ConfigError: an option that is none, or of a value that is not possible.
    """
    helps = [x for x in args if x in HELP]
    args = [x for x in args if x not in HELP]
    args, preset = _take_preset(args)
    args, reference = _take_config(args)
    require(not (preset and reference), "config", f"none with {preset}", reference)
    labels = command == "train"
    if reference is not None:
        default = load_config(reference)
    else:
        default = presets.find_preset(preset or "digits", labels=labels)
    changes = _read_options(args)
    if isinstance(default, Stages):
        return _set_stages(default, changes)
    run = _set_fields(default, changes)
    if helps:
        show = print_all if "--help-all" in helps else print_help
        show(command, run)
        raise SystemExit(0)
    paths = [path.replace("-", "_") for path, _ in changes]
    run = _fit_warmup(run, paths)
    if reference is None and "name" not in paths:
        run = dataclasses.replace(run, name=_method(run, default))
    run.check()
    return run


def _take_preset(args: list[str]) -> tuple[list[str], str]:
    """The arguments without a preset's name at their beginning, and that name."""
    if not args or args[0].startswith("-"):
        return args, ""
    name = args[0]
    if ":" in name or name.endswith((".json", ".py")):
        hint = f"did you mean --config {name}?"
        raise ConfigError("preset", f"one of {[*presets.PRESETS]}", name, hint=hint)
    return args[1:], name


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
        changes.append((path, words))
    return changes


def _set_fields(default: Run, changes: list[tuple[str, list[str]]]) -> Run:
    """`set_fields`, with the nearest options in the error of a path that is none."""
    known = fields.fields_of(default)
    for path, words in changes:
        first = path.partition(".")[0].replace("-", "_")
        if first not in known:
            raise _unknown(path, default)
        fields.require_leaf(path, words, default)
    try:
        return set_fields(default, changes)
    except ConfigError as error:
        paths = [path for path, _ in changes if path.startswith(error.field)]
        near = fields.near_options(paths[0], default, 1) if paths else []
        # An error of a value has that value, and one of a name has the name.
        is_known = error.got != error.field.rpartition(".")[2]
        is_known |= error.field.replace("-", "_") in known or str(error.got).isdigit()
        if near and not (error.hint or is_known):
            error.hint = f"did you mean {near[0]}?"
        raise


def _unknown(path: str, default: Run) -> ConfigError:
    """The error of an option whose first name is no field of `Run`."""
    near = fields.near_options(path, default)
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    expected = "an option (--help and --help-all show them)"
    return ConfigError(f"--{path}", expected, hint=hint, shown=f"--{path}")


def _set_stages(stages: Stages, changes: list[tuple[str, list[str]]]) -> Stages:
    """Stages with options set: `--NAME.FIELD` of one stage, `--FIELD` of all."""
    stages.check_names()
    folders = [words for path, words in changes if path == "workdir"]
    workdir = " ".join(folders[-1]) if folders else stages.workdir
    for path, words in changes:
        _check_of_stages(path, " ".join(words), stages.runs, workdir)
    runs = {}
    for name, run in stages.runs.items():
        own = []
        for path, words in changes:
            first, _, rest = path.partition(".")
            if first == name:
                own.append((rest, words))
            elif first not in stages.runs and path != "workdir":
                own.append((path, words))
        with _errors_of_stage(name, [path for path, _ in changes]):
            run = _set_fields(run, own)
        runs[name] = _fit_warmup(run, [path for path, _ in own])
    stages = dataclasses.replace(stages, runs=runs, workdir=workdir)
    stages.check()
    return stages


def _check_of_stages(path: str, value: str, runs: dict[str, Run], workdir: str) -> None:
    """Refuse an option that no stage has, or that the stages set themselves."""
    first, _, rest = path.partition(".")
    if first in runs:
        expected = f"--{first}.FIELD, a field of the stage {first}"
        require(bool(rest), f"--{path}", expected, value)
    if (rest if first in runs else path) == "name":
        expected = "none, a stage has the name that Stages gives it"
        raise ConfigError(path, expected, value)
    if first in runs and rest == "workdir":
        expected = f"none, a stage has the folder {os.path.join(workdir, first)}"
        raise ConfigError(path, expected, value)
    known = fields.fields_of(next(iter(runs.values())))
    near = near_names(first, runs, 1)
    if first in runs or not rest or not near or first.replace("-", "_") in known:
        return
    expected = f"an option of all stages, or of one: {', '.join(runs)}"
    hint = f"did you mean --{near[0]}.{rest}?"
    raise ConfigError(f"--{path}", expected, hint=hint, shown=f"--{path}")


@contextlib.contextmanager
def _errors_of_stage(name: str, paths: list[str]) -> Iterator[None]:
    """Raise errors of options of one stage by their whole names.

    paths: of all options.
    """
    try:
        yield
    except ConfigError as error:
        at = error.field.removeprefix("--")
        dashes = error.field.removesuffix(at)
        if not any(f"{path}.".startswith(f"{name}.{at}.") for path in paths):
            raise
        error = error.at(f"{dashes}{name}.{at}")
        error.hint = error.hint.replace("--", f"--{name}.")
        error.shown = error.shown.replace("--", f"--{name}.")
        raise error from None


def _fit_warmup(run: Run, paths: list[str]) -> Run:
    """The run with warm-ups that fit into a number of steps set by an option.

    One that is too long, and not set itself, becomes a tenth of the steps.
    """
    run = _shorten(run, paths, "")
    if isinstance(run.teacher, TrainFirst):
        teacher = _shorten(run.teacher, paths, "teacher.")
        run = dataclasses.replace(run, teacher=teacher)
    return run


def _shorten(part: Any, paths: list[str], at: str) -> Any:
    """The same part of a run, `Run` or `TrainFirst`, with a warm-up that fits."""
    steps, warmup = part.steps, part.optim.warmup
    set_by_option = f"{at}steps" in paths and f"{at}optim.warmup" not in paths
    if warmup < steps or not set_by_option:
        return part
    shorter = steps // 10
    text = f"{at}optim.warmup is {shorter} in place of {warmup}, for {steps} steps"
    print(f"kdjax: {text}", file=sys.stderr)
    return dataclasses.replace(
        part, optim=dataclasses.replace(part.optim, warmup=shorter)
    )


def _method(run: Run, default: Run) -> str:
    """The name of a run in tables: the default's, or that of its own method.

    A strategy or losses that differ from the default's name it.
    """
    if isinstance(run.strategy, Custom):
        return run.strategy.function.rpartition(":")[2] or run.name
    if _losses(run) == _losses(default):
        return run.name
    return "+".join(_losses(run)) or run.name


def _losses(run: Run) -> list[str]:
    """The losses of a run that count, each once."""
    terms: list[Term] = [term for term in run.terms.values() if term.counts]
    return list(dict.fromkeys(str(x.loss).rpartition(":")[2] for x in terms))
