"""One step, compiled in every way, on every layout: the same parameters."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import setup
from kdjax.config import HARD, Compute, ModelConfig, Optim, Scalar, Term
from kdjax.core.types import Batch, BoundModel, Output, Strategy, View
from kdjax.core.types import Model as Network
from kdjax.data import datasets
from kdjax.models import from_function, zoo
from kdjax.strategies.offline import offline
from kdjax.teachers.ema import moving_average
from kdjax.train import compiled, optimizer, sharding
from kdjax.train.state import create_state
from kdjax.train.step import make_train_step
from tests.train.run_steps import STEPS, close, make_teacher, run_steps

TERMS = {
    "soft": Term("softmax_kl", temperature=Scalar(2.0, 4.0, "linear")),
    "hard": dataclasses.replace(HARD, weight=Scalar(0.1)),
    "hint": Term(
        "hint_l2", Scalar(0.5), student="stage2", teacher="stage2", projector=True
    ),
    "distance": Term(
        "rkd_distance", Scalar(1.0), student="embedding", teacher="embedding"
    ),
    "angle": Term("rkd_angle", Scalar(1.0), student="embedding", teacher="embedding"),
}


LAYOUTS = {
    "8x1": Compute(data=8),
    "4x2": Compute(data=4, fsdp=2),
    "pmap": Compute(how="pmap", data=8),
}


@pytest.fixture(scope="module")
def one_device(request):
    """Results on a single device, by optimizer, made once."""
    return {}


def layout_run(tiny_run, compute, optim):
    # BatchNorm, a connector and two relation losses: everything that sees other rows.
    return tiny_run(
        terms=TERMS,
        model=ModelConfig("resnet", depth=8, width=8, norm="batch", resolution=8),
        optim=optim,
        steps=STEPS + 1,
        compute=compute,
    )


# The gate takes the layout that divides both examples and parameters.
@pytest.mark.parametrize(
    "layout, optim",
    [
        pytest.param(
            layout,
            optim,
            marks=() if (layout, optim) == ("4x2", "sgd") else pytest.mark.full,
        )
        for layout in LAYOUTS
        for optim in ("sgd", "adam")
    ],
)
def test_every_layout_gives_the_parameters_of_one_device(
    tiny_run, one_device, layout, optim
):
    """After 5 steps in float32 every parameter is within 2e-6 with SGD.

    Within 5e-5 with Adam at rate 1e-3: its first moment is kept in bfloat16, so that
    the last bit of a gradient can move it by one part in 256, and an update by 4e-6;
    all but one parameter in a thousand are within 2e-6 there too.
    """
    optims = {
        "sgd": Optim(name="sgd", lr=0.05, wd=5e-4, clip=0, warmup=1),
        "adam": Optim(lr=1e-3, warmup=1),
    }
    if optim not in one_device:
        run = layout_run(tiny_run, Compute(data=1), optims[optim])
        one_device[optim] = run_steps(run, make_teacher())
    want, want_metrics, _ = one_device[optim]
    run = layout_run(tiny_run, LAYOUTS[layout], optims[optim])
    got, metrics, _ = run_steps(run, make_teacher())
    close(got.params, want.params, rtol=0, atol=5e-5 if optim == "adam" else 2e-6)
    off = [
        np.abs(np.asarray(a) - np.asarray(b)).ravel() > 2e-6
        for a, b in zip(*map(jax.tree.leaves, (got.params, want.params)), strict=True)
    ]
    assert np.concatenate(off).mean() < 1e-3
    close(got.model_state, want.model_state, rtol=1e-5, atol=1e-5)
    close(metrics, want_metrics, rtol=1e-4, atol=1e-5)
    moved = jax.tree.map(lambda x: np.abs(x).max(), want.params)
    assert min(jax.tree.leaves(moved)) > 0


@pytest.mark.full
def test_state_is_created_sharded_and_stays_so(tiny_run):
    run = layout_run(tiny_run, LAYOUTS["4x2"], Optim(warmup=1))
    last, _, created = run_steps(run, make_teacher(), steps=2)
    names = [
        "/".join(str(k.key) for k in path)
        for path, x in jax.tree_util.tree_flatten_with_path(last.params)[0]
        if "fsdp" in x.sharding.spec
    ]
    assert any("kernel" in n for n in names), names
    sharded = [x for x in jax.tree.leaves(last.params) if "fsdp" in x.sharding.spec]
    for x in sharded:
        shard = x.addressable_shards[0].data
        assert shard.size == x.size // 2 and x.size >= sharding.SHARED_FROM
    for x, s in zip(jax.tree.leaves(last), jax.tree.leaves(created), strict=True):
        assert x.sharding.is_equivalent_to(s, x.ndim), (x.sharding, s)


@pytest.mark.full
def test_steps_in_one_call_equal_steps_one_by_one(tiny_run):
    single = run_steps(tiny_run(compute=Compute(data=1)), make_teacher(), steps=6)
    scan = Compute(data=1, steps_per_call=3)
    many = run_steps(tiny_run(compute=scan), make_teacher(), steps=6)
    close(many[0].params, single[0].params, rtol=0, atol=1e-5)
    close(many[1], single[1], rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_seeds_side_by_side_equal_seeds_alone(tiny_run):
    teachers = make_teacher(seeds=2)
    both, metrics, _ = run_steps(tiny_run(seeds=2, compute=Compute(data=1)), teachers)
    for seed in range(2):
        own = jax.tree.map(lambda x, s=seed: x[s], teachers.variables)
        run = tiny_run(seed=seed, compute=Compute(data=1))
        # The helper numbers seeds from 0; shift them as `jobs` does.
        alone = run_alone(run, teachers._replace(variables=own, axis=None), seed)
        close(
            jax.tree.map(lambda x, s=seed: x[s], both.params),
            jax.tree.map(lambda x: x[0], alone.params),
            rtol=0,
            atol=1e-6,
        )
    assert np.abs(metrics["loss"][:, 0] - metrics["loss"][:, 1]).max() > 1e-3


def run_alone(run, teacher, seed):
    train = setup.load_source(run, "train")
    parts = setup.make_parts(run, train=train, teacher=teacher)
    call = compiled.compile_step(parts.step, parts.mesh, parts.constant_axes, 1, "jit")
    seeds = np.array([seed], np.int32)
    state = sharding.create_sharded(parts.make_state, parts.mesh, seeds, parts.start)
    coming, given = setup.make_batches(parts)(0), setup.place_constants(parts)
    for _ in range(STEPS):
        batch = jax.tree.map(lambda x: x[None], next(coming))
        state, _ = call.call(state, batch, given)
    return state


def test_vmapped_seeds_equal_seeds_written_out():
    from kdjax.core.seeds import map_seeds

    def f(x, shared, d):
        return {"y": x @ shared, "z": d["a"] + d["b"]}

    x, shared = np.arange(12.0).reshape(2, 2, 3), np.ones((3,))
    d = {"a": np.arange(2.0), "b": np.float64(5)}
    axes = (0, None, {"a": 0, "b": None})
    outs = [map_seeds(f, axes, 2, unroll=u)(x, shared, d) for u in (True, False)]
    close(outs[0], outs[1], rtol=1e-6)


def test_a_changed_temperature_or_weight_compiles_nothing(tiny_run):
    """Neither along a run's schedule nor between values given from outside."""
    run = tiny_run(compute=Compute(data=1))
    train = setup.load_source(run, "train")
    parts = setup.make_parts(run, train=train, teacher=make_teacher())
    chex.clear_trace_counter()
    once = chex.assert_max_traces(parts.step, n=1)
    call = compiled.compile_step(once, parts.mesh, parts.constant_axes, 1, "jit")
    state = sharding.create_sharded(
        parts.make_state, parts.mesh, np.arange(1, dtype=np.int32), parts.start
    )
    given = setup.place_constants(parts)
    losses = []
    for temperature in (1.0, 3.0, 9.0):
        batch = next(setup.make_batches(parts)(0))
        batch["schedules"]["soft"]["temperature"] = np.float32(temperature)
        batch = jax.tree.map(lambda x: x[None], batch)
        state, metrics = call.call(state, batch, given)
        losses.append(float(metrics["soft"][0, 0]))
    assert len(set(losses)) == 3


