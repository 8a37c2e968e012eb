"""The one kind of error of this package."""

from collections.abc import Sequence

from kdjax.models.weights.mismatch import Mismatch


class WeightsError(ValueError):
    """Weights that cannot be found, read or put into the model; the text says why.

    mismatches: the leaves that do not fit; empty for other errors.
    """

    def __init__(self, text: str, mismatches: Sequence[Mismatch] = ()):
        super().__init__(text)
        self.mismatches = tuple(mismatches)
