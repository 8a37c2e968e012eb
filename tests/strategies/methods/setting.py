"""Tiny networks of vectors, and their formulas in float64, for tests of strategies."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import from_function
from kdjax.core.types import Batch, Output

N, INPUTS, CLASSES = 6, 3, 4


def network(classes=CLASSES, width=5):
    """x @ hidden @ head, with the tap "embedding" after the first."""

    def apply(params, x):
        embedding = x @ params["hidden"]
        return embedding @ params["head"], {"embedding": embedding}

    def init(key, x):
        one, two = jax.random.split(key)
        return {
            "hidden": jax.random.normal(one, (x.shape[-1], width)),
            "head": jax.random.normal(two, (width, classes)),
        }

    return from_function(apply, init=init)


def draw(*shape, seed=0):
    """Normal numbers, the same in float32 and float64."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make_batch(targets=None, seed=0, **changes):
    """A batch of vectors with labels, and the teacher's outputs."""
    labels = np.random.default_rng(seed).integers(0, CLASSES, N)
    inputs = {"image": jnp.asarray(draw(N, INPUTS, seed=seed))}
    return Batch(inputs, jnp.asarray(labels), targets)._replace(**changes)


def outputs(logits, **taps):
    """Outputs of a teacher."""
    return Output(jnp.asarray(logits), {k: jnp.asarray(x) for k, x in taps.items()})


def start(strategy, batch, seed=0):
    """Parameters and state by network, as `init` draws them."""
    networks = jax.jit(strategy.init)(jax.random.key(seed), batch)
    params = {name: x["params"] for name, x in networks.items() if "params" in x}
    state = {
        name: {k: x for k, x in entry.items() if k != "params"}
        for name, entry in networks.items()
    }
    return params, state


def evaluate(strategy, params, state, batch, seed=1):
    """The losses by network, and the metrics, of one step."""
    key = jax.random.key(seed)
    values, (_, metrics) = jax.jit(strategy.loss)(params, state, batch, {}, key)
    return values, metrics


def gradients(strategy, batch, name=None, seed=1):
    """Gradient of a network's loss, or of all losses, in all parameters."""
    params, state = start(strategy, batch)

    def loss(params):
        values, _ = strategy.loss(params, state, batch, {}, jax.random.key(seed))
        return values[name] if name else sum(values.values())

    return jax.jit(jax.grad(loss))(params)


def jacobian(strategy, batch):
    """Gradient of every loss in the parameters of all networks, by loss."""
    params, state = start(strategy, batch)

    def loss(params):
        return strategy.loss(params, state, batch, {}, jax.random.key(1))[0]

    return jax.jit(jax.jacrev(loss))(params)


def is_zero(tree):
    """True where all numbers of a tree are 0."""
    return all(not np.any(np.asarray(x)) for x in jax.tree.leaves(tree))


def doubles(tree):
    """The numbers of a tree in float64."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def log_softmax(x):
    x = np.asarray(x, np.float64)
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def cross_entropy(logits, labels):
    """Mean cross-entropy of class ids."""
    labels = np.asarray(labels)
    return -log_softmax(logits)[np.arange(len(labels)), labels].mean()


def kl(teacher, student, temperature=1.0):
    """T^2 times the mean KL divergence from teacher to student."""
    p, q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    return temperature**2 * (np.exp(p) * (p - q)).sum(-1).mean()


def mlp(params, x, np=np):
    """Layers of `critics.mlp_critic`, with ReLU between them; np: or jax.numpy."""
    layers = sorted(params, key=lambda name: int(name.rpartition("_")[2]))
    for name in layers[:-1]:
        x = np.maximum(x @ params[name]["kernel"] + params[name]["bias"][None], 0)
    last = params[layers[-1]]
    return x @ last["kernel"] + last["bias"][None]
