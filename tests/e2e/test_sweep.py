"""A sweep trains what is left, survives a failure, and judges what there is."""

import io
import pathlib
import shutil

import jax
import pytest
from rich.console import Console

from kdjax import experiments
from kdjax.config import ConfigError, to_dict
from kdjax.core import runlog
from kdjax.core.compilation import cache_folder
from kdjax.core.runlog import RunFolderError
from kdjax.experiments import SweepError, load_experiment
from kdjax.experiments.planning import plan
from kdjax.experiments.sweeping import time_left

# Runs of convolutional networks: the full tier.
pytestmark = pytest.mark.full

FILE = """
import dataclasses

from kdjax.config import Cache, Optim
from kdjax.experiments import Experiment
from kdjax.presets import digits, digits_teacher

OPTIM = Optim(warmup=0)
TEACHER = digits_teacher(steps=2, optim=OPTIM)


def mix(scale="tiny"):
    return digits(steps=2, batch=8, optim=OPTIM, teacher=TEACHER)


def cached(scale="tiny"):
    teacher = dataclasses.replace(TEACHER, cache=Cache(path="store"))
    return dataclasses.replace(mix(), teacher=teacher)


def spoilt(scale="tiny"):
    run = mix()
    return dataclasses.replace(run, data=dataclasses.replace(run.data, train="no"))


EXPERIMENT = Experiment(
    claim="small",
    variants={"mix": mix, "cached": cached, "spoilt": spoilt},
    durations={"tiny": (1,), "other": (1,)},
)
"""


NUMBERS = """
import dataclasses

from kdjax.config import Optim, Scalar, Term
from kdjax.experiments import Experiment
from kdjax.presets import digits, digits_teacher


def run(scale, lr, wd, temperature):
    optim = Optim(lr=lr, wd=wd, warmup=1)
    terms = {"soft": Term(temperature=Scalar(temperature))}
    teacher = digits_teacher(steps=2, optim=Optim(warmup=0))
    return digits(steps=2, batch=8, optim=optim, terms=terms, teacher=teacher)


EXPERIMENT = Experiment(
    claim="numbers",
    durations={"tiny": (1, 2)},
    variants={
        "one": lambda scale="tiny": run(scale, 1e-2, 1e-4, 1.0),
        "other": lambda scale="tiny": run(scale, 1e-3, 1e-5, 4.0),
    },
)
"""
CACHE = "jax_compilation_cache_dir"


def test_a_sweep_goes_on_where_it_was(tmp_path):
    file, root = tmp_path / "small.py", tmp_path / "sweep"
    file.write_text(FILE)
    output = io.StringIO()

    def go(seeds=2, **part):
        part = {"console": Console(file=output, width=200), **part}
        part = {"workdir": str(root), **part}
        experiments.sweep(load_experiment(file), "tiny", seeds=seeds, **part)

    with pytest.raises(SweepError, match="1 run failed:\n  spoilt x1: data.train"):
        go()
    first = output.getvalue()
    assert "3 runs, 0 finished" in first and "[3/3] spoilt x1" in first
    for name in ("mix-x1", "cached-x1", "teacher-0"):
        assert runlog.is_finished(root / name)
    # One teacher for all, trained once.
    assert not (root / "teacher-1").exists() and not (root / "mix-x1/teacher").exists()
    assert "2 of 3 runs are finished" in (root / "report.md").read_text()
    with pytest.raises(SweepError):
        go()
    again = output.getvalue().removeprefix(first)
    assert "3 runs, 2 finished" in again and "[1/1] spoilt x1" in again
    # What is finished is not taken for another sweep's.
    about = (root / "sweep.json").read_text()
    with pytest.raises(RunFolderError, match="seeds: folder has 2, this sweep has 3"):
        go(seeds=3)
    file.write_text(FILE.replace("steps=2, batch=8", "steps=3, batch=8"))
    with pytest.raises(RunFolderError, match="steps: folder has 2, this run has 3"):
        go()
    # Nor shown, nor trained beside what is asked for; and another file is refused.
    with pytest.raises(RunFolderError, match="steps: folder has 2, this run has 3"):
        experiments.report_sweep(root)
    with pytest.raises(RunFolderError, match="steps: folder has 2, this run has 3"):
        go(variants=["spoilt"])
    other = tmp_path / "other.py"
    other.write_text(FILE)
    file.write_text(FILE)
    with pytest.raises(RunFolderError, match=r"this sweep has .*/other.py"):
        experiments.sweep(load_experiment(other), "tiny", seeds=2, workdir=str(root))
    assert (root / "sweep.json").read_text() == about
    # The records of finished runs stand for their folders.
    packed = tmp_path / "packed"
    packed.mkdir()
    shutil.copy(root / "records.jsonl", packed)
    before = output.getvalue()
    with pytest.raises(RunFolderError, match="scale: folder has tiny, this sweep has"):
        experiments.sweep(load_experiment(file), "other", workdir=str(packed))
    with pytest.raises(SweepError, match="1 run failed"):
        go(workdir=str(packed))
    assert "3 runs, 2 finished" in output.getvalue().removeprefix(before)
    assert "2 of 3 runs are finished" in (packed / "report.md").read_text()
    # A folder that has moved is still a sweep's.
    moved = root.rename(tmp_path / "moved")
    assert "2 of 3 runs are finished" in experiments.report_sweep(moved)


