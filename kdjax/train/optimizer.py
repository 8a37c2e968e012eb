"""Optimizers and schedules of the recipes, as optax transforms."""

import fnmatch
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from kdjax.config import Optim, require
from kdjax.core.types import PyTree


def multiplier(optim: Optim, steps: int) -> optax.Schedule:
    """The schedule m(step) in [0, 1] by which the peak rate is multiplied.

    Linear from 0 over `warmup` steps, then by name: `cosine` to 0 at `steps`, `steps`
    down by `gamma` after each milestone, `constant`.
    """
    decay_steps = steps - optim.warmup
    if optim.schedule == "cosine":
        after = optax.cosine_decay_schedule(1.0, decay_steps)
    elif optim.schedule == "steps":
        drops = {round(m * steps) - optim.warmup: optim.gamma for m in optim.milestones}
        after = optax.piecewise_constant_schedule(1.0, drops)
    else:
        after = optax.constant_schedule(1.0)
    if not optim.warmup:
        return after
    rise = optax.linear_schedule(0.0, 1.0, optim.warmup)
    return optax.join_schedules([rise, after], [optim.warmup])


def make_rates(optim: Optim, steps: int) -> Callable[[int], dict[str, np.float32]]:
    """`step -> rates`: the numbers of a step, `m` of `multiplier`, `lr` and `wd`.

    A step takes them as arguments, so that runs that differ in them, or in their
    length, are one program.
    """
    m = np.broadcast_to(jax.jit(multiplier(optim, steps))(jnp.arange(steps)), steps)
    lr, wd = np.float32(optim.lr), np.float32(optim.wd)
    return lambda step: {"m": np.float32(m[step]), "lr": lr, "wd": wd}


def kernel_mask(params: PyTree) -> PyTree:
    """True for the leaves that are decayed: those named `kernel`.

    In a tree without such names (a plain function's), the leaves of rank 2 and more.
    """

    def named(path: tuple, leaf: jax.Array) -> bool:
        return getattr(path[-1], "key", getattr(path[-1], "name", None)) == "kernel"

    mask = jax.tree_util.tree_map_with_path(named, params)
    if any(jax.tree.leaves(mask)):
        return mask
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def make_optimizer(
    optim: Optim, network: str = ""
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of one network; `update` takes `rates=` of `make_rates`.

    Parameters that none of `optim.parameters` matches stay as they are.

    network: its name, where the parameters are `{network: params}`.
    """
    recipe = _make_recipe(optim)
    if not optim.parameters:
        return recipe
    groups: dict[Hashable, Any] = {"moves": recipe, "stays": optax.set_to_zero()}

    def label(params: PyTree) -> PyTree:
        return label_parameters(params, optim.parameters, network)

    return optax.partition(groups, label)


def label_parameters(
    params: PyTree, patterns: Sequence[str], network: str = ""
) -> PyTree:
    """Labels of parameters by their paths: "moves" for those of a pattern, or "stays".

    Args:
      patterns: of paths such as `stage1/conv/kernel`, as `fnmatch` takes them.
      network: the first name in the paths, which patterns leave out.

    Raises:
      ConfigError: a pattern that no parameter has.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/").removeprefix(
            f"{network}/"
        )
        for path, _ in leaves
    ]
    for pattern in patterns:
        shown = ", ".join(paths[:3]) + ", ..." * (len(paths) > 3)
        expected = f"a pattern of parameters, which are {shown}"
        matched = fnmatch.filter(paths, pattern)
        require(bool(matched), "optim.parameters", expected, pattern)
    moving = [any(fnmatch.fnmatchcase(x, p) for p in patterns) for x in paths]
    labels = ["moves" if moves else "stays" for moves in moving]
    return jax.tree.unflatten(structure, labels)


