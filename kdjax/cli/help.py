"""Help of the commands: one screen of what people set, or every option."""

import textwrap
from typing import Any

import tyro

from kdjax import presets
from kdjax.cli.fields import fields_of
from kdjax.config import Run, to_dict

COMMANDS = {
    "distill": "train a student from a teacher, with baselines",
    "train": "train one model on labels",
    "cache-targets": "store the teacher's targets for a `distill`",
    "evaluate": "measure the model of a run folder",
    "predict": "class names and probabilities of images",
    "export": "write the student for another runtime",
    "report": "one table and one figure over run folders, or of a sweep",
    "watch": "runs as they go: step, loss, goodput, time left",
    "plan": "memory, collectives and time of a run on TPUs or GPUs that are not here",
    "views": "a picture of what teacher and student see",
    "replay": "one step of a run again, with checked numbers",
    "experiments": "list experiments: claims, commands, hours, progress",
    "sweep": "train the unfinished runs of an experiment, and judge them",
    "losses": "the losses; one of them in full; --goal WORDS to choose",
    "models": "the names of the networks",
    "strategies": "the strategies by name, or one of them in full",
    "prepare": "download a data set and prepare it by TFDS",
    "completion": "completion of commands and options in a shell",
}
_ARGUMENTS = {
    "distill": "[PRESET]",
    "train": "[PRESET]",
    "cache-targets": "[PRESET]",
    "models": "[NAME]",
    "strategies": "[NAME]",
    "evaluate": "RUN",
    "predict": "RUN FILES...",
    "export": "RUN",
    "report": "RUN...",
    "watch": "RUN...",
    "plan": "RUN --on NAME",
    "views": "RUN",
    "replay": "RUN --step N",
    "sweep": "FILE",
    "losses": "[NAME]",
    "prepare": "NAME",
    "completion": "SHELL",
}

# What people set: the field, the form of its value, and a few words. An empty form is
# a heading.
_OPTIONS = (
    ("--workdir", "FOLDER", "run folder; the same command resumes it"),
    ("--data.name", "NAME", "a set, folder:PATH, tfds:NAME, FILE.py:F"),
    ("--data.train", "SPLIT", "as train[:90%]; also .validation, .test"),
    ("--model.name", "NAME", "student; `kdjax models` lists the names"),
    ("--model.resolution", "PIXELS", "side of its images; also of the teacher"),
    ("--model.weights", "FILE", "published weights, or a run, to start from"),
    ("--teacher.model.name", "NAME", "teacher, trained on labels first"),
    ("--teacher.steps", "N", "its steps"),
    ("--teacher.model.weights", "FILE", "published weights as the teacher"),
    ("--teacher.run", "RUN", "a finished run as the teacher"),
    ("--views.mode", "MODE", "views of teacher and student"),
    ("--terms.soft.loss", "NAME", "`kdjax losses` lists the losses"),
    ("--terms.soft.temperature", "T", "its temperature"),
    ("--strategy.function", "NAME", "`kdjax strategies`, or FILE.py:FUNCTION"),
    ("--optim.lr", "RATE", "peak learning rate; also .wd, .warmup"),
    ("--optim.name", "NAME", "adam, sgd, muon"),
    ("--steps", "N", "steps of training"),
    ("--batch", "N", "images a step, over all devices"),
    ("--seeds", "N", "seeds, trained side by side"),
    ("--baselines", "[NAMES]", "label-only runs"),
)
# Commands with --dry-run.
DRY = ("distill", "train")
_DRY_RUN = (
    "  --dry-run                      measure a step, and print the cost of the run"
)
# What only a run with a teacher has.
_WITH = ("teacher", "baselines")
_EXAMPLES = {
    "distill": (
        "kdjax distill cifar10 --teacher.model.weights resnet56.safetensors",
        "kdjax distill folder --data.name folder:photos --model.name resnet34",
        "kdjax distill --terms.soft.loss dkd --workdir runs/dkd --optim.lr 3e-3",
    ),
    "train": (
        "kdjax train cifar10 --steps 20000",
        "kdjax train folder --data.name folder:photos --model.name resnet34",
        "kdjax train --model.name my_model.py:small --workdir runs/small",
    ),
    "cache-targets": (
        "kdjax cache-targets --teacher.run runs/a --teacher.cache.path stores/a",
        "kdjax cache-targets cifar10 --teacher.run runs/t --teacher.cache.path store",
        "kdjax distill --teacher.run runs/a --teacher.cache.path stores/a",
    ),
}
_LONG = {
    "train": "Train one model on labels.",
    "distill": "Train a student from a teacher, with label-only baselines beside it.",
    "cache-targets": "Store the teacher's outputs in --teacher.cache.path, for a "
    "`kdjax distill` with the same options. The same command continues and repairs.",
}
_ADVICE = """Options are the fields of kdjax.config.Run. A later option wins.
--config FILE.py:FUNCTION or --config RUN/config.json replaces the defaults shown here.
--set PATH=VALUE sets any field.

A new NAME in --terms.NAME.FIELD adds a term. --terms.NAME.options.OPTION sets an option
of its loss; `kdjax losses NAME` shows them.

A teacher is of kind run, weights, train, average or ensemble. A field of one kind, such
as --teacher.run or --teacher.model.weights, chooses it. Help after such an option shows
the fields of that kind.

--strategy.function names a strategy (`kdjax strategies`) or FILE.py:FUNCTION, and
--strategy.options.OPTION sets its options."""
WIDTH = 88


