"""Options, several taps and weights of examples in a term, against formulas."""

import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import from_function, losses, targets
from kdjax.config import HARD, ConfigError, Scalar, Term, from_dict, to_dict
from kdjax.core.types import Batch, Output
from kdjax.presets import digits
from kdjax.setup.identity import as_effective, fingerprint_functions
from kdjax.strategies import kernels
from kdjax.strategies.offline import offline

N, C = 6, 4
rng = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


IMAGES, LABELS = draw(N, 4, 4, 2), jnp.asarray([0, 1, 2, 3, 1, 0])
MEMBERS = draw(2, N, C)
TAPS = {
    "one": draw(N, 4, 4, 3),
    "two": draw(N, 4, 4, 3),
    "wide": draw(N, 4, 4, 5),
    "deviation": jnp.abs(draw(N)),
    "0/logits": MEMBERS[0],
    "1/logits": MEMBERS[1],
}
TAPS["pooled"] = TAPS["one"].mean((1, 2))
TARGETS = Output(draw(N, C), TAPS)
KEEP = jnp.asarray([True, False, True, True, False, False])
BATCH = Batch({"image": IMAGES}, LABELS, TARGETS, notes={"keep": KEEP})


def init(key, images):
    return {"w": jax.random.normal(key, (2, 3)), "v": jnp.ones((3, C))}


def apply(params, images):
    one = images @ params["w"]
    two = jnp.tanh(one)
    taps = {"one": one, "two": two, "pooled": one.mean((1, 2))}
    return two.mean((1, 2)) @ params["v"], taps


STUDENT = from_function(apply, init=init)


def value(term, batch=BATCH):
    """The value of one term, and the student's logits and taps."""
    strategy = offline(STUDENT, {"x": term}, steps=3)
    variables = strategy.init(jax.random.key(0), batch)
    params = {name: x["params"] for name, x in variables.items()}
    state = {name: {} for name in params}
    key, schedules = jax.random.key(1), strategy.schedules(0)
    _, (_, metrics) = strategy.loss(params, state, batch, schedules, key)
    return float(metrics["x"]), apply(params["student"], IMAGES), params


def close(term, want, batch=BATCH):
    np.testing.assert_allclose(value(term, batch)[0], want, rtol=1e-5)


LOGITS, OURS = value(Term())[1]
DEFAULTS = {"dkd": 4, "standardized_kl": 2, "wsld": 2}


@pytest.mark.parametrize("name", DEFAULTS)
def test_no_temperature_is_that_of_the_loss(name):
    kernel, own = getattr(losses, name), float(DEFAULTS[name])
    more = {"labels": LABELS} if name != "standardized_kl" else {}
    at = {
        t: kernel(LOGITS, TARGETS.logits, temperature=t, **more).mean()
        for t in (own, 1.0)
    }
    assert abs(at[own] - at[1.0]) > 1e-3 * abs(at[own])
    close(Term(name), at[own])
    close(Term(name, temperature=Scalar(1.0)), at[1.0])


@pytest.mark.parametrize("name, own", [("cwd", 4.0), ("info_nce", 0.07)])
def test_no_temperature_is_that_of_the_loss_of_features(name, own):
    kernel = getattr(losses, name)
    pair = OURS["one"], TAPS["one"]
    if name == "info_nce":
        pair = tuple(x.mean((1, 2)) for x in pair)
    taps = {"student": "pooled" if name == "info_nce" else "one"}
    at = {t: float(kernel(*pair, temperature=t).mean()) for t in (own, 1.0)}
    assert abs(at[own] - at[1.0]) > 1e-2 * abs(at[own])
    taps["teacher"] = taps["student"]
    close(Term(name, **taps), at[own])
    close(Term(name, temperature=Scalar(1.0), **taps), at[1.0])


