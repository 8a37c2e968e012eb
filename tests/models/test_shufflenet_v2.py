import pytest

from kdjax.models.shufflenet_v2 import ShuffleNetV2Cifar
from tests.models import torch_cifar


@pytest.mark.full
def test_same_as_in_pytorch(float64):
    got = torch_cifar.answers(ShuffleNetV2Cifar((8, 16, 32, 48), (2, 2, 2), 5))
    torch_cifar.assert_same(got, torch_cifar.EXPECTED["shufflenet_v2"])


@pytest.mark.parametrize(
    "field, value",
    [
        ("channels", (48, 96, 192)),
        ("channels", (48, 97, 192, 1024)),
        ("channels", (48, 96, 192, 0)),
        ("blocks", (4, 8)),
        ("blocks", (4, 1, 4)),
        ("classes", 0),
        ("norm", "layer"),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .*") as error:
        ShuffleNetV2Cifar(**{field: value})
    assert str(error.value).endswith(f"got {value!r}")