@pytest.mark.full
def test_the_teacher_is_untouched_and_its_batch_statistics_too(tiny_run):
    model = zoo.make_model(
        ModelConfig("resnet", depth=8, width=4, norm="batch", resolution=8), 10
    )
    variables = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)))
    before = jax.tree.map(np.array, variables)
    run = tiny_run(
        model=ModelConfig("resnet", depth=8, width=2, norm="batch", resolution=8)
    )
    last, _, _ = run_steps(run, BoundModel(model, variables, None, 8))
    jax.tree.map(np.testing.assert_array_equal, variables, before)
    stats = last.model_state["student"]["batch_stats"]
    assert max(np.abs(x).max() for x in jax.tree.leaves(stats)) > 0


@pytest.mark.full
def test_no_gradient_reaches_the_teacher(tiny_run):
    run = tiny_run(compute=Compute(data=1))
    train = setup.load_source(run, "train")
    teacher = make_teacher()
    parts = setup.make_parts(run, train=train, teacher=teacher)
    make = jax.jit(parts.make_state)
    state = jax.tree.map(lambda x: x[0], make(np.arange(1), parts.start))
    given = setup.place_constants(parts)
    batch = next(setup.make_batches(parts)(0))
    rows = {k: x[0] for k, x in batch["rows"].items()}
    batch = {**batch, "seed": batch["seed"][0], "rows": rows}

    def loss(variables):
        _, metrics = parts.step(state, batch, {**given, "teacher": variables})
        return metrics["loss"]

    grads = jax.jit(jax.grad(loss))(teacher.variables)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads))