def test_what_can_be_told_before_any_run_is(tmp_path):
    file, root = tmp_path / "small.py", tmp_path / "sweep"
    model = 'run, model=dataclasses.replace(run.model, name="resnett")'
    data = 'run, data=dataclasses.replace(run.data, train="no")'
    assert data in FILE
    file.write_text(FILE.replace(data, model))
    with pytest.raises(ConfigError, match="spoilt x1: model.name: did you mean"):
        experiments.sweep(load_experiment(file), "tiny", workdir=str(root))
    named = "ModelConfig('resnett', weights='published.npz')"
    names = "from kdjax.config import FromWeights, ModelConfig"
    file.write_text(names + FILE.replace(data, f"run, teacher=FromWeights({named})"))
    with pytest.raises(ConfigError, match="spoilt x1: teacher.model.name: did you"):
        experiments.sweep(load_experiment(file), "tiny", workdir=str(root))
    # Weights that are nowhere; a variant that is not asked for wants none.
    there = "teacher=FromWeights(ModelConfig('resnet8', weights='$NOWHERE/x.npz'))"
    file.write_text(names + FILE.replace(data, f"run, {there}"))
    want = (
        r"spoilt x1: teacher.model.weights: \$NOWHERE/x.npz: expected the environment"
    )
    with pytest.raises(ConfigError, match=want):
        experiments.sweep(load_experiment(file), "tiny", workdir=str(root))
    assert not root.exists()
    file.write_text(FILE)
    mix, *_ = plan(load_experiment(file), root, "tiny", 1)
    runlog.open_run(mix.run.folder, to_dict(mix.run))
    (root / "mix-x1" / "config.json").write_text("[]")
    with pytest.raises(RunFolderError, match="mix-x1/config.json is not a table of"):
        experiments.sweep(load_experiment(file), "tiny", seeds=1, workdir=str(root))
    assert [f.name for f in root.iterdir()] == ["mix-x1"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    file = tmp_path / "small.py"
    file.write_text(FILE)
    for place in (file, file / "below"):
        with pytest.raises(RunFolderError, match="workdir: expected a folder, got"):
            experiments.sweep(load_experiment(file), "tiny", workdir=str(place))


def test_a_teacher_keeps_its_folder_when_variants_are_added(tmp_path):
    file, root = tmp_path / "numbers.py", tmp_path / "sweep"
    file.write_text(NUMBERS)
    (one, *_), *_ = (t.before for t in plan(load_experiment(file), root, "tiny", 1))
    assert pathlib.Path(one.workdir).name == "teacher-0"
    runlog.open_run(one.workdir, to_dict(one))
    longer = NUMBERS.replace(
        "digits_teacher(steps=2", "digits_teacher(steps=3 if lr > 1 else 2"
    )
    file.write_text(
        longer.replace("={\n", '={\n"new": lambda s="tiny": run(s, 2.0, 0, 1.0),\n')
    )
    names = {
        task.variant: pathlib.Path(task.before[0].workdir).name
        for task in plan(load_experiment(file), root, "tiny", seeds=1)
    }
    assert names == {"new": "teacher-1", "one": "teacher-0", "other": "teacher-0"}


def test_a_part_of_a_sweep_can_be_trained_first(tmp_path):
    """With the teacher that the whole has; the same folder then takes the rest."""
    file, root = tmp_path / "numbers.py", tmp_path / "sweep"
    teachers = (
        "if lr < 5e-3:\n        teacher = dataclasses.replace(teacher, steps=1)\n"
    )
    file.write_text(
        NUMBERS.replace("    return digits(", f"    {teachers}    return digits(")
    )
    experiment = load_experiment(file)

    def go(**part):
        experiments.sweep(experiment, "tiny", seeds=1, workdir=str(root), **part)
        return sorted(path.parent.name for path in root.glob("*-x*/summary.json"))

    for part, message in (
        (
            {"variants": ["third"]},
            r"variants: did you mean 'other'\? expected one of \['one', 'other'\]",
        ),
        ({"times": [4]}, r"times: expected some of \(1, 2\), got \(4,\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            go(**part)
    assert not root.exists()
    assert go(variants=["other"], times=[1]) == ["other-x1"]
    assert [path.name for path in root.glob("teacher-*")] == ["teacher-1"]
    assert "1 of 4 runs are finished" in (root / "report.md").read_text()
    assert go(times=[1]) == ["one-x1", "other-x1"]


FIRST = """
import dataclasses

from kdjax.config import Ensemble, FromRun, Optim, labels_only
from kdjax.experiments import Experiment, ref
from kdjax.presets import digits, digits_teacher


def mix(scale="tiny"):
    return digits(steps=160, optim=Optim(warmup=0))


def early(scale="tiny"):
    return labels_only(mix())


def begun(scale="tiny"):
    model = dataclasses.replace(mix().model, weights=ref("early"))
    return dataclasses.replace(mix(), model=model)


def two(scale="tiny"):
    members = digits_teacher(), FromRun(ref("early"))
    return dataclasses.replace(mix(), teacher=Ensemble(members))


EXPERIMENT = Experiment(
    claim="small",
    durations={"tiny": (1, 64)},
    variants={"mix": mix, "begun": begun, "two": two},
    pretrain={"early": early},
)
"""


def test_runs_that_others_begin_from_come_first(tmp_path):
    file = tmp_path / "first.py"
    file.write_text(FIRST)
    root = tmp_path / "sweep"
    tasks = {t.run.name: t for t in plan(load_experiment(file), root, "tiny", seeds=3)}
    assert tasks["begun x1"].run.model.weights == str(root / "early")
    two = tasks["two x64"].run.teacher
    assert two is not None and two.members[1].run == str(root / "early")
    for name, names in {
        "mix x1": ["teacher-0"],
        "begun x64": ["teacher-0", "early"],
        "two x1": ["teacher-0", "early"],
    }.items():
        assert [run.workdir for run in tasks[name].before] == [
            str(root / name) for name in names
        ]
    early = tasks["begun x1"].before[1]
    assert early.seeds == 3 and early.teacher is None and early.steps == 160
    # One teacher for all durations, one first run for all variants.
    assert tasks["mix x1"].before == tasks["mix x64"].before
    assert tasks["two x64"].before[1] == early
    file.write_text(FIRST.replace('pretrain={"early"', 'pretrain={"late"'))
    with pytest.raises(
        ConfigError, match=r"ref\('early'\): expected a name in `pretrain`, got 'ear"
    ):
        plan(load_experiment(file), root, "tiny", seeds=3)


STAGES = """
import dataclasses

from kdjax.config import FromRun, Optim, Stages, labels_only
from kdjax.experiments import Experiment
from kdjax.presets import digits, digits_teacher


def one(scale="tiny", **changes):
    return digits(steps=2, batch=8, optim=Optim(warmup=0), **changes)


def path(scale, *between):
    runs = {"teacher": labels_only(one(), teacher=None)}
    for name in (*between, "student"):
        before = [*runs][-1]
        runs[name] = one(teacher=FromRun(f"stage:{before}"))
    return Stages(runs)


EXPERIMENT = Experiment(
    claim="small",
    durations={"tiny": (1, 2)},
    variants={
        "short": lambda scale: path(scale),
        "long": lambda scale: path(scale, "assistant"),
    },
)
"""


def test_a_variant_may_be_the_last_of_several_stages(tmp_path):
    """Its earlier stages come first, each once; a duration multiplies the last one."""
    file, root = tmp_path / "staged.py", tmp_path / "sweep"
    file.write_text(STAGES)
    experiment = load_experiment(file)
    tasks = {t.run.name: t for t in plan(experiment, root, "tiny", seeds=2)}
    before = {name: [r.workdir for r in t.before] for name, t in tasks.items()}
    teacher, assistant = str(root / "stage-0"), str(root / "stage-1")
    assert before == {
        "short x1": [teacher],
        "long x1": [teacher, assistant],
        "short x2": [teacher],
        "long x2": [teacher, assistant],
    }
    long = tasks["long x2"]
    assert long.run.teacher.run == assistant and long.run.steps == 4
    assert long.before[1].teacher.run == teacher
    assert [(r.steps, r.seeds, r.baselines) for r in long.before] == [(2, 2, ())] * 2
    experiments.sweep(experiment, "tiny", seeds=2, workdir=str(root))
    for name in ("stage-0", "stage-1", "short-x1", "long-x1", "short-x2", "long-x2"):
        assert runlog.is_finished(root / name)
    assert "4 of 4 runs are finished" in (root / "report.md").read_text()
    # Another stage before them changes no name of a folder.
    first = '"short": lambda scale: path(scale)'
    file.write_text(STAGES.replace(first, f'"other": lambda s: path(s, "x"), {first}'))
    tasks = {t.run.name: t for t in plan(load_experiment(file), root, "tiny", seeds=2)}
    assert [r.workdir for r in tasks["long x1"].before] == [teacher, assistant]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            'f"stage:{before}"',
            '"stage:none"',
            r"short\.teacher\.run: expected an earlier stage",
        ),
        (
            "return Stages(runs)",
            "return Stages({})",
            r"variants\['short'\]: expected at",
        ),
    ],
)
def test_stages_of_a_variant_are_checked_before_any_run(tmp_path, old, new, text):
    file = tmp_path / "staged.py"
    file.write_text(STAGES.replace(old, new))
    root = tmp_path / "sweep"
    with pytest.raises(ConfigError, match=text):
        experiments.sweep(load_experiment(file), "tiny", seeds=2, workdir=str(root))
    assert not root.exists()


def test_time_left_tells_starts_from_steps():
    """Runs of 20 s and a second for every ten steps, after one and two lengths."""
    assert time_left([], [100]) == ""
    done = [(100, 30.0), (100, 30.0)]
    assert time_left(done, [100, 400]) == ", at most 2 min left"
    # More runs than steps tell: 6 of 30 s.
    assert time_left(done, [1] * 6) == ", at most 3 min left"
    done.append((400, 60.0))
    assert time_left(done, [1_600, 1_600]) == ", about 6 min left"


def test_runs_that_differ_in_numbers_are_one_program(tmp_path, monkeypatch):
    """Of rate, decay, temperature, and length; the process keeps its own cache."""
    file = tmp_path / "numbers.py"
    file.write_text(NUMBERS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = getattr(jax.config, CACHE)
    jax.config.update(CACHE, None)
    try:
        root = tmp_path / "sweep"
        experiments.sweep(load_experiment(file), "tiny", seeds=1, workdir=str(root))
        assert getattr(jax.config, CACHE) is None
    finally:
        jax.config.update(CACHE, before)
    kept = [path.name for path in cache_folder().glob("jit_run-*-cache")]
    # That of the teacher and that of the students.
    assert len(kept) == 2
