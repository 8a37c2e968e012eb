"""Values that only running can tell: refused where known, guarded where traced."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from kdjax import losses, targets
from tests.lawbook import relation, response

LOGITS = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3])
LABELED = {
    "hard_cross_entropy": lambda ids: losses.hard_cross_entropy(LOGITS, ids),
    "tf_kd": lambda ids: losses.tf_kd(LOGITS, ids),
    **{
        name: functools.partial(
            lambda kernel, ids: kernel(LOGITS, LOGITS[::-1], labels=ids),
            getattr(losses, name),
        )
        for name in (
            *("wsld", "dkd"),
            *("dkd_target", "dkd_non_target"),
        )
    },
    "sequence_nll": lambda ids: losses.sequence_nll(LOGITS[None], ids[None]),
    "teacher_weights": lambda ids: targets.teacher_weights(
        LOGITS[None], rule="oracle", labels=ids
    ),
}
# Widths, margins and temperatures: every knob above 0 that may be traced.
KNOBS = [
    (case, knob)
    for case in [*response.CASES, *relation.CASES]
    for knob in ("temperature", "student_temperature", "margin", "gamma", "scale")
    if knob in inspect.signature(getattr(losses, case.name)).parameters
    and not (knob == "gamma" and case.name in ("dist", "irg"))
]
KNOBS = list({(case.name, knob): (case, knob) for case, knob in KNOBS}.values())


@pytest.mark.parametrize("name", LABELED)
def test_labels_out_of_range(name):
    loss = LABELED[name]
    message = "(labels|teacher|teacher_tokens): expected .* below 3, .*got 3"
    with pytest.raises(ValueError, match=f"^{message}"):
        loss(LABELS)
    values = jax.jit(loss)(LABELS)
    assert np.isfinite(values).all()
    error, _ = jax.jit(checkify.checkify(loss))(jnp.asarray(LABELS))
    with pytest.raises(checkify.JaxRuntimeError, match=f"^{message}"):
        error.throw()
    # A negative id stands for no label, and is no error.
    error, _ = jax.jit(checkify.checkify(loss))(jnp.asarray(LABELS - 1))
    error.throw()


def _guards(case, knob):
    rng = np.random.default_rng(0)
    student = rng.normal(size=(4, *case.student)).astype(np.float32)
    teacher = np.zeros(4, np.int32) if case.teacher == "ids" else student
    if isinstance(case.teacher, tuple):
        teacher = case.positive(rng.normal(size=(4, *case.teacher)))
        teacher = teacher.astype(np.float32)
    options = {**dict(case.knobs), **case.arrays(rng, 4)}
    options.pop(knob, None)
    kernel = getattr(losses, case.name)
    traced = jax.make_jaxpr(lambda x: kernel(student, teacher, **options, **{knob: x}))
    return str(traced(1.0)).count("check[debug=True]")


@pytest.mark.parametrize("case, knob", KNOBS, ids=lambda x: getattr(x, "name", x))
def test_traced_knobs_leave_a_guard(case, knob):
    assert _guards(case, knob) >= 1


def test_a_guard_speaks_of_its_argument():
    def loss(student, temperature):
        return losses.softmax_kl(student, LOGITS, temperature=temperature).mean()

    step = jax.jit(checkify.checkify(jax.grad(loss)))
    error, _ = step(LOGITS[::-1], -1.0)
    message = r"^temperature: expected a number in \[1e-06, 1000000.0\], got -1.0"
    with pytest.raises(checkify.JaxRuntimeError, match=message):
        error.throw()
    error, _ = step(LOGITS[::-1], 2.0)
    error.throw()


def test_indices_outside_the_vocabulary():
    kept = np.log(np.array([[0.7, 0.2], [0.8, 0.1]], np.float32))
    good, bad = np.array([[0, 1], [1, 2]]), np.array([[0, 1], [1, 3]])

    def loss(indices, kept=kept):
        return losses.top_k_kl(LOGITS[:2], kept, teacher_indices=indices)

    outside, twice = r"indices in \[0, 3\), got ", "every class at most once .*, got "
    for wrong, got in (
        (bad, outside + "3"),
        (good - 1, outside + "-1"),
        (np.array([[0, 1], [2, 2]]), twice + "2"),
    ):
        message = "teacher_indices: expected "
        with pytest.raises(ValueError, match=f"^{message}{got}"):
            loss(wrong)
        error, _ = jax.jit(checkify.checkify(loss))(jnp.asarray(wrong))
        with pytest.raises(checkify.JaxRuntimeError, match=f"^{message}{got}"):
            error.throw()
    # An entry that keeps nothing may have any index.
    fewer = np.array([[0.0, -np.inf], [-0.1, -np.inf]], np.float32)
    assert np.isfinite(loss(good[:, :1] * [1, 0] - [0, 1], fewer)).all()
    error, _ = jax.jit(checkify.checkify(loss))(jnp.asarray(good))
    error.throw()


@pytest.mark.parametrize("labels", [[0, 1, 2, 0], np.ones(4, complex), "0120"])
def test_what_are_no_labels_is_told_of_class_ids(labels):
    for name in ("hard_cross_entropy", "tf_kd", "dkd"):
        with pytest.raises(ValueError, match="^(labels|teacher): .*class ids.*, got"):
            LABELED[name](labels)
