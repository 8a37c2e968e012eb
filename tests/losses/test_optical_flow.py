"""Motion: plain float64 NumPy formulas, differences, a translation, bad input."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.test_util import check_grads

from kdjax import losses

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("strict_dtypes")]

RNG = np.random.default_rng(1)
FIELDS = RNG.normal(size=(2, 3, 4, 2, 2))
SIZE = (2, 5, 7)
IMAGES = RNG.uniform(size=(2, *SIZE, 3))
# Up to 2 pixels, also out of the image, and at whole numbers nowhere.
FLOW = RNG.uniform(-2, 2, size=(*SIZE, 2))
WEIGHTS = RNG.uniform(0.2, 1, size=SIZE) * (RNG.uniform(size=SIZE) > 0.3)
# Levels and an offset whose slopes differences can follow.
MILD = {"patch": 3, "levels": 2.0, "eps": 0.5}


def test_flow_against_numpy(float64):
    """methods.md, E12: psi(x) = (|x| + 0.01)^0.4; a mask of 0 gives 0."""
    student, teacher = FIELDS
    mask = RNG.uniform(size=(3, 4, 2)) * np.array([1.0, 0.5, 0.0])[:, None, None]
    cost = ((np.abs(student - teacher) + 0.01) ** 0.4).sum(-1)
    count = np.maximum(mask.sum((1, 2)), 1e-9)
    expected = (mask * cost).sum((1, 2)) / count
    loss = functools.partial(losses.optical_flow, importance=mask)
    np.testing.assert_allclose(loss(student, teacher), expected, rtol=1e-9)
    assert loss(student, teacher)[2] == 0
    traced = jax.jit(lambda m: losses.optical_flow(student, teacher, importance=m))
    np.testing.assert_allclose(traced(mask > 0), traced((mask > 0) * 1.0), rtol=1e-12)

    # With a larger offset: near its default the slope is too steep for differences.
    def weighed(*fields):
        return (jnp.arange(1.0, 4) * loss(*fields, eps=0.5)).sum()

    check_grads(jax.jit(weighed), (student, teacher), 1, ("fwd", "rev"), 1e-6, 1e-6)


def _hat(position, size):
    """Weights of all pixels along an axis, `[..., size]`."""
    position = np.clip(position, 0, size - 1)
    return np.maximum(0, 1 - np.abs(position[..., None] - np.arange(size)))


def _warp(x, flow):
    """Every pixel of the image in a sum, each with its two hats."""
    _, height, width, _ = x.shape
    column = _hat(np.arange(width) + flow[..., 0], width)
    row = _hat(np.arange(height)[:, None] + flow[..., 1], height)
    return np.einsum("nijr,nijk,nrkc->nijc", row, column, x)


def test_warp_against_numpy(float64):
    x = IMAGES[0]
    moved = jax.jit(losses.warp)(x, FLOW)
    np.testing.assert_allclose(moved, _warp(x, FLOW), rtol=1e-12)
    # At whole numbers, among them the last row and column, and far outside.
    whole = np.array([0.0, 1, -1, 6, -6, 1e4, -1e4])[RNG.integers(7, size=(*SIZE, 2))]
    np.testing.assert_array_equal(losses.warp(x, 0 * FLOW), x)
    np.testing.assert_allclose(losses.warp(x, whole), _warp(x, whole), rtol=1e-12)
    # The first component is the column.
    right = losses.warp(x, np.zeros((*SIZE, 2)) + [1.0, 0.0])
    np.testing.assert_array_equal(right, x[:, :, [1, 2, 3, 4, 5, 6, 6]])
    down = losses.warp(x, np.zeros((*SIZE, 2)) + [0.0, 1.0])
    np.testing.assert_array_equal(down, x[:, [1, 2, 3, 4, 4]])


def test_warp_s_gradients(float64):
    x, weight = IMAGES

    def loss(x, flow):
        return (weight * losses.warp(x, flow)).sum()

    check_grads(jax.jit(loss), (x, FLOW), 1, ("fwd", "rev"), 1e-6, 1e-6)
    to_x, to_flow = jax.jit(jax.grad(loss, (0, 1)))(x, FLOW)
    outside = [
        (np.arange(n).reshape(shape) + FLOW[..., part] > n - 1)
        | (np.arange(n).reshape(shape) + FLOW[..., part] < 0)
        for part, n, shape in ((0, 7, (1, 7)), (1, 5, (5, 1)))
    ]
    np.testing.assert_array_equal(to_flow == 0, np.stack(outside, -1))
    # A pixel's share of all lookups, and that of all pixels together.
    np.testing.assert_allclose(to_x.sum((1, 2)), weight.sum((1, 2)))
    # At rest: the slope to the next pixel, and at the last one from that before.
    _, at_rest = jax.grad(loss, (0, 1))(x, 0 * FLOW)
    step = np.diff(x, axis=2)
    step = np.concatenate([step, step[:, :, -1:]], 2)
    np.testing.assert_allclose(at_rest[..., 0], (weight * step).sum(-1))


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 3), (1, 4, 1)])
def test_warp_of_single_rows(size):
    x = RNG.normal(size=(*size, 2)).astype(np.float32)
    flow = RNG.normal(size=(*size, 2)).astype(np.float32)
    np.testing.assert_allclose(losses.warp(x, flow), _warp(x, flow), 1e-5, 1e-6)
    slopes = jax.grad(lambda *a: losses.warp(*a).sum(), (0, 1))(x, flow)
    assert all(np.isfinite(slope).all() for slope in slopes)


def _occluded(there, back, relative=0.01, absolute=0.5):
    back = _warp(back, there)
    squares = [(w**2).sum(-1) for w in (there + back, there, back)]
    column = np.arange(there.shape[2]) + there[..., 0]
    row = np.arange(there.shape[1])[:, None] + there[..., 1]
    inside = (column >= 0) & (column <= there.shape[2] - 1)
    inside &= (row >= 0) & (row <= there.shape[1] - 1)
    return (squares[0] > relative * (squares[1] + squares[2]) + absolute) | ~inside


def test_occlusion_against_numpy(float64):
    rng = np.random.default_rng(2)
    size = (2, 12, 16, 2)
    there = np.array([2.3, -1.4]) + 0.4 * rng.normal(size=size)
    back = -there + 0.4 * rng.normal(size=size)
    for knobs in ({}, {"relative": 0.3, "absolute": 2.0}, {"relative": 0}):
        found = jax.jit(losses.occlusion_mask)(there, back, **knobs)
        expected = _occluded(there, back, **knobs)
        assert found.dtype == bool and 0.1 < expected.mean() < 0.9
        np.testing.assert_array_equal(found, expected)
    loose = losses.occlusion_mask(there, back, relative=0, absolute=1e6)
    assert loose.any() and not loose.all()


def test_occlusion_of_a_square_that_moves():
    """methods.md, E12: a square moves 3 to the right over a ground that stands still.

    In the first image it covers columns 2 to 4, in the second 5 to 7: the ground seen
    at 5 to 7 first is hidden then, and the ground at 2 to 4 is uncovered.
    """
    forward = np.zeros((1, 8, 12, 2), np.float32)
    forward[:, 3:6, 2:5, 0] = 3
    backward = np.zeros_like(forward)
    backward[:, 3:6, 5:8, 0] = -3
    hidden, uncovered = np.zeros((2, 1, 8, 12), bool)
    hidden[:, 3:6, 5:8] = uncovered[:, 3:6, 2:5] = True
    np.testing.assert_array_equal(losses.occlusion_mask(forward, backward), hidden)
    np.testing.assert_array_equal(losses.occlusion_mask(backward, forward), uncovered)


def test_occlusion_of_a_camera_that_moves():
    """All moves by (2, -1): what leaves the image is occluded, and nothing else."""
    forward = np.zeros((1, 5, 6, 2), np.float32) + np.float32([2, -1])
    expected = np.zeros((1, 5, 6), bool)
    expected[:, :, 4:] = expected[:, 0] = True
    found = losses.occlusion_mask(forward, -forward)
    np.testing.assert_array_equal(found, expected)
    forward[0, 3, 1] = np.nan
    assert losses.occlusion_mask(forward, -forward)[0, 3, 1]


def test_no_gradient_of_a_mask():
    x = jnp.asarray(IMAGES[0], jnp.float32)
    flow = jnp.asarray(FLOW, jnp.float32)

    def loss(flow):
        seen = ~losses.occlusion_mask(flow, -flow)
        return losses.census_loss(x, x[::-1], importance=seen, patch=3).sum()

    np.testing.assert_array_equal(jax.grad(loss)(flow), 0)


def _census(first, second, m, patch=7, levels=255.0, power=0.4, eps=0.01):
    """A patch and a neighbor at a time."""
    if first.shape[-1] == 3:
        first, second = (x @ [0.2989, 0.587, 0.114] for x in (first, second))
    first, second = (levels * x.reshape(m.shape) for x in (first, second))
    border, values = patch // 2, []
    for n in range(len(m)):
        total = count = 0.0
        inside = itertools.product(
            *(range(border, side - border) for side in m.shape[1:])
        )
        for i, j in inside:
            distance = 0.0
            for k in range(i - border, i + border + 1):
                for o in range(j - border, j + border + 1):
                    a = first[n, k, o] - first[n, i, j]
                    b = second[n, k, o] - second[n, i, j]
                    gap = a / np.sqrt(0.81 + a * a) - b / np.sqrt(0.81 + b * b)
                    distance += gap**2 / (0.1 + gap**2)
            total += m[n, i, j] * (distance + eps) ** power
            count += m[n, i, j]
        values.append(total / count if count else 0.0)
    return values


def test_census_against_numpy(float64):
    first, second = IMAGES
    for knobs in (MILD, {"patch": 5}, {"patch": 3, "levels": 1.0, "power": 1.3}):
        found = losses.census_loss(first, second, importance=WEIGHTS, **knobs)
        expected = _census(first, second, WEIGHTS, **knobs)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    first, second = RNG.normal(size=(2, 2, 9, 8, 1)) / 50
    seen = RNG.uniform(size=(2, 9, 8)) > 0.5
    found = losses.census_loss(first, second, importance=seen)
    np.testing.assert_allclose(found, _census(first, second, seen * 1.0), rtol=1e-9)


def test_census_s_gradients(float64):
    def loss(first, second):
        values = losses.census_loss(first, second, importance=WEIGHTS, **MILD)
        return (jnp.array([1.0, 2.0]) * values).sum()

    check_grads(jax.jit(loss), tuple(IMAGES), 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_census_of_no_pixel_is_zero():
    """methods.md, E12: a zero mask gives 0, not NaN, whatever the images hold."""
    first, second = IMAGES.astype(np.float32)
    mask = np.ones(SIZE, bool)
    # Only the border, where no patch fits, is left to the second image.
    mask[0], mask[1, 1:-1, 1:-1] = False, False
    first[0] = np.nan

    def loss(first, second):
        values = losses.census_loss(first, second, importance=mask, patch=3)
        return values.sum(), values

    slopes, values = jax.grad(loss, (0, 1), has_aux=True)(first, second)
    for x in (values, *slopes):
        np.testing.assert_array_equal(x, 0)


def test_census_sees_its_patches_alone():
    """NaN beyond the counted patches changes nothing; within, it is seen."""
    first, second = IMAGES.astype(np.float32)
    mask = np.zeros(SIZE, bool)
    mask[:, 2, 2] = True

    def loss(first, second):
        values = losses.census_loss(first, second, importance=mask, patch=3)
        return values.sum(), values

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    expected = gradient(first, second)
    covered = np.zeros(SIZE, bool)
    covered[:, 1:4, 1:4] = True
    spoilt = (np.where(covered[..., None], x, np.nan) for x in (first, second))
    for a, b in zip(*map(jax.tree.leaves, (gradient(*spoilt), expected)), strict=True):
        np.testing.assert_array_equal(a, b)
    first[0, 3, 3] = np.nan
    _, values = gradient(first, second)
    np.testing.assert_array_equal(np.isnan(values), [True, False])


def test_census_laws():
    """A permuted batch, vmap, a shift of the grays, equal images, either order."""
    first, second = IMAGES.astype(np.float32)
    mask = WEIGHTS.astype(np.float32)
    loss = jax.jit(functools.partial(losses.census_loss, patch=3))
    expected = loss(first, second, importance=mask)
    assert expected.shape == (2,) and (expected > 0).all()
    turned = loss(first[::-1], second[::-1], importance=mask[::-1])
    np.testing.assert_allclose(turned[::-1], expected, rtol=1e-5)
    each = jax.vmap(lambda a, b, m: loss(a[None], b[None], importance=m[None])[0])
    np.testing.assert_allclose(each(first, second, mask), expected, rtol=1e-5)
    for pair in ((first + 0.5, second), (second, first), (first, second - 0.25)):
        np.testing.assert_allclose(loss(*pair, importance=mask), expected, rtol=1e-3)
    np.testing.assert_allclose(loss(first, second, importance=3 * mask), expected, 1e-5)
    same = loss(first, first, importance=mask)
    np.testing.assert_allclose(same, 0.01**0.4, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_widened(dtype):
    half = jnp.asarray(IMAGES).astype(dtype)
    flow = (jnp.asarray(FLOW) + 300).astype(dtype) - 300
    wide, exact = half.astype(jnp.float32), flow.astype(jnp.float32)

    def loss(first, second, flow):
        moved = losses.warp(second, flow)
        seen = ~losses.occlusion_mask(flow, -flow)
        values = losses.census_loss(first, moved, importance=seen, patch=3)
        return values.sum(), (values, moved, seen)

    gradient = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    slopes, found = gradient(*half, flow)
    assert found[0].dtype == found[1].dtype == jnp.float32
    assert all(slope.dtype == dtype for slope in slopes)
    assert all(np.isfinite(slope).all() for slope in slopes)
    for a, b in zip(found, gradient(*wide, exact)[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # The wider of two, for images beside a field of another precision.
    assert losses.warp(half[0], exact).dtype == jnp.float32


EXTREMES = [(0.0, 0.0), (1e4, -1e4), (1e4, 0.0), (1e-20, 1e-20), (1.0, 1e4)]


@pytest.mark.parametrize("scales", EXTREMES)
def test_finite_values_and_gradients(scales):
    first, second = (
        (s * x).astype(np.float32) for s, x in zip(scales, IMAGES - 0.5, strict=True)
    )

    def loss(first, second, flow):
        moved = losses.warp(second, flow)
        seen = jnp.ones(SIZE, bool)
        return losses.census_loss(first, moved, importance=seen, patch=3).sum()

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    for flow in (0 * FLOW, FLOW, 1e4 * FLOW, 1e-20 * FLOW):
        for x in jax.tree.leaves(gradient(first, second, flow.astype(np.float32))):
            assert np.isfinite(x).all()


F32 = functools.partial(np.ones, dtype=np.float32)
BAD_WARPS = [
    ("x", {"x": np.ones((1, 4, 4, 1), int)}),
    ("x", {"x": F32((4, 4, 1))}),
    ("x", {"x": F32((0, 4, 4, 1)), "flow": F32((0, 4, 4, 2))}),
    ("flow", {"flow": F32((1, 4, 5, 2))}),
    ("flow", {"flow": F32((1, 4, 4, 3))}),
    ("flow", {"flow": np.ones((1, 4, 4, 2), int)}),
]
BAD_MASKS = [
    ("forward_flow", {"forward_flow": F32((1, 4, 4, 3))}),
    ("forward_flow", {"forward_flow": F32((4, 4, 2))}),
    ("backward_flow", {"backward_flow": F32((1, 5, 4, 2))}),
    ("relative", {"relative": -0.1}),
    ("absolute", {"absolute": np.nan}),
]
BAD_CENSUS = [
    ("first", {"first": np.ones((1, 4, 4, 3), int)}),
    ("first", {"first": F32((1, 4, 4, 2)), "second": F32((1, 4, 4, 2))}),
    ("first", {"first": F32((4, 4, 3))}),
    ("second", {"second": F32((1, 4, 4, 1))}),
    ("second", {"second": np.ones((1, 4, 4, 3), int)}),
    ("importance", {"importance": F32((1, 4, 4, 1))}),
    ("importance", {"importance": -F32((1, 4, 4))}),
    ("importance", {"importance": np.ones((1, 4, 4), int)}),
    *(("patch", {"patch": p}) for p in (1, 5, 7, 3.0)),
    *(("levels", {"levels": v}) for v in (0.0, np.inf)),
    *(("power", {"power": v}) for v in (0.0, 2.5)),
    ("eps", {"eps": 0.0}),
]


@pytest.mark.parametrize(
    "call, name, bad",
    [
        *(("warp", *bad) for bad in BAD_WARPS),
        *(("occlusion_mask", *bad) for bad in BAD_MASKS),
        *(("census_loss", *bad) for bad in BAD_CENSUS),
    ],
)
def test_refusals_name_the_argument(call, name, bad):
    field = F32((1, 4, 4, 2))
    image = F32((1, 4, 4, 3))
    good = {
        "warp": {"x": image, "flow": field},
        "occlusion_mask": {"forward_flow": field, "backward_flow": field},
        "census_loss": {"first": image, "second": image, "importance": image[..., 0]},
    }[call]
    knobs = {"patch": 3} if call == "census_loss" else {}
    with pytest.raises(ValueError, match=f"^{name}: expected .*got"):
        getattr(losses, call)(**{**good, **knobs, **bad})


def test_even_patches_and_traced_values_are_refused():
    image = F32((1, 6, 6, 1))
    with pytest.raises(
        ValueError, match="^patch: expected an odd number from 3 to 6 .*, got 4"
    ):
        losses.census_loss(image, image, importance=image[..., 0], patch=4)
    loss = functools.partial(losses.census_loss, image, image, patch=3)
    checked = jax.jit(checkify.checkify(lambda m: loss(importance=m)))
    error, _ = checked(-image[..., 0])
    with pytest.raises(checkify.JaxRuntimeError, match="^importance: expected"):
        error.throw()
