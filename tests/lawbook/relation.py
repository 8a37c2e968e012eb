"""Cases of the kernels that compare examples, and of those with given comparisons."""

import functools

import numpy as np

from tests.lawbook import Case

_relation = functools.partial(Case, relation=True, mask=0)


def _later(rng, rows):
    """One later layer for both networks, so that equal inputs are equal graphs."""
    later = rng.normal(size=(rows, 3))
    return {"student_later": later, "teacher_later": later}


def _later_and_logits(rng, rows):
    logits = rng.normal(size=(rows, 4))
    return {
        **_later(rng, rows),
        "student_logits": logits,
        "teacher_logits": logits + 0.0,
    }


def _heads(rng, rows):
    earlier = rng.normal(size=(rows, 2))
    return {
        "student_earlier": earlier,
        "teacher_earlier": earlier,
        "sender": rng.normal(size=(2, 4, 3)),
        "receiver": rng.normal(size=(2, 4, 2)),
    }


def _labels(rng, rows):
    return {"labels": rng.integers(-1, 3, size=(rows, 8))}


def _similarities(x):
    """The teacher's four to a row in [0, 1]; the student's codes as they are."""
    return 1 / (1 + np.exp(-np.clip(x, -50, 50))) if x.shape[-1] == 4 else x


def _others(rng, rows):
    return {"other_codes": rng.normal(size=(4, 3))}


def _entries(rng, rows):
    student, teacher = rng.normal(size=(2, rows, 5, 3))
    lengths = (np.linalg.norm(x, axis=-1, keepdims=True) for x in (student, teacher))
    student_length, teacher_length = lengths
    return {
        "student_memory": student / student_length,
        "teacher_memory": teacher / teacher_length,
        "student_constant": np.float64(40.0),
        "teacher_constant": np.float64(60.0),
        "examples": np.int32(20),
    }


class Potential:
    """A potential of pairs or triples, with a name that is the same in any process."""

    def __init__(self, name, function):
        self.name, self.function = name, function

    def __call__(self, *embeddings):
        return self.function(*embeddings)

    def __repr__(self):
        return self.name


PAIR = Potential("product", lambda a, b: (a * b).sum() / (1 + (a * a).sum()))
TRIPLE = Potential("products", lambda a, b, c: ((a - b) * (c - b)).sum())


CASES: list[Case] = [
    _relation("rkd_distance", min_rows=3),
    _relation("rkd_distance", knobs=(("squared", True),), min_rows=3),
    _relation("rkd", knobs=(("potential", PAIR),), min_rows=2),
    _relation(
        "rkd",
        teacher=(5,),
        knobs=(("potential", PAIR), ("normalize", True), ("delta", 0.5)),
        min_rows=2,
    ),
    _relation(
        "rkd", knobs=(("potential", TRIPLE), ("order", 3), ("chunk", 2)), min_rows=3
    ),
    _relation("rkd_angle", min_rows=3),
    _relation("rkd_angle", knobs=(("chunk", 2),), min_rows=3),
    _relation(
        "triplet_relation",
        knobs=(("margin", 1.0),),
        zero_if_equal=False,
        teacher_gradient=False,
        min_rows=3,
    ),
    _relation(
        "triplet_relation",
        knobs=(("chunk", 2), ("margin", 1.0)),
        zero_if_equal=False,
        teacher_gradient=False,
        min_rows=3,
    ),
    _relation("hint_norm"),
    _relation("representational_similarity", min_rows=3),
    _relation("representational_similarity", teacher=(5,), min_rows=3),
    _relation("sp", min_rows=2),
    _relation("sp", teacher=(5,), min_rows=2),
    _relation("sp", knobs=(("norm", "l1"),), min_rows=2),
    _relation("cc", min_rows=2),
    _relation("cc", knobs=(("order", 12), ("gamma", 1.0)), min_rows=2),
    _relation("cc", knobs=(("variant", "consecutive"),), min_rows=2),
    _relation("cc", knobs=(("kernel", "bilinear"),), min_rows=2),
    _relation("cc", knobs=(("kernel", "mmd"),), min_rows=2),
    _relation("cc", knobs=(("order", None),), min_rows=2),
    _relation("cc", knobs=(("order", None), ("normalize", False)), min_rows=2),
    _relation("cc", knobs=(("normalize", False),), min_rows=2),
    _relation("cc", knobs=(("kernel", "bilinear"), ("normalize", False)), min_rows=2),
    _relation(
        "dark_rank",
        knobs=(("neighbors", 3),),
        zero_if_equal=False,
        teacher_gradient=False,
        min_rows=3,
    ),
    _relation("dark_rank", knobs=(("variant", "soft"), ("neighbors", 3)), min_rows=3),
    _relation("mmd", nonnegative=False),
    _relation("mmd", knobs=(("kernel", "polynomial"),), nonnegative=False),
    _relation("pkt", nonnegative=False, min_rows=2),
    _relation(
        "pkt",
        knobs=(("variant", "paper"),),
        nonnegative=False,
        min_rows=3,
    ),
    Case(
        "inter_region_affinity",
        student=(8, 3),
        knobs=(("regions", 3),),
        arrays=_labels,
        rowwise=("labels",),
        mask=None,
    ),
    _relation("irg_edges", min_rows=3),
    _relation("irg_edges", teacher=(5,), knobs=(("constant_max", True),), min_rows=3),
    _relation(
        "irg_transformation",
        arrays=_later,
        rowwise=("student_later", "teacher_later"),
        min_rows=2,
    ),
    _relation(
        "irg",
        arrays=_later_and_logits,
        rowwise=("student_later", "teacher_later", "student_logits", "teacher_logits"),
        min_rows=3,
    ),
    _relation("locality_preserving", zero_if_equal=False, min_rows=2),
    _relation(
        "locality_preserving",
        knobs=(("neighbors", 2), ("sigma", 2.0)),
        zero_if_equal=False,
        min_rows=2,
    ),
    _relation(
        "mhgd",
        arrays=_heads,
        rowwise=("student_earlier", "teacher_earlier"),
        min_rows=2,
    ),
    _relation("info_nce", zero_if_equal=False, min_rows=2),
    _relation(
        "info_nce",
        knobs=(("symmetric", True), ("temperature", 0.5)),
        zero_if_equal=False,
        min_rows=2,
    ),
    Case(
        "crd",
        arrays=_entries,
        rowwise=("student_memory", "teacher_memory"),
        zero_if_equal=False,
        mask=None,
    ),
    Case(
        "hashing_likelihood",
        teacher=(4,),
        arrays=_others,
        positive=_similarities,
        zero_if_equal=False,
        nonnegative=False,
        mask=None,
    ),
    Case(
        "hashing_likelihood",
        teacher=(4,),
        arrays=_others,
        positive=_similarities,
        knobs=(("variant", "released"),),
        zero_if_equal=False,
        mask=None,
    ),
]
