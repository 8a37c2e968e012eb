"""`kdjax train | distill | cache-targets | evaluate | report | views | sweep | ...`."""

import dataclasses
import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import tyro

from kdjax.cli import completion, listing, losses
from kdjax.cli.arguments import call, fail
from kdjax.cli.help import overview
from kdjax.cli.options import find_run, parse_job, parse_run
from kdjax.cli.plan_run import plan
from kdjax.cli.run_job import plain_warnings, quiet, run_job
from kdjax.cli.watch import watch
from kdjax.config import (
    Compute,
    ConfigError,
    Run,
    Stages,
    forbid_code,
    near_names,
    require,
    suggest,
)
from kdjax.core import timeline
from kdjax.experiments import load_experiment

Folder = Annotated[str, tyro.conf.Positional]


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. Bad input ends with one clear line and exit status 2."""
    timeline.begin_process()
    plain_warnings()
    args = list(sys.argv[1:] if argv is None else argv)
    if "--no-code" in args:
        forbid_code()
        args.remove("--no-code")
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return
    if args[0] == "--version":
        print(_version())
        return
    try:
        _find_command(args[0])(args[1:])
    except ConfigError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of a pipe closed it (`| head`): print nothing more, nor at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        fail(f"{str(error.filename)[:60]!r}... is longer than the name of a file")


def _find_command(name: str) -> Callable[[list[str]], None]:
    """The function of a command's arguments."""
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "distill": _distill,
        "cache-targets": _cache_targets,
        **{k: functools.partial(_call, k, x) for k, x in FUNCTIONS.items()},
        "completion": _completion,
    }
    if name not in commands:
        near = near_names(name, commands, 1)
        expected = (
            "a command (kdjax --help)" if near else f"one of {', '.join(commands)}"
        )
        raise ConfigError("command", expected, name, hint=suggest(near))
    return commands[name]


def _call(name: str, function: Callable[..., None], args: list[str]) -> None:
    call(function, f"kdjax {name}", args)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("kdjax")
    except metadata.PackageNotFoundError:
        return "not installed (run from its source)"


def _train(args: list[str]) -> None:
    for arg in args:
        if arg.startswith("--teacher."):
            reason = "`kdjax train` has no teacher; `kdjax distill` has one"
            raise ConfigError(arg.removeprefix("--").partition("=")[0], reason=reason)
    dry, args = _take_dry_run(args)
    run = parse_run("train", args)
    if dry:
        run = dataclasses.replace(run, teacher=None, baselines=())
    _start_long(lambda jobs: (jobs.estimate if dry else jobs.train)(run), run)


def _distill(args: list[str]) -> None:
    dry, args = _take_dry_run(args)
    run = parse_job("distill", args)
    if isinstance(run, Stages):
        require(not dry, "dry-run", "a single run", "stages")
        stages, first = run, next(iter(run.runs.values()))
        _start_long(lambda jobs: jobs.run_stages(stages), first)
        return
    _start_long(lambda jobs: (jobs.estimate if dry else jobs.distill)(run), run)


def _take_dry_run(args: list[str]) -> tuple[bool, list[str]]:
    """True for `--dry-run`, and the other arguments."""
    return "--dry-run" in args, [x for x in args if x != "--dry-run"]


def _cache_targets(args: list[str]) -> None:
    run = parse_run("cache-targets", args)
    # Its processes work apart: a stop signal to one ends it, and then the others.
    _start_long(lambda jobs: jobs.cache_targets(run), run, stops_together=False)


def _views(run: Folder, count: int = 8, out: str = "") -> None:
    """A picture of what teacher and student see, with statistics of the data.

    Args:
        run: A run folder, its config.json, FILE.py:FUNCTION or a preset.
        count: How many examples, up to a batch.
        out: The PNG; by default views.png in the run's folder if there is one.
    """
    found = find_run(run)

    def go(jobs) -> None:
        print(jobs.show_views(found, count=count, out=out or None))

    _start(go)


def _evaluate(
    run: Folder,
    split: Literal["test", "validation", "train"] = "test",
    checkpoint: Literal["last", "best"] = "last",
    network: str = "",
) -> None:
    """Measure the trained model of a run folder.

    Args:
        run: A finished run folder.
        split: Which of the run's splits.
        checkpoint: The last one, or the best on validation.
        network: One of the run's networks, by default the one that it evaluates.
    """

    def go(jobs) -> None:
        which = {"split": split, "checkpoint": checkpoint}
        found = jobs.evaluate(run, network=network, **which)
        print(jobs.format_results(run, found, **which))

    _start(go)


def _predict(
    run: Folder,
    files: tyro.conf.Positional[tuple[str, ...]],
    top: int = 5,
    json: bool = False,
    checkpoint: Literal["last", "best"] = "last",
    seed: str = "",
) -> None:
    """Predict the classes of images with the student of a run.

    Args:
        run: A finished run folder.
        files: Image files, folders of images, or - for one image from standard
            input.
        top: Number of classes for each image.
        json: One line of JSON for each image, in place of a table.
        checkpoint: The last one, or the best on validation.
        seed: One of the run's seeds, by default its first, or "ensemble".
    """
    if not files:
        raise ConfigError("files", "at least one image", shown="none")

    def go(jobs) -> None:
        student = jobs.load(run, checkpoint=checkpoint, seed=_seed(seed))
        paths = [sys.stdin.buffer.read() if x == "-" else x for x in files]
        for found in jobs.predict(student, paths, top=top):
            print(_format_prediction(found, json))

    _start(go)


