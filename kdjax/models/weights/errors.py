"""The one kind of error of this package."""


class WeightsError(ValueError):
    """Weights that cannot be found, read or put into the model; the text says why."""
