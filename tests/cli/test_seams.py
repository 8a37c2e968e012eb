"""Losses, options and strategies of the user's own, through the command line.

Every value is compared with a formula in float64 on the views of the first step.
"""

import json
import pathlib

import jax
import numpy as np
import pytest

from kdjax import setup
from kdjax.cli import main as cli
from kdjax.core import runlog
from kdjax.jobs.distilling import teacher_run

README = pathlib.Path(__file__).parents[2] / "kdjax" / "strategies" / "README.md"
MODELS = """
import jax
from kdjax.models import from_function


def linear(config, classes):
    # Two stages of channels, one linear in the other, and a head on their mean.
    width = config.width

    def init(key, images):
        a, b, c = jax.random.split(jax.random.fold_in(key, config.depth), 3)
        return {
            "a": jax.random.normal(a, (images.shape[-1], 3)),
            "b": jax.random.normal(b, (3, width)),
            "head": jax.random.normal(c, (width, classes)),
        }

    def apply(params, x):
        first = x @ params["a"]
        second = first @ params["b"]
        logits = second.mean((1, 2)) @ params["head"]
        return logits, {"stage1": first, "stage2": second}

    return from_function(apply, init=init)
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder of the user's, with a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(MODELS)
    return tmp_path


BASE = [
    *("--model.name", "models.py:linear", "--model.width", "4"),
    *("--seeds", "1", "--batch", "8", "--optim.warmup", "0", "--compute.data", "1"),
    *("--log-every", "1", "--evaluate-every", "4", "--checkpoint-every", "4"),
    *("--views.mode", "consistent", "--set", "baselines=()", "--workdir", "run"),
]
TEACHER = [
    *("--teacher.model.name", "models.py:linear", "--teacher.model.width", "4"),
    # Another draw than the student's, which has the same seed.
    *("--teacher.model.depth", "14"),
    *("--teacher.steps", "2", "--teacher.optim.warmup", "1"),
]


def run(command, *options, steps=1):
    extra = TEACHER if command == "distill" else []
    cli.main([command, *BASE, *extra, "--steps", str(steps), *options])


def refused(capsys, command, *options):
    """The one line that a command ends with before anything is written."""
    with pytest.raises(SystemExit) as stop:
        run(command, *options)
    assert stop.value.code == 2
    assert not pathlib.Path("run").exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error, error
    return error


def example(text):
    """The block of Python of the page that holds a text."""
    blocks = [x.split("```")[0] for x in README.read_text().split("```python\n")[1:]]
    return next(block for block in blocks if text in block)


def commands(text):
    """The options of the page's commands that hold a text, less their folder."""
    lines = (x.partition(" --workdir")[0] for x in README.read_text().splitlines())
    return [x.split()[2:] for x in lines if x.startswith("kdjax ") and text in x]


class First:
    """The first step of a finished run, made again from its folder."""

    def __init__(self, folder="run"):
        config = setup.read_run(folder)
        train = setup.load_source(config, "train")
        mesh = None
        teacher = None
        if config.teacher is not None:
            trained = teacher_run(config, pathlib.Path(folder) / "teacher")
            made = setup.make_parts(trained, train=train)
            mesh = made.mesh
            loaded = setup.load_trained(f"{folder}/teacher", mesh)
            teacher = setup.fit_seeds(loaded, trained, config)
        parts = setup.make_parts(config, train=train, teacher=teacher)
        seeds = np.arange(1, dtype=np.int32)
        state = parts.make_state(seeds, parts.start)
        self.params = jax.tree.map(lambda x: np.asarray(x[0], np.float64), state.params)
        batch = next(setup.make_batches(parts)(0))
        rows = {k: x[0] for k, x in batch["rows"].items()}
        batch = {**batch, "seed": batch["seed"][0], "rows": rows}
        seen = parts.view(np.int32(0), batch, setup.place_constants(parts))
        self.image = np.asarray(seen.student, np.float64)
        self.labels = np.asarray(seen.labels)
        if teacher is not None:
            variables = jax.tree.map(
                lambda x: np.asarray(x[0], np.float64), teacher.variables
            )
            self.teacher = forward(variables["params"], self.image)
        lines = runlog.read_metrics(folder)
        self.metrics = {k: v[0] for k, v in lines[0].items() if isinstance(v, list)}

    def output(self, network="student"):
        return forward(self.params[network], self.image)


def forward(params, image):
    first = image @ params["a"]
    second = first @ params["b"]
    return second.mean((1, 2)) @ params["head"], first, second


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def kl(student, teacher):
    """KL(teacher || student) of logits, one a row."""
    t, s = log_softmax(teacher), log_softmax(student)
    return (np.exp(t) * (t - s)).sum(-1)


