"""The divergence of two linear heads against the form that holds the logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jax.test_util import check_grads

from kdjax.losses import linear_softmax_kl, softmax_kl

pytestmark = pytest.mark.usefixtures("strict_dtypes")
WORDS = 50


def _inputs(dtype=np.float32, shape=(3, 5), scale=1.0):
    """Hidden states and heads of a student of width 8 and a teacher of width 6."""
    rng = np.random.default_rng(0)
    sizes = ((*shape, 8), (8, WORDS), (*shape, 6), (6, WORDS))
    return tuple((scale * rng.normal(size=s)).astype(dtype) for s in sizes)


def _biases(dtype=np.float32):
    return tuple(np.random.default_rng(1).normal(size=(2, WORDS)).astype(dtype))


def _naive(hidden, head, teacher_hidden, teacher_head, biases, temperature):
    def logits(x, w, bias):
        wide = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
        return jnp.matmul(x, w, preferred_element_type=wide) + bias[None]

    leading = hidden.shape[:-1]
    hidden = hidden.reshape(-1, hidden.shape[-1])
    teacher_hidden = teacher_hidden.reshape(-1, teacher_hidden.shape[-1])
    values = softmax_kl(
        logits(hidden, head, biases[0]),
        logits(teacher_hidden, teacher_head, biases[1]),
        temperature=temperature,
    )
    return values.reshape(leading)


def _weighed(values):
    """A scalar in which every token has a weight of its own."""
    weight = np.linspace(0.5, 2, values.size, dtype=values.dtype)
    return jnp.sum(values * weight.reshape(values.shape))


def _both(inputs, biases, temperature, chunk, **more):
    """Value and gradients in everything, ours and naive."""

    def ours(inputs, biases, temperature):
        bias = {"student_bias": biases[0], "teacher_bias": biases[1]}
        options = {"temperature": temperature, "vocabulary_chunk": chunk, **more}
        return _weighed(linear_softmax_kl(*inputs, **bias, **options))

    def naive(inputs, biases, temperature):
        return _weighed(_naive(*inputs, biases, temperature))

    arguments = (inputs, biases, jnp.asarray(temperature, inputs[0].dtype))
    return [
        jax.jit(jax.value_and_grad(f, (0, 1, 2)))(*arguments) for f in (ours, naive)
    ]


@pytest.mark.parametrize("chunk", [None, 7, 16, 50])
def test_value_and_gradients_are_those_of_the_naive_form(chunk):
    ours, naive = _both(_inputs(), _biases(), 2.0, chunk)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(naive), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_value_and_gradients_in_float64(float64):
    ours, naive = _both(_inputs(np.float64), _biases(np.float64), 3.0, 16)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(naive), strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_value_is_the_formula(float64):
    hidden, head, teacher_hidden, teacher_head = _inputs(np.float64)
    q, p = (np.exp(x @ w) for x, w in ((hidden, head), (teacher_hidden, teacher_head)))
    q, p = (x / x.sum(-1, keepdims=True) for x in (q, p))
    value = linear_softmax_kl(hidden, head, teacher_hidden, teacher_head)
    assert value.shape == (3, 5)
    np.testing.assert_allclose(value, (p * np.log(p / q)).sum(-1), rtol=1e-10)


def test_gradients_are_those_of_finite_differences(float64):
    inputs = tuple(jnp.asarray(x) for x in _inputs(np.float64, (2,)))

    def loss(*x):
        return linear_softmax_kl(*x, temperature=2.0, vocabulary_chunk=16)

    check_grads(jax.jit(loss), inputs, order=1, modes="rev", rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_sums_in_float32(dtype):
    inputs = jax.tree.map(lambda x: jnp.asarray(x, dtype), _inputs())
    biases = jax.tree.map(lambda x: jnp.asarray(x, dtype), _biases())

    def ours(inputs):
        bias = {"student_bias": biases[0], "teacher_bias": biases[1]}
        return linear_softmax_kl(*inputs, **bias, vocabulary_chunk=16)

    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (inputs, biases))

    def naive(inputs):
        return _naive(*inputs, wide[1], 1.0)

    value = ours(inputs)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, naive(wide[0]), rtol=1e-5, atol=1e-5)
    gradients = jax.grad(lambda x: _weighed(ours(x)))(inputs)
    expected = jax.grad(lambda x: _weighed(naive(x)))(wide[0])
    for a, b in zip(gradients, expected, strict=True):
        assert a.dtype == dtype
        # Rounded once, at the end.
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=8e-3, atol=1e-4)


def test_masked_tokens_influence_nothing():
    hidden, head, teacher_hidden, teacher_head = _inputs()
    real = np.arange(5)[None, :] < np.array([[5], [2], [0]])
    dirty = np.where(real[..., None], hidden, np.nan)

    def loss(hidden, head):
        return linear_softmax_kl(
            hidden, head, teacher_hidden, teacher_head, where=real, vocabulary_chunk=16
        )

    value = loss(dirty, head)
    assert (value[~real] == 0).all()
    whole = linear_softmax_kl(hidden, head, teacher_hidden, teacher_head)
    np.testing.assert_allclose(value[real], whole[real], rtol=1e-5)
    gradients = jax.grad(lambda *x: loss(*x).sum(), (0, 1))(dirty, head)
    assert (gradients[0][~real] == 0).all()

    def cut(head):
        return linear_softmax_kl(
            hidden[real], head, teacher_hidden[real], teacher_head
        ).sum()

    np.testing.assert_allclose(gradients[1], jax.grad(cut)(head), atol=1e-5)


def test_a_token_with_nan_is_seen():
    hidden, *rest = _inputs()
    hidden[0, 1] = np.nan
    value = linear_softmax_kl(hidden, *rest)
    assert np.isnan(value[0, 1]) and np.isnan(value).sum() == 1


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-3, 30.0, 1e4])
def test_any_scale_is_finite(scale):
    inputs = _inputs(scale=scale)

    def loss(*x):
        return linear_softmax_kl(*x, vocabulary_chunk=16).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*inputs)
    assert np.isfinite(value) and value >= -1e-6
    assert all(np.isfinite(g).all() for g in gradients)


def test_equal_networks_cost_nothing_even_far_from_zero():
    hidden, head, *_ = _inputs()
    far = {"student_bias": np.full(WORDS, 1e4, np.float32)}
    value = linear_softmax_kl(hidden, head, hidden, head, **far, vocabulary_chunk=7)
    # What is left is the rounding of logits of size 1e4.
    np.testing.assert_allclose(value, 0, atol=5e-3)
    value = linear_softmax_kl(hidden, head, hidden, head, vocabulary_chunk=7)
    np.testing.assert_allclose(value, 0, atol=1e-6)


def test_entries_that_pad_the_vocabulary_may_be_ruled_out():
    hidden, head, teacher_hidden, teacher_head = _inputs()
    out = np.where(np.arange(WORDS) < 33, 0, -np.inf).astype(np.float32)

    def loss(head, teacher_head, temperature):
        bias = {"student_bias": out, "teacher_bias": out, "vocabulary_chunk": 8}
        options = {"temperature": temperature, **bias}
        return linear_softmax_kl(hidden, head, teacher_hidden, teacher_head, **options)

    value = loss(head, teacher_head, 1.0)
    cut = linear_softmax_kl(hidden, head[:, :33], teacher_hidden, teacher_head[:, :33])
    np.testing.assert_allclose(value, cut, rtol=1e-4)
    gradients = jax.grad(lambda *x: loss(*x).sum(), (0, 1, 2))(head, teacher_head, 1.0)
    assert all(np.isfinite(g).all() for g in gradients)
    assert (gradients[0][:, 33:] == 0).all()


def test_a_stopped_teacher_costs_no_gradient():
    inputs = _inputs()

    def loss(hidden, head, teacher):
        return linear_softmax_kl(hidden, head, *teacher, vocabulary_chunk=16).sum()

    def products(*argnums):
        text = jax.jit(jax.grad(loss, argnums)).lower(*inputs[:2], inputs[2:]).as_text()
        return text.count("stablehlo.dot_general")

    # Two forward, two again, and two for each network that is differentiated.
    assert products(0, 1) == 6
    assert products(0, 1, 2) == 8
    stopped = jax.grad(lambda t: loss(*inputs[:2], jax.lax.stop_gradient(t)))(
        inputs[2:]
    )
    assert all((g == 0).all() for g in stopped)


def test_vmap_is_a_loop():
    inputs = _inputs()
    groups = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), inputs)

    def loss(*x):
        return linear_softmax_kl(*x, vocabulary_chunk=16).sum()

    batched = jax.vmap(jax.value_and_grad(loss, (0, 1)))(*groups)
    for i in range(2):
        one = jax.value_and_grad(loss, (0, 1))(*(x[i] for x in groups))
        for a, b in zip(jax.tree.leaves(batched), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5)


def test_sharded_tokens_give_the_values_of_one_device():
    inputs = _inputs(shape=(8, 4))
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    spec = [PartitionSpec("data"), PartitionSpec()] * 2
    placed = [
        jax.device_put(x, NamedSharding(mesh, s))
        for x, s in zip(inputs, spec, strict=True)
    ]

    def loss(*x):
        return linear_softmax_kl(*x, vocabulary_chunk=16).mean()

    together = jax.jit(jax.value_and_grad(loss, (0, 1)))
    one, many = together(*inputs), together(*placed)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_memory_is_a_sixth_of_the_naive_form_s(dtype):
    """1024 tokens, width 256, 65536 words: compiled, not run."""
    shapes = ((1024, 256), (256, 65536)) * 2
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    nothing = jnp.zeros(1, jnp.float32)

    def temporaries(f):
        gradient = jax.jit(jax.grad(lambda *x: f(*x).mean(), (0, 1)))
        return gradient.lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    ours = temporaries(linear_softmax_kl)
    naive = temporaries(lambda *x: _naive(*x, (nothing, nothing), 1.0))
    assert ours <= naive / 6, (ours / 2**20, naive / 2**20)


def test_errors_name_the_argument():
    hidden, head, teacher_hidden, teacher_head = _inputs()

    def refused(match, *arrays, **knobs):
        with pytest.raises(ValueError, match=match):
            linear_softmax_kl(*arrays, **knobs)

    rest = (teacher_hidden, teacher_head)
    refused(r"^student_head: expected shape \(8, 50\)", hidden, head[1:], *rest)
    refused("^student_hidden: expected .*floating", hidden.astype(int), head, *rest)
    refused("^student_hidden: expected at least", hidden[:0], head, *rest)
    refused(
        r"^teacher_hidden: expected shape \(3, 5, 6\)",
        hidden,
        head,
        rest[0][1:],
        rest[1],
    )
    refused(
        r"^teacher_head: expected shape \(6, 50\)",
        hidden,
        head,
        rest[0],
        rest[1][:, 1:],
    )
    whole = (hidden, head, *rest)
    refused(r"^student_bias: expected shape \(50,\)", *whole, student_bias=head[0, 1:])
    refused("^where: expected", *whole, where=np.ones(4, bool))
    refused("^temperature: expected", *whole, temperature=0.0)
    refused("^vocabulary_chunk: expected", *whole, vocabulary_chunk=0)


def test_explicit_axes_have_the_values_of_one_device():
    """Rows divided over an axis of kind Explicit, and a head along its width."""
    kinds = (jax.sharding.AxisType.Explicit,) * 2
    mesh = jax.make_mesh((4, 2), ("data", "model"), kinds)

    def mean(*args):
        values = linear_softmax_kl(*args, vocabulary_chunk=16)
        return values.mean(), values

    inputs = _inputs(shape=(4, 2))
    run = jax.jit(jax.grad(mean, (0, 1), has_aux=True))
    expected = run(*inputs)
    specs = [("data",), ("model",), ("data",), ()]
    placed = [
        jax.device_put(jnp.asarray(x), NamedSharding(mesh, PartitionSpec(*spec)))
        for x, spec in zip(inputs, specs, strict=True)
    ]
    for x, y in zip(*map(jax.tree.leaves, (run(*placed), expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)
