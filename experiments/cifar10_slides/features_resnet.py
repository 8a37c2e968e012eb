"""A ResNet's features: hints at the middle and the final layer, relations."""

from experiments.cifar10_slides import features, slides
from kdjax.experiments import Experiment

EXPERIMENT = Experiment(
    claim=(
        "A ResNet's features at the middle layer help a ResNet-20, those at the "
        "final layer harm it (slides on CIFAR-10; arXiv 1412.6550 and 1904.05068)"
    ),
    variants=features.variants("resnet"),
    durations=slides.DURATIONS,
    hypotheses=features.expected("82", "85.57", "76.86"),
)
