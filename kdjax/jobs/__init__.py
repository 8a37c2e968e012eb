"""The commands of kdjax as functions: train, distill, evaluate, report, and more."""

from kdjax.jobs.caching import cache_targets
from kdjax.jobs.distilling import distill, train
from kdjax.jobs.estimating import estimate
from kdjax.jobs.exporting import export, load, predict
from kdjax.jobs.forecasting import keep_plan, plan, plan_to_json
from kdjax.jobs.measuring import evaluate, format_results, report
from kdjax.jobs.replaying import format_replay, replay
from kdjax.jobs.staging import run_stages
from kdjax.jobs.visualizing import show_views

__all__ = [
    "cache_targets",
    "distill",
    "estimate",
    "evaluate",
    "export",
    "format_replay",
    "format_results",
    "load",
    "plan",
    "plan_to_json",
    "keep_plan",
    "predict",
    "replay",
    "report",
    "run_stages",
    "show_views",
    "train",
]
