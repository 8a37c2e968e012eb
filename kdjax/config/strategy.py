"""Configs of strategies: `Run.strategy` is one of them."""

import dataclasses
from typing import Literal

from kdjax.config.checks import require
from kdjax.config.training import Option, check_options


@dataclasses.dataclass(frozen=True)
class Offline:
    """A fixed teacher, one student, and the weighted sum of the run's `terms`."""

    gradient_norms: bool = False
    """Log the norm of each weighted term's gradient in the student. Each term takes a
    backward pass of its own."""
    kind: Literal["offline"] = "offline"
    """Names this kind of strategy in `config.json`."""

    def check(self, at: str = "strategy") -> None:
        """Nothing to check: its terms are fields of the run."""


@dataclasses.dataclass(frozen=True)
class Custom:
    """A strategy by name, or of your own; most do not use the run's `terms`.

    `kdjax/strategies/README.md` describes the function.
    """

    function: str = ""
    """A name such as `mutual` (`kdjax strategies` lists them), or `file.py:function` or
    `module:function` of your own, `(student, **options) -> Strategy`."""
    options: dict[str, Option] = dataclasses.field(default_factory=dict)
    """Its options by name, as plain values."""
    kind: Literal["custom"] = "custom"
    """Names this kind of strategy in `config.json`."""

    def check(self, at: str = "strategy") -> None:
        expected = "the name of a strategy (`kdjax strategies`) or file.py:function"
        require(bool(self.function), f"{at}.function", expected, self.function)
        check_options(self.options, f"{at}.options")
