"""Losses of critics, of those who face them, and of generators without data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import (
    adversarial_critic,
    adversarial_student,
    generator_activation,
    generator_class_logit,
    generator_entropy,
    generator_one_hot,
    gradient_penalty,
    image_l2,
    image_total_variation,
    reverse_gradient,
)
from kdjax.losses._generative.gan import CRITIC_VARIANTS, STUDENT_VARIANTS

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def _scores(shape=(6, 5), dtype=np.float64):
    return tuple(2 * np.random.default_rng(0).normal(size=(2, *shape)).astype(dtype))


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _numpy_critic(s, t, variant):
    return {
        "non_saturating": -np.log(_sigmoid(t)) - np.log(1 - _sigmoid(s)),
        "least_squares": 0.5 * (t - 1) ** 2 + 0.5 * s**2,
        "hinge": np.maximum(0, 1 - t) + np.maximum(0, 1 + s),
        "wasserstein": s - t,
    }[variant]


def _numpy_student(s, variant):
    return {
        "non_saturating": -np.log(_sigmoid(s)),
        "saturating": np.log(1 - _sigmoid(s)),
        "least_squares": 0.5 * (s - 1) ** 2,
        "hinge": -s,
        "wasserstein": -s,
    }[variant]


@pytest.mark.parametrize("variant", CRITIC_VARIANTS)
def test_critic_is_the_formula(variant, float64):
    student, teacher = _scores()
    value = adversarial_critic(student, teacher, variant=variant)
    expected = _numpy_critic(student, teacher, variant)
    np.testing.assert_allclose(value, expected.mean(1), rtol=1e-9)
    keep = np.arange(5) != 2
    value = adversarial_critic(student, teacher, variant=variant, where=keep)
    np.testing.assert_allclose(value, expected[:, keep].mean(1), rtol=1e-9)
    value = adversarial_critic(student[:, 0], teacher[:, 0], variant=variant)
    np.testing.assert_allclose(value, expected[:, 0], rtol=1e-9)


@pytest.mark.parametrize("variant", STUDENT_VARIANTS)
def test_student_is_the_formula(variant, float64):
    student, _ = _scores()
    value = adversarial_student(student, variant=variant)
    np.testing.assert_allclose(
        value, _numpy_student(student, variant).mean(1), rtol=1e-9
    )
    keep = np.arange(5) != 2
    dirty = np.where(keep, student, np.nan)
    loss = jax.value_and_grad(
        lambda s: adversarial_student(s, variant=variant, where=keep).sum()
    )
    value, gradient = loss(dirty)
    np.testing.assert_allclose(
        value, _numpy_student(student, variant)[:, keep].mean(1).sum()
    )
    assert np.isfinite(gradient).all() and (gradient[:, ~keep] == 0).all()


def test_a_critic_that_cannot_tell():
    zero, half = np.zeros(3, np.float32), np.full(3, 0.5, np.float32)
    np.testing.assert_allclose(adversarial_critic(zero, zero), 2 * np.log(2), 1e-6)
    np.testing.assert_allclose(adversarial_student(zero), np.log(2), rtol=1e-6)
    value = adversarial_critic(half, half, variant="least_squares")
    np.testing.assert_allclose(value, 0.25)
    np.testing.assert_allclose(adversarial_critic(zero, zero, variant="hinge"), 2)


@pytest.mark.parametrize("variant", STUDENT_VARIANTS)
def test_the_student_gains_from_higher_scores(variant):
    scores = np.array([-3.0, -0.5, 0.5], np.float32)
    gradient = jax.grad(lambda s: adversarial_student(s, variant=variant).sum())(scores)
    assert (gradient < 0).all()


def test_a_reversed_gradient_is_two_alternating_ones(float64):
    student, teacher = (x[:, :3] for x in _scores())
    weight = np.random.default_rng(1).normal(size=3)

    def together(student, weight):
        student = reverse_gradient(student)
        return adversarial_critic(student @ weight, teacher @ weight).mean()

    def critic(weight):
        return adversarial_critic(student @ weight, teacher @ weight).mean()

    def adversary(student):
        return adversarial_student(student @ weight, variant="saturating").mean()

    for_student, for_critic = jax.grad(together, (0, 1))(student, weight)
    np.testing.assert_allclose(for_critic, jax.grad(critic)(weight), rtol=1e-9)
    np.testing.assert_allclose(for_student, jax.grad(adversary)(student), rtol=1e-9)


def test_reverse_gradient_scales():
    x = np.array([1.0, 2.0], np.float32)
    np.testing.assert_array_equal(reverse_gradient(x), x)
    slope = jax.grad(lambda x, c: (3 * reverse_gradient(x, c)).sum(), (0, 1))
    gradient, scale = jax.jit(slope)(x, 0.25)
    np.testing.assert_allclose(gradient, -0.75)
    assert scale == 0
    half = jax.grad(lambda x: reverse_gradient(x).sum())(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16 and (half == -1).all()


def _critic(weight):
    return lambda x: jnp.sum(jnp.tanh(x.reshape(x.shape[0], -1) @ weight), -1)


def test_gradient_penalty_is_the_formula(float64):
    student, teacher = _scores((4, 3, 2))
    weight = np.random.default_rng(1).normal(size=(6, 5))
    share = np.array([0.0, 0.3, 0.7, 1.0])
    mixed = share[:, None, None] * teacher + (1 - share[:, None, None]) * student
    flat = mixed.reshape(4, 6)
    slope = (1 - np.tanh(flat @ weight) ** 2) @ weight.T
    size = np.sqrt((slope**2).sum(1))
    options = {"share": share}
    value = gradient_penalty(_critic(weight), student, teacher, **options)
    np.testing.assert_allclose(value, (size - 1) ** 2, rtol=1e-9)
    value = gradient_penalty(
        _critic(weight), student, teacher, **options, target=2.0, one_sided=True
    )
    np.testing.assert_allclose(value, np.maximum(size - 2, 0) ** 2, rtol=1e-9)

    def loss(weight, student, teacher):
        return gradient_penalty(_critic(weight), student, teacher, **options)

    arguments = tuple(jnp.asarray(x) for x in (weight, student, teacher))
    check_grads(jax.jit(loss), arguments, order=1, modes="rev", rtol=1e-5)


def test_a_flat_critic_has_finite_penalty_and_gradient():
    x = np.ones((2, 3), np.float32)
    share = np.full(2, 0.5, np.float32)

    def loss(weight):
        return gradient_penalty(lambda x: x @ weight, x, x, share=share).sum()

    value, gradient = jax.value_and_grad(loss)(np.zeros(3, np.float32))
    np.testing.assert_allclose(value, 2)
    np.testing.assert_array_equal(gradient, 0)


def _logits():
    return 2 * np.random.default_rng(2).normal(size=(5, 4))


def _probs(x):
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


def test_one_hot_is_the_formula(float64):
    logits = _logits()
    np.testing.assert_allclose(
        generator_one_hot(logits), -np.log(_probs(logits).max(-1)), rtol=1e-9
    )
    # The choice is a constant to the gradient: p minus its one-hot, over the rows.
    gradient = jax.grad(lambda x: generator_one_hot(x).sum())(logits)
    one_hot = np.eye(4)[logits.argmax(-1)]
    np.testing.assert_allclose(gradient, _probs(logits) - one_hot, rtol=1e-9)


def test_activation_is_the_formula(float64):
    features = np.random.default_rng(2).normal(size=(3, 2, 4))
    expected = -np.abs(features).mean((1, 2))
    np.testing.assert_allclose(generator_activation(features), expected)
    keep = np.arange(4) < 3
    value = generator_activation(np.where(keep, features, np.nan), where=keep)
    np.testing.assert_allclose(value, -np.abs(features[..., :3]).mean((1, 2)))


def test_entropy_is_the_formula(float64):
    logits = _logits()
    mean = _probs(logits).mean(0)
    expected = (mean * np.log10(mean)).sum()
    np.testing.assert_allclose(generator_entropy(logits).mean(), expected, rtol=1e-9)
    natural = generator_entropy(logits.T, base=np.e, axis=0).mean()
    np.testing.assert_allclose(natural, expected * np.log(10), rtol=1e-9)
    keep = np.array([True, False, True, True, False])
    dirty = np.where(keep[:, None], logits, np.nan)
    value = generator_entropy(dirty, where=keep)
    np.testing.assert_allclose(value[keep], generator_entropy(logits[keep]), rtol=1e-9)
    assert (value[~keep] == 0).all()


@pytest.mark.full
def test_entropy_of_ten_classes_alike_is_minus_one():
    sure = 1e3 * np.eye(10, dtype=np.float32)
    np.testing.assert_allclose(generator_entropy(sure), -1, rtol=1e-5)
    flat = np.zeros((3, 10), np.float32)
    np.testing.assert_allclose(generator_entropy(flat), -1, rtol=1e-5)
    alone = np.tile(sure[:1], (4, 1))
    loss = jax.value_and_grad(lambda x: generator_entropy(x).mean())
    value, gradient = loss(alone)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    assert np.isfinite(gradient).all()


def _numpy_variation(x):
    """The four differences, with their neighbors written out."""
    pairs = [
        (x[:, :, 1:], x[:, :, :-1]),
        (x[:, 1:], x[:, :-1]),
        (x[:, 1:, 1:], x[:, :-1, :-1]),
        (x[:, 1:, :-1], x[:, :-1, 1:]),
    ]
    return [a - b for a, b in pairs]


def test_images_are_the_formula(float64):
    images = np.random.default_rng(2).normal(size=(3, 4, 5, 2))
    gaps = _numpy_variation(images)
    whole = sum(np.sqrt((g**2).sum()) for g in gaps)
    np.testing.assert_allclose(image_total_variation(images).mean(), whole, rtol=1e-9)
    each = sum(np.sqrt((g**2).sum((1, 2, 3))) for g in gaps)
    value = image_total_variation(images, variant="example")
    np.testing.assert_allclose(value, each, rtol=1e-9)
    np.testing.assert_allclose(image_l2(images), np.sqrt((images**2).sum((1, 2, 3))))
    value = image_l2(images, variant="batch").mean()
    np.testing.assert_allclose(value, np.sqrt((images**2).sum()), rtol=1e-9)


@pytest.mark.parametrize("variant", ["batch", "example"])
@pytest.mark.parametrize("kernel", [image_total_variation, image_l2])
def test_masked_images_do_not_count(kernel, variant):
    images = np.random.default_rng(2).normal(size=(4, 3, 3, 2)).astype(np.float32)
    keep = np.array([True, True, False, True])
    dirty = np.where(keep[:, None, None, None], images, np.nan)

    def loss(x):
        values = kernel(x, variant=variant, where=keep)
        return values.sum(), values

    gradient, values = jax.grad(loss, has_aux=True)(dirty)
    expected = kernel(images[keep], variant=variant)
    np.testing.assert_allclose(values[keep], expected, rtol=1e-5)
    assert (values[~keep] == 0).all() and np.isfinite(gradient).all()
    nothing = kernel(images, variant=variant, where=np.zeros(4, bool))
    np.testing.assert_array_equal(nothing, 0)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 1e-10, 1.0, 1e4])
def test_any_scale_is_finite(scale):
    images = scale * np.random.default_rng(2).normal(size=(3, 4, 4, 2))
    images = images.astype(np.float32)
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.asarray(images, dtype)
        flat = x.reshape(3, -1)
        for kernel, argument in (
            (image_total_variation, x),
            (lambda x: image_total_variation(x, variant="example"), x),
            (image_l2, x),
            (lambda x: image_l2(x, variant="batch"), x),
            (image_total_variation, x[:, :1, :1]),
            (generator_one_hot, flat),
            (generator_activation, flat),
            (generator_entropy, flat),
            (adversarial_student, flat),
        ):
            loss = jax.jit(jax.value_and_grad(lambda x, k=kernel: k(x).mean()))
            value, gradient = loss(argument)
            assert value.dtype == jnp.float32 and gradient.dtype == dtype
            assert np.isfinite(value) and np.isfinite(np.asarray(gradient)).all()


def test_gradients_are_those_of_finite_differences(float64):
    student, teacher = (jnp.asarray(x[:2]) for x in _scores())
    images = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 3, 1)))
    for variant in CRITIC_VARIANTS:
        loss = jax.jit(
            lambda s, t, variant=variant: adversarial_critic(s, t, variant=variant)
        )
        check_grads(loss, (student, teacher), order=1, modes="rev", rtol=1e-5)
    for variant in STUDENT_VARIANTS:
        loss = jax.jit(
            lambda s, variant=variant: adversarial_student(s, variant=variant)
        )
        check_grads(loss, (student,), order=1, modes="rev", rtol=1e-5)
    for kernel in (image_total_variation, image_l2):
        for variant in ("batch", "example"):
            loss = jax.jit(lambda x, k=kernel, c=variant: k(x, variant=c))
            check_grads(loss, (images,), order=1, modes="rev", rtol=1e-5)
    loss = jax.jit(generator_entropy)
    check_grads(loss, (jnp.asarray(_logits()),), order=1, modes="rev", rtol=1e-5)


def test_errors_name_the_argument():
    x = np.ones((2, 3), np.float32)
    for kernel in (adversarial_student, lambda s, **k: adversarial_critic(s, s, **k)):
        with pytest.raises(ValueError, match="^variant: expected one of"):
            kernel(x, variant="other")
        with pytest.raises(ValueError, match="^student_scores: expected at least"):
            kernel(x[:0])
        with pytest.raises(ValueError, match="^student_scores: expected rank"):
            kernel(x[0, 0])
        with pytest.raises(ValueError, match=r"^where: expected .*\(7,\)"):
            kernel(x, where=np.ones(7, bool))
    with pytest.raises(ValueError, match="^variant: expected one of"):
        adversarial_critic(x, x, variant="saturating")
    with pytest.raises(ValueError, match=r"^share: expected shape \(2,\)"):
        gradient_penalty(lambda x: x, x, x, share=x[:1, 0])
    with pytest.raises(ValueError, match="^target: expected"):
        gradient_penalty(lambda x: x, x, x, share=x[:, 0], target=-1.0)
    with pytest.raises(ValueError, match="^base: expected a number above 1"):
        generator_entropy(x, base=1.0)
    with pytest.raises(ValueError, match="^where: expected"):
        generator_entropy(x, where=np.ones(3, bool))
    with pytest.raises(ValueError, match="^images: expected rank 4"):
        image_total_variation(x)
    with pytest.raises(ValueError, match="^variant: expected one of"):
        image_l2(x, variant="mean")
    with pytest.raises(ValueError, match="^teacher_features: expected rank at least"):
        generator_activation(x[0])
    with pytest.raises(ValueError, match="^teacher_logits: expected .*floating"):
        generator_one_hot(np.ones((2, 3), np.int32))


def test_class_logit():
    logits = np.array([[1.0, 4.0, 0.5], [2.0, 0.0, 7.0], [3.0, 3.0, 3.0]])
    labels = np.array([1, 0, -1])
    np.testing.assert_array_equal(generator_class_logit(logits, labels), [-4, -2, 0])
    across = generator_class_logit(logits.T, labels, axis=0)
    np.testing.assert_array_equal(across, [-4, -2, 0])
    slope = jax.grad(lambda x: generator_class_logit(x, labels).sum())(logits)
    np.testing.assert_array_equal(slope, [[0, -1, 0], [-1, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="^labels: expected"):
        generator_class_logit(logits, labels[:2])
    with pytest.raises(ValueError, match="^labels: expected"):
        generator_class_logit(logits, np.array([0, 1, 3]))
    traced = jax.jit(generator_class_logit)(logits, np.array([0, 1, 3]))
    np.testing.assert_array_equal(traced, [-1, 0, 0])
