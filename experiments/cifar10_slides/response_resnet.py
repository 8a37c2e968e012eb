"""A ResNet's answers: four temperatures, three weights, both readings."""

import responses
import slides

CLAIM = (
    "Answers of a ResNet help a ResNet-20 at every temperature, T = 5 with alpha = 0.2 "
    "most (slides on CIFAR-10, response-based; Hinton et al., arXiv 1503.02531)"
)
DURATIONS = slides.DURATIONS
SCORES = {(5, 0.2): 85.34, (10, 0.2): 84.56, (20, 0.5): 83.91, (40, 0.7): 84.27}
VARIANTS = responses.variants("resnet")
EXPECTED = responses.expected("82", SCORES)
