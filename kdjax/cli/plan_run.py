"""`kdjax plan`: a run on hardware that is not there."""

import tyro

from kdjax.cli.options import find_run
from kdjax.config import ConfigError, set_fields
from kdjax.core import bucket
from kdjax.plan.compilers import require_compiler
from kdjax.plan.hardware import check_layout, find_hardware


def plan(
    run: tyro.conf.Positional[str],
    on: str,
    slices: int = 1,
    set: tuple[str, ...] = (),
    exact: bool = False,
    examples: int = 0,
    classes: int = 0,
    largest_batch: bool = False,
    minutes: float = 60.0,
    json: bool = False,
) -> None:
    """Compile a run's step for hardware that is not here: memory, collectives, time.

    Args:
        run: A run folder, its config.json, FILE.py:FUNCTION or a preset. A run folder
            keeps the plan, and its report shows it.
        on: The hardware, as v5e-256, v6e-64, v5p-128, h200x8, h200x64 or cpu-8.
        slices: TPU slices of this size.
        set: Fields to change, as batch=4096 model.resolution=224.
        exact: Optimize as the hardware would, which takes several times longer.
        examples: Training images, where the data are not here.
        classes: Their classes.
        largest_batch: Find the largest batch that fits, too.
        minutes: The compiler is stopped after them.
        json: Print JSON in place of tables.
    """
    folder = bucket.open_folder(run, "run")
    changes = []
    for text in set:
        path, equals, value = text.partition("=")
        if not equals:
            raise ConfigError("set", "PATH=VALUE", text)
        changes.append((path, [value]))
    hardware = find_hardware(on, slices)
    found = set_fields(find_run(str(folder)), changes)
    found.check()
    check_layout(found, hardware)
    require_compiler(hardware)
    from rich.console import Console

    from kdjax import jobs

    options = {"exact": exact, "minutes": minutes, "largest_batch": largest_batch}
    options |= {"examples": examples, "classes": classes}
    console = Console(quiet=json)
    figures = jobs.plan(found, on=on, slices=slices, console=console, **options)
    if json:
        print(jobs.plan_to_json(figures, hardware))
    # Its report shows it beside what is measured.
    if folder.is_dir() and not set:
        jobs.keep_plan(folder, figures, hardware)
        bucket.push(folder)
