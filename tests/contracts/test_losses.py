"""Every law of a loss kernel on every case of `tests/lawbook`, one law at a time.

The full tier. `test_laws.py` holds most of them for the gate, in far fewer programs.
"""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from tests.contracts.harness import (
    EXTREMES,
    arrays_without,
    assert_finite,
    call,
    cases,
    compiled,
    every,
    extreme,
    forms,
    inputs,
    maskable,
    masked,
    paired,
    results,
    rows_of,
    shaped,
    signature,
    some_out,
    take,
    tempered,
    visible_labels,
    without,
)

pytestmark = [pytest.mark.usefixtures("strict_dtypes"), pytest.mark.full]


@every
def test_one_value_per_example_never_negative(case):
    for seed in range(3):
        values, _ = results(case, *inputs(case, seed))
        assert values.shape == (rows_of(case),)
        if case.nonnegative:
            assert (values >= -1e-6).all()
        assert (np.abs(values) > 1e-6).any()


@cases(lambda c: c.teacher is None and c.zero_if_equal)
def test_zero_for_equal_inputs_where_a_divergence(case):
    student, _, arrays = inputs(case)
    values, gradients = results(case, student, student, arrays)
    np.testing.assert_allclose(values, 0, atol=2e-6)
    for gradient in gradients:
        np.testing.assert_allclose(gradient, 0, atol=2e-6)


@cases(lambda c: c.teacher is None and not c.zero_if_equal)
def test_not_zero_for_equal_inputs_where_no_divergence(case):
    student, _, arrays = inputs(case)
    values, _ = results(case, student, student, arrays)
    assert (np.abs(values) > 1e-6).any()


@every
def test_permuting_the_batch_permutes_the_values(case):
    student, teacher, arrays = inputs(case)
    order = np.roll(np.arange(len(student))[::-1], 1)
    expected, _ = results(case, student, teacher, arrays)
    again = take(case, arrays, order)
    values, _ = results(case, student[order], teacher[order], again)
    if ("variant", "consecutive") in case.knobs:
        # The one form that is about the order of the batch.
        assert not np.allclose(values, expected[order], rtol=1e-3)
    else:
        np.testing.assert_allclose(values, expected[order], rtol=1e-4, atol=1e-6)


@forms
def test_jit_equals_eager(case):
    student, teacher, arrays = inputs(case)
    values, _ = results(case, student, teacher, arrays)
    eager = call(case, jnp.asarray(student), jnp.asarray(teacher), arrays)
    np.testing.assert_allclose(values, eager, rtol=1e-4, atol=1e-6)


