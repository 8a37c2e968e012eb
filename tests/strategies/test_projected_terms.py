"""Projectors by name and pairs of taps in terms, against formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax
from kdjax import losses
from kdjax.cli.options import parse_job
from kdjax.config import ConfigError, Custom, Term, from_dict, to_dict
from kdjax.core.types import BoundModel
from kdjax.data import datasets
from kdjax.presets import digits
from kdjax.setup.early import check_names
from kdjax.setup.parts import make_parts
from kdjax.strategies.offline import offline
from kdjax.strategies.pairing import expand_pairs, pair_taps
from tests.e2e.saved import saved
from tests.strategies.methods.tapped import (
    batch_of,
    check_resumes,
    loss_of,
    refused,
    start,
    tapped,
    wide,
)

STAGE = {"student": "stage1", "teacher": "stage1"}


def begun(**terms):
    strategy = offline(tapped(), terms, steps=3)
    batch = batch_of()
    params, state = start(strategy, batch)
    return strategy, batch, params, state


def taps_of(params, batch):
    variables = {"params": params["student"]}
    images = batch.inputs["image"]
    return tapped().apply(variables, images, train=False, rngs=None)[0].taps


def test_statistics_of_a_projector_are_carried():
    hint = Term("hint_l2", projector="conv_bn", **STAGE)
    strategy, batch, params, state = begun(hint=hint)
    assert set(state["hint connector"]) == {"batch_stats"}
    now = strategy.schedules(0)
    _, (new, metrics) = loss_of(strategy, params, state, batch, now)
    features = wide(taps_of(params, batch)["stage1"])
    y = features @ wide(params["hint connector"]["layers_0"]["kernel"])
    mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
    gap = (y - mean) / np.sqrt(variance + 1e-5) - wide(batch.targets.taps["stage1"])
    np.testing.assert_allclose(metrics["hint"], np.square(gap).mean(), rtol=1e-4)
    moved = new["hint connector"]["batch_stats"]["layers_1"]["mean"]
    np.testing.assert_allclose(moved, 0.1 * mean, rtol=1e-4, atol=1e-6)
    # The next step goes on from there.
    _, (again, _) = loss_of(strategy, params, new, batch, now)
    moved = again["hint connector"]["batch_stats"]["layers_1"]["mean"]
    np.testing.assert_allclose(moved, 0.19 * mean, rtol=1e-4, atol=1e-6)


def test_a_projector_without_parameters_is_no_network():
    """The student's 4x4 map beside the teacher's 2x2, by attention."""
    taps = {"student": "stage1", "teacher": "stage2"}
    term = Term("attention_transfer", projector="pool", **taps)
    strategy, batch, params, state = begun(at=term)
    assert set(params) == {"student"}
    _, (_, metrics) = loss_of(strategy, params, state, batch, strategy.schedules(0))
    pooled = taps_of(params, batch)["stage1"].reshape(5, 2, 2, 2, 2, 2).mean((2, 4))
    want = losses.attention_transfer(pooled, batch.targets.taps["stage2"]).mean()
    np.testing.assert_allclose(metrics["at"], want, rtol=1e-5)


def test_pairs_by_depth():
    """Of n and m taps, tap i with the first that is as deep, as a share."""
    three, four, two = "abc", "pqrs", "xy"
    assert pair_taps(three, four, "depth") == [("a", "q"), ("b", "r"), ("c", "s")]
    assert pair_taps(four, three, "depth") == [
        ("p", "a"),
        ("q", "b"),
        ("r", "c"),
        ("s", "c"),
    ]
    assert pair_taps(three, three, "depth") == [*zip(three, three, strict=True)]
    assert pair_taps("a", four, "depth") == [("a", "s")]
    assert pair_taps(four, "a", "depth") == [(tap, "a") for tap in four]
    assert len(pair_taps(two, four, "all")) == 8


@pytest.mark.parametrize("how", ["depth", "all"])
def test_a_term_of_pairs_is_the_sum_of_its_pairs(how):
    taps = {"student": ("stage1", "stage2"), "teacher": ("stage1", "stage2")}
    whole = Term("nst", weight=2.0, pair=how, projector=("pool", "linear"), **taps)
    # The taps of one pair may have other sizes, but no larger ones of the teacher.
    if how == "all":
        whole = Term("nst", weight=2.0, pair=how, projector="resize", **taps)
    strategy, batch, params, state = begun(nst=whole)
    total, (_, metrics) = loss_of(strategy, params, state, batch, strategy.schedules(0))
    names = [x.name for x in expand_pairs({"nst": whole})]
    assert set(names) <= set(metrics) and len(names) == {"depth": 2, "all": 4}[how]
    want = 2 * sum(metrics[name] for name in names)
    np.testing.assert_allclose(total, want, rtol=1e-5)
    if how == "depth":
        assert {"nst stage1-stage1 connector", "nst stage2-stage2 connector"} < set(
            params
        )


def test_the_command_line_has_them():
    words = "--terms.h.loss hint_l2 --terms.h.student stage1 stage2 --terms.h.teacher "
    words += "stage1 stage2 --terms.h.pair depth --terms.h.projector"
    for text, value, names in (
        ("True", True, ("linear",)),
        ("False", False, ()),
        ("regressor", "regressor", ("regressor",)),
        ("pool linear", ("pool", "linear"), ("pool", "linear")),
    ):
        run = parse_job("distill", [*words.split(), *text.split()])
        assert run.terms["h"].projector == value
        assert run.terms["h"].projectors == names
        run.check()
        check_names(run)
        assert from_dict(to_dict(run)).terms == run.terms


def test_what_does_not_fit_is_one_line():
    at = "terms.hint.projector"

    def begin(**fields):
        return begun(hint=Term("hint_l2", **{**STAGE, **fields}))

    error = refused(begin, projector="regresor")
    assert error.startswith(f"{at}: did you mean 'regressor'? expected one of ")
    error = refused(begin, projector=("pool", ""))
    assert error.startswith(f"{at}: expected one of ")
    run = digits(terms={"hint": Term("hint_l2", projector="", **STAGE)})
    assert refused(run.check) == f"{at}: expected a name, several, or False, got ''"
    error = refused(begin, projector="linear", teacher="stage2")
    assert error.startswith(
        f"{at}: expected features at the positions of the teacher's"
    )
    error = refused(begin, projector="valid", student="stage2")
    assert error.startswith(f"{at}: expected maps for valid of at least ")
    taps = ("stage1", "stage2")
    error = refused(begin, student=taps, teacher=taps)
    assert error.startswith("terms.hint.student: expected one tap for hint_l2")
    error = refused(begin, pair="depth", teacher="stage3")
    assert error.startswith("terms.hint.teacher: did you mean ")
    run = digits(terms={"hint": Term("hint_l2", pair="deep", **STAGE)})
    assert refused(run.check).startswith("terms.hint.pair: ")
    earlier = {"projector_weights": "runs/none"}
    run = digits(terms={"hint": Term("hint_l2", **STAGE, **earlier)})
    error = "terms.hint.projector_weights: expected none without terms.hint.projector"
    assert refused(run.check).startswith(error)
    run = digits(terms={"hint": Term("hint_l2", projector=True, **STAGE, **earlier)})
    assert refused(check_names, run).startswith("terms.hint.projector_weights: no run")


@pytest.mark.full
def test_a_run_with_statistics_of_a_projector_resumes_bitwise(
    tiny_run, tmp_path, monkeypatch
):
    terms = {"hint": Term("hint_l2", projector="regressor", **STAGE)}

    def with_terms(**fields):
        fields.pop("strategy")
        return tiny_run(terms=terms, **fields)

    end = check_resumes(Custom("none"), with_terms, tmp_path, monkeypatch)
    assert any("hint connector" in x and "batch_stats" in x for x in end)


@pytest.mark.full
def test_a_projector_starts_from_that_of_an_earlier_run(tiny_run, tmp_path):
    model = tapped(width=3, classes=10)
    teacher = model, model.init(jax.random.key(7), jnp.zeros((1, 8, 8, 1)))
    hint = Term("hint_l2", projector="conv_bn", **STAGE)
    run = tiny_run(terms={"hint": hint}, seeds=2)
    before = kdjax.distill(run, student=tapped(classes=10), teacher=teacher)
    trained = {k: x for k, x in saved(before).items() if "hint connector" in k}

    def start_of(name="hint", **changes):
        carried = dataclasses.replace(hint, projector_weights=str(before), **changes)
        later = tiny_run(
            terms={name: carried}, seeds=1, seed=1, workdir=str(tmp_path / "later")
        )
        check_names(later, *teacher)
        images = np.zeros((16, 8, 8, 1), np.uint8)
        train = datasets.from_arrays(images, np.arange(16) % 10, "data")
        parts = make_parts(
            later,
            train=train,
            student=tapped(classes=10),
            teacher=BoundModel(*teacher, None, 8),
        )
        return parts.make_state(np.array([1]), parts.start)

    state = start_of()
    found = {
        group: {"hint connector": getattr(state, group)["hint connector"]}
        for group in ("params", "model_state")
    }
    leaves = jax.tree_util.tree_leaves_with_path(found)
    wanted = {k: x for k, x in trained.items() if not k.startswith("['opt_state']")}
    assert {jax.tree_util.keystr(path) for path, _ in leaves} == wanted.keys()
    for path, array in leaves:
        name = jax.tree_util.keystr(path)
        np.testing.assert_array_equal(array[0], wanted[name][1], err_msg=name)
    at = "terms.hint.projector_weights: expected"
    with pytest.raises(ConfigError, match=f"^{at} the projector mlp, got conv_bn of"):
        start_of(projector="mlp")
    with pytest.raises(ConfigError) as error:
        start_of(student="stage2", teacher="stage2")
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{at} a projector of these taps and this name, got ")
    assert line.endswith(" and 4 more") and len(line) < 240
    with pytest.raises(ConfigError, match="expected a run whose term other trained a"):
        start_of("other")
