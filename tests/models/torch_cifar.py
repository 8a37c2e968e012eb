"""Numbers of the same networks in PyTorch, and the weights that gave them.

Each network was written out once in torch 2.13 (CPU, float64) as in RepDistiller
(github.com/HobbitLong/RepDistiller, `models/` at eedab9d; the plain
CNN as in its docstring), got the weights that `fill` gives ours, and answered to
`images()`. `torch_cifar.json` holds what came out, by network:

- "eval": logits in evaluation mode; "taps": each tap's `mark` there;
- "train": logits in training mode; "gradients": the `mark` of the gradient of
  `sum(logits * cos(0, 1, 2, ...))` by kernel; "means": the `mark` of running means
  after that one step (not variances: PyTorch's are unbiased).
"""

import functools
import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

EXPECTED = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())

_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def images():
    """Four images of 32 pixels a side."""
    return np.random.RandomState(0).normal(size=(4, 32, 32, 3))


def mark(x):
    """Two numbers that tell order and size: projection on cos(0, 1, 2, ...), and rms.

    Both are of the same scale, that of an entry of `x`.
    """
    x = np.asarray(x, np.float64).ravel()
    projection = np.sum(x * np.cos(np.arange(x.size))) / np.sqrt(x.size)
    return [float(projection), float(np.sqrt(np.mean(x**2)))]


def fill(shapes):
    """Weights and statistics of these shapes, each drawn by its own path."""
    return traverse_util.path_aware_map(_draw, shapes)


def _draw(path, leaf):
    random = np.random.RandomState(zlib.crc32("/".join(path).encode()))
    if path[-1] in ("scale", "var"):
        values = random.uniform(0.5, 1.5, leaf.shape)
    elif path[-1] in ("bias", "mean"):
        values = 0.1 * random.normal(size=leaf.shape)
    else:
        values = random.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
    return values


def answers(module):
    """What `module` makes of its filled weights, in the form of `EXPECTED`."""
    x = images()
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    variables = fill(shapes)

    # Compiled without optimisation, which takes longer than the run.
    @functools.partial(jax.jit, compiler_options=_QUICK)
    def run(variables):
        def loss(params):
            (logits, _), new = module.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            weights = jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)
            return jnp.sum(logits * weights), (logits, new["batch_stats"])

        output = module.apply(variables, x)
        return output, jax.grad(loss, has_aux=True)(variables["params"])

    (logits, taps), (gradients, (train, statistics)) = run(variables)
    return {
        "eval": np.asarray(logits).tolist(),
        "taps": {name: mark(tap) for name, tap in taps.items()},
        "train": np.asarray(train).tolist(),
        "gradients": _marks(gradients, "kernel"),
        "means": _marks(statistics, "mean"),
    }


def _marks(tree, leaf):
    flat = traverse_util.flatten_dict(tree)
    return {"/".join(path): mark(x) for path, x in flat.items() if path[-1] == leaf}


def assert_same(got, expected):
    """Both forms hold the same names and, to seven digits, numbers."""
    assert set(got) == set(expected)
    for kind, values in expected.items():
        if isinstance(values, dict):
            assert set(got[kind]) == set(values)
            for name, pair in values.items():
                _assert_close(got[kind][name], pair, f"{kind} {name}")
        else:
            _assert_close(got[kind], values, kind)


def _assert_close(got, expected, what):
    limit = 1e-7 * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=limit, err_msg=what)
