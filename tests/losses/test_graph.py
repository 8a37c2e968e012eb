"""Graph losses against NumPy formulas written with loops, and differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import (
    adjacency_reconstruction,
    edge_smoothness,
    irg,
    irg_edges,
    irg_transformation,
    locality_preserving,
    mhgd,
    triplet_relation,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes")
ROWS = 6
KEEP = np.array([True, False, True, True, True, True])


def _random(rows=ROWS):
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 3)), rng.normal(size=(rows, 5))


def _later():
    rng = np.random.default_rng(2)
    return rng.normal(size=(ROWS, 3)), rng.normal(size=(ROWS, 5))


def _heads():
    rng = np.random.default_rng(3)
    student, teacher, early, early_teacher = rng.normal(size=(4, ROWS, 3))
    arrays = {
        "student_earlier": early,
        "teacher_earlier": early_teacher,
        "sender": rng.normal(size=(2, 4, 3)),
        "receiver": rng.normal(size=(2, 4, 3)),
    }
    return (student, teacher), arrays


def _squares(f):
    return np.array([[((a - b) ** 2).sum() for b in f] for a in f])


def _edges(student, teacher):
    s, t = _squares(student), _squares(teacher)
    return ((t / t.max() - s / s.max()) ** 2).mean(1)


def _locality(student, teacher, k=5, sigma=None):
    s, t = _squares(student), _squares(teacher)
    near = [
        np.argsort(np.where(np.arange(len(t)) == i, np.inf, t[i]))[:k]
        for i in range(len(t))
    ]
    near = [ids[ids != i] for i, ids in enumerate(near)]
    square = np.median([t[i, ids] for i, ids in enumerate(near)])
    square = square if sigma is None else sigma**2
    return [(np.exp(-t[i, j] / square) * s[i, j]).mean() for i, j in enumerate(near)]


def _triplets(student, *teachers, margin=0.2):
    def unit(f):
        return _squares(f / np.sqrt((f * f).sum(1, keepdims=True)))

    s, n, values = unit(student), len(student), []
    for i in range(n):
        hinges = []
        for j in range(n):
            for k in range(j):
                votes = sum(np.sign(unit(t)[i, k] - unit(t)[i, j]) for t in teachers)
                if i not in (j, k) and votes != 0:
                    gap = np.sign(votes) * (s[i, j] - s[i, k])
                    hinges.append(max(0, gap + margin))
        values.append(np.mean(hinges))
    return values


def _attention(student, teacher, arrays):
    graphs = []
    for later, side in ((student, "student"), (teacher, "teacher")):
        earlier = arrays[f"{side}_earlier"]
        heads = []
        for send, receive in zip(arrays["sender"], arrays["receiver"], strict=True):
            a = np.exp(np.tanh((later @ send.T) @ (earlier @ receive.T).T))
            heads.append(a / a.sum(1, keepdims=True))
        graphs.append(np.stack(heads))
    gap = graphs[0] * (np.log(graphs[0]) - np.log(graphs[1]))
    return len(student) * gap.sum((0, 2))


FORMULAS = {
    "edges": (irg_edges, _edges),
    "locality": (locality_preserving, _locality),
    "locality, sigma": (
        functools.partial(locality_preserving, neighbors=2, sigma=1.5),
        functools.partial(_locality, k=2, sigma=1.5),
    ),
    "triplets": (triplet_relation, _triplets),
    "triplets, margin": (
        functools.partial(triplet_relation, margin=1.0, chunk=2),
        functools.partial(_triplets, margin=1.0),
    ),
}
kernels = pytest.mark.parametrize("name", FORMULAS)


@kernels
def test_against_numpy(float64, name):
    kernel, formula = FORMULAS[name]
    student, teacher = _random()
    np.testing.assert_allclose(
        jax.jit(kernel)(student, teacher), formula(student, teacher), rtol=1e-9
    )
    values = jax.jit(kernel)(student, teacher, where=KEEP)
    assert values[1] == 0
    expected = formula(student[KEEP], teacher[KEEP])
    np.testing.assert_allclose(values[KEEP], expected, rtol=1e-9)


@kernels
def test_gradients_against_differences(float64, name):
    kernel, _ = FORMULAS[name]

    def loss(student, teacher):
        values = kernel(student, teacher, where=KEEP)
        return (jnp.arange(1.0, 1 + ROWS) * values).sum()

    check_grads(jax.jit(loss), _random(), 1, ("fwd", "rev"), 1e-6, 1e-6)


@kernels
def test_a_turn_and_a_scale_change_nothing(float64, name):
    """A shift changes nothing either where distances are not those of unit rows."""
    kernel, _ = FORMULAS[name]
    student, teacher = _random()
    turns = [
        np.linalg.qr(np.random.default_rng(4).normal(size=(n, n)))[0] for n in (3, 5)
    ]
    shift = 0 if "triplets" in name else 2
    moved = student @ turns[0] + shift, teacher @ turns[1] - shift
    if "sigma" not in name:
        moved = moved[0], 10 * moved[1]
    if "locality" not in name:
        moved = 7.5 * moved[0], moved[1]
    expected = kernel(student, teacher)
    np.testing.assert_allclose(kernel(*moved), expected, rtol=1e-8)


@pytest.mark.full
def test_edges_of_two_and_of_equal_rows():
    student, teacher = (x.astype(np.float32) for x in _random(3))
    two = np.array([True, True, False])
    np.testing.assert_array_equal(irg_edges(student, teacher, where=two), 0)
    point = np.ones((3, 3), np.float32)
    # [[0, 1], [1, 0]] against no edges at all.
    values = irg_edges(point, teacher, where=two)
    np.testing.assert_allclose(values, [0.5, 0.5, 0], rtol=1e-6)
    loss = jax.value_and_grad(lambda *x: irg_edges(*x).sum(), (0, 1))
    value, slopes = loss(point, 3 * point)
    assert value == 0 and all((slope == 0).all() for slope in slopes)


def test_a_constant_maximum_changes_the_gradient_alone(float64):
    student, teacher = _random()

    def loss(student, constant):
        return irg_edges(student, teacher, constant_max=constant).mean()

    assert loss(student, True) == loss(student, False)
    slopes = [jax.grad(loss)(student, constant) for constant in (True, False)]
    assert not np.allclose(*slopes, rtol=1e-3)
    # With the true gradient there is no push along the scale, which is free.
    np.testing.assert_allclose((slopes[1] * student).sum(), 0, atol=1e-12)
    assert abs((slopes[0] * student).sum()) > 1e-3


def test_transformation_and_the_whole_graph(float64):
    student, teacher = _random()
    later, later_teacher = _later()
    logits, targets = np.random.default_rng(5).normal(size=(2, ROWS, 4))
    moved, target = (
        ((a - b) ** 2).sum(1) for a, b in ((student, later), (teacher, later_teacher))
    )
    step = (target / target.max() - moved / moved.max()) ** 2
    layers = {"student_later": later, "teacher_later": later_teacher}
    answers = {"student_logits": logits, "teacher_logits": targets}
    values = irg_transformation(student, teacher, **layers)
    np.testing.assert_allclose(values, step, rtol=1e-9)
    edges = (_edges(student, teacher) + _edges(later, later_teacher)) / 2
    expected = 0.1 * ((logits - targets) ** 2).mean(1) + 5 * edges + 5 * step
    kernel = jax.jit(functools.partial(irg, **layers, **answers))
    np.testing.assert_allclose(kernel(student, teacher), expected, rtol=1e-9)

    def loss(student, teacher):
        return (jnp.arange(1.0, 1 + ROWS) * kernel(student, teacher, where=KEEP)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_attention_against_numpy_and_differences(float64):
    (student, teacher), arrays = _heads()
    kernel = jax.jit(functools.partial(mhgd, **arrays))
    expected = _attention(student, teacher, arrays)
    np.testing.assert_allclose(kernel(student, teacher), expected, rtol=1e-9)
    cut = {
        name: x[KEEP] if name.endswith("earlier") else x for name, x in arrays.items()
    }
    expected = _attention(student[KEEP], teacher[KEEP], cut)
    values = kernel(student, teacher, where=KEEP)
    np.testing.assert_allclose(values[KEEP], expected, rtol=1e-9)

    def loss(student, teacher):
        return (jnp.arange(1.0, 1 + ROWS) * kernel(student, teacher, where=KEEP)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_equal_vectors_have_equal_graphs(float64):
    (student, _), arrays = _heads()
    arrays["teacher_earlier"] = arrays["student_earlier"]
    np.testing.assert_array_equal(mhgd(student, student, **arrays), 0)


def test_locality_is_the_laplacian_of_its_graph(float64):
    """With all others as neighbors the edges are symmetric: sum = 2 tr(F' L F)."""
    student, teacher = _random()
    a = np.exp(-_squares(teacher) / 2.25)
    np.fill_diagonal(a, 0)
    trace = np.trace(student.T @ (np.diag(a.sum(1)) - a) @ student)
    values = locality_preserving(student, teacher, neighbors=100, sigma=1.5)
    np.testing.assert_allclose(5 * values.sum(), 2 * trace, rtol=1e-9)


@pytest.mark.full
def test_locality_trains_until_it_collapses():
    student, teacher = (x.astype(np.float32) for x in _random())
    slope = jax.grad(lambda s: locality_preserving(s, teacher).mean())(student)
    assert np.abs(slope).max() > 1e-2
    np.testing.assert_array_equal(locality_preserving(0 * student + 2, teacher), 0)


@pytest.mark.full
def test_the_majority_of_teachers_votes(float64):
    """Three teachers on a circle; for the anchor 0 two have row 1 nearer than row 2."""
    angles = (
        np.array([[0, 10, 50, 90], [0, 20, 30, 80], [0, 60, 40, 100]]) * np.pi / 180
    )
    first, second, third = np.stack([np.cos(angles), np.sin(angles)], -1)
    asked = np.tile(np.array([[1, 2]]), (4, 1, 1))
    student = first[np.array([0, 2, 1, 3])]  # has row 2 nearer

    def value(*teachers):
        values = triplet_relation(
            student, teachers[0], other_teachers=teachers[1:], triplets=asked
        )
        return values[0]

    gap = 2 * (np.cos(angles[0, 1]) - np.cos(angles[0, 2]))
    np.testing.assert_allclose(value(first, second, third), 0.2 + gap, rtol=1e-9)
    np.testing.assert_allclose(value(third), max(0, 0.2 - gap), atol=1e-9)
    assert value(first, third) == 0  # a tie is left out
    expected = _triplets(student, first, second, third)
    values = triplet_relation(student, first, other_teachers=(10 * second, third))
    np.testing.assert_allclose(values, expected, rtol=1e-9)


@pytest.mark.full
def test_triplets_satisfied_cost_nothing_and_foreign_pairs_are_left_out(float64):
    student, teacher = _random()
    assert (triplet_relation(student, student, margin=1e-9) == 0).all()
    pairs = np.array([[1, 2], [1, 3], [2, 2], [0, 1], [-1, 2], [2, 9]])
    asked = np.tile(pairs, (ROWS, 1, 1))
    real = pairs[:2]
    some = triplet_relation(student, teacher, triplets=asked)
    two = triplet_relation(student, teacher, triplets=np.tile(real, (ROWS, 1, 1)))
    np.testing.assert_allclose(some[0], two[0], rtol=1e-12)
    every = np.array([[j, k] for j in range(ROWS) for k in range(ROWS)])
    values = triplet_relation(student, teacher, triplets=np.tile(every, (ROWS, 1, 1)))
    expected = triplet_relation(student, teacher)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.parametrize("kernel", [irg_edges, locality_preserving])
def test_costs_little_more_than_its_gram_matrices(kernel):
    rows, width = 64, 1024
    shape = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    flops = jax.jit(kernel).lower(shape, shape).compile().cost_analysis()["flops"]
    assert flops < 1.4 * 2 * (2 * rows**2 * width)


def test_bad_arguments_are_refused():
    student, teacher = _random()
    later, later_teacher = _later()
    with pytest.raises(ValueError, match="^student_features: .*least 2 examples"):
        locality_preserving(student[:1], teacher[:1])
    with pytest.raises(ValueError, match="^student_features: .*least 3 examples"):
        triplet_relation(student[:2], teacher[:2])
    for knob, kernel in (
        ("neighbors", locality_preserving),
        ("sigma", locality_preserving),
        ("margin", triplet_relation),
        ("chunk", triplet_relation),
    ):
        with pytest.raises(ValueError, match=f"^{knob}: expected"):
            kernel(student, teacher, **{knob: 0})
    with pytest.raises(ValueError, match=r"^other_teachers\[0\]: expected shape"):
        triplet_relation(student, teacher, other_teachers=[teacher[:4]])
    with pytest.raises(ValueError, match=r"^triplets: expected shape \(6, 3, 2\)"):
        triplet_relation(student, teacher, triplets=np.ones((5, 3, 2), np.int32))
    with pytest.raises(ValueError, match="^student_later: expected the shape"):
        irg_transformation(
            student, teacher, student_later=later[:, :2], teacher_later=later_teacher
        )
    (first, second), arrays = _heads()
    for name, wrong in (
        ("teacher_earlier", later_teacher[:4]),
        ("sender", np.ones((2, 4, 5))),
        ("receiver", np.ones((1, 4, 3))),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected shape"):
            mhgd(first, second, **{**arrays, name: wrong})


def test_edges_against_numpy():
    """methods.md, E13: the ends of the edges that take part."""
    rng = np.random.default_rng(5)
    features, edges = rng.normal(size=(6, 4)), rng.integers(0, 6, (9, 2))
    where = rng.uniform(size=9) > 0.4
    gaps = features[edges[:, 0]] - features[edges[:, 1]]
    smooth = jax.jit(edge_smoothness)
    np.testing.assert_allclose(smooth(features, edges), (gaps**2).sum(1), rtol=1e-6)
    # What takes no part may be anything: node 0 is NaN, its edges point nowhere.
    where = (edges != 0).all(1)
    assert 0 < where.sum() < 9
    spoilt = np.where(np.arange(6)[:, None] == 0, np.nan, features)
    away = np.where(where[:, None], edges, -1)

    def total(x):
        values = edge_smoothness(x, away, where=where)
        return values.sum(), values

    slope, values = jax.jit(jax.grad(total, has_aux=True))(spoilt)
    np.testing.assert_allclose(values, np.where(where, (gaps**2).sum(1), 0), rtol=1e-6)
    expected = np.zeros((6, 4))
    np.add.at(expected, edges[where, 0], 2 * gaps[where])
    np.add.at(expected, edges[where, 1], -2 * gaps[where])
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)
    for bad in (-1, 6):
        with pytest.raises(ValueError, match="^edges: expected nodes in"):
            edge_smoothness(features, np.array([[0, bad]]))
    with pytest.raises(ValueError, match="^edges: expected shape"):
        edge_smoothness(features, edges[:, :1])


def test_adjacency_against_numpy(float64):
    rng = np.random.default_rng(9)
    nodes, keep = rng.normal(size=(5, 3)), np.array([True, True, False, True, True])
    adjacency = rng.uniform(size=(5, 5))
    for where in (None, keep):
        values = np.asarray(adjacency_reconstruction(nodes, adjacency, where=where))
        rows = slice(None) if where is None else where
        kept, edges = nodes[rows], adjacency[rows][:, rows]
        share = 1 / (1 + np.exp(-kept @ kept.T))
        expected = -(edges * np.log(share) + (1 - edges) * np.log(1 - share)).mean(1)
        np.testing.assert_allclose(values[rows], expected, rtol=1e-9)
        assert where is None or values[2] == 0
    far = adjacency_reconstruction(1e4 * nodes, adjacency)
    assert np.isfinite(far).all()
    check_grads(
        lambda z: adjacency_reconstruction(z, adjacency).sum(),
        (nodes,),
        1,
        ["rev"],
        1e-6,
        1e-6,
    )
    with pytest.raises(ValueError, match="^adjacency: expected shape"):
        adjacency_reconstruction(nodes, adjacency[:4])
    with pytest.raises(ValueError, match="^adjacency: expected values in"):
        adjacency_reconstruction(nodes, adjacency + 1)


def test_a_traced_edge_out_of_range_is_seen():
    features = jnp.arange(4.0).reshape(2, 2)
    edges = jnp.array([[0, 1], [0, 2], [-1, 0]])
    values = jax.jit(edge_smoothness)(features, edges)
    np.testing.assert_array_equal(np.isnan(values), [False, True, True])
