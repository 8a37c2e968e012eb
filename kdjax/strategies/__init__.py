"""Strategies: how the networks of a run are trained."""

from kdjax.core.types import Array, Batch, Model, Output, PyTree, Strategy
from kdjax.strategies.choose import make_strategy
from kdjax.strategies.controllers import Controller
from kdjax.strategies.networks import apply_network, apply_networks, init_networks
from kdjax.strategies.offline import offline
from kdjax.strategies.supervision import label_loss

__all__ = [
    "Array",
    "Batch",
    "Controller",
    "Model",
    "Output",
    "PyTree",
    "Strategy",
    "apply_network",
    "apply_networks",
    "init_networks",
    "label_loss",
    "make_strategy",
    "offline",
]
