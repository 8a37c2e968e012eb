"""Which loss of logits suits a pair: KL, cross-entropy or squared error."""

import functools

from experiments.claims import common
from kdjax.experiments import Experiment, above

LOSSES = {
    "KL, T=1": ("softmax_kl", 1.0),
    "KL, T=4": ("softmax_kl", 4.0),
    "CE, T=1": ("soft_cross_entropy", 1.0),
    "CE, T=4": ("soft_cross_entropy", 4.0),
    "squared": ("logit_mse", None),
}
# Widths of the teacher; the student's is 2.
PAIRS = {"large": 8, "equal": 2}

EXPERIMENT = Experiment(
    claim=(
        "The best loss of the logits depends on the pair of networks and on the "
        "temperature: KL divergence, cross-entropy or squared error"
    ),
    variants={
        f"{pair}, {name}": functools.partial(
            common.soft, loss=loss, temperature=temperature, width=width
        )
        for pair, width in PAIRS.items()
        for name, (loss, temperature) in LOSSES.items()
    },
    durations=common.DURATIONS,
    hypotheses=tuple(
        above(f"{pair} teacher: {claim}", f"{pair}, {one}", f"{pair}, {other}")
        for pair in PAIRS
        for claim, one, other in (
            ("KL at T = 4 above T = 1", "KL, T=4", "KL, T=1"),
            ("squared error above KL at T = 1", "squared", "KL, T=1"),
            ("squared error above KL at T = 4", "squared", "KL, T=4"),
            # Their gradients are equal, so only rounding can tell them apart.
            ("KL above cross-entropy at T = 4", "KL, T=4", "CE, T=4"),
        )
    ),
)