def test_options_are_those_of_the_loss():
    close(
        Term("softmax_kl", options={}), losses.softmax_kl(LOGITS, TARGETS.logits).mean()
    )
    for options in ({"beta": 0.2}, {"beta": 0}):
        want = losses.jensen_shannon(LOGITS, TARGETS.logits, **options).mean()
        close(Term("jensen_shannon", options=options), want)
    want = losses.review_kd(OURS["one"], TAPS["one"], sizes=(2, 1)).mean()
    taps = {"student": "one", "teacher": "one"}
    close(Term("review_kd", options={"sizes": (2, 1)}, **taps), want)


def test_a_number_is_a_value_of_the_step_and_a_name_is_not():
    known = kernels.find_kernel(Term("token_jsd"), "x").options
    options = {"beta": 0.2, "variant": "tokens"}
    kernel = kernels.find_kernel(Term("token_jsd", options=options), "x")
    assert set(known) == {"beta", "variant", "axis", "denominator"}
    assert kernels.traced_options(kernel, options) == {"beta": 0.2}
    assert kernels.static_options(kernel, options) == {"variant": "tokens"}
    rank = {"neighbors": 3, "alpha": 1}
    taps = {"student": "one", "teacher": "one"}
    kernel = kernels.find_kernel(Term("dark_rank", options=rank, **taps), "x")
    assert kernels.traced_options(kernel, rank) == {"alpha": 1.0}


def test_changing_a_number_compiles_nothing():
    options = {"beta": 0.2}
    strategies = [
        offline(STUDENT, {"x": Term("jensen_shannon", options={"beta": b})}, steps=3)
        for b in (0.2, 0.7)
    ]
    variables = strategies[0].init(jax.random.key(0), BATCH)
    params = {name: x["params"] for name, x in variables.items()}

    @jax.jit
    @chex.assert_max_traces(n=1)
    def total(params, schedules):
        loss = strategies[0].loss
        return loss(params, {"student": {}}, BATCH, schedules, jax.random.key(0))[0]

    for strategy, beta in zip(strategies, (0.2, 0.7), strict=True):
        got = total(params, strategy.schedules(0))["student"]
        want = losses.jensen_shannon(LOGITS, TARGETS.logits, beta=beta).mean()
        np.testing.assert_allclose(got, want, rtol=1e-5)
    assert options == {"beta": 0.2}


BOTH = {"student": ("one", "two"), "teacher": ("one", "two")}


def test_several_taps_reach_the_losses_over_layers():
    (a, b), (c, d) = ((x["one"], x["two"]) for x in (OURS, TAPS))
    ends = {"student_end": b, "teacher_end": d}
    later = {"student_later": b, "teacher_later": d}
    close(Term("fsp", **BOTH), losses.fsp(a, c, **ends).mean())
    close(Term("dense_fsp", **BOTH), losses.dense_fsp([a, b], [c, d]).mean())
    close(Term("kdsvd", **BOTH), losses.kdsvd(a, c, **ends).mean())
    rows = [x.reshape(N, -1) for x in (a, c)]
    later = {name: x.reshape(N, -1) for name, x in later.items()}
    want = losses.irg_transformation(*rows, **later).mean()
    close(Term("irg_transformation", **BOTH), want)
    logits = {"student_logits": LOGITS, "teacher_logits": TARGETS.logits}
    want = losses.irg(*rows, **later, **logits).mean()
    close(Term("irg", **BOTH), want)


def test_a_projector_for_every_tap():
    wide = Term("fsp", **{**BOTH, "teacher": ("wide", "wide")}, projector=True)
    got, (_, ours), params = value(wide)
    maps = params["x connector"]
    assert set(maps) == {"0", "1"} and maps["0"]["kernel"].shape == (3, 5)
    start, end = (ours[k] @ maps[i]["kernel"] for k, i in (("one", "0"), ("two", "1")))
    ends = {"student_end": end, "teacher_end": TAPS["wide"]}
    want = losses.fsp(start, TAPS["wide"], **ends).mean()
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_function_from_python(tmp_path):
    def cube(student, teacher, *, factor: float = 1.0):
        return factor * jnp.sum(jnp.abs(student - teacher) ** 3, -1)

    term = Term(cube, options={"factor": 2.0})
    close(term, 2 * (jnp.abs(LOGITS - TARGETS.logits) ** 3).sum(-1).mean())
    run = digits(terms={"x": term})
    run.check()
    saved = to_dict(run)["terms"]["x"]
    assert saved["loss"].startswith("python:") and saved["loss"].endswith("cube")
    name, code = fingerprint_functions(run)["terms.x.loss"].split()
    assert name.endswith("cube") and len(code) == 16
    again = from_dict(to_dict(run)).terms["x"]
    with pytest.raises(
        ConfigError, match="x.loss: expected the function .*cube, passed"
    ):
        offline(STUDENT, {"x": again}, steps=3)


