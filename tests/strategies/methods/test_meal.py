"""MEAL: values, pooling, the drawn teacher, the reversed gradient, bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ConfigError, Custom
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from kdjax.strategies.methods.meal import adaptive_pool, meal
from tests.strategies.methods import setting
from tests.strategies.methods.setting import CLASSES, N, softplus

TAPS = ("embedding", "logits")


def make(**options):
    options = {"taps": TAPS, "weights": (0.1, 1.0), "bins": 3, **options}
    return meal(setting.network(), **options)


@pytest.fixture
def batch():
    """Two teachers of different widths."""
    taps = {}
    for i, width in enumerate((6, 4)):
        taps[f"{i}/embedding"] = setting.draw(N, 2, 2, width, seed=10 + i)
        taps[f"{i}/logits"] = setting.draw(N, CLASSES, seed=20 + i)
    mean = (taps["0/logits"] + taps["1/logits"]) / 2
    return setting.make_batch(setting.outputs(mean, **taps))


def pool(x, bins=3):
    """Means of slices, by the bounds of torch's adaptive pooling."""
    rows = np.moveaxis(np.float64(x), -1, 1).reshape(len(x), -1)
    size = rows.shape[1]
    bounds = [
        (int(np.floor(i * size / bins)), int(np.ceil((i + 1) * size / bins)))
        for i in range(bins)
    ]
    return np.stack([rows[:, a:b].mean(1) for a, b in bounds], 1)


def test_adaptive_pool():
    """Overlapping bins, by hand; maps by channel first; more bins than entries."""
    got = adaptive_pool(jnp.array([[0.0, 1.0, 2.0, 3.0, 4.0]]), 3)
    np.testing.assert_allclose(got, [[0.5, 2.0, 3.5]], rtol=1e-6)
    x = setting.draw(N, 2, 2, 5)
    np.testing.assert_allclose(adaptive_pool(x, 4), pool(x, 4), atol=1e-6)
    got = adaptive_pool(jnp.array([[1.0, 2.0]]), 4)
    np.testing.assert_allclose(got, [[1.0, 1.0, 2.0, 2.0]])


@pytest.mark.parametrize("similarity", ["l1", "l2"])
def test_values(batch, similarity):
    """One of the two teachers gives all targets of a step."""
    strategy = make(similarity=similarity, label_weight=0.7, critic_weight=0.4)
    params, state = setting.start(strategy, batch)
    weights = setting.doubles(params)
    hidden = np.float64(batch.inputs["image"]) @ weights["student"]["hidden"]
    ours = {"embedding": pool(hidden), "logits": hidden @ weights["student"]["head"]}
    power = 1 if similarity == "l1" else 2

    def expected(member):
        embedding, logits = (batch.targets.taps[f"{member}/{x}"] for x in TAPS)
        theirs = {"embedding": pool(embedding), "logits": np.float64(logits)}
        gap = np.abs(ours["embedding"] - theirs["embedding"])
        value = 0.7 * setting.cross_entropy(ours["logits"], batch.labels)
        value += 0.1 * (gap**power).mean()
        soft = np.exp(setting.log_softmax(logits))
        value -= (soft * setting.log_softmax(ours["logits"])).sum(-1).mean()
        values = {"student": value}
        for tap in TAPS:
            own = weights[f"critic of {tap}"]
            fake, real = (setting.mlp(own, x[tap]) for x in (ours, theirs))
            # Binary cross-entropy over the scores of both sources.
            source = np.concatenate([softplus(fake), softplus(-real)]).mean()
            values[f"critic of {tap}"] = 0.4 * source
        return values

    drawn = set()
    for seed in range(6):
        values, _ = setting.evaluate(strategy, params, state, batch, seed=seed)
        member = int(jax.random.randint(jax.random.key(seed), (), 0, 2))
        drawn.add(member)
        chex.assert_trees_all_close(
            setting.doubles(values), expected(member), rtol=2e-5
        )
    assert drawn == {0, 1}


def test_one_teacher_is_always_drawn(batch):
    features = batch.targets.taps["0/embedding"]
    single = batch._replace(
        targets=setting.outputs(batch.targets.taps["0/logits"], embedding=features)
    )
    strategy = make()
    params, state = setting.start(strategy, single)
    one, two = (
        setting.evaluate(strategy, params, state, single, seed=seed)[0]
        for seed in (1, 2)
    )
    chex.assert_trees_all_equal(one, two)


def test_the_student_goes_up_the_critics_loss(batch):
    """Reversed: all losses pull the student opposite to the critic."""
    both = setting.gradients(make(), batch)["student"]
    down = setting.gradients(make(critic_weight=0.0), batch)["student"]
    up = setting.gradients(make(weights=(0.0, 0.0)), batch)["student"]
    chex.assert_trees_all_close(
        both, jax.tree.map(jnp.add, down, up), rtol=1e-4, atol=1e-6
    )
    params, state = setting.start(make(), batch)

    def sources(student):
        output, _ = setting.network().apply({"params": student}, batch.inputs["image"])
        # The teacher's part has no gradient in the student.
        ours = {"embedding": adaptive_pool(output.taps["embedding"], 3)}
        ours["logits"] = output.logits
        return sum(
            jnp.logaddexp(0, setting.mlp(params[f"critic of {tap}"], x, jnp)).mean() / 2
            for tap, x in ours.items()
        )

    slope = jax.jit(jax.grad(sources))(params["student"])
    chex.assert_trees_all_close(up, jax.tree.map(jnp.negative, slope), rtol=1e-4)


def test_zero_weights_leave_the_labels(batch):
    strategy = make(weights=(0.0, 0.0), critic_weight=0.0, label_weight=1.0)
    params, _ = setting.start(strategy, batch)
    got = setting.gradients(strategy, batch)

    def hard(student):
        output, _ = setting.network().apply({"params": student}, batch.inputs["image"])
        logs = jax.nn.log_softmax(output.logits)
        return -logs[jnp.arange(N), batch.labels].mean()

    expected = jax.jit(jax.grad(hard))(params["student"])
    chex.assert_trees_all_close(got["student"], expected, rtol=1e-4, atol=1e-6)
    critics = [x for name, x in got.items() if name.startswith("critic")]
    assert len(critics) == 2 and setting.is_zero(critics)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"taps": ["logits"]},
            "weights: expected 1 numbers, one for each tap, got (0.001, 0.01, 0.05, "
            "0.1, 1.0)",
        ),
        (
            {"teacher_taps": ["logits"]},
            "teacher_taps: expected 5, one for each tap, got ('logits',)",
        ),
        (
            {"similarity": "cosine"},
            "similarity: expected one of ['l1', 'l2'], got 'cosine'",
        ),
        ({"bins": 0}, "bins: expected at least 1, got 0"),
    ],
)
def test_bad_options(given, text):
    run = digits(strategy=Custom("meal", options=given))
    with pytest.raises(ConfigError) as caught:
        make_strategy(run, setting.network(), None, classes=CLASSES)
    assert str(caught.value) == f"strategy.options.{text}"


def test_a_tap_that_one_teacher_lacks_is_refused(batch):
    taps = dict(batch.targets.taps)
    del taps["1/embedding"]
    targets = setting.outputs(batch.targets.logits, **taps)
    with pytest.raises(ConfigError, match=r"^strategy\.options\.teacher_taps: "):
        make().init(jax.random.key(0), batch._replace(targets=targets))
