import jax
import pytest

from kdjax.models import count_parameters, plain_cnn
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


def test_the_pair_is_of_the_size_that_is_said():
    # By hand: 3x3 kernels, two numbers of a norm each, a head with bias.
    teacher = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 2 * (2 * 64 + 2 * 128)
    student = 9 * (3 * 16 + 16 * 32) + 2 * (16 + 32)
    sizes = {plain_cnn.TEACHER: teacher + 1290, plain_cnn.STUDENT: student + 330}
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    for channels, expected in sizes.items():
        shapes = jax.eval_shape(PlainCnn(channels).init, jax.random.key(0), x)
        assert count_parameters(shapes) == expected
        said = f"{expected:,}".replace(",", " ")
        assert said in " ".join((plain_cnn.__doc__ or "").split())
