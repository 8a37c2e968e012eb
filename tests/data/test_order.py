"""The order of examples: complete passes, and any batch alone from its step."""

import numpy as np
import pytest

from kdjax.data import order


def stream(steps, **options):
    batches = [order.batch_at(step, **options) for step in range(steps)]
    places, epochs = zip(*batches, strict=True)
    return np.concatenate(places), np.concatenate(epochs)


@pytest.mark.parametrize("batch", [1, 7, 20])
def test_every_example_once_a_pass_whatever_the_batch(batch):
    places, epochs = stream(60 // batch + 1, n=20, batch=batch, seed=3)
    for epoch in range(2):
        np.testing.assert_array_equal(np.sort(places[epochs == epoch]), np.arange(20))


def test_the_order_does_not_depend_on_the_batch():
    a = stream(21, n=20, batch=4, seed=3)
    b = stream(7, n=20, batch=12, seed=3)
    np.testing.assert_array_equal(a, b)


def test_passes_and_seeds_differ():
    places, _ = stream(3, n=50, batch=50, seed=0)
    first, second, _ = places.reshape(3, 50)
    assert (first != second).any() and (first != np.arange(50)).any()
    other, _ = order.batch_at(0, n=50, batch=50, seed=1)
    assert (first != other).any()


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(
        ValueError, match="batch: expected at most the 5 examples, got 6"
    ):
        order.batch_at(0, n=5, batch=6, seed=0)


def test_rows_of_several_seeds_are_each_seed_s_own():
    some = np.array([1, 4, 5])
    got = order.rows_at(2, n=10, batch=6, seeds=(3, 8), rows=some)
    want = [order.batch_at(2, n=10, batch=6, seed=seed) for seed in (3, 8)]
    for row, (places, epochs) in enumerate(want):
        np.testing.assert_array_equal(got["index"][row], places[some])
        np.testing.assert_array_equal(got["epoch"][row], epochs[some])


def test_the_order_of_a_seed_is_what_it_always_was():
    """Stores of targets and continued runs depend on it."""
    places, epochs = order.batch_at(2, n=10, batch=6, seed=3)
    assert (places.tolist(), epochs.tolist()) == ([0, 5, 8, 1, 3, 9], [1] * 6)
