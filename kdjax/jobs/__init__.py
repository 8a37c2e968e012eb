"""What a user asks for: train, distil, evaluate, report, cache targets."""

from kdjax.jobs.caching import cache_targets
from kdjax.jobs.distilling import distill, train
from kdjax.jobs.looking import show_views
from kdjax.jobs.measuring import evaluate, report

__all__ = [
    "cache_targets",
    "distill",
    "evaluate",
    "report",
    "show_views",
    "train",
]