def _seed(text: str) -> Any:
    if text in ("", "ensemble"):
        return text or None
    require(text.lstrip("-").isdigit(), "seed", "a number or ensemble", text)
    return int(text)


def _format_prediction(found: Any, as_json: bool) -> str:
    if as_json:
        return json.dumps(found._asdict())
    pairs = zip(found.classes, found.probabilities, strict=True)
    return "  ".join([found.file, *(f"{name} {p:.3f}" for name, p in pairs)])


def _export(
    run: Folder,
    format: Literal["stablehlo", "iree", "safetensors"] = "stablehlo",
    out: str = "",
    batch: int = 0,
    checkpoint: Literal["last", "best"] = "last",
    seed: str = "",
) -> None:
    """Write the student of a run for another runtime, with a card beside it.

    Args:
        run: A finished run folder.
        format: The file format.
        out: Folder of the files; by default export in the run folder.
        batch: Batch of the exported function; 0 for any.
        checkpoint: The last one, or the best on validation.
        seed: One of the run's seeds, by default its first, or "ensemble".
    """

    def go(jobs) -> None:
        which = {"checkpoint": checkpoint, "seed": _seed(seed)}
        print(jobs.export(run, format, out=out, batch=batch, **which))

    _start(go)


def _report(runs: tyro.conf.Positional[tuple[str, ...]], out: str = "report") -> None:
    """One table and one figure over several run folders.

    Args:
        runs: Run folders, finished or not; or the folder of one sweep, or one with
            a sweep's records.jsonl.
        out: Folder for report.md and figures (a sweep's are in its own).
    """
    if not runs:
        raise ConfigError("runs", "at least one run folder", shown="none")
    from kdjax.experiments.records import is_packed, is_sweep

    if len(runs) == 1 and is_sweep(runs[0]):
        from kdjax import experiments

        # A report beside checked-in records has prose of its own: left as it is.
        to = out if is_packed(runs[0]) else ""
        _start(lambda _: print(experiments.report_sweep(runs[0], to)))
        return
    # Single runs are reported without JAX.
    from kdjax import reports

    try:
        print(reports.write_report(runs, out))
    except ValueError as error:
        fail(str(error))


def _replay(run: Folder, step: int, seed: str = "", out: str = "") -> None:
    """Make one step of a run again, with every number in it checked.

    Args:
        run: A run folder, finished or not.
        step: Number of the step, from 1.
        seed: One of the run's seeds; its first by default.
        out: A .npz file for the batch as teacher and student saw it.
    """

    def go(jobs) -> None:
        from rich.console import Console

        require(not seed or seed.isdigit(), "seed", "a number", seed)
        options = {"seed": int(seed) if seed else None, "console": Console()}
        print(jobs.format_replay(jobs.replay(run, step, out=out, **options)))

    _start(go)


def _sweep(
    file: Folder,
    scale: str = "digits",
    seeds: int = 5,
    workdir: str = "",
    variants: tuple[str, ...] = (),
    times: tuple[int, ...] = (),
) -> None:
    """Train every run of an experiment that is not finished, and judge them.

    Args:
        file: A file of experiments.
        scale: One of the experiment's scales.
        seeds: The number of seeds, trained side by side.
        workdir: The folder of the run folders; by default runs/sweeps/NAME/SCALE.
        variants: The variants to train now; all by default.
        times: The durations to train now; all by default.
    """
    experiment = load_experiment(file)
    part = {"variants": variants, "times": times, "workdir": workdir}

    def go(_) -> None:
        from kdjax.experiments import sweep

        sweep(experiment, scale, seeds=seeds, **part)

    _start(go)


def _completion(args: list[str]) -> None:
    # The lines for a shell pass the words of its command line after `words --`.
    if args[:2] == ["words", "--"]:
        print("\n".join(completion.complete(args[2:], FUNCTIONS)))
        return

    def options(shell: Folder) -> None:
        """Print the lines that complete commands and options in a shell.

        Args:
            shell: bash, zsh or fish. `source <(kdjax completion bash)` loads them.
        """
        print(completion.script(shell))

    call(options, "kdjax completion", args)


# Commands that are functions of their arguments.
FUNCTIONS: dict[str, Callable[..., None]] = {
    "evaluate": _evaluate,
    "predict": _predict,
    "export": _export,
    "report": _report,
    "watch": watch,
    "plan": plan,
    "views": _views,
    "replay": _replay,
    "experiments": listing.experiments,
    "sweep": _sweep,
    "losses": losses.run,
    "models": listing.models,
    "strategies": listing.strategies,
    "prepare": listing.prepare_data,
}


def _start_long(job: Callable, run: Run, stops_together: bool = True) -> None:
    """Run a job that prints its progress."""
    print("loading libraries ...", flush=True)
    _start(job, run.compute, stops_together)


def _start(
    job: Callable, compute: Compute | None = None, stops_together: bool = True
) -> None:
    """Import JAX and run a job; what goes wrong in a known way ends in one line."""
    quiet()
    if compute is None or not compute.several_processes:
        run_job(job)
        return
    from kdjax.core import hosts, supervise

    supervise.go_on_in_child()
    hosts.join(
        stops_together=stops_together,
        meet_within=compute.meet_within,
        lost_after=compute.lost_after,
    )
    with hosts.leave_at_once():
        run_job(job)


if __name__ == "__main__":
    main()
