"""Logits of a whole batch, for losses that compare examples."""

from kdjax.core import checks, examples
from kdjax.core.types import Array


def batch_logits(student: Array, teacher: Array, axis: int, where: Array | None):
    """Logits `[N, K]` of one shape with masked rows at 0, and the mask `[N]`."""
    checks.matching_pair("logits", student, teacher)
    checks.classes(
        "student_logits", student, checks.axis(axis, "student_logits", student)
    )
    names = ("student_logits", "teacher_logits")
    return examples.embeddings(student, teacher, axis, where, names)
