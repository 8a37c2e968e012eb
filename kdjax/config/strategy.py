"""Configs of strategies, and of the networks that they train beside the student."""

import dataclasses
from typing import Literal

from kdjax.config.checks import require
from kdjax.config.model import ModelConfig
from kdjax.config.training import Optim, Option, check_options


@dataclasses.dataclass(frozen=True)
class Offline:
    """A fixed teacher, one student, and the weighted sum of the run's `terms`."""

    gradient_norms: bool = False
    """Log the norm of each weighted term's gradient in the student. Each term takes a
    backward pass of its own."""
    project_gradients: bool = False
    """Project the gradients of two weighted terms that conflict in the student: each
    loses its part along the other (PCGrad, arXiv 2001.06782). It costs as much as their
    norms."""
    controller: str = ""
    """Weights and temperatures that follow the run's metrics: `keep_divergence`,
    `stop_at_agreement`, `equal_magnitudes`, or `file.py:function` of your own; empty:
    the schedules of the terms alone."""
    controller_options: dict[str, Option] = dataclasses.field(default_factory=dict)
    """Its options by name, as plain values."""
    kind: Literal["offline"] = "offline"
    """Names this kind of strategy in `config.json`."""

    def check(self, at: str = "strategy") -> None:
        """Raise `ConfigError` for options without a controller, or no plain values."""
        field = f"{at}.controller_options"
        ok = bool(self.controller) or not self.controller_options
        require(ok, field, "none without a controller", self.controller_options)
        check_options(self.controller_options, field)


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


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of a strategy beside the student: a peer, an assistant, a critic.

    A strategy has it by its name in `Run.networks`.
    """

    model: ModelConfig = ModelConfig()
    """The network. `weights` are those that it starts from."""
    optim: Optim | None = None
    """Its optimizer and schedule; None: those of the run."""
    network: str = ""
    """Its name among the networks of the run that `model.weights` names. Empty: the
    network that was evaluated."""
    frozen: bool = False
    """It does not learn. Its variables are `batch.frozen[NAME]`."""

    def check(self, at: str, steps: int) -> None:
        """Raise `ConfigError` for the first field that cannot be run."""
        self.model.check(f"{at}.model")
        if self.optim is not None:
            require(not self.frozen, f"{at}.optim", "none, as it is frozen", self.optim)
            self.optim.check(f"{at}.optim", steps)
        ok = bool(self.model.weights) or not self.network
        expected = "none, without a run as the weights of its model"
        require(ok, f"{at}.network", expected, self.network)
        ok = bool(self.model.weights) or ":" in self.model.name or not self.frozen
        require(ok, f"{at}.model.weights", "weights, as it is frozen", "none")
