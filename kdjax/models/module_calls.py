"""Calls of a user's module: its flag of training, its outputs, and a check of both."""

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.core.types import Output, PyTree

# Names of the argument that separates training from evaluation, with its value
# in training.
FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "is_train": True,
    "deterministic": False,
    "inference": False,
    "use_running_average": False,
}
_NOT = "not "


def flags(module: Any, train: bool, train_arg: str = "") -> dict[str, bool]:
    """Arguments of the module's call that separate training from evaluation.

    train_arg: the name of one, with "not " before it where it is True in evaluation.

    Raises TypeError where the call has no such argument and the module no such field.
    """
    parameters = _parameters(module)
    if not train_arg:
        return {name: x == train for name, x in FLAGS.items() if name in parameters}
    name = train_arg.removeprefix(_NOT)
    is_open = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if name not in parameters and not is_open and not has_field(module, name):
        near = difflib.get_close_matches(name, parameters, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        call = f"{type(module).__name__}.__call__"
        expected = f"an argument of {call} ({', '.join(parameters)}) or a field"
        raise TypeError(f"train_arg: {hint}expected {expected}, got {train_arg!r}")
    return {name: train != train_arg.startswith(_NOT)}


def has_field(module: Any, name: str) -> bool:
    """True for a field of the module that is no argument of its call."""
    fields = getattr(type(module), "__dataclass_fields__", {})
    return name not in _parameters(module) and name in fields


def arguments(
    module: Any, values: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments, after the images, for a module's call.

    What can be positional is: lifted modules (`nn.remat`) count their arguments.
    """
    left, positional = dict(values), []
    for parameter in _parameters(module).values():
        is_positional = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        has_value = parameter.name in left or parameter.default is not parameter.empty
        if not left or not is_positional or not has_value:
            break
        positional.append(left.pop(parameter.name, parameter.default))
    return positional, left


def takes(module: Any, name: str) -> bool:
    """True where the module's call has an argument of this name."""
    return name in _parameters(module)


def _parameters(module: Any) -> dict[str, inspect.Parameter]:
    """Parameters of a module's call after `self` and the images."""
    parameters = inspect.signature(type(module).__call__).parameters
    return dict(list(parameters.items())[2:])


def make_output(result: Any) -> Output:
    """Logits, `(logits, taps)` or Output as a checked Output."""
    logits: Any = result
    taps: Any = {}
    if isinstance(result, tuple) and len(result) == 2:
        logits, taps = result
    if not hasattr(logits, "shape") or not isinstance(taps, Mapping):
        expected = "logits, (logits, taps) or Output from the network"
        raise TypeError(format_expected("apply", expected, result))
    for name, tap in taps.items():
        if not hasattr(tap, "shape"):
            raise TypeError(format_expected(f"taps[{name!r}]", "an array", tap))
    if len(logits.shape) != 2:
        shape = tuple(logits.shape)
        raise ValueError(f"logits: expected shape [batch, classes], got {shape}")
    return Output(logits, dict(taps))


def state_of(variables: PyTree) -> PyTree:
    """The collections other than "params"."""
    return {name: part for name, part in variables.items() if name != "params"}


def check_state(old: PyTree, new: PyTree) -> None:
    """Refuse a new state that cannot take the place of the old one.

    Each step of a training would be compiled again, and its checkpoints misread.

    Raises:
      ValueError: naming the first variable of another shape or dtype, or of one alone.
    """
    before, after = _describe_leaves(old), _describe_leaves(new)
    for name in [*before, *after]:
        expected, got = (x.get(name, "nothing") for x in (before, after))
        if expected != got:
            text = f"expected {expected} after a call in training as before, got {got}"
            raise ValueError(f"state: {name}: {text}")


def _describe_leaves(tree: PyTree) -> dict[str, str]:
    """Dtype and shape of every leaf by its path."""
    leaves = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), jnp.asarray(x))
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in leaves}


def format_expected(argument: str, expected: str, got: Any) -> str:
    """One line of an error."""
    shown = repr(got) if isinstance(got, list) else type(got).__name__
    return f"{argument}: expected {expected}, got {shown}"


def make_warn_once(module: Any) -> Callable[[bool, bool], None]:
    """`(stands_still, draws_nothing) -> None`: warn of a mode that does not switch.

    stands_still: the module has running statistics, and a call in training moved none.
    draws_nothing: it has dropout, and a call in training drew none.
    """
    warned = []
    name = getattr(module, "__name__", type(module).__name__)

    def warn(stands_still: bool, draws_nothing: bool) -> None:
        found = ["moves no running statistics"] * stands_still
        found += ["draws no dropout"] * draws_nothing
        if not found or warned:
            return
        warned.append(True)
        warnings.warn(
            f"{name}: a call in training {' and '.join(found)}, though the module has "
            "them; train_arg=... of the adapter names the argument that switches",
            stacklevel=4,
        )

    return warn
