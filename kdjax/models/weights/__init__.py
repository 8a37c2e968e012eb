"""Published weights, by their names, into this project's networks and back."""

from kdjax.models.weights.errors import WeightsError
from kdjax.models.weights.families import Published
from kdjax.models.weights.hub import expand_path, find
from kdjax.models.weights.load import find_mismatches, load_weights, save_weights
from kdjax.models.weights.mismatch import format_mismatches, summarize_mismatches
from kdjax.models.weights.recognize import recognize
from kdjax.models.weights.schemes import SCHEMES

__all__ = [
    "SCHEMES",
    "Published",
    "WeightsError",
    "expand_path",
    "find",
    "load_weights",
    "find_mismatches",
    "recognize",
    "save_weights",
    "summarize_mismatches",
    "format_mismatches",
]
