"""Configs of strategies: `Run.strategy` is one of them."""

import dataclasses
from typing import Literal

from kdjax.config.checks import require
from kdjax.config.training import Option, check_options


@dataclasses.dataclass(frozen=True)
class Offline:
    """A fixed teacher, one student, and the weighted sum of the run's `terms`."""

    kind: Literal["offline"] = "offline"
    """Names this kind of strategy in `config.json`."""

    def check(self, at: str = "strategy") -> None:
        """Nothing to check: its terms are fields of the run."""


@dataclasses.dataclass(frozen=True)
class Custom:
    """A strategy of your own; the run's `terms` are not used.

    `kdjax/strategies/README.md` describes the function.
    """

    function: str = ""
    """`file.py:function` or `module:function`, `(student, **options) -> Strategy`."""
    options: dict[str, Option] = dataclasses.field(default_factory=dict)
    """Its options by name, as plain values."""
    kind: Literal["custom"] = "custom"
    """Names this kind of strategy in `config.json`."""

    def check(self, at: str = "strategy") -> None:
        ok = ":" in self.function
        require(ok, f"{at}.function", "file.py:function", self.function)
        check_options(self.options, f"{at}.options")