def _make_recipe(optim: Optim) -> optax.GradientTransformationExtraArgs:
    """The optimizer of all parameters of a network.

    `adam`: w -= m * (lr * adam(g) + wd * w), gradient clipped at global norm
    `clip`, first moment in bfloat16, wd on kernels only (arXiv 2106.05237; in the
    words of `optax.adamw`, its weight decay is wd / lr).
    `muon`: the same with `optax.contrib.muon` in place of Adam, its updates as long as
    Adam's (root mean square 0.2); it turns each kernel's momentum, as a matrix of
    inputs and outputs, into one of singular values near 1, and leaves the rest to Adam.
    `sgd`: v = momentum * v + g + wd * w; w -= m * lr * v, wd on every parameter
    (the recipe of the CIFAR-100 distillation tables).
    """
    clip = optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity()
    if optim.name in ("adam", "muon"):
        adam = optim.name == "adam"
        direction = optax.scale_by_adam(mu_dtype="bfloat16") if adam else _muon()
        decay = optax.masked(_plus("wd"), kernel_mask)
        return optax.chain(clip, direction, _times("lr"), decay, _times("m", -1))
    momentum = optax.trace(optim.momentum)
    return optax.chain(clip, _plus("wd"), momentum, _times("lr"), _times("m", -1))


def _times(rate: str, sign: int = 1) -> optax.GradientTransformationExtraArgs:
    """The updates times one of the rates."""

    def update(updates, state, params=None, **more):
        del params
        factor = sign * more["rates"][rate]
        return jax.tree.map(lambda u: factor * u, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _plus(rate: str) -> optax.GradientTransformationExtraArgs:
    """The updates and one of the rates times the parameters."""

    def update(updates, state, params=None, **more):
        share = more["rates"][rate]
        return jax.tree.map(lambda u, w: u + share * w, updates, params), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _muon() -> optax.GradientTransformation:
    def matrices(params: PyTree) -> PyTree:
        def find_axes(kernel: bool, leaf: jax.Array) -> Any:
            inputs = tuple(range(leaf.ndim - 1))
            return (
                contrib.MuonDimensionNumbers(inputs, leaf.ndim - 1) if kernel else None
            )

        return jax.tree.map(find_axes, kernel_mask(params), params)

    # At rate -1, as it turns the sign that the chain turns again.
    return contrib.muon(
        -1.0, consistent_rms=0.2, muon_weight_dimension_numbers=matrices
    )


def by_network(
    optimizers: Mapping[str, optax.GradientTransformationExtraArgs],
) -> optax.GradientTransformationExtraArgs:
    """One optimizer over `{network: params}`, each network with its own.

    Its `update` takes `rates=` by network, as `network_rates` makes them.
    """

    def labels(params: dict[str, PyTree]) -> dict[str, PyTree]:
        return {n: jax.tree.map(lambda _, n=n: n, tree) for n, tree in params.items()}

    def wrap(name: str) -> optax.GradientTransformationExtraArgs:
        one = optimizers[name]

        def update(updates, state, params=None, **more):
            more["rates"] = more["rates"][name]
            return one.update(updates, state, params, **more)

        return optax.GradientTransformationExtraArgs(one.init, update)

    parts: dict[Hashable, Any] = {name: wrap(name) for name in optimizers}
    return optax.partition(parts, labels)


def network_rates(
    optims: Mapping[str, Optim], steps: int
) -> Callable[[int], dict[str, dict[str, np.float32]]]:
    """`step -> {network: rates}`, the numbers of a step by `make_rates`."""
    by_optim = {optim: make_rates(optim, steps) for optim in optims.values()}
    return lambda step: {name: by_optim[optim](step) for name, optim in optims.items()}


def restore_inactive(new: Any, old: Any, inactive: Collection[str]) -> Any:
    """The new state of a `by_network` optimizer, with the old one of the inactive
    networks: neither their moments nor their counts change."""
    previous = {name: old.inner_states[name] for name in inactive}
    return new._replace(inner_states={**new.inner_states, **previous})
