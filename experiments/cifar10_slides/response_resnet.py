"""Outputs of a ResNet: four temperatures, three weights, both readings."""

from experiments.cifar10_slides import responses, slides
from kdjax.experiments import Experiment

SCORES = {(5, 0.2): 85.34, (10, 0.2): 84.56, (20, 0.5): 83.91, (40, 0.7): 84.27}

EXPERIMENT = Experiment(
    claim=(
        "Answers of a ResNet help a ResNet-20 at every temperature, T = 5 with alpha "
        "= 0.2 most (slides on CIFAR-10, response-based; Hinton et al., arXiv "
        "1503.02531)"
    ),
    variants=responses.variants("resnet"),
    durations=slides.DURATIONS,
    hypotheses=responses.expected("82", SCORES),
)
