"""Options by name: near names, presets, warm-ups that fit, names of runs, help."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from kdjax.cli import completion, fields, help
from kdjax.cli import main as cli
from kdjax.cli.options import parse_run
from kdjax.config import ConfigError, FromWeights, TrainFirst, near_names
from kdjax.presets import PRESETS, cifar10, digits, digits_labels, find_preset

NEAR = {
    "lr": ["--optim.lr", "--teacher.optim.lr"],
    "learning-rate": ["--optim.lr", "--teacher.optim.lr"],
    "optim.learning_rate": ["--optim.lr"],
    "optm.lr": ["--optim.lr", "--teacher.optim.lr"],
    "batch_size": ["--batch"],
    "epochs": ["--steps", "--teacher.steps"],
    "T": ["--terms.soft.temperature"],
    "temperature": ["--terms.soft.temperature"],
    "dataset": ["--data.name"],
    "workdri": ["--workdir"],
    "out": ["--workdir"],
    "gpus": ["--compute.data"],
    "model": ["--model.name"],
    "teacher": ["--teacher.run"],
    "nothing_of_the_kind": [],
}


@pytest.mark.parametrize("path", NEAR)
def test_the_options_that_a_name_may_stand_for(path):
    assert fields.near_options(path, digits()) == NEAR[path]


def test_a_run_without_a_teacher_has_no_option_of_one():
    assert fields.near_options("lr", digits_labels()) == ["--optim.lr"]


@pytest.mark.parametrize(
    "text, names, near",
    [
        ("validation", ["train", "test", "val"], ["val"]),
        ("valid", ["train", "validation"], ["validation"]),
        ("ResNet-56", ["resnet20", "resnet56"], ["resnet56"]),
        ("resnet_20", ["resnet20", "resnet20_pad"], ["resnet20"]),
        ("imagenet", ["imagenet2012", "cifar10"], ["imagenet2012"]),
        ("men", ["mean", "sum"], ["mean"]),
        ("x", ["mean", "sum"], []),
    ],
)
def test_near_names(text, names, near):
    assert near_names(text, names) == near


REFUSED = {
    ("distill", "--lr", "1"): "--lr: did you mean --optim.lr or --teacher.optim.lr?",
    ("distill", "--optim.learning_rate", "1"): "optim.learning_rate: did you mean 'lr'",
    ("distill", "--optim.temperature", "1"): "you mean --terms.soft.temperature? exp",
    ("distill", "--model", "resnet20"): "you mean --model.name resnet20? expected",
    ("distill", "--teacher", "runs/a"): "you mean --teacher.run runs/a? expected one",
    ("distill", "cifar"): "preset: did you mean 'cifar10'? expected one of",
    ("distill", "mine.py:run"): "preset: did you mean --config mine.py:run? expected",
    ("distill", "digits", "--config", "a.py:f"): "config: expected none with digits",
    ("distill", "folder"): "data.name: expected folder:PATH (PATH/train/CLASS/*.jpg)",
    ("distill", "--views.mode", "function-matching"): "you mean 'function_matching'?",
    ("distil",): "command: did you mean 'distill'? expected a command",
    ("eval", "x"): "command: did you mean 'evaluate'? expected a command",
    ("evaluate", "x", "--split", "valid"): "split: did you mean 'validation'? expect",
    ("evaluate", "x", "--splt", "test"): "--splt: did you mean '--split'? expected an",
    ("evaluate", "x", "y"): "y: expected no more arguments",
    ("evaluate",): "run: expected kdjax evaluate RUN",
    ("sweep", "x.py", "--seeds", "two"): "seeds: expected a value of type int, got",
    ("completion", "tcsh"): "shell: expected one of ['bash', 'fish', 'zsh']",
}


@pytest.mark.parametrize("args", REFUSED, ids=" ".join)
def test_a_wrong_name_is_one_line_with_the_nearest_first(args, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_start", lambda *_: pytest.fail("a job was started"))
    with pytest.raises(SystemExit) as stop:
        cli.main(list(args))
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and REFUSED[args] in line


# Presets.

PHOTOS = "--data.name", "folder:photos"


@pytest.mark.parametrize("name", sorted({*PRESETS} - {"folder"}))
def test_presets_can_be_run(name):
    assert parse_run("distill", [name]) == find_preset(name)
    run = parse_run("train", [name])
    assert run.teacher is None and run.name == "train"
    assert run.model == find_preset(name).model
    assert run.workdir != find_preset(name).workdir


def test_folders_need_a_path_alone():
    run, preset = parse_run("distill", ["folder", *PHOTOS]), find_preset("folder")
    data = dataclasses.replace(preset.data, name="folder:photos")
    assert run == dataclasses.replace(preset, data=data)


def test_cifar10_is_right_for_its_data():
    run = cifar10()
    assert isinstance(run.teacher, TrainFirst)
    assert run.teacher.train == run.data.train == "train[:45000]"
    assert (run.data.validation, run.data.test) == ("train[45000:]", "test")
    for model in (run.model, run.teacher.model):
        assert (model.norm, model.resolution) == ("batch", 32)
    assert run.views.flip and run.teacher.views.flip
    weights = ["cifar10", "--teacher.model.weights", "resnet56.safetensors"]
    assert isinstance(parse_run("distill", weights).teacher, FromWeights)


def test_imagenet_has_the_values_of_the_paper():
    """arXiv 2106.05237, listing 1: 1,200 epochs of 98 % of 1,281,167 images."""
    run = find_preset("imagenet_funmatch")
    assert run.steps == round(1_200 * 0.98 * 1_281_167 / 4_096) == 367_835
    assert run.batch == 4_096 and run.temperature == 1.0 and set(run.terms) == {"soft"}
    optim = run.optim
    assert (optim.lr, optim.wd, optim.warmup, optim.clip) == (0.03, 3e-4, 5_000, 1.0)
    assert optim.name == "adam" and optim.schedule == "cosine"
    views = run.views
    assert (views.mode, views.mix, views.flip) == ("function_matching", "mixup", True)
    assert views.area == (0.05, 1.0) and not views.antialias
    assert (run.data.train, run.data.validation) == ("train[:98%]", "train[98%:]")
    assert (run.model.name, run.model.resolution) == ("bit_r50x1", 224)
    assert isinstance(run.teacher, FromWeights)
    assert run.teacher.model.name == "bit_r152x2"


def test_a_warm_up_that_is_too_long_for_an_options_steps_becomes_a_tenth(capsys):
    run = parse_run("distill", ["cifar10", "--steps", "100", "--teacher.steps", "50"])
    assert run.optim.warmup == 10 and run.teacher.optim.warmup == 5
    assert capsys.readouterr().err.splitlines() == [
        "kdjax: optim.warmup is 10 in place of 1000, for 100 steps",
        "kdjax: teacher.optim.warmup is 5 in place of 400, for 50 steps",
    ]
    run = parse_run("distill", ["cifar10", "--steps", "1001"])
    assert run.optim.warmup == 1_000 and capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match="^optim.warmup: expected fewer than the 100"):
        parse_run("distill", ["--steps", "100", "--optim.warmup", "100"])


@pytest.mark.parametrize(
    "args, name",
    [
        ([], "funmatch"),
        (["--terms.soft.temperature", "4", "--optim.lr", "1"], "funmatch"),
        (["--terms.soft.loss", "dkd"], "dkd"),
        (["--terms.soft.loss", "mine.py:power"], "power"),
        (
            [
                *("--terms.hard.loss", "hard_cross_entropy"),
                *("--terms.hard.teacher", "labels"),
            ],
            "softmax_kl+hard_cross_entropy",
        ),
        (["--strategy.function", "mutual.py:mutual"], "mutual"),
        (["--terms.soft.loss", "dkd", "--name", "mine"], "mine"),
    ],
)
def test_a_method_of_its_own_names_the_run(args, name):
    assert parse_run("distill", args).name == name


# Help and completion.


@pytest.mark.parametrize("command", completion.RUNS)
@pytest.mark.parametrize("preset", PRESETS)
def test_help_is_one_screen_of_options_that_exist(command, preset, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, preset, "--help"])
    shown = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0
    assert len(shown) <= 45 and max(map(len, shown)) <= help.WIDTH
    assert sum(line.startswith("  kdjax ") for line in shown) == 3
    run = find_preset(preset, labels=command == "train")
    for option, _, _ in help._OPTIONS:
        first = option.removeprefix("--").partition(".")[0]
        is_shown = any(line.split()[:1] == [option] for line in shown)
        if command == "train":
            expected = first not in ("teacher", "baselines", "terms")
        else:
            expected = True
        assert is_shown is expected, option
        assert not is_shown or option[2:] in fields.fields_of(run)


def test_the_defaults_of_the_help_are_those_of_the_preset():
    shown = "\n".join(help.screen("distill", cifar10(steps=123)))
    assert "steps of training (123)" in shown and "(resnet20)" in shown


def test_every_example_of_the_help_can_be_run(monkeypatch):
    started = []
    monkeypatch.setattr(cli, "_start", lambda *job: started.append(job))
    examples = [x for several in help._EXAMPLES.values() for x in several]
    for example in examples:
        cli.main(example.split()[1:])
    assert len(started) == len(examples) == 9


COMPLETED = {
    ("dist",): ["distill"],
    ("distill", "ci"): ["cifar10"],
    ("distill", "--views.mod"): ["--views.mode"],
    ("train", "--dry"): ["--dry-run"],
    ("cache-targets", "--dry"): [],
    ("distill", "--views.mode", "f"): ["fixed", "function_matching"],
    ("distill", "cifar10", "--views.flip", ""): ["True", "False"],
    ("distill", "--baselines", "labels", "labels_"): [],
    ("evaluate", "--split", "t"): ["test", "train"],
    ("evaluate", "--s"): ["--split"],
    ("distill", "--workdir", ""): [],
    ("nothing", "x"): [],
}


@pytest.mark.parametrize("words", COMPLETED, ids=" ".join)
def test_completions(words):
    assert completion.complete(words, cli.FUNCTIONS) == COMPLETED[words]


SHELLS = {
    "bash": """source <(kdjax completion bash)
COMP_WORDS=(kdjax distill cifar10 --optim.w) COMP_CWORD=3
_kdjax
echo "${COMPREPLY[@]}\"""",
    # Without a terminal, zsh completes nothing: the function of its lines is called.
    "zsh": """source <(kdjax completion zsh)
compadd() { print -- $found }
words=(kdjax distill cifar10 --optim.w) CURRENT=4
_kdjax""",
    "fish": """kdjax completion fish | source
complete -C "kdjax distill cifar10 --optim.w\"""",
}


@pytest.mark.full
@pytest.mark.parametrize("shell", SHELLS)
def test_completion_in_a_shell(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "kdjax").write_text(f'#!/bin/sh\n{sys.executable} -m kdjax "$@"\n')
    (tmp_path / "kdjax").chmod(0o755)
    root = pathlib.Path(__file__).parents[2]
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [shell, "-c", SHELLS[shell]],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "PATH": path},
    )
    found = sorted(done.stdout.split())
    assert found == ["--optim.warmup", "--optim.wd"], done.stderr
