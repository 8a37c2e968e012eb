import pytest

from kdjax.models.mobilenet_v2 import MobileNetV2Cifar
from tests.models import torch_cifar


@pytest.mark.full
def test_same_as_in_pytorch(float64):
    got = torch_cifar.answers(
        MobileNetV2Cifar(2, 0.25, 5, blocks=(1, 2, 1, 1, 1, 1, 1))
    )
    torch_cifar.assert_same(got, torch_cifar.EXPECTED["mobilenet_v2"])


@pytest.mark.parametrize(
    "field, value",
    [
        ("expansion", 0),
        ("width", 0.05),
        ("blocks", (1, 2)),
        ("blocks", (1, 2, 3, 0, 3, 3, 1)),
        ("classes", 0),
        ("norm", "layer"),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .*") as error:
        MobileNetV2Cifar(**{field: value})
    assert str(error.value).endswith(f"got {value!r}")
