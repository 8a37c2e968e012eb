import jax
import pytest

from kdjax.models.vgg import Vgg
from tests.models import torch_cifar


@pytest.mark.full
def test_same_as_in_pytorch(float64):
    got = torch_cifar.answers(Vgg(11, 5, width=4))
    torch_cifar.assert_same(got, torch_cifar.EXPECTED["vgg"])


@pytest.mark.parametrize(
    "field, value",
    [
        ("depth", 9),
        ("width", 0),
        ("classes", 0),
        ("norm", "layer"),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .*") as error:
        Vgg(**{field: value})
    assert str(error.value).endswith(f"got {value!r}")


def taps(side):
    x = jax.ShapeDtypeStruct((1, side, side, 3), "float32")
    init = Vgg(8, width=1).init_with_output
    return jax.eval_shape(init, jax.random.key(0), x)[0][1]


def test_a_fourth_pooling_comes_with_64_pixels():
    sides = {side: taps(side)["stage4"].shape[1] for side in (32, 56, 64)}
    assert sides == {32: 4, 56: 7, 64: 4}


def test_images_too_small_for_the_poolings_are_refused():
    with pytest.raises(
        ValueError, match=r"images: expected at least 8 .*\(1, 7, 7, 3\)"
    ):
        taps(7)
