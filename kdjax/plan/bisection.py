"""The largest size that fits, by few trials."""

from collections.abc import Callable


def find_largest(fits: Callable[[int], bool], *, start: int, most: int) -> int:
    """The largest size that fits, or one that is at most an eighth below it.

    Sizes are doubled from the first trial on until one does not fit, and the gap is
    then halved.

    Args:
      fits: True for a size and all smaller ones, up to a limit.
      start: the first trial.
      most: the largest size.

    Returns:
      A size that was tried and fits; 0 where 1 does not.
    """
    low, high, size = 0, most + 1, min(start, most)
    while high - low > max(1, low // 8):
        if fits(size):
            low = size
        else:
            high = size
        size = min(2 * low, most) if high > most else (low + high) // 2
    return low
