"""The methods of experiments/stages: their paths, what moves in each, their runs."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval

import kdjax
from experiments import stages as table
from experiments.stages import common
from experiments.stages.assistants import assistants, halves, ladder, plain
from experiments.stages.born_again import (
    born_again,
    cwtm,
    dkpp,
    ensemble_accuracies,
)
from experiments.stages.dense_flow import dense_flow, flow
from experiments.stages.factor_transfer import factor_transfer
from experiments.stages.fitnets import fitnets
from experiments.stages.fsp import fsp
from experiments.stages.label_free import label_free
from experiments.stages.labels_then_soft import labels_then_soft
from experiments.stages.moonshine import moonshine
from experiments.stages.multi_head_graph import multi_head_graph
from experiments.stages.several_teachers import (
    graph,
    majority,
    oracle,
    two_teachers,
)
from experiments.stages.specialists import specialists
from experiments.stages.supervision_transfer import transfer
from experiments.stages.tune import tune
from kdjax import losses, setup
from kdjax.config import Compute, Ensemble, FromRun, Optim, Stages, members_of
from kdjax.core import runlog
from kdjax.models import zoo
from kdjax.setup.load_models import InitialVariables
from kdjax.train.optimizer import label_parameters
from tests.e2e.saved import saved

THREE = {f"teacher{i}": ("", "") for i in range(3)}
# For each stage its teachers and the one that its network starts from.
PATHS = {
    fitnets: {
        "teacher": ("", ""),
        "hint": ("teacher", ""),
        "kd": ("teacher", "hint"),
    },
    fsp: {"teacher": ("", ""), "flow": ("teacher", ""), "labels": ("", "flow")},
    factor_transfer: {
        "teacher": ("", ""),
        "paraphraser": ("", "teacher"),
        "student": ("teacher", ""),
    },
    multi_head_graph: {
        "teacher": ("", ""),
        "heads": ("", "teacher"),
        "student": ("teacher", ""),
    },
    dense_flow: {
        "teacher": ("", ""),
        "flow1": ("teacher", ""),
        "flow2": ("teacher", "flow1"),
        "flow3": ("teacher", "flow2"),
        "labels": ("", "flow3"),
    },
    moonshine: {
        "teacher": ("", ""),
        "labels": ("", ""),
        "student": ("teacher", ""),
    },
    born_again: {"g0": ("", ""), "g1": ("g0", ""), "g2": ("g1", "")},
    cwtm: {"g0": ("", ""), "g1": ("g0", ""), "g2": ("g1", "")},
    dkpp: {"g0": ("", ""), "g1": ("g0", ""), "g2": ("g1", "")},
    assistants: {
        "teacher": ("", ""),
        "assistant4": ("teacher", ""),
        "student": ("assistant4", ""),
    },
    plain: {"teacher": ("", ""), "student": ("teacher", "")},
    ladder: {
        "teacher": ("", ""),
        "assistant8": ("teacher", ""),
        "assistant4": ("assistant8", ""),
        "student": ("assistant4", ""),
    },
    labels_then_soft: {
        "teacher": ("", ""),
        "labels": ("", ""),
        "soft": ("teacher", "labels"),
    },
    label_free: {
        "teacher": ("", ""),
        "features": ("teacher", ""),
        "labels": ("", "features"),
    },
    tune: {"train": ("", ""), "tune": ("train", "train")},
    oracle: {**THREE, "student": (" ".join(THREE), "")},
    graph: {**THREE, "student": (" ".join(THREE), "")},
    majority: {**THREE, "student": (" ".join(THREE), "")},
    two_teachers: {
        "loose": ("", ""),
        "strict": ("", ""),
        "student": ("loose strict", ""),
    },
    transfer: {
        "teacher": ("", ""),
        "transfer": ("teacher", ""),
        "labels": ("", "transfer"),
        "alone": ("", ""),
    },
    specialists: {
        "generalist": ("", ""),
        "specialist0": ("", "generalist"),
        "specialist1": ("", "generalist"),
        "student": ("generalist specialist0 specialist1", ""),
    },
}
ALL = pytest.mark.parametrize("function", PATHS, ids=lambda x: x.__name__)


def teachers_of(run):
    """The folders of its teacher, or of the members of an ensemble, in words."""
    return " ".join(member.run for _, member in members_of(run.teacher))


@ALL
def test_the_path_of_stages(function):
    """Each is taught by, and starts from, what the paper says; it can be checked."""
    stages = function()
    stages.check()
    path = {
        name: (teachers_of(run), run.model.weights) for name, run in stages.runs.items()
    }
    named = {
        name: tuple(" ".join(f"stage:{x}" for x in names.split()) for names in pair)
        for name, pair in PATHS[function].items()
    }
    assert path == named and [*path] == [*named]
    assert all(not run.baselines for run in stages.runs.values())
    file = function.__module__.rpartition(".")[2]
    command = f"kdjax distill --config experiments/stages/{file}.py:"
    assert command in sys.modules[function.__module__].__doc__
    assert f"{file}.py:" in table.__doc__


def test_the_folders_are_apart():
    folders = [function().workdir for function in PATHS]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("tap", ["stem", "stage1", "stage2", "stage3"])
@pytest.mark.parametrize("scale", ["digits", "cifar"])
def test_the_layers_to_a_tap_are_those_that_it_depends_on(tap, scale):
    """And no others: a hint has no gradient in the layers above."""
    model = zoo.make_model(common.student(scale), 10)
    image = jnp.zeros((1, 32, 32, 3) if scale == "cifar" else (1, 8, 8, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    params = variables.pop("params")
    labels = label_parameters(params, common.layers_to(scale, tap))
    state = jax.tree.map(lambda x: jnp.ones(x.shape), variables)

    def read(params):
        both = {"params": params, **state}
        return model.apply(both, image, train=True)[0].taps[tap]

    program = jax.make_jaxpr(read)(params).jaxpr
    _, used = partial_eval.dce_jaxpr(program, [True])
    assert [x == "moves" for x in jax.tree.leaves(labels)] == used
    assert any(used) and not all(used)


def test_stages_of_features_move_the_layers_below_alone():
    hint, flow = fitnets().runs["hint"], fsp().runs["flow"]
    assert hint.optim.parameters == common.layers_to("digits", "stage2")
    assert flow.optim.parameters == common.layers_to("digits", "stage3")
    for stages, name in ((fitnets(), "kd"), (fsp(), "labels")):
        assert stages.runs[name].optim == Optim()
    assert all("hard" not in run.terms for run in (hint, flow))


def test_the_flow_is_swept_from_the_bottom_to_the_top():
    """Stage m has the pairs up to tap m, and moves the layers below it alone."""
    taps = ("stem", "stage1", "stage2", "stage3")
    runs = dense_flow(repeats=2).runs
    names = [f"flow{m}_{r}" for r in (1, 2) for m in (1, 2, 3)]
    assert [*runs] == ["teacher", *names, "labels"]
    for before, name in zip(["", *names], names, strict=False):
        run, m = runs[name], int(name[4])
        assert run.terms == {"flow": flow(m)}
        assert run.optim.parameters == common.layers_to("digits", taps[m])
        assert run.optim.schedule == "constant"
        assert run.model.weights == (before and f"stage:{before}")
    assert runs["labels"].model.weights == "stage:flow3_2"
    assert runs["labels"].optim == Optim()


def test_the_first_flow_is_fsp():
    maps = [np.random.default_rng(i).normal(size=(2, 4, 4, 3)) for i in range(8)]
    ours, theirs = (
        [jnp.asarray(x) for x in maps[:4]],
        [jnp.asarray(x) for x in maps[4:]],
    )
    ends = {"student_end": ours[1], "teacher_end": theirs[1]}
    want = losses.fsp(ours[0], theirs[0], **ends)
    options = [flow(m).options for m in (1, 2, 3)]
    np.testing.assert_allclose(losses.dense_fsp(ours, theirs, **options[0]), want)
    # M (M + 1) / 2 pairs.
    pairs = [(i, j) for j in range(1, 4) for i in range(j)]
    values = [
        losses.fsp(ours[i], theirs[i], student_end=ours[j], teacher_end=theirs[j])
        for i, j in pairs
    ]
    assert len(pairs) == 6
    found = losses.dense_fsp(ours, theirs, **options[2])
    np.testing.assert_allclose(found, np.mean(values, 0), rtol=1e-5)


def test_lambda_of_fitnets_falls_from_4_to_1():
    """Of H without the factor T^2 that our KL has."""
    weight, temperature = fitnets().runs["kd"].terms["soft"].scalars
    path = [weight.value, weight.end, weight.schedule]
    assert path == [pytest.approx(4 / 9), pytest.approx(1 / 9), "linear"]
    assert temperature.value == 3.0


def test_a_path_without_assistants_is_plain_distillation():
    run = plain().runs["student"]
    terms = common.soft_and_hard(0.5, 0.5, 2.0)
    assert run == common.taught("digits", teacher=FromRun("stage:teacher"), terms=terms)
    assert assistants(()).runs == plain().runs


def test_the_widths_of_a_path():
    assert (halves(16), halves(8), halves(4), halves(2)) == ((8, 4), (4,), (), ())
    runs = assistants((6, 3), teacher=12, student=1).runs.values()
    assert [run.model.width for run in runs] == [12, 6, 3, 1]
    assert {run.model.depth for run in runs} == {8}


def test_generations_are_one_network_with_seeds_of_their_own():
    runs = [*born_again(generations=4).runs.values()]
    assert len({run.model for run in runs}) == 1
    seeds = [range(run.seed, run.seed + run.seeds) for run in runs]
    assert len(set().union(*seeds)) == 4 * runs[0].seeds
    assert runs[0].teacher is None and not runs[0].uses_teacher
    assert set(cwtm().runs["g1"].terms) == {"hard"}
    assert cwtm().runs["g1"].terms["hard"].example_weights == "confidence_weights"


def traced(stages):
    """Trace a step of every stage, with shapes for what earlier ones train."""
    models = {}
    for name, run in stages.runs.items():
        run = dataclasses.replace(run, compute=Compute(data=1))
        train = setup.load_source(run, "train")
        named = [x.run.removeprefix("stage:") for _, x in members_of(run.teacher)]
        teachers = [models[name] for name in named]
        teacher = teachers[0] if teachers else None
        if isinstance(run.teacher, Ensemble):
            teacher = setup.ensemble_teachers(teachers, run)
        sizes = train.classes, train.shape[-1]
        # Shapes in place of what an earlier stage trains.
        initial = {
            name: InitialVariables(
                setup.trace_model(
                    dataclasses.replace(run, model=network.model), *sizes
                ).variables,
                0,
            )
            for name, network in run.networks.items()
            if network.frozen
        }
        parts = {"train": train, "student": None, "teacher": teacher}
        setup.check_fit(run, **parts, initial=initial)
        models[name] = setup.trace_model(run, train.classes, train.shape[-1])


@pytest.mark.full
@ALL
def test_the_parts_of_every_stage_fit(function):
    traced(function())


def short(stages, folder, **changes):
    """The same stages, of three steps and two seeds."""
    changes = {
        "steps": 3,
        "seeds": 2,
        "evaluate_every": 3,
        "log_every": 1,
        "compute": Compute(data=1),
        **changes,
    }
    runs = {
        name: dataclasses.replace(
            run, optim=dataclasses.replace(run.optim, warmup=1), **changes
        )
        for name, run in stages.runs.items()
    }
    return Stages(runs, str(folder))


@pytest.mark.full
def test_fitnets_runs_and_resumes_after_its_first_stage(tmp_path):
    """The hint moves the layers below it alone; the last stage begins there."""
    stages = short(fitnets(), tmp_path / "whole")
    whole = kdjax.jobs.run_stages(stages)
    resumed = dataclasses.replace(stages, workdir=str(tmp_path / "resumed"))
    first = dataclasses.replace(resumed, runs={"teacher": stages.runs["teacher"]})
    kdjax.jobs.run_stages(first)
    summary = tmp_path / "resumed/teacher/summary.json"
    before = summary.read_bytes()
    kdjax.jobs.run_stages(resumed)
    assert summary.read_bytes() == before
    for name in stages.runs:
        pair = (saved(folder / name) for folder in (whole, resumed.folder))
        jax.tree.map(np.testing.assert_array_equal, *pair)
    hint = kdjax.load(whole / "hint", seed=1).variables["params"]
    run = stages.runs["hint"]
    start = start_of(run, seed=1)
    labels = label_parameters(start, run.optim.parameters)
    for label, a, b in zip(*map(jax.tree.leaves, (labels, start, hint)), strict=True):
        # Equal up to the rounding of two programs; the rate is 1e-2.
        assert np.allclose(a, b, rtol=1e-5, atol=1e-6) == (label == "stays")
    assert any("hint connector" in key for key in saved(whole / "hint"))
    assert not any("connector" in key for key in saved(whole / "kd"))
    lines = runlog.read_metrics(whole / "kd")
    assert {"hard", "soft"} <= next(x for x in lines if x["kind"] == "train").keys()


def start_of(run, seed):
    """The student's parameters before the first step of a run under a teacher."""
    train = setup.load_source(run, "train")
    alone = common.on_labels("digits", seeds=1, seed=seed, compute=Compute(data=1))
    parts = setup.make_parts(alone, train=train)
    state = parts.make_state(np.arange(seed, seed + 1, dtype=np.int32), parts.start)
    return jax.tree.map(lambda x: np.asarray(x[0]), state.params["student"])


