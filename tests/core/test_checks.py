"""Values that are known are refused at once, traced ones under checkify alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from kdjax.config import bounds
from kdjax.core import checks

IDS = np.array([0, -1, 7])


def _positive(x):
    checks.positive("width", x)
    return x


def _between(x):
    checks.between("share", x, 0.0, 1.0)
    return x


def _below(x):
    checks.below("labels", x, 7)
    return x


def _holds(x):
    checks.holds("ids", lambda np, x: x != 7, "anything but 7", x)
    return x


BAD = [
    (_positive, 0.0, "width: expected a finite number above 0, got 0.0"),
    (_positive, -2, "width: expected a finite number above 0, got -2"),
    (_positive, np.inf, "width: expected a finite number above 0, got inf"),
    (_positive, np.nan, "width: expected a finite number above 0, got nan"),
    (_between, 1.5, r"share: expected a number in \[0.0, 1.0\], got 1.5"),
    (_between, np.nan, r"share: expected a number in \[0.0, 1.0\], got nan"),
    (_below, IDS, "labels: expected class ids below 7, or negative for none, got 7"),
    (_holds, IDS, "ids: expected anything but 7, got 7"),
]
GOOD = [(_positive, 2), (_between, 1.0), (_below, IDS[:2]), (_holds, IDS[:2])]


@pytest.mark.parametrize("check, value, message", BAD)
def test_known_values_are_refused(check, value, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check(value)
    with pytest.raises(ValueError, match=f"^{message}"):
        check(jnp.asarray(value))
    # So are constants inside a function that is being traced.
    with pytest.raises(ValueError, match=f"^{message}"):
        jax.eval_shape(lambda: check(value))


@pytest.mark.parametrize("check, value, message", BAD)
def test_traced_values_pass_until_checkified(check, value, message):
    jax.jit(check)(value)
    error, _ = checkify.checkify(jax.jit(check))(jnp.asarray(value))
    with pytest.raises(checkify.JaxRuntimeError, match=f"^{message}"):
        error.throw()


@pytest.mark.parametrize("check, value", GOOD)
def test_good_values_pass_checkified_too(check, value):
    check(value)
    error, found = checkify.checkify(jax.jit(check))(jnp.asarray(value))
    error.throw()
    np.testing.assert_array_equal(found, value)


def test_guards_are_dropped_when_compiled():
    text = jax.jit(_positive).lower(2.0).compile().as_text()
    assert "compare" not in text


def test_a_vector_is_no_number_and_nothing_has_no_largest():
    with pytest.raises(ValueError, match=r"^width: expected .*, got shape \(3,\)"):
        checks.positive("width", IDS)
    checks.below("labels", IDS[:0], 7)


def test_dtypes_say_what_was_wanted():
    with pytest.raises(
        ValueError, match="^x: expected an array of floating dtype, got"
    ):
        checks.floating("x", IDS)
    message = r"^x: expected an array of integer dtype \(class ids\), got a list"
    with pytest.raises(ValueError, match=message):
        checks.integer("x", [1, 2], "class ids")


def test_values_that_were_checked_before_leave_no_guard():
    """The same function twice is then the same program, whatever was traced between."""

    def trusted(value):
        with checks.without_guards():
            checks.positive("value", value)
        return value + 1

    def guarded(value):
        checks.positive("value", value)
        return value + 1

    def text(function):
        return jax.jit(lambda x: function(x)).lower(1.0).as_text()

    first = text(trusted)
    error, _ = checkify.checkify(jax.jit(trusted))(jnp.asarray(-1.0))
    assert error.get() is None
    error, _ = checkify.checkify(jax.jit(guarded))(jnp.asarray(-1.0))
    assert "value: expected a finite number above 0, got -1.0" in str(error.get())
    assert text(trusted) == first != text(guarded)
    with pytest.raises(ValueError, match="value: expected a finite number above 0"):
        trusted(-1.0)


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((4, 9), (4, 9)),
        ((1, 9), (4, 9)),
        ((4, 1), (4, 9)),
        ((9,), (4, 9)),
        ((5, 5), (2, 3, 5, 5)),
        ((5, 1), (4, 5, 9)),
        ((1, 9), (4, 5, 9)),
        ((1,), (4, 9)),
        ((), (4, 9)),
    ],
)
def test_masks_that_fit_one_run_of_axes(shape, target):
    checks.mask("where", np.ones(shape, bool), target)


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((9,), (9, 9)),  # examples or classes
        ((4, 1), (4, 4, 9)),  # sequences or tokens
        ((5, 5), (5, 3, 5, 5)),  # the first axis may be the batch's
        ((4,), (4, 9)),
        ((1, 4, 9), (4, 9)),
        ((3, 9), (4, 9)),
    ],
)
def test_masks_of_several_axes_or_of_none(shape, target):
    with pytest.raises(ValueError, match=r"^where: expected .*got shape"):
        checks.mask("where", np.ones(shape, bool), target)


@pytest.mark.parametrize(
    ("value", "end"),
    [
        ("fitnet", "got 'fitnet'; did you mean 'fitnets'?"),
        ("Partial", "got 'Partial'; did you mean 'partial'?"),
        ("other", "got 'other'"),
        (3, "got 3"),
    ],
)
def test_a_near_choice_is_suggested(value, end):
    with pytest.raises(checks.ArgumentError) as error:
        checks.one_of("variant", value, ("fitnets", "mean", "partial"))
    expected = "variant: expected one of ['fitnets', 'mean', 'partial'], "
    assert str(error.value) == expected + end


@pytest.mark.parametrize("value", [1e-30, 1e30, 0.0, -1, np.nan])
def test_a_temperature_beyond_float32_is_refused(value):
    expected = r"^temperature: expected a number in \[1e-06, 1000000.0\]"
    with pytest.raises(checks.ArgumentError, match=expected):
        checks.temperature("temperature", value)


def test_configs_and_losses_have_the_same_temperatures():
    assert bounds.TEMPERATURES == checks.TEMPERATURES
    for value in checks.TEMPERATURES:
        checks.temperature("temperature", value)
