"""From a pickle of PyTorch to safetensors. Needs torch, which kdjax does not.

    python -m kdjax.models.weights.convert_pth in.pth out.safetensors [--key state_dict]

This file needs nothing of kdjax: where torch is installed and kdjax is not, run the
file itself, `python convert_pth.py in.pth out.safetensors`.

Reads with `torch.load(weights_only=True)`, which refuses everything but tensors and
plain containers. `--key` names the entry that holds the tensors; by default the file's
own dictionary, or its only entry of "state_dict", "model" and "model_state".
"""

import argparse
import importlib
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors import numpy as safetensors

_KEYS = ("state_dict", "model", "model_state")


def convert(
    source: str | pathlib.Path, target: str | pathlib.Path, key: str | None = None
) -> int:
    """Convert the pickle `source` to `target`; returns the number of tensors.

    Raises ImportError if torch is missing, ValueError if the file is refused, holds
    anything but tensors, or has no such `key`.
    """
    if pathlib.Path(target).suffix != ".safetensors":
        raise ValueError(f"{target}: expected a name that ends in .safetensors")
    torch = _torch()
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        text = f"{source}: expected tensors in a file of torch, got: {error}"
        raise ValueError(text) from error
    tensors = _tensors(torch, str(source), content, key)
    arrays = {name: _array(torch, tensor) for name, tensor in tensors.items()}
    safetensors.save_file(arrays, target, {"format": "pt"})
    return len(arrays)


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        text = "torch to read a pickle of PyTorch (pip install torch)"
        raise ImportError(f"convert_pth: expected {text}, got: {error}") from error


def _tensors(torch: Any, source: str, content: Any, key: str | None) -> Mapping:
    if not isinstance(content, Mapping):
        text = f"a dictionary, got {type(content).__name__}"
        raise ValueError(f"{source}: expected {text}")
    keys = [name for name in _KEYS if name in content] if key is None else [key]
    if len(keys) > 1 or (key is not None and key not in content):
        choices = sorted(map(str, content))
        raise ValueError(f"{source}: expected --key, one of {choices}, got {key!r}")
    content = content[keys[0]] if keys else content
    other_entries = [
        name for name, x in content.items() if not isinstance(x, torch.Tensor)
    ]
    if other_entries or not content:
        text = (
            f"tensors only, got {other_entries[:5] or 'none'}; say which entry by --key"
        )
        raise ValueError(f"{source}: expected {text}")
    return content


def _array(torch: Any, tensor: Any) -> Any:
    # NumPy has no bfloat16 of its own.
    is_half = tensor.dtype == torch.bfloat16
    return (tensor.float() if is_half else tensor).contiguous().numpy()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="convert_pth", description=summary)
    parser.add_argument("source", help="the .pth, .pt or .bin file")
    parser.add_argument("target", help="the .safetensors file to write")
    parser.add_argument("--key", help="the entry of the file that holds the tensors")
    options = parser.parse_args(arguments)
    try:
        count = convert(options.source, options.target, options.key)
    except (ImportError, ValueError) as error:
        sys.exit(str(error))
    print(f"{options.target}: {count} tensors")


if __name__ == "__main__":
    main()
