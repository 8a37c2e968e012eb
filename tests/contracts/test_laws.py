"""The laws of a loss kernel: first case of every formula, three programs a case.

A kernel joins by being listed in `kdjax.losses` and having a case in `tests/lawbook`.
One program maps value and gradient over all scenes of a case: plain inputs, equal ones,
permuted ones, masks and extremes. The second computes the rows that a mask leaves, the
third takes half precision. `test_losses.py` has every case and the remaining laws.
"""

import functools
import inspect
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.core import checks
from tests.contracts.harness import (
    CASES,
    EXTREMES,
    arrays_without,
    call,
    cases,
    compiled,
    every,
    extreme,
    forms,
    inputs,
    results,
    rows_of,
    shaped,
    signature,
    some_out,
    take,
    visible_labels,
    without,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes")


class Scene(NamedTuple):
    """One set of arguments of a kernel; all scenes of a case have the same shapes."""

    student: np.ndarray
    teacher: np.ndarray
    arrays: dict[str, Any]
    mask: np.ndarray | None = None


class Result(NamedTuple):
    """Values and the gradients of their mean, in the student and the teacher."""

    values: np.ndarray
    gradients: list[np.ndarray]


def make_scenes(case) -> dict[str, Scene]:
    """All scenes of a case by name."""
    student, teacher, arrays = plain = inputs(case)
    order = np.roll(np.arange(len(student))[::-1], 1)
    scenes = {f"plain {seed}": Scene(*inputs(case, seed)) for seed in range(3)}
    permuted = take(case, arrays, order)
    scenes["permuted"] = Scene(student[order], teacher[order], permuted)
    if case.teacher is None:
        scenes["equal"] = Scene(student, student, arrays)
    half = student.astype(jnp.bfloat16).astype(np.float32)
    scenes["rounded"] = Scene(half, teacher, arrays)
    if case.teacher != "ids":
        spoiled = student.copy()
        spoiled[2] = np.nan
        scenes["nan"] = Scene(spoiled, teacher, arrays)
    extremes = {n: extreme(case, n) for n in EXTREMES if n != "fewest examples"}
    scenes |= {name: Scene(*scene) for name, scene in extremes.items()}
    if case.mask is None:
        return scenes
    mask = some_out(case, student)
    where, every_entry = (shaped(case, m, student) for m in (mask, mask | True))
    scenes = {name: scene._replace(mask=every_entry) for name, scene in scenes.items()}
    labels = visible_labels(case, arrays, mask)
    masked = Scene(student, teacher, labels, where)
    scenes["masked"] = masked
    scenes["masked nan"] = _spoil(case, masked, mask)
    scenes["all masked"] = Scene(*plain, mask=np.zeros_like(where))
    if rules_out(case):
        gone = np.where(mask, masked.student, -np.inf).astype(np.float32)
        both = gone, np.where(mask, teacher, -np.inf).astype(np.float32)
        scenes["ruled out"] = Scene(*both, labels, where | True)
    if student.shape[case.mask] > 1:
        for name, scene in extremes.items():
            scenes[f"{name}, masked"] = Scene(*scene, mask=where)
    return scenes


def rules_out(case) -> bool:
    """True for kernels of two logits whose mask selects classes."""
    logits = [*signature(case)][:2] == ["student_logits", "teacher_logits"]
    return logits and case.mask == -1 and case.teacher is None


def _spoil(case, scene: Scene, mask: np.ndarray) -> Scene:
    """NaN wherever the mask leaves an entry out."""
    at = case.mask % scene.student.ndim
    shape = [-1 if i == at else 1 for i in range(scene.student.ndim)]
    keep = mask.reshape(shape)
    student = np.where(keep, scene.student, np.nan).astype(np.float32)
    teacher = scene.teacher
    if case.teacher != "ids":
        teacher = np.where(keep, teacher, np.nan).astype(np.float32)
    return scene._replace(student=student, teacher=teacher)


def run_scenes(case, scenes: dict[str, Scene]) -> dict[str, Result]:
    """Value and gradients of every scene, by one program."""
    stacked = jax.tree.map(lambda *x: np.stack(x), *scenes.values())
    gradients, values = jax.jit(jax.vmap(compiled(case)))(*stacked)
    gradients = jax.tree.leaves(jax.device_get(gradients))
    values = np.asarray(values)
    return {
        name: Result(values[i], [g[i] for g in gradients])
        for i, name in enumerate(scenes)
    }


def check_values(case, scenes, found):
    """One value per example, not all 0, never negative where the case says so."""
    for seed in range(3):
        values = found[f"plain {seed}"].values
        assert values.shape == (rows_of(case),)
        assert not case.nonnegative or (values >= -1e-6).all()
        assert (np.abs(values) > 1e-6).any()


def check_equal_inputs(case, scenes, found):
    """A divergence of equal inputs is 0 with gradient 0; another loss is not 0."""
    if case.teacher is not None:
        return
    values, gradients = found["equal"]
    if not case.zero_if_equal:
        assert (np.abs(values) > 1e-6).any()
        return
    for x in (values, *gradients):
        np.testing.assert_allclose(x, 0, atol=2e-6)


def check_permutation(case, scenes, found):
    """Permuting the examples permutes the values."""
    order = np.roll(np.arange(rows_of(case))[::-1], 1)
    expected, values = found["plain 0"].values[order], found["permuted"].values
    if ("variant", "consecutive") in case.knobs:
        # The one formula that is about the order of the batch.
        assert not np.allclose(values, expected, rtol=1e-3)
    else:
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def check_gradients_flow(case, scenes, found):
    """No kernel stops the gradient of either argument."""
    _, gradients = found["plain 0"]
    assert np.abs(gradients[0]).max() > 1e-7
    if case.teacher_gradient and case.teacher != "ids":
        assert np.abs(gradients[1]).max() > 1e-7


def check_nan_is_not_hidden(case, scenes, found):
    """NaN in the data of an example is NaN in its value."""
    if case.teacher != "ids":
        assert np.isnan(found["nan"].values[2])


def check_finite(case, scenes, found):
    """Finite values and gradients at every extreme, unmasked and masked."""
    bad = [
        name
        for name, (values, gradients) in found.items()
        if name != "nan" and not all(np.isfinite(x).all() for x in (values, *gradients))
    ]
    assert not bad, bad


def check_masked_entries(case, scenes, found):
    """What a mask leaves out, NaN included, reaches no value and no gradient."""
    if case.mask is None:
        return
    for x, y in zip(
        *map(jax.tree.leaves, (found["masked nan"], found["masked"])), strict=True
    ):
        np.testing.assert_array_equal(x, y)
    values, gradients = found["all masked"]
    for x in (values, *gradients):
        np.testing.assert_array_equal(x, 0)


def check_ruled_out_classes(case, scenes, found):
    """Minus infinity in student and teacher is what a mask of that class is."""
    if "ruled out" not in found:
        return
    for x, y in zip(
        *map(jax.tree.leaves, (found["ruled out"], found["masked"])), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def check_where_is_slicing(case, scenes, found):
    """A mask gives what slicing gives. A program of its own: other shapes, no vmap."""
    if case.mask is None or case.teacher == "ids":
        return
    student, teacher, arrays, _ = scenes["masked"]
    mask = some_out(case, student)
    if case.mask == 0 and mask.sum() < case.min_rows:
        return
    cut = [without(case, x, mask) for x in (student, teacher)]
    sliced = results(case, *cut, arrays_without(case, arrays, mask))
    values, gradients = found["masked"]
    # The mean runs over all rows: masked examples are 0 and count in its divisor.
    scale = mask.mean() if case.mask == 0 else 1.0
    for gradient, expected in zip(gradients, sliced[1], strict=True):
        kept = without(case, gradient, mask)
        np.testing.assert_allclose(kept, expected * scale, rtol=1e-3, atol=1e-6)
        assert (without(case, gradient, ~mask) == 0).all()
    if case.mask == 0:
        assert (values[~mask] == 0).all()
        values = values[mask]
    np.testing.assert_allclose(values, sliced[0], rtol=1e-4, atol=1e-6)


def check_half_precision(case, scenes, found):
    """A bfloat16 student under a float32 teacher is widened, its gradient is not."""
    student, teacher, arrays, where = scenes["plain 0"]
    half = student.astype(jnp.bfloat16)
    values, gradients = results(case, half, teacher, arrays, where)
    assert values.dtype == np.float32
    assert gradients[0].dtype == jnp.bfloat16
    assert all(g.dtype == np.float32 for g in gradients[1:])
    expected = found["rounded"].values
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def check_temperature(case, scenes, found):
    """A traced temperature gives what the same number gives."""
    knobs = dict(case.knobs)
    if "temperature" not in signature(case):
        return
    student, teacher, arrays, where = scenes["plain 0"]
    default = signature(case)["temperature"].default
    temperature = knobs.get("temperature", default)
    mask = {} if case.mask is None else {"where": where}

    def values(t, student, teacher, arrays):
        found = call(case, student, teacher, arrays, temperature=t, **mask)
        return found.mean(), found

    of_temperature = jax.jit(jax.grad(values, has_aux=True))
    number = np.float32(temperature)
    slope, traced = of_temperature(number, student, teacher, arrays)
    np.testing.assert_allclose(traced, found["plain 0"].values, rtol=1e-4, atol=1e-6)
    assert np.isfinite(slope)
    if "ruled out" in scenes:
        slope, _ = of_temperature(number, *scenes["ruled out"][:3])
        assert np.isfinite(slope)


@forms
def test_laws(case):
    scenes = make_scenes(case)
    found = run_scenes(case, scenes)
    for check in (
        check_values,
        check_equal_inputs,
        check_permutation,
        check_gradients_flow,
        check_nan_is_not_hidden,
        check_finite,
        check_masked_entries,
        check_ruled_out_classes,
        check_where_is_slicing,
        check_half_precision,
        check_temperature,
    ):
        check(case, scenes, found)
    # The programs of a case serve no other; a process holds only so many.
    compiled.cache_clear()


def test_every_public_name_has_a_case_and_relation_is_right():
    kernels = {name for name, entry in losses.REGISTRY.items() if entry.kernel}
    names = {case.name for case in CASES}
    missing = sorted(kernels - names)
    assert not missing, (
        f"no law case of {missing}: add `Case(NAME, shapes, ...)` to "
        "CASES in tests/lawbook/response.py (logits), feature.py, relation.py or "
        "sequence.py; the fields are described in tests/lawbook/__init__.py"
    )
    missing = sorted(names - kernels)
    assert not missing, (
        f"law cases without a kernel: {missing}; set kernel=True in "
        "the entry(...) of _entries.py in the room of kdjax/losses"
    )
    relations = {case.name for case in CASES if case.relation}
    wrong = sorted(relations ^ losses.RELATION)
    assert not wrong, f"relation=True in the case or in the entry alone: {wrong}"


@every
def test_parameter_names_and_order_are_the_family_s(case):
    first, second, *knobs = signature(case).values()
    assert first.name.startswith("student_")
    assert second.name.startswith("teacher") or second.name == "labels"
    for positional in (first, second):
        assert positional.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert positional.default is inspect.Parameter.empty
    names = [knob.name for knob in knobs]
    for name, default in (("axis", -1), ("where", None)):
        if name in names:
            assert signature(case)[name].default == default or name == "axis"
    if "where" in names:
        assert names[-1] == "where"
    assert ("where" in names) == (case.mask is not None)
    for knob in knobs:
        assert knob.kind is inspect.Parameter.KEYWORD_ONLY
        required = knob.default is inspect.Parameter.empty
        given = {**inputs(case)[2], **dict(case.knobs)}
        assert not required or knob.name in given, knob.name


@forms
def test_bad_input_is_refused_by_name(case):
    """Empty batches, other shapes, dtypes, masks, axes and temperatures."""
    student, teacher, arrays = inputs(case)
    first, second, *_ = parameters = list(signature(case))
    refuse = functools.partial(_refuse, case)
    none = take(case, arrays, slice(0, 0))
    refuse(r"student_\w+: expected at least", student[:0], teacher[:0], none)
    refuse(rf"^{second}: expected .*got", student, teacher[:-1], arrays)
    integers = np.ones(student.shape, np.int32)
    refuse(rf"^{first}: expected .*int32", integers, teacher, arrays)
    complex_ = teacher.astype(np.complex64)
    refuse(rf"^{second}: expected", student, complex_, arrays)
    plain = (student, teacher, arrays)
    if case.mask is not None:
        refuse("^where: expected .*bool.*int32", *plain, where=np.ones(3, np.int32))
        refuse(r"^where: expected .*\(77,\)", *plain, where=np.ones(77, bool))
        more = np.ones((1,) * (student.ndim + 1), bool)
        refuse("^where: expected .*got", *plain, where=more)
    if "axis" in parameters:
        refuse("^axis: expected", *plain, axis=9)
    if "temperature" in parameters:
        for bad in (0.0, -1.0, np.nan, np.inf):
            refuse("^temperature: expected .*got", *plain, temperature=bad)


def _refuse(case, match, *arguments, **more):
    with pytest.raises(ValueError, match=match):
        call(case, *arguments, **more)


@pytest.mark.parametrize("module", ["kdjax.losses", "kdjax.core.collectives"])
def test_import_loads_jax_alone(module):
    heavy = ["flax", "optax", "orbax", "grain", "tensorflow", "chex", "kdjax.config"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    root = pathlib.Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
    )
    assert run.stdout.strip() == "[]"


@cases(lambda c: c.min_rows > 1)
def test_too_few_rows_are_refused(case):
    student, teacher, arrays = inputs(case, rows=case.min_rows - 1)
    expected = f"^student_.*: expected at least {case.min_rows} examples .*, got"
    with pytest.raises(checks.ArgumentError, match=expected):
        call(case, student, teacher, arrays)