def dkd(student, teacher, labels, beta, temperature=4.0):
    """Zhao et al. 2022, equation 7: TCKD + beta * NCKD, times T^2."""
    rows = np.arange(len(labels))
    s, t = (np.exp(log_softmax(x / temperature)) for x in (student, teacher))

    def binary(p):
        return np.stack([p[rows, labels], 1 - p[rows, labels]], -1)

    def others(x):
        keep = np.arange(x.shape[-1]) != labels[:, None]
        return (x / temperature)[keep].reshape(len(x), -1)

    target = (binary(t) * np.log(binary(t) / binary(s))).sum(-1)
    return temperature**2 * (target + beta * kl(others(student), others(teacher)))


@pytest.mark.full
def test_an_option_of_a_loss_and_a_further_term(files):
    """DKD with beta 2 at its own temperature, and labels beside it."""
    run("distill", *commands("options.beta")[0], *commands("hard_cross_entropy")[0])
    first = First()
    logits = first.output()[0]
    soft = dkd(logits, first.teacher[0], first.labels, beta=2.0).mean()
    hard = -log_softmax(logits)[np.arange(8), first.labels].mean()
    np.testing.assert_allclose(first.metrics["soft"], soft, rtol=1e-4)
    np.testing.assert_allclose(first.metrics["hard"], hard, rtol=1e-5)
    np.testing.assert_allclose(first.metrics["loss"], soft + 0.1 * hard, rtol=1e-4)
    saved = json.loads(pathlib.Path("run/config.json").read_text())["terms"]
    assert saved["soft"]["options"] == {"beta": 2}
    assert saved["soft"]["temperature"] is None


def test_two_taps_a_side(files):
    """FSP: the product of two stages, mean over positions."""
    taps = ("stage1", "stage2")
    command = ["--terms.fsp.loss", "fsp", "--terms.fsp.student", *taps]
    run("distill", *command, "--terms.fsp.teacher", *taps)
    first = First()

    def matrix(output):
        _, a, b = output
        return np.einsum("nhwc,nhwd->ncd", a, b) / (a.shape[1] * a.shape[2])

    gap = matrix(first.output()) - matrix(first.teacher)
    np.testing.assert_allclose(first.metrics["fsp"], (gap**2).mean(), rtol=1e-4)


@pytest.mark.full
def test_the_fsp_command_of_the_page_fits_the_networks_of_the_preset(files):
    short = "--steps 2 --teacher.steps 2 --optim.warmup 0 --teacher.optim.warmup 0"
    command = commands("--terms.fsp.student")[0]
    more = [*short.split(), "--seeds", "1", "--baselines", "--workdir", "fsp"]
    cli.main(["distill", *command, *more])
    assert (files / "fsp" / "summary.json").is_file()


SOFT_X = ("--terms.x.loss", "softmax_kl")
TAPS = ("--terms.x.student", "stage2", "--terms.x.teacher", "stage2")
LOSSES = """
import jax.numpy as jnp


def total(student, teacher):
    return jnp.sum(student - teacher)


def rest(student, *, teacher):
    return student


def slip(student, teacher):
    gap = student - teacher
    return gap * float("two")
"""
PLAIN = "--terms.soft.temperature", "None"


def test_the_loss_of_the_readme(files, capsys):
    code, command = example("def power"), commands("mine.py:power")[0]
    (files / "mine.py").write_text(code)
    run("distill", *command)
    first = First()
    gap = np.abs(first.output()[0] - first.teacher[0])
    np.testing.assert_allclose(
        first.metrics["soft"], (gap**3).sum(-1).mean(), rtol=1e-4
    )
    # The same command finds it finished; with another file it is another run.
    run("distill", *command)
    (files / "mine.py").write_text(code + "\n# changed\n")
    with pytest.raises(SystemExit):
        run("distill", *command)
    text = "terms.soft.loss: mine.py changed since the run began; use another --workdir"
    assert text in capsys.readouterr().err


def test_the_strategy_of_the_readme(files):
    """Deep mutual learning, as its page has it."""
    (files / "mutual.py").write_text(example("def mutual"))
    run("train", *commands("mutual.py:mutual")[0], steps=3)
    first = First()
    logits = {name: first.output(name)[0] for name in ("student", "peer")}
    assert np.abs(logits["student"] - logits["peer"]).max() > 0.1

    def one(name, peer):
        labels = -log_softmax(logits[name])[np.arange(8), first.labels].mean()
        return labels + 0.5 * kl(logits[name], logits[peer]).mean()

    ours, its = one("student", "peer"), one("peer", "student")
    np.testing.assert_allclose(first.metrics["peer_loss"], its, rtol=1e-5)
    np.testing.assert_allclose(first.metrics["loss"], ours + its, rtol=1e-5)
    summary = json.loads(pathlib.Path("run/summary.json").read_text())
    assert summary["network"] == "student"
    # The student is loaded by its name, for evaluation.
    cli.main(["evaluate", "run"])


