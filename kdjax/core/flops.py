"""Multiplications and additions of a function, counted in its jaxpr."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.interpreters import partial_eval


def count_flops(
    function: Callable, *arguments: Any, used: Sequence[bool] | None = None
) -> int:
    """Floating-point operations of the matrix products and convolutions of a call.

    A multiplication and an addition are two. All other operations are left out, so
    this is the "model FLOPs" of the literature. Of a `cond` the largest branch counts;
    a `while` counts once, as its number of turns is not in the program.

    arguments: arrays, or their shapes as `jax.ShapeDtypeStruct`.
    used: for each array of the result True if it counts. Operations that only the
        others need are left out. None counts all that is in the function.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    if used is not None:
        jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, used)
    return _of(jaxpr)


def _of(jaxpr: Any) -> int:
    """Operations of all equations of a jaxpr."""
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    """Operations of one equation and of the programs inside it."""
    name, options = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot(equation)
    if name == "conv_general_dilated":
        return _convolution(equation)
    inner = [_of(jaxpr) for value in options.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * (options["length"] if name == "scan" else 1)


def _jaxprs(value: Any) -> list[Any]:
    """The programs in one parameter of an equation."""
    if isinstance(value, tuple | list):
        return [jaxpr for item in value for jaxpr in _jaxprs(item)]
    if hasattr(value, "eqns"):
        return [value]
    inner = getattr(value, "jaxpr", None)
    return [inner] if hasattr(inner, "eqns") else []


def _dot(equation: Any) -> int:
    """Each number of the result is a sum over the contracted axes."""
    (contract, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(left[i] for i in contract)


def _convolution(equation: Any) -> int:
    """Each number of the result is a sum over a kernel's window and channels.

    The zeros that a dilated input gains, in the gradient of a stride, do not count.
    """
    options = equation.params
    kernel = equation.invars[1].aval.shape
    outputs = kernel[options["dimension_numbers"].rhs_spec[0]]
    window = math.prod(kernel) // outputs
    zeros = math.prod(options["lhs_dilation"])
    return 2 * equation.outvars[0].aval.size * window // zeros
