"""A plain network's features: hints at the middle and the final layer, relations."""

import features
import slides

CLAIM = (
    "A plain network's features at the middle layer help a smaller one, those at the "
    "final layer harm it (slides on CIFAR-10; arXiv 1412.6550 and 1904.05068)"
)
DURATIONS = slides.DURATIONS
VARIANTS = features.variants("plain")
EXPECTED = features.expected("63", "68.36", "54.06")
