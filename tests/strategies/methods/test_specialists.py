"""Specialists with a dustbin class: both losses, who is active, and what is refused."""

import jax
import numpy as np
import pytest

from kdjax.config import ConfigError, Custom
from kdjax.presets import digits
from kdjax.strategies import make_strategy
from tests.strategies.methods import setting
from tests.strategies.methods.setting import CLASSES, N
from tests.strategies.methods.several import draw_member, several_outputs

# Of four classes: one specialist for 1 and 3, one for 0.
CLUSTERS = ("1,3", "0")


def make(name="with_specialists", **options):
    run = digits(strategy=Custom(name, options=options), steps=7)
    return make_strategy(run, setting.network(), None, classes=CLASSES)


def merged(logits, cluster, temperature=1.0):
    """Log-probabilities of a cluster and its dustbin, in float64."""
    p = np.exp(setting.log_softmax(np.asarray(logits, np.float64) / temperature))
    rest = [k for k in range(CLASSES) if k not in cluster]
    return np.log(np.stack([*p[:, cluster].T, p[:, rest].sum(1)], 1))


def logits_of(params, batch):
    """The student's logits in float64."""
    own = setting.doubles(params["student"])
    return np.asarray(batch.inputs["image"], np.float64) @ own["hidden"] @ own["head"]


@pytest.fixture
def batch():
    return setting.make_batch(several_outputs(*(draw_member(i) for i in range(3))))


def test_a_specialist_learns_its_classes_and_the_dustbin(batch):
    strategy = make("specialist", cluster=(1, 3))
    params, state = setting.start(strategy, batch)
    values, _ = setting.evaluate(strategy, params, state, batch)
    log_p = merged(logits_of(params, batch), [1, 3])
    ids = np.array([2, 0, 2, 1])[np.asarray(batch.labels)]
    np.testing.assert_allclose(values["student"], -log_p[range(N), ids].mean(), 1e-5)


def test_labels_of_mixed_images_are_mapped_too(batch):
    strategy = make("specialist", cluster=(1, 3))
    params, state = setting.start(strategy, batch)

    def value(batch):
        return setting.evaluate(strategy, params, state, batch)[0]["student"]

    partner = (batch.labels + 1) % CLASSES
    mixed = batch._replace(partner_labels=partner, mix_weight=0.25)
    expected = 0.25 * value(batch) + 0.75 * value(batch._replace(labels=partner))
    np.testing.assert_allclose(value(mixed), expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_generalist_and_active_specialists(batch, temperature):
    """KL to the generalist, plus the KL of each specialist where it is active."""
    strategy = make(clusters=CLUSTERS, weight=0.5, temperature=temperature)
    assert not strategy.labels
    params, state = setting.start(strategy, batch)
    values, metrics = setting.evaluate(strategy, params, state, batch)
    ours = logits_of(params, batch)
    general, *special = (draw_member(i).logits for i in range(3))
    likely, total, active = np.asarray(general).argmax(1), 0.0, 0.0
    for teacher, cluster in zip(special, ([1, 3], [0]), strict=True):
        p, q = (merged(x, cluster, temperature) for x in (teacher, ours))
        used = np.isin(likely, cluster)
        total += temperature**2 * ((np.exp(p) * (p - q)).sum(1) * used).mean()
        active += used.mean()
    want = 0.5 * (setting.kl(general, ours, temperature) + total)
    np.testing.assert_allclose(values["student"], want, rtol=1e-5)
    assert 0 < active < 2
    np.testing.assert_allclose(metrics["active specialists"], active, rtol=1e-6)


def test_a_perfect_student_of_equal_teachers_has_loss_0(batch):
    """Each KL is 0 where the student predicts as all teachers do."""
    strategy = make(clusters=CLUSTERS)
    params, state = setting.start(strategy, batch)
    one = setting.outputs(logits_of(params, batch).astype(np.float32))
    batch = batch._replace(targets=several_outputs(one, one, one))
    values, _ = setting.evaluate(strategy, params, state, batch)
    assert abs(values["student"]) < 1e-5


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("specialist", {}, "cluster: expected different class ids below 4"),
        ("specialist", {"cluster": (0, 4)}, "cluster: expected different class ids"),
        ("specialist", {"cluster": (0, 0)}, "cluster: expected different class ids"),
        ("specialist", {"cluster": (0, 1, 2, 3)}, "cluster: expected different"),
        ("with_specialists", {}, "clusters: expected class ids of each specialist"),
        ("with_specialists", {"clusters": ("1 2",)}, "clusters: expected class ids"),
        ("with_specialists", {"clusters": ("1,9",)}, "clusters: expected different"),
    ],
)
def test_bad_clusters_are_one_line(name, options, text):
    with pytest.raises(ConfigError, match=f"^strategy.options.{text}") as caught:
        make(name, **options)
    assert "\n" not in str(caught.value)


def test_another_number_of_teachers_is_refused(batch):
    text = "^teacher.members: expected 2 teachers, run live, got 3$"
    with pytest.raises(ConfigError, match=text):
        make(clusters=CLUSTERS[:1]).init(jax.random.key(0), batch)
    single = batch._replace(targets=draw_member(0))
    text = "^teacher.members: expected 3 teachers, run live, got 'one teacher'$"
    with pytest.raises(ConfigError, match=text):
        make(clusters=CLUSTERS).init(jax.random.key(0), single)
