"""Published weights, by their names, into this project's networks and back."""

from kdjax.models.weights.errors import WeightsError
from kdjax.models.weights.hub import expanded, find
from kdjax.models.weights.load import load_weights, misfits, save_weights
from kdjax.models.weights.misfit import told
from kdjax.models.weights.schemes import SCHEMES

__all__ = [
    "SCHEMES",
    "WeightsError",
    "expanded",
    "find",
    "load_weights",
    "misfits",
    "save_weights",
    "told",
]
