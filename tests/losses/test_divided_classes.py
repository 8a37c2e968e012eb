"""Losses whose classes are divided over devices: values and gradients of one device.

Rows are divided over 2 devices and classes over 4, as in tensor parallelism. Classes 4
to 7, all of the second device, are ruled out for both networks, and others for one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from kdjax import losses

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("strict_dtypes")]
ROWS, CLASSES = 4, 16
LABELS = np.array([0, 9, 15, -1])
PLAIN = "softmax_kl reverse_softmax_kl jeffreys jensen_shannon soft_cross_entropy"
TOKENS = "token_kl token_jsd"


def _draw(*shape):
    student, teacher = np.random.default_rng(0).normal(size=(2, *shape, CLASSES))
    student[..., 4:8] = teacher[..., 4:8] = -np.inf
    return 3 * student.astype(np.float32), 3 * teacher.astype(np.float32)


def _soft(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(np.float32)


def _cases():
    """`{name: (kernel, student, teacher, spec of the teacher, options)}`."""
    student, teacher = _draw(ROWS)
    where = np.ones((ROWS, CLASSES), bool)
    where[1, 8:12] = where[2] = False
    cases = {}
    for name in PLAIN.split():
        options = {} if name in ("reverse_softmax_kl", "jeffreys") else {"one": True}
        cases[name] = (name, student, teacher, options)
        cases[f"{name}, masked"] = (name, student, teacher, {"where": where})
    cases["jensen_shannon, reverse"] = ("jensen_shannon", student, teacher, {"beta": 1})
    cases["soft_label_cross_entropy"] = (
        *("soft_label_cross_entropy", student, _soft(teacher)),
        {},
    )
    for variant in ("szegedy", "big_vision"):
        options = {"label_smoothing": 0.1, "variant": variant}
        cases[f"hard_cross_entropy, {variant}"] = (
            *("hard_cross_entropy", student, LABELS),
            options,
        )
    student, teacher = _draw(ROWS, 3)
    real = np.arange(3) < np.array([[3], [2], [0], [1]])
    for name in TOKENS.split():
        masks = {"tokens": real, "vocabulary": real[..., None] & where[0]}
        for mask, x in masks.items():
            options = {"where": x, "variant": "sum"}
            cases[f"{name}, {mask}"] = (name, student, teacher, options)
    tokens = np.array([[0, 3, 15], [8, -100, 9], [1, 2, 3], [11, 12, -1]])
    options = {"where": real, "variant": "sum"}
    cases["sequence_nll"] = ("sequence_nll", student, tokens, options)
    return cases


CASES = _cases()
_GATE = ("softmax_kl", "token_kl, vocabulary", "hard_cross_entropy, szegedy")
every = pytest.mark.parametrize(
    "case",
    [
        pytest.param(name, marks=() if name in _GATE else pytest.mark.full)
        for name in CASES
    ],
)


class Problem:
    """One kernel: its arrays, their shards, and the mean of its values."""

    def __init__(self, case):
        name, self.student, self.teacher, options = CASES[case]
        self.options = dict(options)
        if self.options.pop("one", False):
            # The teacher alone rules out class 12.
            self.teacher = np.where(np.arange(CLASSES) == 12, -np.inf, self.teacher)
            self.teacher = self.teacher.astype(np.float32)
        self.kernel = getattr(losses, name)
        self.where = self.options.pop("where", None)
        self.tempered = "temperature" in self.kernel.__annotations__

    def spec(self, x):
        if x is None:
            return P()
        classes = "model" if x.shape[-1] == CLASSES else None
        return P("data", *[None] * (x.ndim - 2), classes) if x.ndim > 1 else P("data")

    def values(self, student, teacher, temperature, where, **more):
        more |= {"temperature": temperature} if self.tempered else {}
        return self.kernel(student, teacher, where=where, **self.options, **more)

    @property
    def arrays(self):
        return self.student, self.teacher, np.float32(2), self.where

    @property
    def specs(self):
        return tuple(map(self.spec, (self.student, self.teacher, None, self.where)))

    @property
    def arguments(self):
        """Positions of what a gradient is taken in: arrays of the pair, temperature."""
        ids = np.issubdtype(self.teacher.dtype, np.integer)
        return (0, *(() if ids else (1,)), *((2,) if self.tempered else ()))


@functools.cache
def _mesh():
    return jax.make_mesh((2, 4), ("data", "model"), (jax.sharding.AxisType.Auto,) * 2)


def _expected(problem):
    def mean(*arrays):
        values = problem.values(*arrays)
        return values.mean(), values

    gradients, values = jax.jit(jax.grad(mean, problem.arguments, has_aux=True))(
        *problem.arrays
    )
    return values, *gradients


def _assert_same(actual, expected):
    for x, y in zip(actual, expected, strict=True):
        assert np.isfinite(y).all() and np.abs(y).max() > 1e-6
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)


@every
def test_gradient_of_the_mapped_function(case):
    problem = Problem(case)
    expected = _expected(problem)
    for check_vma in (True, False):
        mapped = jax.shard_map(
            functools.partial(problem.values, class_axis_name="model"),
            mesh=_mesh(),
            in_specs=problem.specs,
            out_specs=P("data"),
            check_vma=check_vma,
        )

        def mean(*arrays, mapped=mapped):
            values = mapped(*arrays)
            return values.mean(), values

        slopes, values = jax.jit(jax.grad(mean, problem.arguments, has_aux=True))(
            *problem.arrays
        )
        _assert_same((values, *slopes), expected)


@every
def test_gradient_within_shard_map(case):
    problem = Problem(case)

    def step(*arrays):
        def mean(*arrays):
            values = problem.values(*arrays, class_axis_name="model")
            return jax.lax.pmean(values.mean(), "data"), values

        slopes, values = jax.grad(mean, problem.arguments, has_aux=True)(*arrays)
        return values, *slopes

    specs = problem.specs
    mapped = jax.shard_map(
        step,
        mesh=_mesh(),
        in_specs=specs,
        out_specs=(P("data"), *(specs[i] for i in problem.arguments)),
    )
    _assert_same(jax.jit(mapped)(*problem.arrays), _expected(problem))


def test_pmap_differentiates_the_sum_over_the_devices():
    student, teacher = _draw(ROWS)

    def split(x):
        return np.moveaxis(x.reshape(ROWS, 8, 2), 1, 0)

    def one(student, teacher):
        kernel = functools.partial(losses.softmax_kl, class_axis_name="model")
        return kernel(student, teacher, temperature=2.0).mean() / 8

    slopes = jax.pmap(jax.grad(one, (0, 1)), "model")(split(student), split(teacher))
    expected = jax.grad(
        lambda *x: losses.softmax_kl(*x, temperature=2.0).mean(), (0, 1)
    )(student, teacher)
    for x, y in zip(slopes, expected, strict=True):
        np.testing.assert_allclose(x, split(np.asarray(y)), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "dkd",
        pytest.param("dkd_target", marks=pytest.mark.full),
        pytest.param("dkd_non_target", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("masked", [True, pytest.param(False, marks=pytest.mark.full)])
def test_the_label_of_divided_classes(name, masked):
    """DKD: one device has the label of an example, the others its rest."""
    student, teacher = _draw(ROWS)
    where = np.ones((ROWS, CLASSES), bool)
    where[1, 8:12] = where[2] = not masked
    kernel = functools.partial(getattr(losses, name), labels=LABELS)
    specs = (P(None, "model"), P(None, "model"), P(), P(None, "model"))

    def divided(*arrays):
        return kernel(*arrays[:2], temperature=arrays[2], where=arrays[3], **axes)

    def mean(function, *arrays):
        values = function(*arrays)
        return values.mean(), values

    def run(function):
        gradient = jax.grad(functools.partial(mean, function), (0, 1, 2), has_aux=True)
        return jax.tree.leaves(jax.jit(gradient)(*arrays))

    arrays, axes = (student, teacher, np.float32(2), where), {}
    expected = run(divided)
    axes = {"class_axis_name": "model"}
    mapped = jax.shard_map(divided, mesh=_mesh(), in_specs=specs, out_specs=P())
    _assert_same(run(mapped), expected)


def test_labels_of_divided_classes_are_ids():
    student, teacher = _draw(ROWS)
    mapped = jax.shard_map(
        functools.partial(losses.hard_cross_entropy, class_axis_name="model"),
        mesh=_mesh(),
        in_specs=P(None, "model"),
        out_specs=P(),
    )
    with pytest.raises(ValueError, match=r"^teacher: expected .*class ids \(integer\)"):
        mapped(student, teacher)


def test_classes_divided_by_jit_need_no_name():
    """On axes of both kinds, `jit` has the sums of all classes."""
    student, teacher = _draw(ROWS)
    expected = losses.softmax_kl(student, teacher)
    for kind in (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit):
        mesh = jax.make_mesh((2, 4), ("data", "model"), (kind,) * 2)
        place = jax.sharding.NamedSharding(mesh, P("data", "model"))
        pair = (jax.device_put(jnp.asarray(x), place) for x in (student, teacher))
        found = jax.jit(losses.softmax_kl)(*pair)
        np.testing.assert_allclose(found, expected, rtol=2e-5)
