"""Config of a network beside the student."""

import dataclasses

from kdjax.config.checks import require
from kdjax.config.model import ModelConfig
from kdjax.config.training import Optim


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
