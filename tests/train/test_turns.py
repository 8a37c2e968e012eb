"""Networks that move in turns, against a loop by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import Compute, ConfigError, Optim
from kdjax.core.seeds import map_seeds
from kdjax.core.types import Strategy, View
from kdjax.train import compiled, optimizer, sharding, step, turns
from kdjax.train.state import create_state

LR, STEPS, SEEDS, BATCH = 0.1, 7, 2, 8
ORDER = (("a", 1), (("b", "c"), 2))
SGD = Optim(name="sgd", lr=LR, wd=0.0, clip=0.0, momentum=0.5, warmup=0)
SGD = Optim(**{**vars(SGD), "schedule": "constant"})
X = np.random.default_rng(0).normal(size=(STEPS, SEEDS, BATCH)).astype(np.float32)


def strategy(order, traces=None):
    """b follows 3a + c over the batch, a follows b: each in its own loss alone."""

    def init(key, batch):
        one = {"params": {"w": jnp.ones(())}, "seen": {"n": jnp.zeros((), jnp.int32)}}
        return {"a": one, "b": one, "c": one, "memory": {"n": jnp.zeros(())}}

    def loss(params, state, batch, schedules, key):
        if traces is not None:
            traces.append(1)
        a, b, c = (params[name]["w"] for name in "abc")
        x = batch.inputs["image"]
        values = {
            "a": jnp.mean((a * x - b) ** 2),
            "b": jnp.mean((b - 3 * a * x - c) ** 2),
        }
        new = {n: {"seen": {"n": state[n]["seen"]["n"] + 1}} for n in "abc"}
        return values, ({**new, "memory": {"n": state["memory"]["n"] + 1}}, {})

    return Strategy(init, loss, turns=order, student="a")


def by_hand(order, x):
    """[a, b, c] after the steps, in float64, by gradients worked out on paper."""
    w, v = np.ones(3), np.zeros(3)
    for i, row in enumerate(x.astype(np.float64)):
        a, b, c = w
        first, second = a * row - b, b - 3 * a * row - c
        of_a = np.array([2 * first * row, -2 * first, 0 * row]).mean(1)
        of_b = np.array([-6 * second * row, 2 * second, -2 * second]).mean(1)
        moving = np.ones(3, bool)
        grad = of_a + of_b
        if order:
            moving = np.array(
                [True, False, False] if i % 3 == 0 else [False, True, True]
            )
            grad = of_a if i % 3 == 0 else of_b
        v = np.where(moving, 0.5 * v + grad, v)
        w = np.where(moving, w - LR * v, w)
    return w


def view(number, feed, constants):
    rows = feed["rows"]["x"]
    return View(rows, rows, jnp.zeros(len(rows), jnp.int32))


def feed(order, rates, i):
    """What step `i` gets, of all seeds."""
    return {
        "seed": np.arange(SEEDS, dtype=np.int32),
        "step": np.int32(i),
        "schedules": {},
        "rates": rates(i),
        "turn": turns.turn_at(order, i),
        "rows": {"x": X[i]},
    }


def train(order, compute, per_call=1, optim=SGD, traces=None):
    made = strategy(order, traces)
    optims = dict.fromkeys("abc", optim)
    update = optimizer.by_network(
        {name: optimizer.make_optimizer(one) for name, one in optims.items()}
    )
    axis = compiled.PMAP_AXIS if compute.how == "pmap" else None

    one = step.make_train_step(made, update, view=view, axis_name=axis)
    mesh = sharding.make_mesh(compute, BATCH)
    call = compiled.compile_step(one, mesh, {}, SEEDS, compute.how)

    def make(seeds):
        return jax.vmap(lambda _: create_state(made.init(None, None), update))(seeds)

    state = call.enter(sharding.create_sharded(make, mesh, np.arange(SEEDS)))
    rates = optimizer.network_rates(optims, STEPS)
    losses = []
    for start in range(0, STEPS, per_call):
        coming = range(start, min(start + per_call, STEPS))
        feeds = [feed(order, rates, i) for i in coming]
        batch = jax.tree.map(lambda *x: np.stack(x), *feeds)
        state, metrics = call.call(state, batch, {})
        losses.append(np.asarray(metrics["loss"]))
    return call.leave(state), np.concatenate(losses)


HOW = {
    "jit": (Compute(data=1), 1),
    "scan": (Compute(data=1), 3),
    "mesh": (Compute(data=8), 1),
    "pmap": (Compute(how="pmap", data=8), 2),
}


@pytest.mark.parametrize("order", [(), ORDER], ids=["together", "turns"])
@pytest.mark.parametrize("how", HOW)
def test_networks_move_in_their_turns_alone(how, order):
    state, _ = train(order, *HOW[how])
    for seed in range(SEEDS):
        got = [float(state.params[name]["w"][seed]) for name in "abc"]
        np.testing.assert_allclose(got, by_hand(order, X[:, seed]), rtol=2e-5)
    assert (np.asarray(state.step) == STEPS).all()
    assert (np.asarray(state.model_state["memory"]["n"]) == STEPS).all()
    counts = {"a": 3, "b": 4, "c": 4} if order else dict.fromkeys("abc", STEPS)
    for name, count in counts.items():
        assert (np.asarray(state.model_state[name]["seen"]["n"]) == count).all()


def test_an_optimizer_counts_the_steps_of_its_network():
    adam = Optim(lr=1e-2, wd=0.1, warmup=0)
    state, _ = train(ORDER, Compute(data=1), optim=adam)
    for name, count in {"a": 3, "b": 4}.items():
        leaves = jax.tree.leaves(state.opt_state.inner_states[name])
        counts = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.integer)]
        assert counts and all((np.asarray(x) == count).all() for x in counts)


def test_the_loss_is_that_of_the_turn():
    _, losses = train(ORDER, Compute(data=1))
    first, second = X[0, 0].astype(float), X[1, 0].astype(float)
    np.testing.assert_allclose(losses[0, 0], ((first - 1) ** 2).mean(), rtol=1e-5)
    a = 1 - LR * (2 * (first - 1) * first).mean()
    np.testing.assert_allclose(
        losses[1, 0], ((1 - 3 * a * second - 1) ** 2).mean(), rtol=1e-5
    )


def test_each_turn_is_traced_once():
    """Once a turn, whatever the number of steps and seeds."""
    for order, count in (((), 1), (ORDER, 2)):
        traces = []
        train(order, Compute(data=1), traces=traces)
        assert len(traces) == count


def test_seeds_mapped_side_by_side_take_one_turn_and_not_both():
    """On accelerators seeds are mapped: the turn stays a branch, not a selection."""
    made = strategy(ORDER)
    one = optimizer.make_optimizer(SGD)
    update = optimizer.by_network(dict.fromkeys("abc", one))

    each = step.make_train_step(made, update, view=view)
    mapped = map_seeds(each, (0, compiled.SEED_AXES, {}), SEEDS, unroll=False)
    make = jax.vmap(lambda _: create_state(made.init(None, None), update))
    state = make(np.arange(SEEDS))
    rates = optimizer.network_rates(dict.fromkeys("abc", SGD), STEPS)
    shown = ""
    for i in range(STEPS):
        now = feed(ORDER, rates, i)
        shown = shown or str(jax.make_jaxpr(mapped)(state, now, {}))
        state, _ = jax.jit(mapped)(state, now, {})
    assert "cond[" in shown
    for seed in range(SEEDS):
        got = [float(state.params[name]["w"][seed]) for name in "abc"]
        np.testing.assert_allclose(got, by_hand(ORDER, X[:, seed]), rtol=2e-5)


def test_the_turn_of_a_step():
    assert [int(turns.turn_at(ORDER, i)) for i in range(7)] == [0, 1, 1, 0, 1, 1, 0]
    assert int(turns.turn_at((), 5)) == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"turns": (("a", 0),)},
            "strategy.turns: expected at least 1 step a turn, got 0",
        ),
        ({"turns": (("aa", 1),)}, "strategy.turns: did you mean 'a'"),
        (
            {"turns": ("a", "b")},
            "strategy.turns: expected pairs of a network, or several, and a number of "
            "steps, got 'a'",
        ),
        (
            {"turns": (("a", 1),)},
            r"strategy.turns: expected a turn for each of .*'b', 'c'\], got \['a'\]",
        ),
        ({"turns": (("memory", 1),)}, "strategy.turns: expected one of .*got 'memory'"),
        ({"student": "memory"}, "strategy.student: expected one of"),
        ({"optim": {"d": SGD}}, "strategy.optim: expected one of .*got 'd'"),
    ],
)
def test_declarations_that_do_not_fit_are_named(changes, message):
    made = strategy(())
    networks = made.init(None, None)
    turns.check_networks(made, networks)
    with pytest.raises(ConfigError, match=message):
        turns.check_networks(made._replace(**changes), networks)


def test_parameters_that_are_no_floats_are_named():
    made = strategy(())
    networks = {**made.init(None, None), "n": {"params": {"count": jnp.zeros(2, int)}}}
    message = 'floats in "params" of n, got .int32 in count.'
    with pytest.raises(ConfigError, match=message):
        turns.check_networks(made, networks)


@pytest.mark.parametrize("aux", [{}, ({}, {}), ("state", {}), ({"student": {}}, 1.0)])
def test_what_a_loss_returns_beside_its_losses_is_checked(aux):
    with pytest.raises(ConfigError, match="^strategy: expected .*state"):
        turns.check_state(aux, {"student": {}})


def test_state_and_metrics_pass():
    state = {"student": {}, "bank": {"rows": jnp.zeros(4)}}
    new = {"student": {}, "bank": {"rows": jnp.ones(4)}}
    turns.check_state((new, {"value": jnp.ones(()), "count": 3}), state)


OTHER_STATES = {
    "a shape": {"rows": jnp.zeros(5)},
    "a type": {"rows": jnp.zeros(4, jnp.int32)},
    "a further entry": {"rows": jnp.zeros(4), "more": jnp.zeros(())},
    "no number": {"rows": "four"},
}


@pytest.mark.parametrize("name", OTHER_STATES)
def test_a_state_of_another_shape_is_named(name):
    old = {"bank": {"rows": jnp.zeros(4)}}
    message = r"^strategy: expected loss to return the state as it was, .* at bank/"
    with pytest.raises(ConfigError, match=message):
        turns.check_state(({"bank": OTHER_STATES[name]}, {}), old)
    with pytest.raises(ConfigError, match="the state of each of"):
        turns.check_state(({**old, "new": {}}, {}), old)


@pytest.mark.parametrize(
    "metrics, message",
    [
        ({"loss": 1.0}, "names of metrics other than kind, step, .*, got 'loss'"),
        ({"step": 1.0}, "names of metrics other than .*, got 'step'"),
        ({"m": jnp.zeros(3)}, r"a scalar as the metric m, got 'shape \(3,\)'"),
        ({"m": "hello"}, "a scalar as the metric m, got 'hello'"),
    ],
)
def test_metrics_are_scalars_with_names_of_their_own(metrics, message):
    with pytest.raises(ConfigError, match=f"^strategy: expected {message}"):
        turns.check_state(({}, metrics), {})


def test_a_turn_has_a_loss_of_a_network_that_moves():
    turns.check_moves(["critic", "student"], ("student",))
    with pytest.raises(ConfigError, match=r"^strategy.turns: expected a loss of one o"):
        turns.check_moves(["student"], ("critic",))