def overview() -> str:
    """The text of `kdjax --help`."""
    names = {name: f"{name} {_ARGUMENTS.get(name, '')}".strip() for name in COMMANDS}
    width = max(map(len, names.values()))
    rows = [f"  {names[name]:{width}}  {text}" for name, text in COMMANDS.items()]
    about = "`kdjax COMMAND --help` shows what people set, `--help-all` every option."
    return "\n".join(["usage: kdjax COMMAND [OPTIONS]", "", *rows, "", about])


def print_help(command: str, run: Run) -> None:
    """One screen: presets, what people set with the defaults of a run, examples."""
    print("\n".join(screen(command, run)))


def screen(command: str, run: Run) -> list[str]:
    """The lines of the help of a command that takes a run."""
    lines = [f"usage: kdjax {command} [PRESET] [--FIELD VALUE ...]", ""]
    lines += [*textwrap.wrap(_LONG[command], WIDTH), "", "presets:"]
    width = max(map(len, presets.PRESETS))
    for name, make in presets.PRESETS.items():
        first = (make.__doc__ or "").strip().splitlines()[0]
        lines.append(f"  {name:{width}}  {first}")
    values, known = to_dict(run), fields_of(run)
    lines += ["", "options, with their defaults:"]
    for option, form, text in _OPTIONS:
        path = option.removeprefix("--").replace("-", "_")
        if path in known and not (command == "train" and path.startswith(_WITH)):
            lines.append(_row(option, form, text, _lookup(values, path)))
    lines += [
        "  --config FILE.py:FUNCTION, --config RUN/config.json  in place of a preset",
        *([_DRY_RUN] if command in DRY else []),
        "",
        "examples:",
        *(f"  {example}" for example in _EXAMPLES[command]),
        "",
        f"`kdjax {command} [PRESET] --help-all` shows every option.",
    ]
    return lines


def _row(option: str, form: str, text: str, default: Any) -> str:
    row = f"  {f'{option} {form}':30} {text}"
    shown = "" if default in (None, "", []) else _format(default)
    room = WIDTH - len(row) - len(" ()")
    if len(shown) > room:
        shown = f"{shown[: room - 3]}..."
    return f"{row} ({shown})" if shown else row


def _format(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return str(value.get("value", ""))
    return str(value)


def _lookup(values: Any, path: str) -> Any:
    """The value at a dotted path; None where the run has none."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def print_all(command: str, run: Run) -> None:
    """Every option with its default, as tyro shows the fields of a dataclass."""
    tyro.cli(
        Run,
        prog=f"kdjax {command}",
        description=f"{_LONG[command]}\n\n{_ADVICE}",
        args=["--help"],
        default=run,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
    )
