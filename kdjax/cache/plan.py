"""The plan of a target cache: which records a run stores and reads."""

from kdjax.config import Run, require
from kdjax.data.source import Source


def reads_cache(run: Run) -> bool:
    """True where a run's terms read their targets from a store."""
    return run.uses_teacher and bool(run.cache.path)


def count_records(run: Run, train: Source) -> int:
    """Records of the store: steps whose views are replayed, or training examples.

    Raises ConfigError where the epochs make no step, or more than the run has.
    """
    if run.views.mode == "fixed":
        return len(train)
    epochs, one = run.cache.epochs, run.batch / len(train)
    if not epochs:
        return run.steps
    steps = round(epochs / one)
    expected = f"0 (all), or at least one step ({one:.4g} epochs)"
    require(steps >= 1, "teacher.cache.epochs", expected, epochs)
    expected = f"at most the {run.steps} steps of the run"
    require(steps <= run.steps, "teacher.cache.epochs", expected, f"{steps} steps")
    return steps


def describe_targets(run: Run, train: Source) -> str:
    """The stored targets of a run, in words for its report; empty if live."""
    if not reads_cache(run):
        return ""
    path = run.cache.path
    if run.views.mode == "fixed":
        return f"stored in {path}, one target per image for every view of the student"
    records = count_records(run, train)
    if records == run.steps:
        return f"stored in {path}, one for every view of the run"
    return (
        f"stored in {path}, for the views of the first "
        f"{format_steps(run, train, records)}; then the same views again, "
        f"{run.steps / records:.4g} times in all"
    )


def format_steps(run: Run, train: Source, steps: int) -> str:
    """A number of steps, also as epochs."""
    return f"{steps} steps ({steps * run.batch / len(train):.4g} epochs)"
