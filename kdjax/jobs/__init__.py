"""What a user asks for: train, distil, sweep, evaluate, report, cache targets."""

from kdjax.jobs.caching import cache_targets
from kdjax.jobs.distilling import distill, train
from kdjax.jobs.looking import show_views
from kdjax.jobs.measuring import evaluate, report
from kdjax.jobs.sweeping import sweep

__all__ = [
    "cache_targets",
    "distill",
    "evaluate",
    "report",
    "show_views",
    "sweep",
    "train",
]
