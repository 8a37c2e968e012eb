"""Early exits: classifiers on the taps of a network, and predictions from them.

The exits of Teerapittayanon et al. 2016, "BranchyNet", arXiv 1709.01686. Their networks
are separate from the network they leave: it is exported without them.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import require, require_known
from kdjax.core import checks
from kdjax.core.flops import count_flops
from kdjax.core.numerics import tempered_log_softmax
from kdjax.core.types import STUDENT, Array, Model, Output, PyTree
from kdjax.models.adapters import from_linen
from kdjax.models.layers import conv, mean_pool, norm


class ExitHead(nn.Module):
    """A classifier of one tap: bottlenecks, mean pooling, and a linear layer.

    Each bottleneck is a 3x3 convolution of stride 2 to twice the channels, with norm
    and ReLU, until the features have `width` channels: one for each later stage of the
    network, as in Be Your Own Teacher (arXiv 1905.08094).

    classes: number of logits.
    width: channels of the features that are pooled, those of the network's last layer.
    norm: "batch" or "group".
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Called with features `[batch, ..., channels]` it returns `(logits, taps)`: logits
    `[batch, classes]` and the tap "embedding" `[batch, width]`.
    """

    classes: int
    width: int
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, features: Array, train: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        x = features
        while x.ndim == 4 and x.shape[-1] < self.width:
            channels = min(2 * x.shape[-1], self.width)
            x = conv(channels, 3, 2)(x)
            x = nn.relu(norm(self.norm, channels, train, self.axis_name)(x))
        x = mean_pool(x)
        if x.shape[-1] != self.width:
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.classes)(x), {"embedding": x}


def exit_head(
    classes: int, width: int, norm: str = "batch", axis_name: str | None = None
) -> Model:
    """The model of an `ExitHead`: `init` and `apply` take features for images."""
    require(norm in ("batch", "group"), "norm", "batch or group", norm)
    return from_linen(ExitHead(classes, width, norm, axis_name))


def exit_names(count: int) -> list[str]:
    """`["exit1", "exit2", ...]`, from the shallowest to the deepest."""
    return [f"exit{number}" for number in range(1, count + 1)]


def _find_tap(output: Output, tap: str, field: str = "taps") -> Array:
    """A tap by name; `ConfigError` naming `field` where the network has none such."""
    require_known(tap, sorted(output.taps), field)
    return output.taps[tap]


def with_exits(model: Model, taps: Sequence[str], head: Model) -> Model:
    """A model with an exit at each of some taps.

    Its taps are those of `model`, and `exit1`, `exit2`, ...: the logits of the exits.
    In every collection of its variables the entry `student` is the network's, and
    `exit1`, ... those of the exits (`join_exits`).

    Args:
      model: the network; it gives `taps`.
      taps: names of the taps with an exit, from the shallowest to the deepest.
      head: the classifier of each, such as `exit_head(classes, width)`.

    Raises:
      ConfigError: no taps, or at the first call a tap that the network has not.
    """
    require(bool(taps), "taps", "at least one tap", taps)
    exits = dict(zip(exit_names(len(taps)), taps, strict=True))

    def init(key: Array, images: PyTree) -> PyTree:
        networks = {STUDENT: model.init(key, images)}
        output, _ = model.apply(networks[STUDENT], images, train=False, rngs=None)
        for number, (name, tap) in enumerate(exits.items(), start=1):
            own_key = jax.random.fold_in(key, number)
            networks[name] = head.init(own_key, _find_tap(output, tap))
        return join_exits(networks)

    def apply(variables, images, *, train=False, rngs=None):
        def run(name: str, network: Model, inputs: PyTree) -> Output:
            own = {k: x[name] for k, x in variables.items() if name in x}
            output, new[name] = network.apply(own, inputs, train=train, rngs=rngs)
            return output

        new: dict[str, PyTree] = {}
        output = run(STUDENT, model, images)
        named = {
            name: run(name, head, _find_tap(output, tap)).logits
            for name, tap in exits.items()
        }
        return Output(output.logits, {**output.taps, **named}), join_exits(new)

    return Model(init, apply)


def join_exits(networks: Mapping[str, PyTree]) -> PyTree:
    """Variables of `with_exits` from those of each network, `{network: variables}`.

    The networks are `student`, `exit1`, ..., as `deep_to_shallow` trains them.
    """
    collections = sorted({name for x in networks.values() for name in x})
    return {
        collection: {k: x[collection] for k, x in networks.items() if collection in x}
        for collection in collections
    }


def exit_logits(output: Output) -> Array:
    """The logits of all exits, `[exits + 1, batch, classes]`; the network's own last.

    Their ensemble is `kdjax.targets.ensemble_logits(exit_logits(output))`.
    """
    return jnp.stack(_each_logits(output))


def _each_logits(output: Output) -> list[Array]:
    names = [name for name in exit_names(len(output.taps)) if name in output.taps]
    return [*(output.taps[name] for name in names), output.logits]


def first_confident(
    logits: Array, threshold: float | Array, *, axis: int = -1
) -> tuple[Array, Array]:
    """The prediction of the first exit whose confidence is above a threshold.

    The confidence is the largest probability. The last exit takes the examples of which
    no other is confident: at threshold 0 all leave at the first exit, at 1 at the last.

    Args:
      logits: `[exits, ..., classes]` as of `exit_logits`.
      threshold: in [0, 1]; a scalar.
      axis: the axis of the classes; not the first.

    Returns:
      The logits of the exit that each example takes, `[..., classes]`, and its number,
      `[...]` from 0.

    Raises:
      ValueError: logits of fewer than two axes, or a threshold outside of [0, 1].
    """
    checks.floating("logits", logits)
    checks.rank("logits", logits, 2, at_least=True)
    checks.not_empty("logits", logits)
    axis = checks.axis(axis, "logits", logits)
    if axis == 0:
        checks.refuse("axis", "the axis of the classes", "that of the exits")
    checks.between("threshold", threshold, 0.0, 1.0)
    # Never above 1, so that a threshold of 1 leaves all to the last exit.
    confidence = jnp.exp(jnp.max(tempered_log_softmax(logits, 1.0, axis), axis))
    confident = (confidence > threshold).at[-1].set(True)
    number = jnp.argmax(confident, axis=0)
    index = jnp.expand_dims(number, (0, axis))
    return jnp.take_along_axis(logits, index, 0)[0], number


def exit_flops(model: Model, variables: PyTree, images: PyTree) -> tuple[int, ...]:
    """FLOPs of a prediction that ends at each exit; the whole network's last.

    Counted are the network up to the tap of that exit, its head, and the heads of the
    exits before it, in evaluation mode (`kdjax.core.flops.count_flops`).

    Args:
      model: of `with_exits`.
      variables, images: arrays, or their shapes.
    """

    def all_logits(variables: PyTree, images: PyTree) -> list[Array]:
        output, _ = model.apply(variables, images, train=False, rngs=None)
        return _each_logits(output)

    exits = len(jax.eval_shape(all_logits, variables, images))

    def up_to(last: int) -> int:
        used = [number <= last for number in range(exits)]
        return count_flops(all_logits, variables, images, used=used)

    return tuple(map(up_to, range(exits)))
