"""A student of `kdjax export --format safetensors` in PyTorch: the ResNets of CIFAR.

    kdjax export runs/c10 --format safetensors
    python experiments/examples/pytorch_student.py runs/c10/export images.npy out.npy

images.npy: uint8 [n, height, width, channels]; out.npy: float32 logits [n, classes].
Needs torch and safetensors, not kdjax. Networks with BatchNorm and projection
shortcuts, such as resnet20.
"""

import json
import pathlib
import sys

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from safetensors.torch import load_file
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

Weights = dict[str, torch.Tensor]


def conv(w: Weights, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    # [height, width, in, out] in kdjax, [out, in, height, width] in PyTorch.
    kernel = w[f"params/{name}/kernel"].permute(3, 2, 0, 1)
    return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)


def norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    mean, var = (w[f"batch_stats/{name}/{k}"] for k in ("mean", "var"))
    scale, bias = (w[f"params/{name}/{k}"] for k in ("scale", "bias"))
    return F.batch_norm(x, mean, var, scale, bias, eps=1e-5)


def resnet(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """Logits [n, classes] of normalized images [n, channels, height, width]."""
    x = F.relu(norm(w, "BatchNorm_0", conv(w, "Conv_0", x)))
    blocks = len({name.split("/")[1] for name in w if "/BasicBlock_" in name})
    for i in range(blocks):
        block = f"BasicBlock_{i}"
        projects = f"params/{block}/Conv_2/kernel" in w
        stride = 2 if projects else 1
        y = conv(w, f"{block}/Conv_0", x, stride)
        y = F.relu(norm(w, f"{block}/BatchNorm_0", y))
        y = norm(w, f"{block}/BatchNorm_1", conv(w, f"{block}/Conv_1", y))
        if projects:
            x = norm(w, f"{block}/BatchNorm_2", conv(w, f"{block}/Conv_2", x, stride))
        x = F.relu(x + y)
    return x.mean((2, 3)) @ w["params/Dense_0/kernel"] + w["params/Dense_0/bias"]


def main(folder: str, images: str, out: str) -> None:
    card = json.loads(pathlib.Path(folder, "card.json").read_text())
    mean, std = (torch.tensor(card["pixels"][k]) for k in ("mean", "std"))
    pixels = torch.from_numpy(np.load(images)).float() / 255
    weights = load_file(pathlib.Path(folder, "weights.safetensors"))
    x = ((pixels - mean) / std).permute(0, 3, 1, 2)
    np.save(out, resnet(weights, x).numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
