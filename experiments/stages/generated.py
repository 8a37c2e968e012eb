"""Distillation on generated images: a teacher, a GAN, then students of both.

    kdjax distill --config experiments/stages/generated.py:digits
    kdjax distill --config experiments/stages/generated.py:tiny

The stages `augment` and `replace` differ in the share of generated images, and `real`
has none. TSC-GAN (arXiv 1812.02271) mixes real and generated images.
"""

import dataclasses
from typing import Any

from kdjax.config import (
    Custom,
    Data,
    FromRun,
    ModelConfig,
    Network,
    Optim,
    Run,
    Stages,
    TrainFirst,
    Views,
    labels_only,
)
from kdjax.presets import digits as function_matching
from kdjax.presets import digits_teacher

AT = "kdjax.models.generators"
CRITIC = ModelConfig(f"{AT}:image_critic", width=1, resolution=8)
GENERATOR = ModelConfig(f"{AT}:class_generator", width=1, resolution=8)
# Mixed images would be the real ones of the critic.
PLAIN = Views(mode="fixed", flip=False)
SHARES = {"real": 0.0, "augment": 0.5, "replace": 1.0}


def digits(**changes: Any) -> Stages:
    """Five stages on 200 digits, some minutes each.

    changes: fields of `Run` to replace in all stages.
    """
    return _stages({"steps": 2_560, **changes})


def tiny(**changes: Any) -> Stages:
    """The same stages in a few steps, to try them."""
    size = {"steps": 8, "batch": 16, "seeds": 1, "evaluate_every": 4}
    size |= {"checkpoint_every": 4, "log_every": 4}
    small = {"optim": Optim(warmup=2), "data": Data("digits", train="train[:32]")}
    return _stages({**size, **small, **changes})


def _stages(changes: dict[str, Any]) -> Stages:
    def run(**fields: Any) -> Run:
        plain = {"baselines": (), "views": PLAIN}
        return function_matching(**{**plain, **changes, **fields})

    teacher: TrainFirst = digits_teacher()
    adam = Optim(lr=1e-3, wd=0.0, warmup=0, schedule="constant")
    gan = run(
        model=CRITIC,
        networks={"generator": Network(GENERATOR)},
        strategy=Custom("acgan"),
        optim=adam,
        teacher=None,
    )
    # A step of both networks costs many of a student's.
    gan = dataclasses.replace(gan, steps=max(1, gan.steps // 4))
    runs = {
        "teacher": labels_only(run(model=teacher.model), teacher=None),
        "gan": gan,
    }
    trained = dataclasses.replace(GENERATOR, weights="stage:gan")
    frozen = Network(trained, network="generator", frozen=True)
    for name, share in SHARES.items():
        runs[name] = run(
            teacher=FromRun("stage:teacher"),
            networks={"generator": frozen},
            strategy=Custom("generated", options={"share": share}),
        )
    return Stages(runs, workdir="runs/generated")
