"""Pixels become whole numbers by one rule."""

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.core.pixels import round_pixels


@pytest.mark.parametrize("numpy", [np, jnp], ids=["host", "device"])
def test_whole_numbers_stay_and_halves_go_up_whatever_the_last_digit(numpy):
    whole = np.arange(256, dtype=np.float32)
    half = whole + np.float32(0.5)
    for x, want in ((whole, whole), (half, whole + 1), (whole + 0.25, whole)):
        for near in (
            x,
            np.nextafter(x, np.float32(-1)),
            np.nextafter(x, 1e3, dtype="f"),
        ):
            found = round_pixels(numpy.asarray(near), numpy)
            np.testing.assert_array_equal(found, want)