def per_example(kernel=losses.softmax_kl, target=TARGETS.logits):
    return np.asarray(kernel(LOGITS, target), np.float64)


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_weights_by_the_confidence_of_the_teacher():
    """CWTM: cross-entropy of labels, weighted by the largest probability."""
    best = softmax(TARGETS.logits).max(-1)
    hard = per_example(losses.hard_cross_entropy, LABELS)
    term = Term("hard_cross_entropy", teacher="labels")
    weighted = Term(
        "hard_cross_entropy", teacher="labels", example_weights="confidence_weights"
    )
    close(weighted, (best / best.mean() * hard).mean())
    close(term, hard.mean())


def test_weights_by_a_tap_of_the_teacher():
    options = {"highest": 4.0, "typical": 1.0}
    d = np.asarray(TAPS["deviation"], np.float64)
    weights = 4 * np.exp(-np.log(4) * d / d.mean())
    term = Term(example_weights="fidelity_weights", example_options=options)
    close(term, (weights * per_example()).mean())


def test_a_mask_selects_and_the_mean_is_over_what_it_selects():
    keep = np.asarray(KEEP)
    close(Term(mask="keep"), per_example()[keep].mean())
    lost = BATCH._replace(
        targets=TARGETS._replace(logits=TARGETS.logits.at[1].set(jnp.nan))
    )
    close(Term(mask="keep"), per_example()[keep].mean(), lost)
    none = BATCH._replace(notes={"keep": jnp.zeros(N, bool)})
    close(Term(mask="keep"), 0.0, none)
    sure = np.asarray(targets.reliability_mask(LOGITS, TARGETS.logits, entropy=0.9))
    assert 0 < sure.sum() < N
    term = Term(example_weights="reliability_mask", example_options={"entropy": 0.9})
    close(term, per_example()[sure].mean())


def test_weights_of_several_teachers():
    """The sum over teachers of weight times divergence, example by example."""
    p = softmax(MEMBERS)
    entropy = -(p * np.log(p)).sum(-1)
    shares = np.exp(-entropy) / np.exp(-entropy).sum(0)
    each = np.stack([per_example(target=logits) for logits in MEMBERS])
    close(Term(example_weights="teacher_weights"), (shares * each).sum(0).mean())
    right = np.asarray(MEMBERS).argmax(-1) == np.asarray(LABELS)
    oracle = right / np.maximum(right.sum(0), 1)
    term = Term(example_weights="teacher_weights", example_options={"rule": "oracle"})
    close(term, (oracle * each).sum(0).mean())


def test_weights_pass_no_gradient_and_labels_are_asked_for():
    for term, want in (
        (Term(), False),
        (HARD, True),
        (Term("dkd"), True),
        (Term(example_weights="teacher_weights"), False),
        (
            Term(example_weights="teacher_weights", example_options={"rule": "oracle"}),
            True,
        ),
    ):
        assert offline(STUDENT, {"x": term}, steps=3).labels is want


