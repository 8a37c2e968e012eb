"""`kdjax watch`: the state of runs in the terminal, until they end."""

import sys
import time

import tyro
from rich.console import Console
from rich.live import Live

from kdjax.cli.arguments import fail
from kdjax.config import require


def watch(
    runs: tyro.conf.Positional[tuple[str, ...]], every: float = 2.0, once: bool = False
) -> None:
    """Show how one or many runs go, until all have ended. Control-C ends it too.

    Args:
        runs: Run folders, or folders with run folders in them.
        every: Seconds between two looks.
        once: Print the table once; so it is where there is no terminal.
    """
    from kdjax.reports.progress_table import find_runs, progress_table, states_of

    require(bool(runs), "runs", "at least one run folder", "none")
    require(0.1 <= every <= 3600, "every", "0.1 to 3600 seconds", every)
    console = Console()
    try:
        states = states_of(find_runs(runs))
        if once or not sys.stdout.isatty():
            console.print(progress_table(states))
        else:
            table = progress_table(states)
            with Live(table, console=console, auto_refresh=False) as live:
                while not all(state.is_over for state in states):
                    time.sleep(every)
                    # New folders too: a job trains several runs in turn.
                    states = states_of(find_runs(runs))
                    live.update(progress_table(states), refresh=True)
    except ValueError as error:
        fail(str(error))
    except KeyboardInterrupt:
        # The last table stays on the screen.
        return
    if problems := [state.problem for state in states if state.problem]:
        fail("\nkdjax: ".join(problems))
