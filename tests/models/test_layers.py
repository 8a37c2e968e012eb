import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.layers import channel_shuffle, conv, group_count, norm, require


def test_stride_two_starts_at_the_first_pixel_also_on_even_sides():
    # Output 0 reads pixels -1, 0, 1. "SAME" would read 0, 1, 2, and see this dot.
    layer = conv(1, 3, 2)
    params = {"params": {"kernel": jnp.ones((3, 3, 1, 1))}}
    dot = jnp.zeros((1, 8, 8, 1)).at[0, 2, 2, 0].set(1.0)
    out = jnp.asarray(layer.apply(params, dot))[0, :, :, 0]
    assert out.shape == (4, 4)
    assert out[0, 0] == 0 and out[1, 1] == 1 and out.sum() == 1


def test_groups_of_a_convolution_do_not_meet():
    x = jnp.asarray([[[[1.0, 2.0, 3.0, 4.0]]]])
    kernel = jnp.asarray([[[[1.0, 10.0], [100.0, 1000.0]]]])
    out = conv(2, 1, groups=2).apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_array_equal(out, [[[[201.0, 4030.0]]]])


def test_shuffle_interleaves_the_groups():
    x = jnp.arange(6.0)[None, None, None]
    np.testing.assert_array_equal(channel_shuffle(x, 2)[0, 0, 0], [0, 3, 1, 4, 2, 5])
    np.testing.assert_array_equal(channel_shuffle(x, 3)[0, 0, 0], [0, 2, 4, 1, 3, 5])
    np.testing.assert_array_equal(channel_shuffle(channel_shuffle(x, 2), 3), x)


def test_norms_are_of_the_kind_asked_for():
    batch = norm("batch", 16, True, "data", "norm1")
    assert (batch.name, batch.axis_name, batch.use_running_average) == (
        "norm1",
        "data",
        False,
    )
    assert (batch.momentum, batch.epsilon) == (0.9, 1e-5)
    assert norm("batch", 16, False).use_running_average
    group = norm("group", 16, True, "data")
    assert (group.num_groups, group.epsilon) == (8, 1e-5)


@pytest.mark.parametrize(
    "channels, groups",
    [
        (1, 1),
        (2, 1),
        (4, 2),
        (6, 3),
        (7, 1),
        (8, 4),
        (12, 6),
        (16, 8),
        (20, 5),
        (64, 8),
    ],
)
def test_groups(channels, groups):
    assert group_count(channels) == groups


def test_require_says_field_expected_and_got():
    require(True, "depth", "6n + 2", 8)
    with pytest.raises(ValueError, match=r"^depth: expected 6n \+ 2, got 9$"):
        require(False, "depth", "6n + 2", 9)
