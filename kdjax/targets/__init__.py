"""Targets made from teachers' outputs: ensembles, weights, votes, masks.

Pure functions of arrays; importing them needs only jax.
"""

from kdjax.targets.activations import graph_fourier_basis, sample_activations
from kdjax.targets.boxes import box_weights, imitation_mask
from kdjax.targets.ensembling import ensemble_logits, teacher_weights
from kdjax.targets.label_map import map_logits
from kdjax.targets.modified_logits import (
    gumbel_softmax,
    permute_dark_knowledge,
    rule_teacher_logits,
)
from kdjax.targets.neighbors import neighbor_similarity
from kdjax.targets.pate import noisy_votes, private_epsilon
from kdjax.targets.weights import confidence_weights, fidelity_weights, reliability_mask
from kdjax.targets.zskd import (
    class_similarity,
    impression_concentration,
    sample_soft_labels,
)

__all__ = [
    "box_weights",
    "class_similarity",
    "confidence_weights",
    "ensemble_logits",
    "fidelity_weights",
    "graph_fourier_basis",
    "gumbel_softmax",
    "imitation_mask",
    "impression_concentration",
    "map_logits",
    "neighbor_similarity",
    "noisy_votes",
    "permute_dark_knowledge",
    "private_epsilon",
    "reliability_mask",
    "rule_teacher_logits",
    "sample_activations",
    "sample_soft_labels",
    "teacher_weights",
]
