"""Rounding of pixels to whole numbers, on the device and on the host alike."""

from types import ModuleType
from typing import Any


def round_pixels(pixels: Any, numpy: ModuleType) -> Any:
    """The nearest whole numbers; what is half-way, or a thousandth below it, goes up.

    Resizing by a ratio of whole numbers makes values that are exactly half-way, and
    two programs differ in their last digit. No such value lies near the edge used here.

    pixels: any shape, floating, of the module `numpy` (NumPy or `jax.numpy`).
    """
    return numpy.floor(pixels + (0.5 + 2**-10))
