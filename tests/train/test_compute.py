"""Precision, accumulation and rematerialization: what they change, and what not."""

import dataclasses

import jax
import numpy as np
import pytest

import kdjax
from kdjax import jobs, setup
from kdjax.config import HARD, Compute, ConfigError, ModelConfig, Optim, Scalar, Term
from kdjax.train import restore
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.state import network_variables
from tests.train.run_steps import close, make_teacher, run_steps

# Means over single examples, with mixed images: of those the parts have no mean else.
TERMS = {
    "soft": Term("softmax_kl", temperature=Scalar(2.0)),
    "hard": dataclasses.replace(HARD, weight=Scalar(0.1)),
    "hint": Term(
        "hint_l2", Scalar(0.5), student="stage2", teacher="stage2", projector=True
    ),
}
SGD = Optim(name="sgd", lr=0.05, wd=5e-4, clip=0, warmup=1)


def make_run(tiny_run, compute, norm="group", **changes):
    model = ModelConfig("resnet", depth=8, width=8, norm=norm, resolution=8)
    return tiny_run(
        terms=TERMS, model=model, optim=SGD, steps=6, compute=compute, **changes
    )


@pytest.fixture(scope="module")
def whole():
    """The result on one device with whole batches, made once."""
    return {}


def expected(tiny_run, whole):
    if not whole:
        whole[0] = run_steps(make_run(tiny_run, Compute(data=1)), make_teacher())
    return whole[0]


