"""A plain network's features: hints at the middle and the final layer, relations."""

from experiments.cifar10_slides import features, slides
from kdjax.experiments import Experiment

EXPERIMENT = Experiment(
    claim=(
        "A plain network's features at the middle layer help a smaller one, those at "
        "the final layer harm it (slides on CIFAR-10; arXiv 1412.6550 and "
        "1904.05068)"
    ),
    variants=features.variants("plain"),
    durations=slides.DURATIONS,
    hypotheses=features.expected("63", "68.36", "54.06"),
)
