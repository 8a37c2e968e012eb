"""Outputs of a plain network: four temperatures, three weights."""

from experiments.cifar10_slides import responses, slides
from kdjax.experiments import Experiment

SCORES = {(5, 0.2): 67.21, (10, 0.2): 65.97, (20, 0.5): 63.47, (40, 0.7): 64.13}

EXPERIMENT = Experiment(
    claim=(
        "Answers of a plain network help a smaller one at every temperature, T = 5 "
        "with alpha = 0.2 most (slides on CIFAR-10; Hinton et al., arXiv 1503.02531)"
    ),
    variants=responses.variants("plain"),
    durations=slides.DURATIONS,
    hypotheses=responses.expected("63", SCORES),
)