@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(Compute(data=1, accumulate=4), marks=pytest.mark.full),
        Compute(data=4, fsdp=2, accumulate=2),
        pytest.param(Compute(how="pmap", data=4, accumulate=2), marks=pytest.mark.full),
        pytest.param(
            Compute(data=2, accumulate=8, steps_per_call=2), marks=pytest.mark.full
        ),
    ],
)
def test_parts_of_a_batch_give_the_step_of_the_whole(tiny_run, whole, compute):
    """After 5 steps in float32 every parameter is within 2e-6."""
    want, want_metrics, _ = expected(tiny_run, whole)
    got, metrics, _ = run_steps(make_run(tiny_run, compute), make_teacher())
    close(got.params, want.params, rtol=0, atol=2e-6)
    close(metrics, want_metrics, rtol=1e-4, atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("remat", ["all", "products"])
def test_a_step_that_computes_activations_again_is_equal(tiny_run, whole, remat):
    want, want_metrics, _ = expected(tiny_run, whole)
    run = make_run(tiny_run, Compute(data=1, remat=remat))
    got, metrics, _ = run_steps(run, make_teacher())
    close(got.params, want.params, rtol=0, atol=2e-6)
    close(metrics, want_metrics, rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_bfloat16_moves_parameters_of_float32_nearly_alike(tiny_run, whole):
    want, want_metrics, created = expected(tiny_run, whole)
    run = make_run(tiny_run, Compute(data=1, precision="bfloat16"))
    got, metrics, _ = run_steps(run, make_teacher())
    dtypes = {x.dtype for x in jax.tree.leaves((got.params, got.opt_state))}
    assert dtypes == {np.dtype(np.float32)}
    differences = [
        np.abs(np.asarray(a) - np.asarray(b)).max()
        for a, b in zip(*map(jax.tree.leaves, (got.params, want.params)), strict=True)
    ]
    assert 1e-6 < max(differences) < 5e-3
    np.testing.assert_allclose(metrics["loss"], want_metrics["loss"], rtol=0.02)


def test_parts_of_no_whole_size_are_refused(tiny_run):
    run = make_run(tiny_run, Compute(data=2, accumulate=3))
    with pytest.raises(ConfigError, match="multiple of 6: 3 parts .* on 2 devices"):
        run_steps(run, make_teacher())


def divided(tree):
    """Paths of the arrays that several devices share."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in found}
    return {k for k, x in names.items() if "fsdp" in getattr(x, "sharding", x).spec}


@pytest.mark.full
def test_parameters_are_divided_as_the_config_says(tiny_run, whole):
    """By one rule for networks that learn, and those that do not."""
    want, _, _ = expected(tiny_run, whole)
    pattern = {"student/*": -1, "hint*/kernel": 1, "teacher/*Block_2/Conv_0/kernel": 3}
    compute = Compute(data=2, fsdp=2, shard=pattern)
    run = make_run(tiny_run, compute)
    got, _, created = run_steps(run, make_teacher())
    close(got.params, want.params, rtol=0, atol=2e-6)
    assert divided(got.params) == {"hint connector/kernel"} == divided(created.params)
    train = setup.load_source(run, "train")
    parts = setup.make_parts(run, train=train, teacher=make_teacher())
    placed = setup.place_constants(parts)["teacher"]
    # The rule divides the kernels of 1,024 elements and more.
    names = divided(placed)
    assert "params/BasicBlock_2/Conv_0/kernel" in names
    by_rule = placed["params"]["BasicBlock_2"]["Conv_1"]["kernel"].sharding.spec
    by_pattern = placed["params"]["BasicBlock_2"]["Conv_0"]["kernel"].sharding.spec
    assert tuple(by_pattern) == (None, None, None, "fsdp") != tuple(by_rule)


@pytest.mark.full
def test_the_average_of_the_student_is_what_is_evaluated(tiny_run):
    """Against a mean in float64 of the parameters after each step."""
    optim = dataclasses.replace(SGD, ema=0.6)
    path = []
    for steps in range(1, 6):
        run = dataclasses.replace(make_run(tiny_run, Compute(data=1)), optim=optim)
        state, _, _ = run_steps(run, make_teacher(), steps=steps)
        path.append(jax.device_get(state.params["student"]))
    average = None
    for i, params in enumerate(path):
        keep = min(0.6, 1 - 1 / (i + 1))
        new = jax.tree.map(lambda x: x.astype(np.float64), params)
        old = new if average is None else average
        average = jax.tree.map(lambda a, b, k=keep: k * a + (1 - k) * b, old, new)
    found = network_variables(state, "student")["params"]
    close(found, average, rtol=1e-5, atol=1e-6)
    assert set(state.averages) == {"student"}
    gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), average, path[-1])
    assert max(jax.tree.leaves(gap)) > 1e-3


@pytest.mark.full
def test_the_average_is_what_a_run_gives(tiny_run):
    """Evaluated, taken out and taken as a start; resumed to the same values."""
    optim = dataclasses.replace(tiny_run().optim, ema=0.8)
    run = tiny_run(optim=optim, teacher=None, terms={"hard": HARD})
    folder = jobs.train(run)
    student = kdjax.load(folder)
    saved = Checkpoints(folder)
    tree = saved.read_network("student")
    assert "averages" in restore.read_shapes(saved.path / "8")
    close(student.variables, jax.tree.map(lambda x: x[0], tree), rtol=0, atol=0)
    changes = {"optim": tiny_run().optim, "workdir": f"{run.workdir}-plain"}
    plain = kdjax.load(jobs.train(dataclasses.replace(run, **changes)))
    gap = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), student.variables, plain.variables
    )
    assert max(jax.tree.leaves(gap)) > 1e-3


@pytest.mark.full
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_parts_that_see_fewer_examples_are_said(tiny_run, norm):
    angle = Term("rkd_angle", student="embedding", teacher="embedding")
    terms = {**TERMS, "angle": angle} if norm == "group" else TERMS
    run = make_run(tiny_run, Compute(data=1, accumulate=4), norm)
    run = dataclasses.replace(run, terms=terms)
    what = "BatchNorm of student" if norm == "batch" else "the loss of term angle"
    text = f"compute.accumulate: {what} sees 4 examples at a time"
    with pytest.warns(UserWarning, match=text):
        run_steps(run, make_teacher(), steps=1)