STRATEGIES = """
import jax.numpy as jnp
from kdjax.config import Optim
from kdjax.strategies import Strategy, apply_networks, init_networks


def _made(student, names=("student",), **fields):
    networks = dict.fromkeys(names, student)

    def init(key, batch):
        return init_networks(networks, key, batch.inputs["image"])

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        outputs, state = apply_networks(networks, params, state, image, key)
        values = {k: jnp.mean(jnp.square(x.logits)) for k, x in outputs.items()}
        return values, (state, values)

    return Strategy(init, loss, **fields)


def pair(student, *, turns: int = 1, target: float = 0.0):
    order = (("critic", 1), ("student", turns))
    slow = Optim(name="sgd", lr=0.0, wd=0.0, warmup=0)
    return _made(student, ("student", "critic"), turns=order, optim={"critic": slow})


def none(student):
    return _made(student)._replace(init=lambda key, batch: {})


def stranger(student):
    made = _made(student)

    def loss(params, state, batch, schedules, key):
        values, rest = made.loss(params, state, batch, schedules, key)
        return {"studnet": values["student"]}, rest

    return made._replace(loss=loss)


def rows(student):
    made = _made(student)

    def loss(params, state, batch, schedules, key):
        values, rest = made.loss(params, state, batch, schedules, key)
        return {"student": values["student"] * jnp.ones(3)}, rest

    return made._replace(loss=loss)


def elsewhere(student):
    return _made(student)._replace(student="pupil")


def idle(student):
    return _made(student, ("student", "critic"), turns=(("student", 1),))


def nothing(student):
    return None


def slips(student):
    return _made(student)._replace(loss=lambda *arguments: arguments.nowhere)
"""


def test_networks_in_turns_with_an_optimizer_of_their_own(files):
    """A critic whose rate is 0 stays; each turn's loss is that of its network."""
    (files / "mine.py").write_text(STRATEGIES)
    run(
        "train",
        *("--strategy.function", "mine.py:pair", "--strategy.options.turns", "2"),
        steps=6,
    )
    lines = [x for x in runlog.read_metrics("run") if x["kind"] == "train"]
    turn = ["critic", "student", "student"] * 2
    for line, name in zip(lines, turn, strict=True):
        assert line["loss"] == line[name]
    critic = First().output("critic")[0]
    np.testing.assert_allclose(lines[0]["loss"][0], (critic**2).mean(), rtol=1e-5)


