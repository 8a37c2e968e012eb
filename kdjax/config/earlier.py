"""Checks of what a run takes from an earlier one, by their configs alone."""

from kdjax.config.checks import ConfigError, require
from kdjax.config.model import ModelConfig
from kdjax.config.run import Run


def require_network(
    model: ModelConfig, before: ModelConfig, field: str, of: str
) -> None:
    """Refuse a model of another network than the one that it starts from.

    Fields that weights determine fit any.

    Args:
      field: the model's own, for errors.
      of: the earlier run in words.
    """
    if not (model.name and before.name):
        return
    for name in ("name", "depth", "width", "norm"):
        own, its = getattr(model, name), getattr(before, name)
        ok = own == its or "auto" in (own, its)
        require(ok, f"{field}.{name}", f"{its!r}, that of {of}", own)


def require_seeds(run: Run, before: Run, field: str, of: str) -> None:
    """Refuse a run to start from that has several seeds, and lacks some of this one.

    of: the earlier run in words.
    """
    first = run.seed - before.seed
    if before.seeds == 1 or 0 <= first <= before.seeds - run.seeds:
        return
    expected = f"a run of {_seeds(run)}, or of one seed"
    raise ConfigError(field, expected, shown=f"{_seeds(before)} of {of}")


def require_seed(seed: int, before: Run, field: str) -> None:
    """Refuse a teacher's seed that its run has not."""
    first, last = before.seed, before.seed + before.seeds - 1
    expected = f"one of its seeds, {first} to {last}"
    require(first <= seed <= last, field, expected, seed)


def _seeds(run: Run) -> str:
    last = run.seed + run.seeds - 1
    return f"seed {last}" if run.seeds == 1 else f"seeds {run.seed} to {last}"
