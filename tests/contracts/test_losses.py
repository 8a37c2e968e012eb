"""The laws of a loss kernel, held over the whole public list of `kdjax.losses`.

A new kernel joins by being listed there and by naming its kind in `KINDS`.
"""

import functools
import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from kdjax import losses

pytestmark = pytest.mark.usefixtures("strict_dtypes")

NOT_KERNELS = {"RELATION", "combine"}
# kind: "response" and "feature" reduce axes of each example alone, "relation" compares
#     examples, "labels" has class ids for its second argument.
# divergence: zero where student and teacher are equal.
KINDS = {
    "softmax_kl": ("response", True),
    "soft_cross_entropy": ("response", False),
    "logit_mse": ("response", True),
    "hard_cross_entropy": ("response", False),
    "hint_l2": ("feature", True),
    "rkd_distance": ("relation", True),
    "rkd_angle": ("relation", True),
}
VARIANTS = {
    "softmax_kl": [{"temperature": 4.0}],
    "soft_cross_entropy": [{"temperature": 4.0}],
    "logit_mse": [{"centre": True}],
    "hard_cross_entropy": [{"label_smoothing": 0.1}],
    "hint_l2": [{"convention": "fitnets"}],
    "rkd_angle": [{"chunk": 2}],
}
WORDS = {
    "first": {"student_logits", "student_features"},
    "second": {"teacher_logits", "teacher_features", "teacher"},
    "knobs": {
        *("temperature", "margin", "power", "eps", "axis", "where"),
        *("label_smoothing", "centre", "convention", "chunk"),
    },
}


class Case(NamedTuple):
    name: str
    kind: str
    divergence: bool
    knobs: tuple[tuple[str, object], ...]

    @property
    def kernel(self) -> Callable:
        return functools.partial(getattr(losses, self.name), **dict(self.knobs))

    def inputs(self, seed=0, rows=4, width=3, scale=1.0, dtype=np.float32):
        rng = np.random.default_rng(seed)
        student, teacher = scale * rng.normal(size=(2, rows, width))
        if self.kind == "labels":
            return student.astype(dtype), rng.integers(width, size=rows)
        return student.astype(dtype), teacher.astype(dtype)


def _cases():
    for name in losses.__all__:
        if name in NOT_KERNELS:
            continue
        kind, divergence = KINDS[name]
        yield Case(name, kind, divergence, ())
        for knobs in VARIANTS.get(name, []):
            yield Case(name, kind, divergence, tuple(knobs.items()))
    yield Case("hard_cross_entropy", "labels", False, ())


CASES = list(_cases())


def _identity(case):
    knobs = ",".join(f"{k}={v}" for k, v in case.knobs)
    return f"{case.name}[{knobs}]" + ("-ids" if case.kind == "labels" else "")


every_kernel = pytest.mark.parametrize("case", CASES, ids=_identity)
unmasked = pytest.mark.parametrize(
    "case", [c for c in CASES if c.kind != "labels"], ids=_identity
)
tempered = pytest.mark.parametrize(
    "case", [c for c in CASES if "temperature" in dict(c.knobs)], ids=_identity
)


@functools.cache
def _compiled(case):
    def mean(student, teacher, where):
        values = case.kernel(student, teacher, where=where)
        return values.mean(), values

    arguments = 0 if case.kind == "labels" else (0, 1)
    return jax.jit(jax.grad(mean, arguments, has_aux=True))


def values_and_gradients(case, student, teacher, where=None):
    """Values `[N]` and the gradients of their mean in every floating argument."""
    gradients, values = _compiled(case)(student, teacher, where)
    return np.asarray(values), [np.asarray(g) for g in jax.tree.leaves(gradients)]


def assert_finite(case, student, teacher, where=None):
    values, gradients = values_and_gradients(case, student, teacher, where)
    assert values.shape == student.shape[:1]
    assert np.isfinite(values).all(), values
    for gradient in gradients:
        assert np.isfinite(gradient).all(), gradient
    return values, gradients


def some_out(case, rows=4, width=3):
    """A mask that leaves something out: an example or a class, by kind."""
    if case.kind == "relation":
        return np.arange(rows) != 1
    return np.arange(width) != 1


def out(case, x, mask):
    """`x` without what the mask leaves out."""
    return x[mask] if case.kind == "relation" else x[:, mask]


def spoilt(case, x, mask):
    """`x` with NaN where the mask leaves it out."""
    mask = mask[:, None] if case.kind == "relation" else mask
    return np.where(mask, x, np.nan).astype(x.dtype)


def test_every_public_name_has_a_kind_and_relation_is_right():
    listed = set(losses.__all__) - NOT_KERNELS
    assert listed == set(KINDS)
    assert {n for n in listed if KINDS[n][0] == "relation"} == losses.RELATION


