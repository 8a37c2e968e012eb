import pytest

from kdjax.models.wide_resnet import WideResNet
from tests.models import torch_cifar


@pytest.mark.full
def test_same_as_in_pytorch(float64):
    got = torch_cifar.answers(WideResNet(10, 1, 5))
    torch_cifar.assert_same(got, torch_cifar.EXPECTED["wide_resnet"])


@pytest.mark.parametrize(
    "field, value",
    [
        ("depth", 15),
        ("depth", 4),
        ("factor", 0),
        ("classes", 0),
        ("norm", "layer"),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .*") as error:
        WideResNet(**{field: value})
    assert str(error.value).endswith(f"got {value!r}")
