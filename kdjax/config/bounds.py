"""Types of fields that carry their constraints, checked by `kdjax.config.plain`."""

from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen, Unit

# The largest int32, and the largest float32.
LARGEST = 2**31 - 1
LARGEST_FLOAT = (2 - 2**-23) * 2.0**127
# Far beyond, logits over T or the factor T^2 overflow in float32.
TEMPERATURES = (1e-6, 1e6)

Count = Annotated[int, Ge(0)]
AtLeastOne = Annotated[int, Ge(1)]
# Sizes that a program has a buffer or an operation for: a slip of the keys at these
# would fill the memory, or compile for hours.
Size = Annotated[int, Ge(1), Le(2**16)]
# The learning rates of all steps are a table in memory.
Length = Annotated[int, Ge(1), Le(10**8), Unit("steps")]
Pixels = Annotated[int, Ge(0), Le(2**14), Unit("pixels")]
Steps = Annotated[int, Ge(0), Unit("steps")]
Devices = Annotated[int, Ge(0), Unit("devices")]
Nonnegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Temperature = Annotated[float, Ge(TEMPERATURES[0]), Le(TEMPERATURES[1])]
BelowOne = Annotated[float, Ge(0), Lt(1)]
Share = Annotated[float, Gt(0), Le(1)]
UnitInterval = Annotated[float, Ge(0), Le(1)]
Text = Annotated[str, MinLen(1)]

# How each bound is tested, and its sign in a message.
_TESTS = {
    Ge: (lambda x, bound: x >= bound.ge, lambda bound: f">= {bound.ge}"),
    Gt: (lambda x, bound: x > bound.gt, lambda bound: f"> {bound.gt}"),
    Le: (lambda x, bound: x <= bound.le, lambda bound: f"<= {bound.le}"),
    Lt: (lambda x, bound: x < bound.lt, lambda bound: f"< {bound.lt}"),
    MinLen: (lambda x, bound: len(x) >= bound.min_length, lambda _: "a name"),
}


def is_within(value: Any, constraints: tuple[Any, ...]) -> bool:
    """True if a value of the right type keeps every constraint of its field."""
    bounds = [x for x in constraints if type(x) in _TESTS]
    return all(_TESTS[type(bound)][0](value, bound) for bound in bounds)


def describe(constraints: tuple[Any, ...]) -> str:
    """Constraints in words: ">= 1", ">= 0 and < 1", ">= 0 pixels"."""
    signs = [_TESTS[type(x)][1](x) for x in constraints if type(x) in _TESTS]
    units = [x.unit for x in constraints if isinstance(x, Unit)]
    return " ".join([" and ".join(signs), *units])