@every_kernel
def test_parameter_names_and_order_are_the_family_s(case):
    parameters = inspect.signature(getattr(losses, case.name)).parameters
    first, second, *knobs = parameters.values()
    assert first.name in WORDS["first"] and second.name in WORDS["second"]
    for positional in (first, second):
        assert positional.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert positional.default is inspect.Parameter.empty
    names = [knob.name for knob in knobs]
    assert set(names) <= WORDS["knobs"]
    assert names[-2:] == ["axis", "where"]
    for knob in knobs:
        assert knob.kind is inspect.Parameter.KEYWORD_ONLY
        assert knob.default is not inspect.Parameter.empty
    assert parameters["axis"].default == -1 and parameters["where"].default is None


@every_kernel
def test_one_value_per_example_never_negative(case):
    for seed in range(3):
        values, _ = values_and_gradients(case, *case.inputs(seed))
        assert values.shape == (4,)
        assert (values >= 0).all()
        assert (values > 1e-3).any()


@unmasked
def test_zero_for_equal_inputs_where_a_divergence(case):
    student, _ = case.inputs()
    values, gradients = values_and_gradients(case, student, student)
    if case.divergence:
        np.testing.assert_allclose(values, 0, atol=1e-6)
        np.testing.assert_allclose(gradients, 0, atol=1e-6)
    else:
        assert (values > 0).all()


@every_kernel
def test_permuting_the_batch_permutes_the_values(case):
    student, teacher = case.inputs()
    order = np.array([2, 0, 3, 1])
    expected, _ = values_and_gradients(case, student, teacher)
    values, _ = values_and_gradients(case, student[order], teacher[order])
    np.testing.assert_allclose(values, expected[order], rtol=1e-5, atol=1e-6)


@every_kernel
def test_jit_equals_eager(case):
    student, teacher = case.inputs()
    values, _ = values_and_gradients(case, student, teacher)
    eager = case.kernel(jnp.asarray(student), jnp.asarray(teacher))
    np.testing.assert_allclose(values, eager, rtol=1e-5, atol=1e-6)


@every_kernel
def test_vmap_over_groups_equals_a_loop(case):
    groups = [case.inputs(seed) for seed in range(3)]
    student, teacher = (np.stack(x) for x in zip(*groups, strict=True))
    values = jax.jit(jax.vmap(case.kernel))(student, teacher)
    loop = [values_and_gradients(case, *group)[0] for group in groups]
    np.testing.assert_allclose(values, np.stack(loop), rtol=1e-5, atol=1e-6)


@unmasked
def test_where_equals_slicing(case):
    student, teacher = case.inputs()
    mask = some_out(case)
    sliced = values_and_gradients(
        case, out(case, student, mask), out(case, teacher, mask)
    )
    values, gradients = values_and_gradients(case, student, teacher, mask)
    # The mean runs over all rows: masked examples are 0 and count in its divisor.
    scale = mask.mean() if case.kind == "relation" else 1.0
    for gradient, expected in zip(gradients, sliced[1], strict=True):
        kept = out(case, gradient, mask)
        np.testing.assert_allclose(kept, expected * scale, rtol=1e-4, atol=1e-6)
        assert (out(case, gradient, ~mask) == 0).all()
    if case.kind == "relation":
        assert (values[~mask] == 0).all()
        values = values[mask]
    np.testing.assert_allclose(values, sliced[0], rtol=1e-5, atol=1e-6)


@every_kernel
def test_masked_nan_does_not_leak(case):
    student, teacher = case.inputs()
    mask = some_out(case)
    expected = values_and_gradients(case, student, teacher, mask)
    student = spoilt(case, student, mask)
    teacher = teacher if case.kind == "labels" else spoilt(case, teacher, mask)
    values, gradients = values_and_gradients(case, student, teacher, mask)
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(gradients, expected[1])


@unmasked
def test_nan_in_the_data_is_seen(case):
    student, teacher = case.inputs()
    student[2, 1] = np.nan
    values, _ = values_and_gradients(case, student, teacher)
    assert np.isnan(values[2])


@every_kernel
def test_all_masked_gives_zero_and_zero_gradients(case):
    student, teacher = case.inputs()
    nothing = np.zeros(4 if case.kind == "relation" else 3, bool)
    values, gradients = values_and_gradients(case, student, teacher, nothing)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(gradients, 0)


