"""What a run's losses and strategy say about whether a folder is of this run."""

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

from kdjax import config as configs
from kdjax.config import Custom, Run
from kdjax.strategies import kernels


def as_effective(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config as plain values, every field there and its terms as they take effect."""
    values = configs.complete(values)
    terms = values.get("terms")
    if not isinstance(terms, Mapping):
        return values
    made = {
        name: kernels.as_effective(term) if isinstance(term, Mapping) else term
        for name, term in terms.items()
    }
    return {**values, "terms": made}


def code_of(run: Run) -> dict[str, str]:
    """Fingerprints of the user's own functions by the field that names them: the name
    of the function and 16 hex digits of its source."""
    named: dict[str, Any] = {}
    if isinstance(run.strategy, Custom):
        named["strategy.function"] = run.strategy.function
    else:
        for name, term in run.terms.items():
            named[f"terms.{name}.loss"] = term.loss
            named[f"terms.{name}.example_weights"] = term.example_weights
    found = {field: _code(function, field) for field, function in named.items()}
    return {field: code for field, code in found.items() if code}


def _code(function: Any, field: str) -> str:
    if callable(function):
        name = getattr(function, "__qualname__", type(function).__qualname__)
        try:
            source = inspect.getsource(inspect.unwrap(function)).encode()
        except (OSError, TypeError):
            source = b""
    elif ":" in function and not function.startswith(configs.PYTHON):
        name = function.rpartition(":")[2]
        files = configs.source_files(function, field)
        source = b"".join(file.read_bytes() for file in files)
    else:
        return ""
    return f"{name} {hashlib.sha256(source).hexdigest()[:16]}"
