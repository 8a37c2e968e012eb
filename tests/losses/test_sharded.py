"""Values and gradients on a batch sharded over 8 devices are those of one device.

Under `jit` with a sharded batch nothing is to be done, on Auto and Explicit axes alike.
Under `shard_map` and `pmap` the kernel needs the name of the axis, and raises without.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import kdjax.losses
from kdjax.core import collectives
from tests.contracts import harness
from tests.lawbook import relation, response

pytestmark = pytest.mark.usefixtures("strict_dtypes")
CASES = [*relation.CASES, *(case for case in response.CASES if case.relation)]
ROWS = 16
WEIGHTS = np.arange(1.0, 1 + ROWS, dtype=np.float32)


def _kernel(case):
    return functools.partial(getattr(kdjax.losses, case.name), **dict(case.knobs))


def _identity(case):
    return f"{case.name}[{','.join(f'{k}={v}' for k, v in case.knobs)}]"


# One kernel a family for the gate: distances, correlations, contrast.
_GATE = {"rkd_distance", "dist_intra", "info_nce"}


def _param(case):
    first = case.name in _GATE and not case.knobs
    marks = () if first else pytest.mark.full
    return pytest.param(case, id=_identity(case), marks=marks)


every = pytest.mark.parametrize("case", [_param(case) for case in CASES])


def _inputs(case):
    rng = np.random.default_rng(0)
    student = rng.normal(size=(ROWS, *case.student)).astype(np.float32)
    shape = case.student if case.teacher is None else case.teacher
    teacher = rng.normal(size=(ROWS, *shape)).astype(np.float32)
    arrays = {
        name: x.astype(np.float32) if x.dtype == np.float64 else x
        for name, x in case.arrays(rng, ROWS).items()
    }
    if case.mask is not None:
        arrays["where"] = np.arange(ROWS) % 5 != 3
    rowwise = {k: v for k, v in arrays.items() if k in (*case.rowwise, "where")}
    whole = {k: v for k, v in arrays.items() if k not in rowwise}
    return student, teacher, rowwise, whole


@functools.cache
def _mesh():
    return jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))


@functools.cache
def _expected(index):
    """Values, and the gradients of their weighted mean in both arguments."""
    student, teacher, rowwise, whole = _inputs(CASES[index])
    return jax.jit(_whole_batch(CASES[index]))(student, teacher, rowwise, whole)


def _whole_batch(case):
    kernel = _kernel(case)

    def loss(student, teacher, rowwise, whole):
        values = kernel(student, teacher, **rowwise, **whole)
        return jnp.mean(WEIGHTS * values), values

    return jax.grad(loss, (0, 1), has_aux=True)


def _one_device(case):
    """What one device computes: its own share of the mean."""
    kernel = _kernel(case)

    def loss(student, teacher, rowwise, whole, weights):
        divided = {"axis_name": "data"} if case.name in kdjax.losses.RELATION else {}
        mine = kernel(student, teacher, **rowwise, **whole, **divided)
        return jnp.mean(weights * mine), mine

    def gradient(*arguments):
        slopes, values = jax.grad(loss, (0, 1), has_aux=True)(*arguments)
        # The mean over the devices of each one's mean is the mean of the batch.
        return jax.tree.map(lambda x: x / 8, slopes), values

    return gradient


def _assert_same(case, actual):
    expected = _expected(CASES.index(case))
    for ours, one in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        ours = np.asarray(ours).reshape(one.shape)
        scale = np.abs(one).max()
        np.testing.assert_allclose(ours, one, rtol=1e-4, atol=1e-5 * scale + 1e-12)
    assert np.abs(expected[0][0]).max() > 1e-7


@every
def test_jit_over_a_mesh(case):
    student, teacher, rowwise, whole = _inputs(case)
    rows = NamedSharding(_mesh(), PartitionSpec("data"))
    placed = jax.device_put((student, teacher, rowwise), rows)
    _assert_same(case, jax.jit(_whole_batch(case))(*placed, whole))


@every
def test_jit_over_explicit_axes(case):
    """`jax.make_mesh` makes such axes by default."""
    student, teacher, rowwise, whole = _inputs(case)
    rows = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))
    placed = jax.device_put((student, teacher, rowwise), rows)
    _assert_same(case, jax.jit(_whole_batch(case))(*placed, whole))


@pytest.mark.parametrize(
    "tail", ["uniform", pytest.param("bucket", marks=pytest.mark.full)]
)
def test_top_k_targets_over_explicit_axes(tail):
    """Their tail is marked by a scatter, which JAX shards in one form alone."""
    rng = np.random.default_rng(0)
    student = rng.normal(size=(8, 2, 5)).astype(np.float32)
    kept = np.log(np.full((8, 2, 2), 0.3, np.float32))
    indices = np.argsort(student)[..., :2]

    def mean(student, kept, indices):
        options = {"teacher_indices": indices, "tail": tail}
        return kdjax.losses.top_k_kl(student, kept, **options).mean()

    loss = jax.jit(jax.value_and_grad(mean))
    arrays = student, kept, indices
    rows = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))
    found, expected = loss(*jax.device_put(arrays, rows)), loss(*arrays)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.full
def test_every_kernel_has_sharding_rules_on_explicit_axes():
    """Traced with its gradients, on a batch that is divided over 8 devices."""
    mesh = jax.make_mesh((8,), ("data",))

    def placed(x, divided=True):
        spec = PartitionSpec("data") if divided else PartitionSpec()
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(x.shape, jnp.result_type(x), sharding=sharding)

    wrong = []
    for case in harness.CASES:
        student, teacher, arrays = harness.inputs(case, rows=8)
        placed_arrays = {
            name: placed(x, name in case.rowwise) for name, x in arrays.items()
        }

        def mean(student, teacher, arrays, case=case):
            return harness.call(case, student, teacher, arrays).mean()

        slope = jax.grad(mean, 0 if case.teacher == "ids" else (0, 1))
        try:
            jax.eval_shape(slope, placed(student), placed(teacher), placed_arrays)
        except Exception as error:
            wrong.append((case.name, case.knobs, str(error)))
    assert not wrong


@pytest.mark.parametrize("name", sorted(kdjax.losses.RELATION))
def test_a_part_of_the_batch_is_refused(name):
    """Before the arguments are looked at."""
    kernel = getattr(kdjax.losses, name)

    def values(x):
        return kernel(x, x)

    rows = PartitionSpec("data")
    mapped = jax.shard_map(values, mesh=_mesh(), in_specs=rows, out_specs=rows)
    x = np.ones((ROWS, 3), np.float32)
    for function in (mapped, jax.pmap(values, "data")):
        shape = x if function is mapped else x.reshape(8, -1, 3)
        with pytest.raises(ValueError, match=r"axis_name: expected .*\['data'\]"):
            jax.eval_shape(function, shape)


def test_rows_along_the_second_axis_are_gathered_there():
    x, t = np.random.default_rng(0).normal(size=(2, 3, ROWS)).astype(np.float32)
    columns, rows = PartitionSpec(None, "data"), PartitionSpec("data")
    kernel = functools.partial(kdjax.losses.sp, axis=0)
    mapped = jax.shard_map(
        functools.partial(kernel, axis_name="data"),
        mesh=_mesh(),
        in_specs=columns,
        out_specs=rows,
    )
    np.testing.assert_allclose(jax.jit(mapped)(x, t), kernel(x, t), rtol=1e-5)


@every
def test_shard_map(case):
    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(
        _one_device(case),
        mesh=_mesh(),
        in_specs=(rows, rows, rows, everywhere, rows),
        out_specs=rows,
        check_vma=False,
    )
    _assert_same(case, jax.jit(sharded)(*_inputs(case), WEIGHTS))


@every
def test_pmap(case):
    student, teacher, rowwise, whole = _inputs(case)
    split = jax.tree.map(
        lambda x: x.reshape(8, -1, *x.shape[1:]), (student, teacher, rowwise)
    )
    mapped = jax.pmap(_one_device(case), "data", in_axes=(0, 0, 0, None, 0))
    _assert_same(case, mapped(*split, whole, WEIGHTS.reshape(8, -1)))


def test_linear_softmax_kl_under_shard_map_as_it_checks_by_default():
    rng = np.random.default_rng(0)
    hidden, teacher_hidden = rng.normal(size=(2, ROWS, 3)).astype(np.float32)
    head, teacher_head = rng.normal(size=(2, 3, 7)).astype(np.float32)
    rows, copied = PartitionSpec("data"), PartitionSpec()
    kernel = functools.partial(kdjax.losses.linear_softmax_kl, vocabulary_chunk=4)
    sharded = jax.shard_map(
        kernel,
        mesh=_mesh(),
        in_specs=(rows, copied, rows, copied),
        out_specs=rows,
    )

    def results(f):
        def mean(*arguments):
            values = f(*arguments)
            return values.mean(), values

        step = jax.jit(jax.grad(mean, (0, 1, 2, 3), has_aux=True))
        return step(hidden, head, teacher_hidden, teacher_head)

    for a, b in zip(
        *(jax.tree.leaves(results(f)) for f in (sharded, kernel)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_gathered_gradients_of_parameters_under_shard_map_as_it_checks():
    """As the docstring of `gather` says: parameters that vary, then their mean."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 3)).astype(np.float32)
    x, t = rng.normal(size=(2, ROWS, 3)).astype(np.float32)

    def loss(w, x, t):
        rows = (collectives.gather(a, "data") for a in (x @ w, t))
        return kdjax.losses.rkd_distance(*rows, axis_name=()).mean()

    def step(w, x, t):
        own = jax.lax.pcast(w, "data", to="varying")
        return collectives.mean(jax.grad(loss)(own, x, t), "data")

    rows, copied = PartitionSpec("data"), PartitionSpec()
    sharded = jax.jit(
        jax.shard_map(
            step, mesh=_mesh(), in_specs=(copied, rows, rows), out_specs=copied
        )
    )
    alone = jax.jit(jax.grad(lambda w: kdjax.losses.rkd_distance(x @ w, t).mean()))
    np.testing.assert_allclose(sharded(w, x, t), alone(w), rtol=1e-4, atol=1e-6)
