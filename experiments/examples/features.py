"""Feature distillation as a config: a hint and attention transfer beside the logits.

    kdjax distill --config experiments/examples/features.py:run

The student's tap `stage2` has a quarter of the teacher's channels, so the hint needs a
projector. Attention transfer compares maps over space and needs none.
"""

from kdjax.config import Run, Scalar, Term
from kdjax.presets import digits


def run() -> Run:
    """The digits preset with logits, a hint that fades out, and attention maps."""
    terms = {
        "soft": Term("softmax_kl", temperature=2.0),
        "hint": Term(
            "hint_l2",
            weight=Scalar(1.0, end=0.0, schedule="cosine"),
            student="stage2",
            teacher="stage2",
            projector=True,
        ),
        "attention": Term(
            "attention_transfer", weight=100.0, student="stage3", teacher="stage3"
        ),
    }
    return digits(name="features", workdir="runs/features", terms=terms)
