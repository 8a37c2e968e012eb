"""CRD: values in float64, the memory, its negatives, gradients and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import setup
from kdjax.config import Compute, ConfigError, Custom, Data
from kdjax.strategies.methods.crd import crd, draw_others
from kdjax.train import sharding
from tests.strategies.methods.tapped import (
    CLASSES,
    EXAMPLES,
    batch_of,
    check_resumes,
    cross_entropy,
    loss_of,
    made,
    refused,
    start,
    tapped,
    wide,
)

OPTIONS = {"negatives": 4, "width": 3}
draw = jax.jit(draw_others, static_argnums=3)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_two_steps_in_float64():
    """Cross-entropy and both directions: Z of the first batch in both steps, rows of
    the batch renewed with momentum, and the others as they were."""
    strategy = made("crd", **OPTIONS, momentum=0.25, weight=0.6, sharpness=0.5)
    batch = batch_of()
    params, state = start(strategy, batch)
    weights, constants = wide(params), None
    step = jax.jit(lambda state, batch: loss_of(strategy, params, state, batch))
    for seed in (0, 1):
        batch = batch_of(seed=seed)
        total, (new, _) = step(state, batch)
        index, labels = np.asarray(batch.index), np.asarray(batch.labels)
        known = np.asarray(state["memory"]["labels"]).copy()
        known[index] = labels
        np.testing.assert_array_equal(new["memory"]["labels"], known)
        drawn = draw(jax.random.key(2), known, batch.labels, 4)
        rows = np.concatenate([index[:, None], drawn], 1)
        banks = {k: wide(state["memory"][k]) for k in ("student", "teacher")}

        images = wide(batch.inputs["image"])
        first = images @ weights["student"]["first"]
        embedding = first.mean((1, 2)) @ weights["student"]["second"]
        taps = embedding, wide(batch.targets.taps["embedding"])
        anchors = {}
        for name, x in zip(banks, taps, strict=True):
            head = weights[f"{name} head"]
            anchors[name] = unit(x @ head["kernel"] + head["bias"])
        others = {"student": "teacher", "teacher": "student"}
        scores = {
            k: np.exp(np.einsum("nd,nmd->nm", x, banks[others[k]][rows]) / 0.5)
            for k, x in anchors.items()
        }
        constants = constants or {k: EXAMPLES * x.mean() for k, x in scores.items()}
        chance, eps = 4 / EXAMPLES, 1e-7
        want = cross_entropy(embedding @ weights["student"]["last"], labels).mean()
        for name, score in scores.items():
            p = score / constants[name]
            positive = np.log(p[:, 0] / (p[:, 0] + chance + eps))
            negative = np.log(chance / (p[:, 1:] + chance + eps)).sum(1)
            want -= 0.6 * (positive + negative).mean()
            found = new["memory"][f"{name}_constant"]
            np.testing.assert_allclose(found, constants[name], rtol=1e-5)
            bank = banks[name].copy()
            bank[index] = unit(0.25 * bank[index] + 0.75 * anchors[name])
            np.testing.assert_allclose(new["memory"][name], bank, atol=1e-6)
            kept = np.setdiff1d(np.arange(EXAMPLES), index)
            np.testing.assert_array_equal(
                new["memory"][name][kept], state["memory"][name][kept]
            )
        np.testing.assert_allclose(total, want, rtol=1e-5)
        state = new


def test_equal_scores():
    """Memories of equal rows: every score is Z / examples, and the loss is that of
    chance in each direction, (1 + m) log(1 + m) - m log m."""
    strategy = made("crd", **OPTIONS, weight=1.0, label_weight=0.0)
    batch = batch_of()
    params, state = start(strategy, batch)
    zeros = {k: jnp.zeros((EXAMPLES, 3)) for k in ("student", "teacher")}
    state["memory"] = {**state["memory"], **zeros}
    total, _ = loss_of(strategy, params, state, batch)
    np.testing.assert_allclose(total, 2 * 2.5020121177, rtol=1e-5)


def test_gradients():
    """Student and both heads learn; none passes through the renewed memory."""
    strategy = made("crd", **OPTIONS)
    batch = batch_of()
    params, state = start(strategy, batch)

    def both(params):
        value, (new, _) = loss_of(strategy, params, state, batch)
        memory = {k: x for k, x in new["memory"].items() if k != "labels"}
        return value, sum(jnp.sum(x) for x in memory.values())

    grads, through = jax.jit(jax.jacrev(both))(params)
    for name in ("student", "student head", "teacher head"):
        assert any(np.abs(x).max() > 1e-3 for x in jax.tree.leaves(grads[name]))
    assert all((x == 0).all() for x in jax.tree.leaves(through))


def test_negatives_are_of_other_classes():
    """All other classes, known or not, with equal frequencies; never the same one."""
    known = jnp.array([0, 1, -1, 1, 2, 0, -1, 1])
    labels = jnp.array([1, 0, 2])
    drawn = np.asarray(draw(jax.random.key(0), known, labels, 6_000))
    for label, rows in zip(labels, drawn, strict=True):
        other = np.flatnonzero(np.asarray(known) != label)
        counts = np.bincount(rows, minlength=8)
        assert set(np.flatnonzero(counts)) == set(other)
        # 5 standard deviations of a binomial count.
        mean, bound = 6_000 / len(other), 5 * np.sqrt(6_000 / len(other))
        assert np.abs(counts[other] - mean).max() < bound


def test_one_class_alone_has_rows_to_compare_with():
    drawn = draw(jax.random.key(0), jnp.zeros(4, int), jnp.zeros(2, int), 3)
    assert ((drawn >= 0) & (drawn < 4)).all()


def test_no_more_negatives_than_other_examples():
    strategy = made("crd", width=3)
    params, state = start(strategy, batch_of())
    call = jax.make_jaxpr(lambda s: loss_of(strategy, params, s, batch_of())[0])
    assert f"5,{EXAMPLES},3]" in str(call(state))  # The positive and 11 others.


@pytest.mark.full
def test_devices_share_one_memory():
    """Under pmap each of two devices has half of the batch, and the value, the memory
    and the gradients are those of the whole."""
    whole = batch_of()
    whole = whole._replace(index=jnp.arange(5))
    whole = jax.tree.map(lambda x: x[:4], whole._replace(frozen={}))
    options = {**OPTIONS, "examples": EXAMPLES}
    one = crd(tapped(), axis_name=None, **options)
    params, state = start(one, whole)
    graded = jax.value_and_grad(
        lambda p, s, b, strategy: loss_of(strategy, p, s, b), has_aux=True
    )
    (value, (new, _)), grads = graded(params, state, whole, one)
    halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), whole)
    several = crd(tapped(), axis_name="batch", **options)

    def step(batch):
        (value, (new, _)), grads = graded(params, state, batch, several)
        return jax.lax.pmean((value, grads), "batch"), new["memory"]

    (values, gradients), memory = jax.pmap(step, "batch", devices=jax.devices()[:2])(
        halves
    )
    np.testing.assert_allclose(values, jnp.broadcast_to(value, 2), rtol=1e-5)
    for found, want in ((gradients, grads), (memory, new["memory"])):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
            both = jnp.broadcast_to(b, a.shape)
            np.testing.assert_allclose(a, both, rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_a_batch_over_a_mesh():
    """Under jit over two devices value and memory are those of one device."""
    strategy = made("crd", **OPTIONS)
    batch = jax.tree.map(lambda x: x[:4], batch_of()._replace(frozen={}))
    params, state = start(strategy, batch)
    mesh = sharding.make_mesh(Compute(data=2), 4, jax.devices()[:2])
    where = jax.NamedSharding(mesh, jax.P(sharding.BATCH_AXES))
    divided = jax.device_put(batch, where)
    want, (one, _) = loss_of(strategy, params, state, batch)
    found, (two, _) = loss_of(strategy, params, state, divided)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    for name, array in one["memory"].items():
        np.testing.assert_allclose(two["memory"][name], array, rtol=1e-5, atol=1e-6)


def test_the_step_has_no_guards():
    """A program with guards is seldom found among those compiled before."""
    strategy = made("crd", **OPTIONS)
    shapes = jax.eval_shape(lambda: start(strategy, batch_of()))
    call = jax.make_jaxpr(lambda p, s: loss_of(strategy, p, s, batch_of())[0])
    assert "check" not in str(call(*shapes))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"negatives": 0}, "strategy.options.negatives: expected at least 1, got 0"),
        ({"width": 0}, "strategy.options.width: expected at least 1, got 0"),
        ({"sharpness": 0.0}, "strategy.options.sharpness: expected a number > 0, got"),
        ({"momentum": 2.0}, "strategy.options.momentum: expected a number in [0, 1]"),
    ],
)
def test_options_out_of_range(options, expected):
    assert refused(made, "crd", **options).startswith(expected)


def test_what_does_not_fit_is_one_line(tiny_run):
    batch = batch_of()
    error = refused(start, made("crd", tap="none"), batch)
    assert error.startswith("strategy.options.tap: expected one of")
    error = refused(start, made("crd", teacher_tap="x"), batch)
    assert error.startswith("strategy.options.teacher_tap: expected one of")
    # A memory has a row for each training example.
    run = tiny_run(data=Data("digits", train="train[:8]"), strategy=Custom("crd"))
    with pytest.raises(ConfigError, match="^batch: expected <= 8 examples, got 16$"):
        setup.make_parts(run, train=setup.load_source(run, "train"))
    small = crd(tapped(), examples=CLASSES, axis_name=None)

    def trace():
        jax.eval_shape(lambda: loss_of(small, *start(small, batch), batch))

    assert refused(trace).startswith("batch: expected <= 3 examples")


@pytest.mark.full
def test_a_run_resumes_bitwise(tiny_run, tmp_path, monkeypatch):
    strategy = Custom("crd", options={"negatives": 8, "width": 4})
    end = check_resumes(strategy, tiny_run, tmp_path, monkeypatch)
    assert any("memory" in name for name in end)
