"""The critic of the README's second example, against formulas in float64."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import kdjax
from kdjax import from_function
from kdjax.config import Custom
from kdjax.core.types import Batch, Output
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from kdjax.train import turns

PAGE = pathlib.Path(kdjax.__file__).parent / "strategies" / "README.md"
N, CLASSES = 5, 4


def softplus(x):
    return np.log1p(np.exp(x))


def test_the_critic_of_the_page(tmp_path, monkeypatch):
    """L1 + weight * softplus(-c(s)), and softplus(-c(t)) + softplus(c(s))."""
    blocks = [x.split("```")[0] for x in PAGE.read_text().split("```python\n")[1:]]
    code = next(block for block in blocks if block.startswith("# critic.py"))
    (tmp_path / "critic.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images, teacher = rng.normal(size=(N, 3)), rng.normal(size=(N, CLASSES))
    student = from_function(
        lambda params, x: x @ params,
        init=lambda key, x: jax.random.normal(key, (3, CLASSES)),
    )
    run = digits(strategy=Custom("critic.py:critic", options={"weight": 0.3}))
    strategy = make_strategy(run, student, None, classes=CLASSES)
    targets = Output(jnp.asarray(teacher, jnp.float32), {})
    image = jnp.asarray(images, jnp.float32)
    batch = Batch({"image": image}, jnp.zeros(N, int), targets)
    variables = strategy.init(jax.random.key(0), batch)
    turns.check_networks(strategy, variables)
    params = {name: x["params"] for name, x in variables.items()}
    state = {name: {} for name in params}
    losses, _ = strategy.loss(params, state, batch, {}, jax.random.key(1))

    weights = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    first, last = (weights["critic"][f"layers_{i}"] for i in (0, 2))

    def score(x):
        hidden = np.maximum(x @ first["kernel"] + first["bias"], 0)
        return (hidden @ last["kernel"] + last["bias"])[:, 0]

    logits = images @ weights["student"]
    pairs = np.abs(logits - teacher).sum(-1).mean()
    want = pairs + 0.3 * softplus(-score(logits)).mean()
    np.testing.assert_allclose(losses["student"], want, rtol=1e-5)
    want = (softplus(-score(teacher)) + softplus(score(logits))).mean()
    np.testing.assert_allclose(losses["critic"], want, rtol=1e-5)
    assert turns.movers(strategy.turns) == [("critic",), ("student",)]
    assert strategy.optim["critic"].lr == 1e-3
