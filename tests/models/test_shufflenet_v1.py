import pytest

from kdjax.models.shufflenet_v1 import ShuffleNetV1Cifar
from tests.models import torch_cifar


@pytest.mark.full
def test_same_as_in_pytorch(float64):
    got = torch_cifar.answers(ShuffleNetV1Cifar((48, 96, 192), (1, 2, 1), 3, 5))
    torch_cifar.assert_same(got, torch_cifar.EXPECTED["shufflenet_v1"])


@pytest.mark.parametrize(
    "field, value",
    [
        ("channels", (240, 480)),
        ("channels", (240, 241, 960)),
        ("channels", (240, 240, 960)),
        ("channels", (12, 480, 960)),
        ("groups", 0),
        ("blocks", (4, 8)),
        ("blocks", (4, 0, 4)),
        ("classes", 0),
        ("norm", "layer"),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .*") as error:
        ShuffleNetV1Cifar(**{field: value})
    assert str(error.value).endswith(f"got {value!r}")
