"""Completion of the command line in bash, zsh and fish."""

from collections.abc import Callable, Mapping, Sequence

from kdjax import presets
from kdjax.cli import arguments, fields
from kdjax.cli.help import COMMANDS, DRY
from kdjax.config import require_known

RUNS = ("distill", "train", "cache-targets")
_BASH = """_kdjax() {
    local IFS=$'\\n'
    COMPREPLY=($(kdjax completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}"))
}
complete -o default -F _kdjax kdjax"""
_ZSH = """(( $+functions[compdef] )) || { autoload -U compinit && compinit }
_kdjax() {
    local -a found
    found=(${(f)"$(kdjax completion words -- "${(@)words[2,CURRENT]}")"})
    compadd -a found || _files
}
compdef _kdjax kdjax"""
_SCRIPTS = {
    "bash": _BASH,
    "zsh": _ZSH,
    "fish": "complete -c kdjax -a "
    "'(kdjax completion words -- (commandline -opc)[2..] (commandline -ct))'",
}


def script(shell: str) -> str:
    """The lines for a shell's start-up file."""
    require_known(shell, _SCRIPTS, "shell")
    return _SCRIPTS[shell]


def complete(
    words: Sequence[str], functions: Mapping[str, Callable[..., None]]
) -> list[str]:
    """Completions of the last of the words after `kdjax`; none where files are meant.

    functions: the commands that are functions of their arguments.
    """
    if len(words) < 2:
        return _beginning([*COMMANDS, "--help", "--version"], words)
    command, *rest = words
    if command in RUNS:
        return _beginning(_of_run(command, rest), words)
    if command in functions:
        return _beginning(arguments.complete(functions[command], rest), words)
    return []


def _of_run(command: str, words: list[str]) -> list[str]:
    """Options of a command that takes a run, its presets, or the values of a field."""
    *before, last = words
    labels = command == "train"
    name = before[0] if before and before[0] in presets.PRESETS else "digits"
    known = fields.fields_of(presets.find_preset(name, labels=labels))
    if last.startswith("-"):
        leaves = [x for x, hint in known.items() if not fields.is_table(hint)]
        options = [f"--{x.replace('_', '-')}" for x in leaves]
        more = ["--config", "--set", "--help", "--help-all"]
        return [*more, *(["--dry-run"] if command in DRY else []), *options]
    if not before:
        return [*presets.PRESETS]
    return fields.choices(known.get(before[-1].lstrip("-").replace("-", "_")))


def _beginning(names: list[str], words: Sequence[str]) -> list[str]:
    last = words[-1] if words else ""
    return [name for name in names if name.startswith(last)]
