"""The largest size that fits."""

import pytest

from kdjax.plan.bisection import find_largest


@pytest.mark.parametrize("most", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("start", [1, 3, 64])
def test_every_limit(most, start):
    """Within an eighth, tried, and after few trials."""
    for limit in range(most + 3):
        tried = {}

        def fits(size, limit=limit, tried=tried):
            assert 1 <= size <= most and size not in tried
            tried[size] = size <= limit
            return tried[size]

        found, best = find_largest(fits, start=start, most=most), min(limit, most)
        assert found <= best <= found + max(found // 8, 0)
        assert tried.get(found, found == 0)
        assert len(tried) <= 16