def _extremes(student, teacher):
    """Finite inputs that break textbook formulas, by name."""
    signs = np.where(np.arange(12).reshape(4, 3) % 2, -1e4, 1e4).astype(np.float32)
    saturated = np.where(np.arange(3) == 1, 1e3, -1e3).astype(np.float32)
    twice = student[np.array([0, 0, 1, 2])]
    zero = np.zeros_like(student)
    return {
        "huge, opposed": (signs, -signs),
        "huge, noisy": (1e4 * student, 1e4 * teacher),
        "saturated teacher": (student, zero + saturated),
        "saturated both ways": (zero - saturated, zero + saturated),
        "constant student": (zero + 2, teacher),
        "constant teacher": (student, zero + 2),
        "equal student rows": (zero + student[:1], teacher),
        "equal rows": (zero + student[:1], zero + teacher[:1]),
        "duplicate student": (twice, teacher),
        "duplicates": (twice, twice + 1),
        "zero": (zero, zero),
        "zero student": (zero, teacher),
        "zero teacher": (student, zero),
        "tiny": (1e-20 * student, 1e-20 * teacher),
        "near duplicates": (1 + 1e-6 * student, teacher),
        "one example": (student[:1], teacher[:1]),
        "one class": (student[:, :1], teacher[:, :1]),
    }


@pytest.mark.parametrize("extreme", _extremes(*np.zeros((2, 4, 3), np.float32)))
@every_kernel
def test_finite_values_and_gradients(case, extreme):
    other = Case(case.name, "response", case.divergence, case.knobs)
    student, teacher = _extremes(*other.inputs())[extreme]
    if case.kind == "labels":
        teacher = np.argmax(teacher, axis=-1)
    assert_finite(case, student, teacher)
    mask = some_out(case, *student.shape)
    assert_finite(case, student, teacher, mask)


@every_kernel
def test_gradients_of_both_arguments_are_not_stopped(case):
    _, gradients = values_and_gradients(case, *case.inputs())
    assert np.abs(gradients[0]).max() > 1e-3
    if case.name != "hard_cross_entropy":
        assert np.abs(gradients[1]).max() > 1e-3


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@every_kernel
def test_half_precision_is_widened(case, dtype):
    student, teacher = case.inputs()
    half = jnp.asarray(student, dtype)
    half_teacher = teacher if case.kind == "labels" else jnp.asarray(teacher, dtype)
    values, gradients = assert_finite(case, half, half_teacher)
    assert values.dtype == np.float32
    assert all(g.dtype == dtype for g in gradients)
    expected, _ = values_and_gradients(case, student, teacher)
    np.testing.assert_allclose(values, expected, rtol=0.05, atol=0.02)
    rounded = [
        np.asarray(x, np.float32) if x.dtype == dtype else x
        for x in (half, half_teacher)
    ]
    exact, _ = values_and_gradients(case, *rounded)
    np.testing.assert_allclose(values, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@every_kernel
def test_half_precision_is_finite_at_1e4(case, dtype):
    student, teacher = case.inputs(scale=1e4)
    teacher = teacher if case.kind == "labels" else jnp.asarray(teacher, dtype)
    assert_finite(case, jnp.asarray(student, dtype), teacher)


@unmasked
def test_mixed_precision_meets_in_the_wider(case):
    student, teacher = case.inputs()
    values, _ = values_and_gradients(case, student, jnp.asarray(teacher, jnp.bfloat16))
    expected, _ = values_and_gradients(case, student, teacher)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=0.05, atol=0.02)


@every_kernel
def test_float64_stays_float64(case, float64):
    student, teacher = case.inputs(dtype=np.float64)
    values, gradients = assert_finite(case, student, teacher)
    assert values.dtype == np.float64
    assert all(g.dtype == np.float64 for g in gradients)
    values, _ = values_and_gradients(case, student.astype(np.float32), teacher)
    meet = case.name != "hard_cross_entropy"  # takes no more than an argmax from it
    assert values.dtype == (np.float64 if meet else np.float32)


@every_kernel
def test_axis_is_where_the_kernel_looks(case):
    student, teacher = case.inputs()
    if case.kind == "feature":
        student, teacher = np.stack([student] * 2, 2), np.stack([teacher] * 2, 2)
        moved = [np.swapaxes(x, 1, 2) for x in (student, teacher)]
        values = case.kernel(jnp.asarray(student), jnp.asarray(teacher), axis=1)
    else:
        moved = [student, teacher]
        turned = teacher if case.kind == "labels" else teacher.T
        values = case.kernel(jnp.asarray(student.T), jnp.asarray(turned), axis=0)
    expected, _ = values_and_gradients(case, *moved)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@every_kernel
def test_empty_batch_is_refused(case):
    student, teacher = case.inputs(rows=4)
    with pytest.raises(ValueError, match=r"student_\w+: expected at least one"):
        case.kernel(student[:0], teacher[:0])


