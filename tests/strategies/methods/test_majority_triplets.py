"""You et al.: the vote of three teachers, magnitudes, drawn triplets, two terms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ConfigError, Custom
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from tests.strategies.methods import setting
from tests.strategies.methods.setting import CLASSES, N
from tests.strategies.methods.several import draw_member, several_outputs


def make(**options):
    run = digits(strategy=Custom("majority_triplets", options=options), steps=7)
    return make_strategy(run, setting.network(), None, classes=CLASSES)


def batch_of(*members):
    return setting.make_batch(several_outputs(*members))


def distances(x):
    """Squared distances of the unit rows, in float64."""
    x = np.asarray(x, np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.square(x[:, None] - x[None]).sum(-1)


def voted(student, teachers, margin):
    """The mean over anchors of the mean hinge of the pairs that win the vote."""
    d, theirs = distances(student), [distances(x) for x in teachers]
    means = []
    for i in range(N):
        hinges = []
        for j, k in itertools.permutations([x for x in range(N) if x != i], 2):
            nearer = sum(np.sign(t[i, k] - t[i, j]) for t in theirs)
            if nearer > 0:
                hinges.append(max(0, d[i, j] - d[i, k] + margin))
        means.append(np.mean(hinges))
    return np.mean(means)


def mean_kl(members, student, temperature):
    """T^2 KL from the mean of the tempered probabilities."""
    p = np.mean([np.exp(setting.log_softmax(m / temperature)) for m in members], 0)
    q = setting.log_softmax(student / temperature)
    return temperature**2 * (p * (np.log(p) - q)).sum(1).mean()


def test_the_loss_is_the_formula():
    members = [draw_member(i, width=4 + i) for i in range(3)]
    batch, weights = batch_of(*members), {"label_weight": 0.3, "soft_weight": 0.7}
    strategy = make(weight=2.0, temperature=3.0, margin=0.4, **weights)
    params, state = setting.start(strategy, batch)
    values, metrics = setting.evaluate(strategy, params, state, batch)
    own = setting.doubles(params["student"])
    embedding = np.asarray(batch.inputs["image"], np.float64) @ own["hidden"]
    logits = embedding @ own["head"]
    triplets = voted(embedding, [m.taps["embedding"] for m in members], 0.4)
    soft = mean_kl([np.asarray(m.logits, np.float64) for m in members], logits, 3.0)
    hard = setting.cross_entropy(logits, batch.labels)
    np.testing.assert_allclose(metrics["triplets"], triplets, rtol=1e-5)
    want = 0.3 * hard + 0.7 * soft + 2 * triplets
    np.testing.assert_allclose(values["student"], want, rtol=1e-5)


def test_only_the_vote_counts_and_not_the_magnitudes():
    members = [draw_member(i) for i in range(3)]
    strategy = make(label_weight=0.0, soft_weight=0.0)
    batch = batch_of(*members)
    params, state = setting.start(strategy, batch)

    def value(*members):
        return setting.evaluate(strategy, params, state, batch_of(*members))[0]

    larger = {"embedding": 10 * members[1].taps["embedding"]}
    scaled = [members[0], members[1]._replace(taps=larger), members[2]]
    np.testing.assert_allclose(
        value(*scaled)["student"], value(*members)["student"], rtol=1e-5
    )
    # Two equal teachers outvote any third.
    outvoted = value(members[0], members[0], members[1])
    alone = value(members[0], members[0], members[2])
    np.testing.assert_allclose(outvoted["student"], alone["student"], rtol=1e-6)


def test_maps_are_averaged_over_positions_and_taps_are_per_teacher():
    members = [draw_member(i) for i in range(2)]
    rows = members[1].taps["embedding"]
    maps = {"map": jnp.stack([rows - 1, rows + 1], 1)[:, :, None]}
    other = [members[0], members[1]._replace(taps=maps)]
    plain, named = make(), make(teacher_taps=("embedding", "map"))
    params, state = setting.start(plain, batch_of(*members))
    want, _ = setting.evaluate(plain, params, state, batch_of(*members))
    got, _ = setting.evaluate(named, params, state, batch_of(*other))
    np.testing.assert_allclose(got["student"], want["student"], rtol=1e-5)


def test_drawn_triplets_approach_all_of_them():
    batch = batch_of(*(draw_member(i) for i in range(3)))
    options = {"label_weight": 0.0, "soft_weight": 0.0}
    few, whole = make(triplets=2, **options), make(**options)
    params, state = setting.start(whole, batch)
    want = setting.evaluate(whole, params, state, batch)[0]["student"]
    call = jax.jit(
        jax.vmap(lambda key: few.loss(params, state, batch, {}, key)[0]["student"])
    )
    drawn = np.asarray(call(jax.random.split(jax.random.key(0), 300)))
    assert len({*drawn.tolist()}) > 250
    # Anchors without a valid pair count 0, so the mean is below that of all pairs.
    assert 0.5 * want < drawn.mean() < want


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"margin": 0.0}, "strategy.options.margin: expected a number > 0, got 0.0"),
        ({"tap": "none"}, "strategy.options.tap: expected"),
        ({"teacher_taps": ("a", "b", "c")}, "strategy.options.teacher_taps: expected"),
    ],
)
def test_bad_options_are_one_line(options, text):
    batch = batch_of(draw_member(0), draw_member(1))

    def begin():
        strategy = make(**options)
        params, state = setting.start(strategy, batch)
        setting.evaluate(strategy, params, state, batch)

    with pytest.raises(ConfigError, match=f"^{text}") as caught:
        begin()
    assert "\n" not in str(caught.value)


def test_one_teacher_is_refused():
    batch = setting.make_batch(draw_member(0))
    text = "^teacher.members: expected two teachers or more, run live, got 'one"
    with pytest.raises(ConfigError, match=text):
        make().init(jax.random.key(0), batch)
