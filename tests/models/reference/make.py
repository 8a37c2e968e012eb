"""Writes torch_logits.json: logits of PyTorch's networks with the weights of `rule.py`.

Was run once, on CPU in float32, with torch 2.13.0, timm 1.0.31 and torchvision 0.29.2:

    python -m tests.models.reference.make

from the root of the repository, in an environment with those (kdjax needs none). The
torchvision of PyPI is compiled for CUDA and its operators (nms and such) do not load
beside a torch for CPU: its `_meta_registrations.py` was emptied and `torchvision::nms`
declared beforehand; the networks, which are Python, are as published. timm builds BiT
with 1e-8 in the weight standardization where kdjax has big_vision's 1e-10. Every
weight is named as the network names it and replaced by `rule.weight`, so the tests
check names, layouts and arithmetic together.
"""

import importlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

from tests.models.reference import rule

FILE = pathlib.Path(__file__).with_name("torch_logits.json")


def networks() -> dict[str, tuple[int, Callable[[], Any]]]:
    """{name of the case: (side of the image, the network)}"""
    timm = importlib.import_module("timm")
    vision = importlib.import_module("torchvision.models")
    few = {"num_classes": rule.CLASSES}
    small = {**few, "img_size": 32, "depth": 2}

    return {
        "bit_r50x1": (64, lambda: timm.create_model("resnetv2_50x1_bit", **few)),
        "resnet18": (64, lambda: vision.resnet18(**few)),
        "resnet50": (64, lambda: vision.resnet50(**few)),
        "mobilenet_v3_small": (64, lambda: vision.mobilenet_v3_small(**few)),
        "mobilenet_v3_large": (64, lambda: vision.mobilenet_v3_large(**few)),
        "efficientnet_lite0": (
            64,
            lambda: timm.create_model("tf_efficientnet_lite0", **few),
        ),
        "efficientnet_lite4": (
            64,
            lambda: timm.create_model("tf_efficientnet_lite4", **few),
        ),
        "vit_ti16": (32, lambda: timm.create_model("vit_tiny_patch16_224", **small)),
        "deit_ti16": (
            32,
            lambda: timm.create_model("deit_tiny_distilled_patch16_224", **small),
        ),
    }


def logits(network: Any, side: int) -> list[float]:
    """What the network says, in evaluation, of the image of this side."""
    torch = importlib.import_module("torch")
    weights = {
        name: torch.from_numpy(rule.weight(name, tuple(tensor.shape)))
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    missing, unexpected = network.load_state_dict(weights, strict=False)
    wrong = [name for name in missing if not name.endswith("num_batches_tracked")]
    assert not wrong and not unexpected
    x = torch.from_numpy(rule.images(side)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return network.eval()(x)[0].tolist()


def main() -> None:
    """Write the file."""
    found = {name: logits(make(), side) for name, (side, make) in networks().items()}
    sides = {name: side for name, (side, _) in networks().items()}
    cases = {name: {"side": sides[name], "logits": found[name]} for name in found}
    FILE.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
