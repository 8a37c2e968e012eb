"""Numbers out of their range are refused by name; what is masked out may be any."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import compress, losses, targets
from tests.contracts.harness import inputs
from tests.lawbook import feature, relation, response

X = np.random.default_rng(1).normal(size=(3, 2, 2)).astype(np.float32)
ROWS, FLAT = X[..., 0], X[:, 0, 0]
KEEP = np.array([True, False, True])
LABELS = np.array([0, 1, 0])


def _quantize(levels):
    return losses.uniform_quantize(X, levels=levels, low=-1.0, high=1.0)


def _fidelity(deviation, typical=1.0):
    deviation = np.asarray(deviation, np.float32)
    return targets.fidelity_weights(deviation, highest=2.0, typical=typical)


def _penalty(share):
    share = np.full(3, share, np.float32)
    return losses.gradient_penalty(lambda x: x.sum(1), ROWS, ROWS, share=share)


def _class_weighted(weights):
    weights = np.array(weights, np.float32)
    return losses.class_weighted_cross_entropy(ROWS, ROWS, class_weights=weights)


def _imitation(weight):
    weight = np.full((3, 2), weight, np.float32)
    return losses.fine_grained_imitation(X, X, importance=weight)


def _statistics(variance, variant="l2"):
    variance = np.array([1.0, variance], np.float32)
    mean = np.zeros(2, np.float32)
    return losses.batch_norm_statistics(
        ROWS, mean=mean, variance=variance, variant=variant
    )


def _hashing(similarity):
    similarity = np.full((3, 3), similarity, np.float32)
    return losses.hashing_likelihood(ROWS, similarity, other_codes=ROWS)


def _mixed(weights):
    weights = jnp.asarray(weights, jnp.float32)
    return targets.ensemble_logits(X[:2], weights=weights)


def _soft_labels(concentration):
    concentration = np.array([1.0, concentration], np.float32)
    return targets.sample_soft_labels(jax.random.key(0), concentration)


def _boxes(margin):
    boxes = np.zeros((3, 4), np.float32)
    return losses.bounded_regression(boxes, boxes, targets=boxes, margin=margin)


def _weighted(eps):
    return losses.wsld(ROWS, ROWS, labels=LABELS, eps=eps)


_WEIGHTS = ("alpha", "beta", "gamma")


def _irg(student, teacher, **weights):
    more = {"student_later": student, "student_logits": student}
    more |= {"teacher_later": teacher, "teacher_logits": teacher}
    return losses.irg(student, teacher, **more, **weights)


def _focal(**weights):
    maps = X[..., None]
    return losses.fgd(maps, maps, foreground=X[..., 0] > 0, **weights)


def _decoupled(**weights):
    return losses.dkd(ROWS, ROWS, labels=LABELS, **weights)


WRONG = [
    ("levels: expected a whole number of at least 2, got 2.5", lambda: _quantize(2.5)),
    ("levels: expected a whole number of at least 2, got inf",
     lambda: _quantize(np.inf)),
    ("margin: expected numbers of at most 0, got 0.5",
     lambda: losses.ofd(X, X, margin=np.array([-1, 0.5], np.float32))),
    ("typical: expected a number below highest, got 2.0", lambda: _fidelity([1], 2.0)),
    ("deviation: expected numbers of at least 0, got -1.0", lambda: _fidelity([1, -1])),
    (r"share: expected numbers in \[0, 1\], got 1.5", lambda: _penalty(1.5)),
    ("class_weights: expected numbers of at least 0, got -1.0",
     lambda: _class_weighted([1, -1])),
    ("importance: expected finite numbers of at least 0, got -1.0",
     lambda: _imitation(-1)),
    ("importance: expected finite numbers of at least 0, got nan",
     lambda: _imitation(np.nan)),
    ("variance: expected numbers of at least 0, got -1.0", lambda: _statistics(-1)),
    ("variance: expected numbers of at least 0", lambda: _statistics(-1, "kl")),
    (r"teacher_similarity: expected numbers in \[0, 1\], got -0.5",
     lambda: _hashing(-0.5)),
    ("weights: expected numbers of at least 0, got -1.0", lambda: _mixed([2, -1])),
    ("weights: expected a sum over the teachers of 1, or of 0 for none, got 1.5",
     lambda: _mixed([1, 0.5])),
    ("concentration: expected finite numbers above 0, got 0.0",
     lambda: _soft_labels(0)),
    ("margin: expected a finite number of at least 0.0, got True",
     lambda: _boxes(margin=True)),
    ("margin: expected a finite number of at least 0.0, got inf",
     lambda: _boxes(margin=np.inf)),
    ("eps: expected a number in .*, got 0.0", lambda: _weighted(0.0)),
    ("axis: expected an integer axis of student_logits",
     lambda: losses.softmax_kl(ROWS, ROWS, axis=True)),
    ("alpha: expected .*, got nan", lambda: _decoupled(alpha=np.nan)),
    (r"beta: expected a finite number, got shape \(3,\)",
     lambda: _decoupled(beta=FLAT)),
    *(
        (f"{name}: expected a finite number, got {value!r}",
         functools.partial(loss, ROWS, ROWS, **{name: value}))
        for loss, names in ((losses.dist, ("beta", "gamma")), (_irg, _WEIGHTS))
        for name in names
        for value in (np.nan, np.inf, "x", None)
    ),
    ("other_teachers: expected a sequence of arrays, got 7",
     lambda: losses.triplet_relation(ROWS, ROWS, other_teachers=7)),
    ("gamma: expected a finite number, got nan", lambda: _focal(gamma=np.nan)),
]  # fmt: skip
RIGHT = [
    *(lambda: _quantize(np.int32(4)), lambda: _fidelity([0, 1])),
    *(lambda: _penalty(1), lambda: _class_weighted([0, 1]), lambda: _imitation(0)),
    # A channel that never fires has the variance 0: "kl" takes `eps` in its place.
    *(lambda: _statistics(0), lambda: _statistics(0, "kl"), lambda: _hashing(1)),
    *(
        lambda: _mixed([0.3333, 0.6667]),
        lambda: _mixed([[0, 0.5], [0, 0.5], [0, 0]][:2]),
    ),
]


@pytest.mark.parametrize(
    "message, call", WRONG, ids=[m.split(":")[0] for m, _ in WRONG]
)
def test_out_of_range_is_refused_by_name(message, call):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@pytest.mark.parametrize("call", RIGHT)
def test_the_ends_of_the_range_are_in(call):
    assert np.isfinite(call()).all()


def test_every_axis_is_an_integer():
    for case in (*response.CASES, *relation.CASES, *feature.CASES):
        rng, kernel = np.random.default_rng(0), getattr(losses, case.name)
        if case.teacher == "ids" or "axis" not in kernel.__code__.co_varnames:
            continue
        student = rng.normal(size=(4, *case.student)).astype(np.float32)
        teacher = student
        if isinstance(case.teacher, tuple):
            teacher = rng.normal(size=(4, *case.teacher)).astype(np.float32)
        options = {**dict(case.knobs), **case.arrays(rng, 4), "axis": None}
        with pytest.raises(ValueError, match="^axis: expected an integer axis .* None"):
            kernel(student, teacher, **options)


def _boolean_options(function):
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.annotation is bool]


def test_boolean_options_are_true_or_false():
    calls = {
        losses.gradient_penalty: lambda **more: losses.gradient_penalty(
            lambda x: x.sum(1), ROWS, ROWS, share=FLAT**0, **more
        ),
        compress.affine_quantize: functools.partial(
            compress.affine_quantize, X, low=-1.0, high=1.0
        ),
    }
    for case in (*response.CASES, *relation.CASES, *feature.CASES):
        kernel = getattr(losses, case.name)
        if kernel not in calls and _boolean_options(kernel):
            student, teacher, arrays = inputs(case)
            options = dict(case.knobs) | arrays
            calls[kernel] = functools.partial(kernel, student, teacher, **options)
    tried = [
        (call, x)
        for function, call in calls.items()
        for x in _boolean_options(function)
    ]
    assert len(tried) >= 12
    for call, name in tried:
        for value in ("nope", 7, None, jnp.array([True, False])):
            with pytest.raises(ValueError, match=f"^{name}: expected True or False"):
                call(**{name: value})


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_masked_examples_leave_the_gradient_alone(spoilt):
    scale = np.array([1.0, 2.0, 3.0], np.float32)

    def confident(x):
        return (scale * targets.confidence_weights(x, where=KEEP)).sum()

    def faithful(d):
        weights = targets.fidelity_weights(
            d, highest=2.0, typical=1.0, where=jnp.asarray(KEEP)
        )
        return (scale * weights).sum()

    for loss, x in ((confident, ROWS), (faithful, np.abs(FLAT))):
        gradient = jax.grad(loss)
        bad = np.where(KEEP.reshape(-1, *[1] * (x.ndim - 1)), x, spoilt)
        found = np.asarray(gradient(bad.astype(np.float32)))
        np.testing.assert_allclose(found[KEEP], gradient(x)[KEEP], rtol=1e-6)
        np.testing.assert_array_equal(found[~KEEP], 0)
        assert (found[KEEP] != 0).any()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("examples", [1, 16])
def test_singular_covariances_can_be_drawn_from(examples, scale):
    """Far fewer examples than channels, in float32; and none that vary."""
    x = np.random.default_rng(1).normal(size=(examples, 256)).astype(np.float32)
    covariance = (x.T @ x / examples * scale).astype(np.float32)
    mean = np.zeros(256, np.float32)
    draws = targets.sample_activations(jax.random.key(0), mean, covariance, count=2000)
    variance = np.square(np.asarray(draws)).mean()
    np.testing.assert_allclose(variance, np.diag(covariance).mean(), rtol=0.2)
    none = targets.sample_activations(jax.random.key(0), mean, 0 * covariance, count=2)
    np.testing.assert_allclose(none, 0, atol=1e-12)


def test_what_is_left_out_is_not_judged():
    adjacency = np.where(KEEP[:, None] & KEEP, 1, -1).astype(np.float32)
    values = losses.adjacency_reconstruction(ROWS, adjacency, where=KEEP)
    assert np.isfinite(values).all()
    places = np.array([[True, False]] * 3)
    weight = np.where(places, 1, -1).astype(np.float32)
    for loss in (losses.fine_grained_imitation, losses.optical_flow):
        values = loss(X, X + 1, importance=weight, where=places[..., None])
        assert np.isfinite(values).all()
    border = np.full((1, 5, 5), -1, np.float32)
    border[:, 1:-1, 1:-1] = 1
    image = np.zeros((1, 5, 5, 1), np.float32)
    assert losses.census_loss(image, image, importance=border, patch=3)[0] > 0
