"""An ensemble is its members' weighted mean, at their own resolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.models import from_function
from kdjax.teachers.ensemble import ensemble, split_members


def member():
    """A linear model of images of one size."""

    def init(key, images):
        return {"w": jax.random.normal(key, (images[0].size, 3))}

    return from_function(
        lambda params, x: (
            x.reshape(len(x), -1) @ params["w"],
            {"mean": x.mean((1, 2))},
        ),
        init=init,
    )


@pytest.fixture
def asked():
    """Two members at 4 and 6 pixels, with their own logits as float64."""
    rng = np.random.default_rng(0)
    images = tuple(rng.normal(size=(5, n, n, 1)).astype(np.float32) for n in (4, 6))
    models = member(), member()
    variables = ensemble(models).init(jax.random.key(0), images)
    logits = [
        np.float64(x.reshape(5, -1)) @ np.float64(v["params"]["w"])
        for x, v in zip(images, variables, strict=True)
    ]
    return models, variables, images, logits


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def answer(asked, **options):
    models, variables, images, _ = asked
    output, state = ensemble(models, **options).apply(
        variables, images, train=False, rngs=None
    )
    assert state == ()
    return output


def test_mean_of_logits(asked):
    a, b = asked[3]
    np.testing.assert_allclose(answer(asked).logits, (a + b) / 2, rtol=1e-4, atol=1e-5)
    found = answer(asked, weights=(3.0, 1.0), temperatures=(2.0, 0.5))
    want = 0.75 * a / 2 + 0.25 * b / 0.5
    np.testing.assert_allclose(found.logits, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at", [1.0, 4.0])
def test_mean_of_probabilities_at_the_temperature_of_the_loss(asked, at):
    a, b = asked[3]
    found = answer(asked, mean="probabilities", at=at, weights=(1.0, 3.0))
    want = 0.25 * softmax(a / at) + 0.75 * softmax(b / at)
    np.testing.assert_allclose(softmax(found.logits / at), want, rtol=1e-4, atol=1e-6)


def test_gradient_is_that_of_the_mean_of_the_divergences(asked):
    """The released trainer adds up KLs: n times this gradient; not so for logits."""
    members = [jnp.asarray(z, jnp.float32) for z in asked[3]]
    student = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)

    def gradient(target):
        def loss(s):
            return losses.softmax_kl(s, target, temperature=2.0).sum()

        return jax.grad(loss)(student)

    added = sum(gradient(z) for z in members)
    found = gradient(answer(asked, mean="probabilities", at=2.0).logits)
    np.testing.assert_allclose(2 * found, added, atol=1e-5)
    other = gradient(answer(asked).logits)
    assert np.abs(2 * other - added).max() > 1e-2


def test_taps_carry_their_member(asked):
    taps = answer(asked).taps
    assert sorted(taps) == ["0/logits", "0/mean", "1/logits", "1/mean"]
    np.testing.assert_allclose(taps["1/mean"], asked[2][1].mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(taps["1/logits"], asked[3][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mean": "median"}, "mean: expected"),
        ({"weights": (1.0,)}, "weights: expected 2, one a model, got 1"),
        ({"weights": (1.0, 0.0)}, "weights: expected"),
        ({"temperatures": (1.0, -2.0)}, "temperatures: expected"),
        ({"at": 0.0}, "at: expected"),
    ],
)
def test_what_cannot_be_used_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ensemble((member(), member()), **options)


def test_members_must_know_the_same_classes(asked):
    models, variables, images, _ = asked
    one, two = variables
    other = {"params": {"w": two["params"]["w"][:, :2]}}
    with pytest.raises(
        ValueError, match=r"models: .*one number of classes, got \[3, 2"
    ):
        ensemble(models).apply((one, other), images, train=False, rngs=None)
    with pytest.raises(ValueError, match="train: expected False"):
        ensemble(models).apply(variables, images, train=True, rngs=None)


def test_the_members_outputs_come_back_by_their_own_names(asked):
    output = answer(asked, temperatures=(2.0, 0.5))
    first, second = split_members(output)
    np.testing.assert_allclose(first.logits, asked[3][0] / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(second.logits, asked[3][1] * 2, rtol=1e-4, atol=1e-5)
    for member, images in zip((first, second), asked[2], strict=True):
        assert [*member.taps] == ["mean"]
        np.testing.assert_allclose(member.taps["mean"], images.mean((1, 2)), rtol=1e-5)
    assert split_members(first) == []
