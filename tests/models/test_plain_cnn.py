import jax
import pytest

from kdjax.models.plain_cnn import PlainCnn
from tests.models import torch_cifar


def test_same_as_in_pytorch(float64):
    got = torch_cifar.answers(PlainCnn(((4, 6), (8,)), 5))
    torch_cifar.assert_same(got, torch_cifar.EXPECTED["plain_cnn"])


@pytest.mark.parametrize(
    "field, value",
    [
        ("channels", ()),
        ("channels", ((4,), ())),
        ("channels", ((4,), (0,))),
        ("classes", 0),
        ("norm", "layer"),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .*") as error:
        PlainCnn(**{field: value})
    assert str(error.value).endswith(f"got {value!r}")


def test_images_too_small_for_the_poolings_are_refused():
    x = jax.ShapeDtypeStruct((1, 1, 8, 3), "float32")
    with pytest.raises(
        ValueError, match=r"images: expected at least 2 .*\(1, 1, 8, 3\)"
    ):
        jax.eval_shape(PlainCnn().init, jax.random.key(0), x)
