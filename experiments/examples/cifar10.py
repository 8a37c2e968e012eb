"""CIFAR-10 as a config: a published ResNet-56 teaches a ResNet-20.

    kdjax distill --config experiments/examples/cifar10.py:run

Needs the data as TFDS prepares it. The environment variable KDJAX_WEIGHTS names the
folder of `cifar10_resnet56.safetensors`. An accelerator is advisable.
"""

from kdjax.config import Data, FromWeights, ModelConfig, Optim, Run, Term, Views

TEACHER = ModelConfig(
    "resnet56",
    norm="batch",
    resolution=32,
    weights="$KDJAX_WEIGHTS/cifar10_resnet56.safetensors",
    normalization="imagenet",
)


def run() -> Run:
    """Function matching for 300 epochs of 45,000 images."""
    steps = 300 * 45_000 // 512
    return Run(
        name="cifar10",
        workdir="runs/cifar10",
        data=Data("cifar10", "train[:45000]", "train[45000:]", "test"),
        model=ModelConfig("resnet20", norm="batch", resolution=32),
        teacher=FromWeights(TEACHER),
        views=Views(mode="function_matching", area=(0.25, 1.0)),
        terms={"soft": Term("softmax_kl", temperature=2.0)},
        optim=Optim(lr=3e-3, warmup=1_000),
        steps=steps,
        batch=512,
        evaluate_every=1_000,
        checkpoint_every=1_000,
    )