HARD = "--terms.hard.teacher", "labels"
MINE = "--strategy.function"
BAD = {
    ("distill", "--terms.soft.loss", "decoupled_kdd"): (
        "terms.soft.loss: did you mean 'dkd'? expected the name of a loss"
    ),
    ("distill", "--terms.soft.loss", "nowhere.py:f"): (
        "terms.soft.loss: expected a file that exists, got 'nowhere.py'"
    ),
    ("distill", "--terms.soft.loss", "losses.py:totl"): (
        "terms.soft.loss: did you mean 'total'? expected a function in losses.py"
    ),
    ("distill", "--terms.soft.options.bta", "2"): (
        "terms.soft.options.bta: expected one of ['axis'], got 'bta'"
    ),
    (
        *("distill", "--terms.soft.loss", "dkd"),
        *("--terms.soft.options.bet", "2"),
    ): "terms.soft.options.bet: did you mean 'beta'? expected one of",
    (
        *("distill", "--terms.soft.loss", "dkd"),
        *("--terms.soft.options.beta", "much"),
    ): "terms.soft.options.beta: expected a number, got 'much'",
    (
        *("distill", "--terms.soft.loss", "jensen_shannon"),
        *("--terms.soft.options.beta", "2"),
    ): "terms.soft.options.beta: expected a number in [0.0, 1.0], got 2.0",
    (
        *("distill", "--terms.x.loss", "hint_l2", *TAPS),
        *("--terms.x.options.variant", "men"),
    ): "terms.x.options.variant: expected one of",
    (
        *("distill", "--terms.x.loss", "dark_rank", *TAPS),
        *("--terms.x.options.neighbors", "2.5"),
    ): "terms.x.options.neighbors: expected a whole number, got 2.5",
    ("distill", "--terms.x.loss", "hint_l2"): (
        "terms.x.student: expected a tap of the student, such as stage2, as hint_l2 "
        "compares features, got 'logits'"
    ),
    ("distill", "--terms.x.loss", "crd"): (
        "terms.x.loss: crd is a loss, but no term can supply memory (student_memory, "
    ),
    ("distill", *SOFT_X, "--terms.x.teacher", "lables"): (
        "terms.x.teacher: did you mean 'labels'? expected logits, labels or one of "
        "['stage1', 'stage2'], got 'lables'"
    ),
    ("distill", "--terms.soft.loss", "losses.py:total", *PLAIN): (
        "terms.soft: losses.py:total: expected one value an example, shape (8,), got "
        "shape ()"
    ),
    ("distill", "--terms.soft.loss", "losses.py:rest", *PLAIN): (
        "terms.soft.loss: expected a function (student, teacher, ...), got "
    ),
    ("distill", "--terms.soft.loss", "losses.py:slip", *PLAIN): (
        "terms.soft: losses.py:slip raised ValueError: could not convert string to "
        "float: 'two' (losses.py:15)"
    ),
    ("distill", "--terms.x.loss", "fsp", "--terms.x.student", "stage1"): (
        "terms.x.student: expected 2 taps (student_features, student_end) for fsp, got"
    ),
    ("distill", "--terms.x.loss", "dense_fsp", "--terms.x.student", "stage1"): (
        "terms.x.student: expected several taps, as dense_fsp compares a list of them"
    ),
    ("distill", "--terms.x.loss", "hint_l2", "--terms.x.student", "stage1", "stage2"): (
        "terms.x.student: expected one tap for hint_l2, got ('stage1', 'stage2')"
    ),
    (
        *("distill", "--terms.x.loss", "hint_l2", "--terms.x.student", "stage2"),
        *("--terms.x.teacher", "stage1"),
    ): "terms.x: teacher_features: expected the shape of student_features",
    (
        *("distill", "--terms.x.loss", "hint_l2", "--terms.x.student", "stage"),
        *("--terms.x.teacher", "stage2"),
    ): "terms.x.student: did you mean 'stage2'? expected logits or one of ['stage1', ",
    ("distill", *SOFT_X, "--terms.x.example-weights", "confidence_weight"): (
        "terms.x.example_weights: did you mean 'confidence_weights'? expected one of"
    ),
    ("distill", *SOFT_X, "--terms.x.example-weights", "teacher_weights"): (
        "terms.x: teacher_weights: expected several teachers"
    ),
    ("distill", *SOFT_X, "--terms.x.mask", "foreground"): (
        "terms.x.mask: expected a note of the batch, one of [], got 'foreground'"
    ),
    ("train", *HARD, "--terms.hard.example-weights", "confidence_weights"): (
        "terms.hard.example_weights: expected none, without a teacher, got 'conf"
    ),
    ("train", MINE, "mine.py:none"): (
        "strategy: expected init to return at least one network"
    ),
    ("train", MINE, "mine.py:stranger"): (
        "strategy: did you mean 'student'? expected losses of its networks, ['student']"
    ),
    ("train", MINE, "mine.py:rows"): (
        "strategy: expected one scalar as the loss of student, got (3,)"
    ),
    ("train", MINE, "mine.py:elsewhere"): (
        "strategy.student: expected one of ['student'], got 'pupil'"
    ),
    ("train", MINE, "mine.py:idle"): (
        "strategy.turns: expected a turn for each of ['critic', 'student'], got "
        "['student']"
    ),
    ("train", MINE, "mine.py:slips"): (
        "strategy.function: loss of slips raised AttributeError: 'tuple' object has no "
        "attribute 'nowhere' (mine.py:65)"
    ),
    ("train", MINE, "mine.py:nothing"): (
        "strategy.function: expected a function returning a Strategy, got None"
    ),
    ("train", MINE, "mine.py:pai"): (
        "strategy.function: did you mean 'pair'? expected a function in mine.py"
    ),
    ("train", MINE, "mine.py:pair", "--strategy.options.turn", "2"): (
        "strategy.options.turn: did you mean 'turns'? expected one of"
    ),
    ("train", MINE, "mine.py:pair", "--strategy.options.turns", "x"): (
        "strategy.options.turns: expected a whole number, got 'x'"
    ),
    ("train", "--strategy.functio", "x"): (
        "strategy.functio: did you mean 'function'? expected one of"
    ),
    ("train", "--set", "optm.lr=1"): "--optm.lr: did you mean --optim.lr? expected an",
    ("train", "--set", "optim.lr"): "set: expected PATH=VALUE, got 'optim.lr'",
    ("train", "--terms.hard.weight"): "terms.hard.weight: expected a value, got",
}


@pytest.mark.parametrize("command", BAD, ids=" ".join)
def test_what_does_not_fit_is_one_line_before_anything_is_written(
    command, files, capsys
):
    (files / "losses.py").write_text(LOSSES)
    (files / "mine.py").write_text(STRATEGIES)
    assert BAD[command] in refused(capsys, *command)