@every
def test_vmap_over_groups_equals_a_loop(case):
    groups = [inputs(case, seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *groups)
    values = jax.jit(jax.vmap(lambda s, t, a: call(case, s, t, a)))(*stacked)
    loop = [results(case, *group)[0] for group in groups]
    # MLLD multiplies divergences, with their rounding, by squares of temperatures.
    atol = 1e-5 if case.name == "mlld" else 1e-6
    np.testing.assert_allclose(values, np.stack(loop), rtol=1e-4, atol=atol)


@masked
def test_where_equals_slicing(case):
    student, teacher, arrays = inputs(case, rows=rows_of(case) + 1)
    mask = some_out(case, student)
    arrays = visible_labels(case, arrays, mask)
    cut = [without(case, x, mask) for x in (student, teacher)]
    sliced = results(case, *cut, arrays_without(case, arrays, mask))
    where = shaped(case, mask, student)
    values, gradients = results(case, student, teacher, arrays, where)
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


@maskable
def test_masked_nan_does_not_leak(case):
    student, teacher, arrays = inputs(case, rows=rows_of(case) + 1)
    mask = some_out(case, student)
    arrays = visible_labels(case, arrays, mask)
    where = shaped(case, mask, student)
    shape = [-1 if i == case.mask % student.ndim else 1 for i in range(student.ndim)]
    keep = mask.reshape(shape)

    def spoil(x):
        return np.where(keep, x, np.nan).astype(x.dtype)

    expected = results(case, student, teacher, arrays, where)
    other = teacher if case.teacher == "ids" else spoil(teacher)
    values, gradients = results(case, spoil(student), other, arrays, where)
    np.testing.assert_array_equal(values, expected[0])
    for a, b in zip(gradients, expected[1], strict=True):
        np.testing.assert_array_equal(a, b)


@paired
def test_nan_in_the_data_is_seen(case):
    student, teacher, arrays = inputs(case)
    student[2] = np.nan
    values, _ = results(case, student, teacher, arrays)
    assert np.isnan(values[2])


@maskable
def test_all_masked_gives_zero_and_zero_gradients(case):
    student, teacher, arrays = inputs(case, rows=rows_of(case) + 1)
    mask = np.zeros(student.shape[case.mask], bool)
    where = shaped(case, mask, student)
    values, gradients = results(case, student, teacher, arrays, where)
    np.testing.assert_array_equal(values, 0)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


@every
def test_finite_values_and_gradients(case):
    """At every extreme, unmasked and masked, in one compiled call for all."""
    found = {name: extreme(case, name) for name in EXTREMES}
    assert_finite(case, *found.pop("fewest examples"))
    scenes = list(found.items())
    where = None
    student = scenes[0][1][0]
    if case.mask is not None:
        some = shaped(case, some_out(case, student), student)
        everything = np.ones_like(some)
        masks = [everything] * len(scenes)
        if student.shape[case.mask] > 1:
            masks += [some] * len(scenes)
            scenes += [(f"{name}, masked", scene) for name, scene in scenes]
        where = np.stack(masks)
    stacked = jax.tree.map(lambda *x: np.stack(x), *(scene for _, scene in scenes))
    gradients, values = jax.jit(jax.vmap(compiled(case)))(*stacked, where)
    for x in map(np.asarray, (values, *jax.tree.leaves(gradients))):
        bad = [
            name
            for (name, _), v in zip(scenes, x, strict=True)
            if not np.isfinite(v).all()
        ]
        assert not bad, bad


@every
def test_gradients_of_both_arguments_are_not_stopped(case):
    _, gradients = results(case, *inputs(case))
    assert np.abs(gradients[0]).max() > 1e-7
    if case.teacher_gradient and case.teacher != "ids":
        assert np.abs(gradients[1]).max() > 1e-7


@every
def test_half_precision_is_widened(case):
    student, teacher, arrays = inputs(case)
    half = student.astype(jnp.bfloat16)
    ids = case.teacher == "ids"
    half_teacher = teacher if ids else teacher.astype(jnp.bfloat16)
    values, gradients = assert_finite(case, half, half_teacher, arrays)
    assert values.dtype == np.float32
    assert all(g.dtype == jnp.bfloat16 for g in gradients)
    exact = half_teacher if ids else half_teacher.astype(np.float32)
    expected, _ = results(case, half.astype(np.float32), exact, arrays)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@forms
def test_mixed_precision_meets_in_the_wider(case):
    """A student in float16 beside a teacher in float32."""
    student, teacher, arrays = inputs(case)
    half = student.astype(np.float16)
    values, gradients = assert_finite(case, half, teacher, arrays)
    assert values.dtype == np.float32
    assert gradients[0].dtype == np.float16
    assert all(g.dtype == np.float32 for g in gradients[1:])
    expected, _ = results(case, half.astype(np.float32), teacher, arrays)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@every
def test_float64_stays_float64(case, float64):
    student, teacher, arrays = inputs(case, dtype=np.float64)
    values, gradients = assert_finite(case, student, teacher, arrays)
    assert values.dtype == np.float64
    assert all(g.dtype == np.float64 for g in gradients)


@cases(lambda c: "axis" in signature(c))
def test_axis_is_where_the_kernel_looks(case):
    student, teacher, arrays = inputs(case)
    expected, _ = results(case, student, teacher, arrays)
    axis = 0 if student.ndim == 2 else 1
    moved = np.moveaxis(student, -1, axis)
    other = teacher if case.teacher == "ids" else np.moveaxis(teacher, -1, axis)
    arrays = {
        k: np.moveaxis(x, -1, axis)
        if k in case.rowwise and np.ndim(x) == student.ndim > 2
        else x
        for k, x in arrays.items()
    }
    values = jax.jit(lambda s, t, a: call(case, s, t, a, axis=axis))(
        moved, other, arrays
    )
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


@every
def test_empty_batch_is_refused(case):
    student, teacher, arrays = inputs(case)
    none = take(case, arrays, slice(0, 0))
    with pytest.raises(ValueError, match=r"student_\w+: expected at least"):
        call(case, student[:0], teacher[:0], none)


@every
def test_shape_mismatch_is_refused_by_name(case):
    student, teacher, arrays = inputs(case)
    second = list(signature(case))[1]
    with pytest.raises(ValueError, match=rf"^{second}: expected .*got"):
        call(case, student, teacher[:-1], arrays)
    with pytest.raises(ValueError, match=rf"^{second}: expected .*got"):
        jax.eval_shape(lambda s, t: call(case, s, t, arrays), student, teacher[:, None])


@every
def test_wrong_dtypes_are_refused_by_name(case):
    student, teacher, arrays = inputs(case)
    first, second = list(signature(case))[:2]
    integers = np.ones(student.shape, np.int32)
    with pytest.raises(ValueError, match=rf"^{first}: expected .*int32"):
        call(case, integers, teacher, arrays)
    with pytest.raises(ValueError, match=rf"^{second}: expected"):
        call(case, student, teacher.astype(np.complex64), arrays)


@maskable
def test_wrong_masks_are_refused(case):
    student, teacher, arrays = inputs(case)
    with pytest.raises(ValueError, match="^where: expected .*bool.*int32"):
        call(case, student, teacher, arrays, where=np.ones(3, np.int32))
    with pytest.raises(ValueError, match=r"^where: expected .*\(77,\)"):
        call(case, student, teacher, arrays, where=np.ones(77, bool))


@cases(lambda c: "axis" in signature(c))
def test_wrong_axis_is_refused(case):
    student, teacher, arrays = inputs(case)
    with pytest.raises(ValueError, match="^axis: expected"):
        call(case, student, teacher, arrays, axis=9)


@tempered
@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_bad_temperature_is_refused(case, temperature):
    student, teacher, arrays = inputs(case)
    with pytest.raises(ValueError, match="^temperature: expected .*got"):
        call(case, student, teacher, arrays, temperature=temperature)


@tempered
def test_temperature_may_be_traced(case):
    student, teacher, arrays = inputs(case)

    def value(temperature):
        return call(case, student, teacher, arrays, temperature=temperature)

    expected = jax.jit(lambda: value(4.0))()
    np.testing.assert_allclose(jax.jit(value)(4.0), expected, rtol=1e-4, atol=1e-6)


@every
@hypothesis.settings(max_examples=6, deadline=None, database=None, derandomize=True)
@hypothesis.given(
    more=st.sampled_from([0, 1, 3]),
    student_scale=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 30.0, 1e4]),
    teacher_scale=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 30.0, 1e4]),
    seed=st.integers(0, 2**16),
)
def test_any_size_and_scale(case, more, student_scale, teacher_scale, seed):
    student, teacher, arrays = inputs(case, seed, case.min_rows + more)
    student = case.positive(student_scale * student).astype(np.float32)
    if case.teacher != "ids":
        teacher = case.positive(teacher_scale * teacher).astype(np.float32)
    assert_finite(case, student, teacher, arrays)


@cases(lambda c: c.relation)
def test_the_least_rows_have_a_loss(case):
    student, teacher, arrays = inputs(case, rows=case.min_rows)
    assert np.abs(call(case, student, teacher, arrays)).max() > 1e-7


@cases(lambda c: c.relation)
def test_relation_means_the_global_batch(case):
    """Sharded over 8 devices the values are those of one; of a half they are others."""
    student, teacher, arrays = inputs(case, rows=8)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, PartitionSpec("data"))
    placed = jax.device_put((student, teacher), rows)
    kernel = jax.jit(lambda s, t, a: call(case, s, t, a))
    sharded = kernel(*placed, arrays)
    whole = kernel(student, teacher, arrays)
    np.testing.assert_allclose(sharded, whole, rtol=1e-4, atol=1e-6)
    half = kernel(student[:4], teacher[:4], take(case, arrays, slice(0, 4)))
    assert not np.allclose(sharded[:4], half, rtol=1e-3)
