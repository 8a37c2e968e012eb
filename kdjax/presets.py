"""Complete runs by name, to begin with and to change.

`kdjax distill NAME` and `kdjax train NAME` run them; `PRESETS` lists the names.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from kdjax.config import (
    Data,
    FromWeights,
    ModelConfig,
    Optim,
    Run,
    Scalar,
    Term,
    TrainFirst,
    Views,
    labels_only,
    require_known,
)


def digits(**changes: Any) -> Run:
    """Function matching on 200 of scikit-learn's digits, in minutes.

    The student has 1,384 parameters and takes 6,400 steps. Its teacher comes first.

    changes: fields of `Run` to replace.
    """
    run = Run(
        name="funmatch",
        workdir="runs/digits",
        seeds=3,
        data=Data(name="digits", train="train[:200]"),
        model=ModelConfig(name="resnet", depth=8, width=2, resolution=8),
        teacher=digits_teacher(),
        views=Views(flip=False),
        terms={"soft": Term(temperature=Scalar(2.0))},
        baselines=("labels", "labels_mixup"),
        optim=Optim(),
        steps=6_400,
        batch=64,
    )
    return dataclasses.replace(run, **changes)


def digits_teacher(**changes: Any) -> TrainFirst:
    """The teacher of `digits`: four times as wide, on all 1,000 training images.

    changes: fields of `TrainFirst` to replace.
    """
    model = ModelConfig(name="resnet", depth=8, width=8, resolution=8)
    return dataclasses.replace(TrainFirst(model), **changes)


def digits_labels(**changes: Any) -> Run:
    """The student of `digits` on labels alone.

    changes: fields of `Run` to replace.
    """
    run = labels_only(digits(), name="train", workdir="runs/train", teacher=None)
    return dataclasses.replace(run, **changes)


def cifar10(**changes: Any) -> Run:
    """ResNet-56 teaches ResNet-20 on CIFAR-10, for 300 epochs.

    Function matching, meant for an accelerator. The teacher is trained first, unless
    weights or a run are named for it. The last 5,000 training images are the
    validation split.

    changes: fields of `Run` to replace.
    """
    run = Run(
        name="funmatch",
        workdir="runs/cifar10",
        data=Data("cifar10", "train[:45000]", "train[45000:]", "test"),
        model=ModelConfig(
            "resnet20", norm="batch", resolution=32, normalization="cifar10"
        ),
        teacher=cifar10_teacher(),
        views=Views(area=(0.25, 1.0)),
        terms={"soft": Term(temperature=Scalar(2.0))},
        optim=Optim(lr=3e-3, warmup=1_000),
        steps=300 * 45_000 // 128,
        batch=128,
        evaluate_every=2_000,
        checkpoint_every=2_000,
    )
    return dataclasses.replace(run, **changes)


def cifar10_teacher(**changes: Any) -> TrainFirst:
    """The teacher of `cifar10`: ResNet-56 by SGD for 64,000 steps (arXiv 1512.03385).

    changes: fields of `TrainFirst` to replace.
    """
    model = ModelConfig(
        "resnet56", norm="batch", resolution=32, normalization="cifar10"
    )
    teacher = TrainFirst(
        model,
        train="train[:45000]",
        steps=64_000,
        optim=Optim("sgd", lr=0.1, wd=1e-4, clip=0.0, warmup=400),
        views=Views(mode="consistent", area=(0.5, 1.0)),
    )
    return dataclasses.replace(teacher, **changes)


def folder(**changes: Any) -> Run:
    """ResNet-50 teaches ResNet-18 on images in folders, at 128 pixels.

    `data.name` is empty: `--data.name folder:PATH` names the images, in
    PATH/train/CLASS, PATH/validation/CLASS and PATH/test/CLASS.

    changes: fields of `Run` to replace.
    """
    size = {"norm": "batch", "resolution": 128, "normalization": "imagenet"}
    optim = Optim(lr=1e-3, warmup=500)
    run = Run(
        name="funmatch",
        workdir="runs/folder",
        # Photographs of any size, gray ones among them.
        data=Data(channels=3, store=256),
        model=ModelConfig("resnet18", **size),
        teacher=TrainFirst(
            ModelConfig("resnet50", **size),
            steps=10_000,
            optim=optim,
            views=Views(mode="consistent", evaluation_crop=1.25),
        ),
        views=Views(evaluation_crop=1.25),
        terms={"soft": Term(temperature=Scalar(2.0))},
        optim=optim,
        steps=20_000,
        batch=64,
    )
    return dataclasses.replace(run, **changes)


def imagenet_funmatch(**changes: Any) -> Run:
    """BiT ResNet-152x2 teaches ResNet-50 on ImageNet for 1,200 epochs.

    The values of arXiv 2106.05237, listing 1. It needs a pod.

    changes: fields of `Run` to replace.
    """
    batch, epochs, images = 4_096, 1_200, 1_255_544
    teacher = ModelConfig(
        "bit_r152x2",
        resolution=224,
        weights="hf:timm/resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k",
    )
    run = Run(
        name="funmatch",
        workdir="runs/imagenet",
        data=Data(
            "imagenet2012",
            "train[:98%]",
            "train[98%:]",
            "validation",
            store=256,
            pipeline="host",
            crop="host",
            workers=16,
        ),
        model=ModelConfig("bit_r50x1", resolution=224),
        teacher=FromWeights(teacher),
        # 256 to 224 pixels, as the paper evaluates.
        views=Views(evaluation_crop=1.143),
        terms={"soft": Term(temperature=Scalar(1.0))},
        optim=Optim(lr=0.03, wd=3e-4, warmup=5_000),
        steps=round(epochs * images / batch),
        batch=batch,
        evaluate_every=1_000,
        checkpoint_every=1_000,
        log_every=50,
    )
    return dataclasses.replace(run, **changes)


PRESETS: dict[str, Callable[..., Run]] = {
    preset.__name__: preset for preset in (digits, cifar10, folder, imagenet_funmatch)
}


def find_preset(name: str, *, labels: bool = False) -> Run:
    """The preset of a name.

    labels: its student on labels alone, in a folder of its own.

    Raises:
      ConfigError: there is no such preset.
    """
    require_known(name, PRESETS, "preset")
    run = PRESETS[name]()
    if not labels:
        return run
    if name == "digits":
        return digits_labels()
    workdir = f"{run.workdir}-train"
    return labels_only(run, name="train", workdir=workdir, teacher=None)
