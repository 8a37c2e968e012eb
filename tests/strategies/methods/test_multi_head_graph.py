"""Multi-head graph distillation: both stages in float64, what moves, and refusals."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import Custom, ModelConfig, Network, Optim
from kdjax.models import from_function, graph_heads
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from tests.strategies.methods.tapped import (
    CLASSES,
    N,
    batch_of,
    cross_entropy,
    loss_of,
    refused,
    start,
    wide,
)

WIDTHS, HEADS = (4, 3), 3
NETWORK = graph_heads.make_heads(WIDTHS, HEADS)
KEPT = np.random.default_rng(5).integers(0, 2, (HEADS, N, 1)).astype("f")
KEPT[0] = 1


def mapped(widths=WIDTHS):
    """Linear maps `stage1` and `stage2` of 2x2 positions, and logits of their mean."""

    def apply(params, x):
        taps = dict(zip(("stage1", "stage2"), maps_of(x, params), strict=True))
        embedding = taps["stage2"].mean((1, 2))
        return embedding @ params["last"], {**taps, "embedding": embedding}

    def init(key, images):
        sizes = {"first": (4, widths[0]), "second": widths, "last": (widths[1], 3)}
        keys = jax.random.split(key, 3)
        return {
            name: jax.random.normal(k, size)
            for k, (name, size) in zip(keys, sizes.items(), strict=True)
        }

    return from_function(apply, init=init)


def maps_of(x, params):
    blocks = x.reshape(len(x), 2, 2, 2, 2).transpose(0, 1, 3, 2, 4)
    first = blocks.reshape(len(x), 2, 2, 4) @ params["first"]
    return [first, first @ params["second"]]


def made(name="multi_head_graph", student=None, axis_name=None, **options):
    own = ModelConfig("a:b")
    network = Network(own, frozen=name == "multi_head_graph")
    strategy = Custom(name, options={"taps": ["stage1", "stage2"], **options})
    run = digits(strategy=strategy, networks={"heads": network})
    student, networks = student or mapped(), {"heads": NETWORK}
    models = student, mapped(), CLASSES, axis_name
    return make_strategy(run, *models, networks=networks)


def batch_with_heads(**fields):
    """A batch with frozen heads of random statistics."""
    variables = NETWORK.init(jax.random.key(3), None)
    rng = np.random.default_rng(0)
    stats = jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(0.1, 0.3, x.shape), jnp.float32),
        variables["batch_stats"],
    )
    batch = batch_of(mapped(), **fields)
    frozen = {**batch.frozen, "heads": {**variables, "batch_stats": stats}}
    return batch._replace(frozen=frozen)


def vectors_of(maps, targets=None):
    """The first right singular vector of each map; the student's like the teacher's."""
    vectors = []
    for i, x in enumerate(maps.reshape(len(maps), 4, -1)):
        rows = np.linalg.svd(x)[2]
        if targets is None:
            row = rows[0]
            vectors.append(row * np.sign(row[np.abs(row).argmax()]))
        else:
            cosines = rows @ targets[i]
            best = np.abs(cosines).argmax()
            vectors.append(rows[best] * np.sign(cosines[best]))
    return np.stack(vectors)


def normed(x, params, name, stats=None):
    """A linear map without bias, then BatchNorm of the batch or of what is stored."""
    x, norm = x @ params[name]["kernel"], params[f"{name}_norm"]
    own = {"mean": x.mean(0), "var": x.var(0)} if stats is None else stats
    x = (x - own["mean"]) / np.sqrt(own["var"] + 1e-5)
    return x * norm["scale"] + norm["bias"]


def scores_of(later, earlier, params, stats=None):
    """<S v_i, R u_j> of each head, `[heads, later, earlier]`."""
    sent, received = (
        normed(x, params, name, stats and stats[f"{name}_norm"]).reshape(N, HEADS, -1)
        for x, name in ((later, "sender"), (earlier, "receiver"))
    )
    assert sent.shape[-1] == sum(WIDTHS) // 2
    return np.stack([sent[:, h] @ received[:, h].T for h in range(HEADS)])


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def divergence(params, batch):
    """The published loss: KL of the student's graphs to the teacher's, all summed."""
    heads = wide(batch.frozen["heads"])
    own, stats = heads["params"]["step0"], heads["batch_stats"]["step0"]
    images = wide(batch.inputs["image"])
    theirs = [
        vectors_of(wide(batch.targets.taps[name])) for name in ("stage1", "stage2")
    ]
    ours = [
        vectors_of(x, y) for x, y in zip(maps_of(images, params), theirs, strict=True)
    ]
    student, teacher = (
        softmax(np.tanh(scores_of(later, earlier, own, stats)))
        for earlier, later in (ours, theirs)
    )
    return (student * (np.log(student) - np.log(teacher))).sum()


@pytest.mark.full
def test_the_heads_learn_to_estimate_the_later_vectors(monkeypatch):
    monkeypatch.setattr(graph_heads, "_keep_heads", lambda *_: jnp.asarray(KEPT))
    strategy, batch = made("graph_heads"), batch_of(mapped(), targets=None)
    params, state = start(strategy, batch)
    total, (new, metrics) = loss_of(strategy, params, state, batch)
    maps = maps_of(wide(batch.inputs["image"]), wide(params["student"]))
    earlier, later = map(vectors_of, maps)
    own = wide(params["heads"]["step0"])
    graph = softmax(scores_of(later, earlier, own)) * KEPT
    hidden = np.maximum(normed(earlier, own, "hidden"), 0)
    mixed = np.concatenate([graph[h] @ hidden for h in range(HEADS)], -1)
    made_of = mixed @ own["estimate"]["kernel"] + own["estimate"]["bias"]
    cosines = (made_of * later).sum(-1) / np.sqrt(np.square(made_of).sum(-1))
    np.testing.assert_allclose(total, (1 - cosines).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["estimation"], total)
    assert not strategy.labels
    moved = new["heads"]["batch_stats"]["step0"]["sender_norm"]["mean"]
    assert np.abs(moved).max() > 0

    def value(params):
        return strategy.loss(params, state, batch, {}, jax.random.key(0))[0]

    gradient = jax.jit(jax.grad(lambda p: value(p)["heads"]))(params)
    assert not any(np.any(x) for x in jax.tree.leaves(gradient["student"]))
    assert all(np.any(x) for x in jax.tree.leaves(gradient["heads"]["step0"]["sender"]))
    still = strategy.optim["student"]
    assert (still.lr, still.wd) == (0.0, 0.0) and Optim().lr > 0


def test_half_of_the_heads_are_dropped_at_random():
    kept = np.asarray(graph_heads._keep_heads(jax.random.key(0), 8, 500))
    assert kept.shape == (8, 500, 1) and set(np.unique(kept)) == {0, 1}
    assert ((kept.sum(0) > 0) & (kept.sum(0) < 8)).all()
    assert abs(kept.mean() - 0.5) < 0.02


@pytest.mark.full
@pytest.mark.parametrize("clip", [False, True])
def test_the_student_learns_the_graphs(clip):
    batch = batch_with_heads()
    strategy = made(weight=0.3, label_weight=2.0, clip=clip)
    params, state = start(strategy, batch)
    total, (new, metrics) = loss_of(strategy, params, state, batch)
    own = wide(params["student"])
    want = divergence(own, batch)
    np.testing.assert_allclose(metrics["graphs"], want, rtol=1e-4)
    features = maps_of(wide(batch.inputs["image"]), own)[1].mean((1, 2))
    task = 2 * cross_entropy(features @ own["last"], batch.labels).mean()
    np.testing.assert_allclose(total, task + 0.3 * want, rtol=1e-4)
    assert set(params) == {"student"} and strategy.labels
    assert jax.tree.structure(new) == jax.tree.structure(state)


def gradient_of(strategy, batch, params, state):
    def value(params):
        found = strategy.loss(params, state, batch, {}, jax.random.key(0))[0]
        return found["student"]

    return jax.jit(jax.grad(value))(params)["student"]


@pytest.mark.full
def test_the_gradient_of_the_graphs_is_that_of_the_formula():
    """By differences, along a random direction; not in the layers behind the taps."""
    batch = batch_with_heads()
    strategy = made(label_weight=0.0, clip=False)
    params, state = start(strategy, batch)
    gradient = wide(gradient_of(strategy, batch, params, state))
    assert not np.any(gradient["last"]) and not strategy.labels
    rng, own = np.random.default_rng(1), wide(params["student"])
    step = {name: rng.normal(size=x.shape) for name, x in own.items()}
    ahead, behind = (
        divergence({k: x + size * step[k] for k, x in own.items()}, batch)
        for size in (1e-5, -1e-5)
    )
    along = sum((step[name] * gradient[name]).sum() for name in step)
    np.testing.assert_allclose(along, (ahead - behind) / 2e-5, rtol=1e-3)


@pytest.mark.full
def test_the_gradient_of_the_graphs_is_bounded_by_that_of_the_labels():
    """Array by array; a small weight is left as it is."""
    batch = batch_with_heads()
    params, state = start(made(), batch)
    task, graphs = (
        gradient_of(made(clip=False, **x), batch, params, state)
        for x in ({"weight": 0.0}, {"label_weight": 0.0})
    )
    for weight in (1e-4, 1e4):
        found = gradient_of(made(weight=weight), batch, params, state)
        for name in ("first", "second", "last"):
            ours, other = weight * graphs[name], task[name]
            bound = np.linalg.norm(other) / max(np.linalg.norm(ours), 1e-30)
            assert (bound < 1) == (weight > 1 and name != "last")
            want = other + min(bound, 1) * ours
            np.testing.assert_allclose(found[name], want, rtol=1e-3, atol=1e-5)


@pytest.mark.full
def test_two_devices_are_one():
    """The graphs are those of the whole batch, under pmap too, and both gradients."""
    full = batch_with_heads()
    batch = jax.tree.map(lambda x: x[:4], full._replace(frozen={}))
    for name in ("graph_heads", "multi_head_graph"):
        one = made(name)
        params, state = start(one, batch._replace(frozen=full.frozen))

        def grade(strategy, params, batch, state=state):
            def total(params):
                key, whole = jax.random.key(1), batch._replace(frozen=full.frozen)
                values, aux = strategy.loss(params, state, whole, {}, key)
                return sum(values.values()), aux

            return jax.grad(total, has_aux=True)(params)

        def on_device(params, batch, name=name, grade=grade):
            strategy = made(name, axis_name="batch")
            return jax.lax.pmean(grade(strategy, params, batch), "batch")

        want = jax.jit(lambda p, b, one=one, grade=grade: grade(one, p, b))(
            params, batch
        )
        halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), batch)
        devices = jax.devices()[:2]
        got = jax.pmap(on_device, "batch", in_axes=(None, 0), devices=devices)(
            params, halves
        )
        got, want = jax.device_get((got, want))
        got = jax.tree.map(lambda x: np.asarray(x)[0], got)
        chex.assert_trees_all_close(got, want, rtol=1e-3, atol=1e-5)


def test_what_does_not_fit_is_one_line():
    batch, at = batch_with_heads(), "strategy.options"

    def begin(name="multi_head_graph", batch=batch, **options):
        return start(made(name, **options), batch)

    error = refused(begin, batch=batch_of(mapped()))
    assert error.startswith("networks.heads.frozen: expected True, with the weights")
    for name in ("graph_heads", "multi_head_graph"):
        error = refused(begin, name, taps=["stage1"])
        assert error.startswith(f"{at}.taps: expected at least 2 taps, from early to")
        error = refused(begin, name, taps=["stage1", "embedding"])
        assert error == f"{at}.taps: expected a map, such as stage3, got 'embedding'"
    error = refused(begin, teacher_taps=["stage1"])
    assert error.startswith(f"{at}.teacher_taps: expected 2 taps, as many as of the")
    error = refused(begin, label_weight=0.0)
    expected = f"{at}.clip: expected False without label_weight and soft_weight"
    assert error == f"{expected}, got True"
    error = refused(begin, student=mapped((4, 5)))
    assert error.startswith(f"{at}.taps: expected maps of the teacher's shapes, here ")
    error = refused(begin, "graph_heads", student=mapped((4, 5)))
    expected = "networks.heads.model: expected heads between taps of (4, 5) channels"
    assert error == f"{expected}, as the teacher's are, got (4, 3)"