@every_kernel
def test_shape_mismatch_is_refused_by_name(case):
    student, teacher = case.inputs()
    second = list(inspect.signature(getattr(losses, case.name)).parameters)[1]
    with pytest.raises(ValueError, match=rf"^{second}: expected .*4.*got .*3"):
        case.kernel(student, teacher[:3])
    with pytest.raises(ValueError, match=rf"^{second}: expected .*got .*4, 1"):
        jax.eval_shape(case.kernel, student, teacher[:, None])


@every_kernel
def test_wrong_dtypes_are_refused_by_name(case):
    student, teacher = case.inputs()
    first, second = list(inspect.signature(getattr(losses, case.name)).parameters)[:2]
    integers = np.ones((4, 3), np.int32)
    with pytest.raises(ValueError, match=rf"^{first}: expected .*floating.*int32"):
        case.kernel(integers, teacher)
    with pytest.raises(ValueError, match=rf"^{first}: expected .*floating.*list"):
        case.kernel(student.tolist(), teacher)
    with pytest.raises(ValueError, match=rf"^{second}: expected"):
        case.kernel(student, integers)
    with pytest.raises(ValueError, match=rf"^{second}: expected .*complex64"):
        case.kernel(student, student.astype(np.complex64))


@every_kernel
def test_wrong_masks_are_refused(case):
    student, teacher = case.inputs()
    with pytest.raises(ValueError, match="^where: expected .*bool.*int32"):
        case.kernel(student, teacher, where=np.ones(3, np.int32))
    with pytest.raises(ValueError, match=r"^where: expected .*shape.*\(7,\)"):
        case.kernel(student, teacher, where=np.ones(7, bool))


@every_kernel
def test_wrong_axis_is_refused(case):
    with pytest.raises(ValueError, match="^axis: expected"):
        case.kernel(*case.inputs(), axis=5)


@tempered
@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf, np.ones(4)])
def test_bad_temperature_is_refused(case, temperature):
    kernel = getattr(losses, case.name)
    with pytest.raises(ValueError, match="^temperature: expected .*got"):
        kernel(*case.inputs(), temperature=temperature)


@tempered
def test_temperature_may_be_traced(case):
    kernel = getattr(losses, case.name)
    student, teacher = case.inputs()
    expected, _ = values_and_gradients(case, student, teacher)

    def value(temperature):
        return kernel(student, teacher, temperature=temperature)

    np.testing.assert_allclose(jax.jit(value)(4), expected, rtol=1e-6)
    np.testing.assert_allclose(value(np.float64(4)), expected, rtol=1e-6)
    slope = jax.jacfwd(value)(4.0)
    numeric = (value(4.05) - value(3.95)) / 0.1
    np.testing.assert_allclose(slope, numeric, rtol=0.02, atol=1e-3)


@every_kernel
def test_arguments_are_not_modified(case):
    student, teacher = case.inputs()
    before = student.copy(), teacher.copy()
    values_and_gradients(case, student, teacher, some_out(case))
    case.kernel(student, teacher)
    np.testing.assert_array_equal(student, before[0])
    np.testing.assert_array_equal(teacher, before[1])


@every_kernel
@hypothesis.settings(max_examples=8, deadline=None, database=None, derandomize=True)
@hypothesis.given(
    rows=st.sampled_from([1, 2, 4]),
    width=st.sampled_from([1, 3]),
    student_scale=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 30.0, 1e6]),
    teacher_scale=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 30.0, 1e6]),
    seed=st.integers(0, 2**16),
)
def test_any_shape_and_scale(case, rows, width, student_scale, teacher_scale, seed):
    student, teacher = case.inputs(seed, rows, width)
    student = (student_scale * student).astype(np.float32)
    if case.kind != "labels":
        teacher = (teacher_scale * teacher).astype(np.float32)
    values, _ = assert_finite(case, student, teacher)
    # Rounding of log-probabilities, times the squared temperature.
    slack = 1e-6 * max(1.0, student_scale, teacher_scale) * 16
    assert (values >= -slack).all()


@pytest.mark.parametrize("name", sorted(losses.RELATION))
def test_relation_means_the_global_batch(name):
    """A value computed on a half of the batch is another value."""
    kernel = getattr(losses, name)
    student, teacher = np.random.default_rng(0).normal(size=(2, 8, 3))
    student, teacher = student.astype(np.float32), teacher.astype(np.float32)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, PartitionSpec("data"))
    sharded = jax.jit(kernel)(*jax.device_put((student, teacher), rows))
    np.testing.assert_allclose(sharded, kernel(student, teacher), rtol=1e-5, atol=1e-6)
    assert not np.allclose(sharded[:4], kernel(student[:4], teacher[:4]), rtol=1e-3)


@pytest.mark.parametrize("module", ["kdjax.losses", "kdjax.core.collectives"])
def test_import_loads_jax_alone(module):
    heavy = ["flax", "optax", "orbax", "grain", "tensorflow", "chex", "kdjax.config"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