def test_labels_do_not_enter_function_matching(tiny_run):
    run = tiny_run()
    splits = {
        name: (x, np.random.default_rng(0).permutation(y))
        for name, (x, y) in datasets.load_splits("digits").items()
    }
    outcomes = []
    for given_splits in (None, splits):
        train = setup.load_source(run, "train", given_splits)
        parts = setup.make_parts(run, train=train, teacher=make_teacher())
        assert list(parts.strategy.schedules(0)) == ["soft"]
        call = compiled.compile_step(
            parts.step, parts.mesh, parts.constant_axes, 1, "jit"
        )
        state = sharding.create_sharded(
            parts.make_state, parts.mesh, np.arange(1), parts.start
        )
        batch = jax.tree.map(lambda x: x[None], next(setup.make_batches(parts)(0)))
        state, _ = call.call(state, batch, setup.place_constants(parts))
        outcomes.append(jax.device_get(state.params))
    jax.tree.map(np.testing.assert_array_equal, *outcomes)


def linear_step(average=None, drop=False):
    """A student `w` of gradient (1, 2), rate 0.1, and its state before step 0.

    drop: the loss is a draw of the step's key, and nothing is learned.
    """

    def init(key, batch):
        return {"student": {"params": {"w": jnp.array([1.0, 0.0])}, "seen": 0.0}}

    def loss(params, state, batch, schedules, key):
        w = params["student"]["w"]
        value = jax.random.uniform(key) if drop else w @ jnp.array([1.0, 2.0])
        state = {"student": {"seen": state["student"]["seen"] + 1.0}}
        return {"student": value}, (state, {})

    optim = Optim(
        name="sgd", lr=0.1, wd=0, clip=0, momentum=0, warmup=0, schedule="constant"
    )
    update = optimizer.by_network({"student": optimizer.make_optimizer(optim)})
    strategy = Strategy(init, loss, lambda step: {})
    step = make_train_step(
        strategy, update, view=lambda *_: View(None, None, None), teacher=average
    )
    rates = optimizer.make_rates(optim, 10)(0)

    def one(state, seed=0):
        numbers = {"schedules": {}, "rates": {"student": rates}}
        return step(state, {"seed": seed, **numbers}, {})

    return one, create_state(init(None, None), update, average)


def test_the_moving_average_is_of_the_variables_after_the_step():
    """w = (1, 0), (0.9, -0.2), (0.8, -0.4); a mean of the last two after step 1."""
    average = moving_average(from_function(lambda p, x: x, params=0))._replace(
        targets=lambda *_: None
    )
    one, state = linear_step(average)
    wanted = [([0.9, -0.2], 1.0), ([0.85, -0.3], 1.5)]
    for w, seen in wanted:
        state, _ = one(state)
        found = state.teacher["average"]
        np.testing.assert_allclose(found["params"]["w"], w, rtol=1e-6)
        np.testing.assert_allclose(found["seen"], seen, rtol=1e-6)


def test_the_key_of_a_step_is_its_own_and_the_same_again():
    one, state = linear_step(drop=True)
    later, first = one(state)
    _, second = one(later)
    _, other = one(state, seed=1)
    assert len({float(x["loss"]) for x in (first, second, other)}) == 3
    assert one(state)[1]["loss"] == first["loss"]


def test_dropout_of_the_student_has_the_key_of_the_step():
    """By hand: logits 4 and 0, or 0 and 0 where the first is dropped; label 0."""

    def apply(variables, images, *, train, rngs):
        kept = jax.random.bernoulli(rngs["dropout"], shape=(len(images), 1))
        logits = jnp.array([[4.0, 0.0]]) * kept
        return Output(logits, {}), {}

    model = Network(lambda key, images: {"params": {}}, apply)
    strategy = offline(model, {"hard": HARD}, steps=1)
    batch = Batch({"image": jnp.zeros((20, 1))}, jnp.zeros(20, jnp.int32))
    for seed in (0, 1):
        key = jax.random.key(seed)
        kept = np.asarray(jax.random.bernoulli(key, shape=(20, 1)), np.float64)
        want = np.log1p(np.exp(-4 * kept)).mean()
        empty = {"student": {}}
        losses, _ = strategy.loss(empty, empty, batch, strategy.schedules(0), key)
        np.testing.assert_allclose(losses["student"], want, rtol=1e-5)
