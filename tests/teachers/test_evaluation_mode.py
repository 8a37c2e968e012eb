"""A teacher with BatchNorm uses its running statistics, and does not move them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kdjax.core.types import View
from kdjax.models import from_linen
from kdjax.teachers.ema import moving_average
from kdjax.teachers.ensemble import ensemble
from kdjax.teachers.frozen import frozen

IMAGES = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
# Mean 1 and variance 4 in place of the batch's, which are near 0 and 1.
STATISTICS = {"mean": jnp.full(3, 1.0), "var": jnp.full(3, 4.0)}


class Normalized(nn.Module):
    """Logits are the normalized images."""

    @nn.compact
    def __call__(self, images, train):
        norm = nn.BatchNorm(
            use_running_average=not train, use_bias=False, use_scale=False
        )
        return norm(images)


MODEL = from_linen(Normalized())
VARIABLES = {"params": {}, "batch_stats": {"BatchNorm_0": STATISTICS}}


def live(images):
    view = View(None, images, None)
    return frozen(MODEL).targets({}, view, {}, {"teacher": VARIABLES})


def one_of_two(images):
    both = frozen(ensemble((MODEL, MODEL)))
    view = View(None, (images, images), None)
    return both.targets({}, view, {}, {"teacher": (VARIABLES, VARIABLES)})


def average(images):
    teacher = moving_average(MODEL)
    state = teacher.init({"student": VARIABLES})
    return teacher.targets(state, View(None, images, None), {}, {})


@pytest.mark.parametrize("predict", [live, one_of_two, average])
def test_a_teacher_predicts_as_in_evaluation(predict):
    found = predict(jnp.asarray(IMAGES)).logits
    np.testing.assert_allclose(found, (IMAGES - 1) / 2, atol=1e-5)
    # The same image alone: no other row has a part in it.
    alone = predict(jnp.asarray(IMAGES[:1])).logits
    np.testing.assert_allclose(alone, found[:1], atol=1e-6)


@pytest.mark.parametrize("predict", [live, one_of_two, average])
def test_no_gradient_goes_through_a_teacher(predict):
    """Not even back to the images that it sees."""
    slope = jax.grad(lambda images: predict(images).logits.sum())(jnp.asarray(IMAGES))
    np.testing.assert_array_equal(slope, np.zeros_like(IMAGES))