@pytest.mark.parametrize("how", ["whole", "parts"])
def test_weights_mean_the_whole_batch_under_pmap(how):
    terms = {
        "kept": Term(mask="keep"),
        "sure": Term(example_weights="confidence_weights"),
        "rows": Term("rkd_distance", student="one", teacher="one", mask="keep"),
        "each": Term(example_weights="teacher_weights"),
    }
    axis = "batch" if how == "parts" else None
    strategy = offline(STUDENT, terms, steps=3, axis_name=axis)
    variables = strategy.init(jax.random.key(0), BATCH)
    params = {name: x["params"] for name, x in variables.items()}

    def parts(batch):
        key, schedules = jax.random.key(1), strategy.schedules(0)
        state = {"student": {}}
        return strategy.loss(params, state, batch, schedules, key)[1][1]

    want = {name: value(term)[0] for name, term in terms.items()}
    if how == "whole":
        got = jax.jit(parts)(BATCH)
    else:
        split = jax.tree.map(lambda x: x.reshape(2, N // 2, *x.shape[1:]), BATCH)
        found = jax.pmap(parts, "batch", devices=jax.devices()[:2])(split)
        got = {name: x.mean() for name, x in found.items()}
    for name, number in want.items():
        np.testing.assert_allclose(got[name], number, rtol=1e-5)


ROOT = pathlib.Path(__file__).parents[2]
RECORDS = [
    json.loads(line)["config"]
    for file in sorted(ROOT.glob("experiments/*/results/*/records.jsonl"))
    for line in file.read_text().splitlines()
    if '"config"' in line
]


def test_a_folder_of_before_is_the_same_run():
    """Checked-in configs hold the temperature 1 for every loss."""
    assert RECORDS
    plain = {"value": 1.0, "end": None, "schedule": "constant"}
    for old in RECORDS:
        run = from_dict(old)
        run.check()
        new = to_dict(run)
        for term in new["terms"].values():
            if term["temperature"] == plain:
                term["temperature"] = None
        found = {k: v for k, v in as_effective(old).items() if k in new}
        assert found == as_effective(new)


def test_a_temperature_in_effect_is_a_difference():
    def at(loss, temperature):
        run = digits(terms={"x": Term(loss, temperature=temperature)})
        return as_effective(to_dict(run))["terms"]["x"]["temperature"]

    assert at("dkd", None) == at("dkd", Scalar(4.0))
    assert at("dkd", None) != at("dkd", Scalar(1.0))
    assert at("softmax_kl", None) == at("softmax_kl", Scalar(1.0))
    assert at("hint_l2", None) == at("hint_l2", Scalar(1.0)) is None


def two_kinds(logits, features):
    """C03: Hinton's loss of one teacher, and the hint of another, 0 and 1 by number."""
    teachers = {"0": MEMBERS[0], "1": MEMBERS[1]}
    soft = Term(teacher=f"{logits}/logits", temperature=Scalar(4.0))
    hint = Term("hint_l2", student="one", teacher=f"{features}/one")
    taps = {f"{k}/one": TAPS[x] for k, x in zip("01", ("one", "two"), strict=True)}
    taps |= {f"{k}/logits": x for k, x in teachers.items()}
    batch = BATCH._replace(targets=Output(TARGETS.logits, taps))
    return value(soft, batch)[0], value(hint, batch)[0]


def test_terms_of_two_teachers_read_one_each():
    """They are Hinton's loss and a hint of the teacher by name, whatever the mean."""
    ours, student_taps = value(Term())[1]
    for a, b in ((0, 1), (1, 0), (0, 0)):
        soft, hint = two_kinds(a, b)
        want = losses.softmax_kl(ours, MEMBERS[a], temperature=4.0).mean()
        np.testing.assert_allclose(soft, want, rtol=1e-5)
        theirs = TAPS[("one", "two")[b]]
        want = losses.hint_l2(student_taps["one"], theirs).mean()
        np.testing.assert_allclose(hint, want, rtol=1e-5)
    first, swapped = two_kinds(0, 1), two_kinds(1, 0)
    assert all(abs(x / y - 1) > 1e-3 for x, y in zip(first, swapped, strict=True))


def test_a_teacher_that_is_not_there_is_refused():
    text = "^terms.x.teacher: .* one of .*'1/logits'.*, got '2/logits'$"
    with pytest.raises(ConfigError, match=text):
        value(Term(teacher="2/logits"))