@pytest.mark.full
def test_factor_transfer_runs_and_resumes(tmp_path):
    """The paraphraser's stage leaves the teacher as it is, and resumes bitwise."""
    stages = short(factor_transfer(), tmp_path / "whole", checkpoint_every=1)
    whole = kdjax.jobs.run_stages(stages)
    teacher, same = (
        kdjax.load(whole / name, seed=1).variables["params"]
        for name in ("teacher", "paraphraser")
    )
    jax.tree.map(np.testing.assert_array_equal, teacher, same)
    folder = tmp_path / "resumed"
    for crash_at, name in ((2, "paraphraser"), (1, "student")):
        crash(stages, folder, name, crash_at)
    kdjax.jobs.run_stages(dataclasses.replace(stages, workdir=str(folder)))
    for name in stages.runs:
        pair = saved(whole / name), saved(folder / name)
        jax.tree.map(np.testing.assert_array_equal, *pair)
    assert any("translator" in key for key in saved(whole / "student"))


def crash(stages, folder, name, step):
    """Run the stages into a crash of one of them behind a step."""
    append = runlog.append_metrics

    def write(path, line):
        append(path, line)
        if path.name == name and line["step"] == step:
            raise RuntimeError("a crash")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runlog, "append_metrics", write)
        with pytest.raises(RuntimeError, match="a crash"):
            kdjax.jobs.run_stages(dataclasses.replace(stages, workdir=str(folder)))


@pytest.mark.full
def test_born_again_runs_and_has_an_ensemble(tmp_path):
    stages = short(born_again(generations=2), tmp_path / "ban")
    folder = kdjax.jobs.run_stages(stages)
    found = ensemble_accuracies(str(folder))
    assert len(found) == 2
    run = stages.runs["g0"]
    test = setup.load_source(run, "test")
    probabilities = [
        jax.nn.softmax(kdjax.load(folder / name, seed=seed)(test.images))
        for name, seed in (("g0", 1), ("g1", 1001))
    ]
    mean = np.mean(probabilities, 0)
    right = np.mean(mean.argmax(-1) == test.labels)
    assert found[1] == pytest.approx(right, abs=1e-6)
