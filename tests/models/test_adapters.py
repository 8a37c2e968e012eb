import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from kdjax.core.types import Model, Output
from kdjax.models import from_function, from_linen, from_nnx


class LinenNet(nn.Module):
    """Convolution, BatchNorm, dropout, dense."""

    rate: float = 0.0

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.relu(x)
        x = nn.Dropout(self.rate, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(3)(x), {"pooled": x}


class NnxNet(nnx.Module):
    """The same; its dense layer stands in a list."""

    def __init__(self, rngs: nnx.Rngs, rate: float = 0.0):
        self.conv = nnx.Conv(2, 4, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.drops = nnx.List([nnx.Dropout(rate, rngs=rngs) for _ in range(2)])
        self.layers = nnx.List([nnx.Linear(4, 3, rngs=rngs)])

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x))).mean((1, 2))
        taps = {"pooled": x, "first": self.drops[0](x), "second": self.drops[1](x)}
        return self.layers[0](taps["first"]), taps


def function_net(params, x):
    """The same in evaluation, with the running statistics that one starts from."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, params["conv"], (1, 1), "SAME", dimension_numbers=dimensions
    )
    x = jax.nn.relu(x / jnp.sqrt(1.0 + 1e-5)).mean((1, 2))
    return jnp.dot(x, params["kernel"]) + params["bias"][None]


def start_function(key, x):
    a, b = jax.random.split(key)
    conv = jax.random.normal(a, (3, 3, x.shape[-1], 4))
    return {
        "conv": conv,
        "kernel": jax.random.normal(b, (4, 3)),
        "bias": jnp.array([0.5, -1.0, 2.0]),
    }


def images(seed=0):
    return 1.0 + jax.random.normal(jax.random.key(seed), (5, 6, 6, 2))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def differ(a, b):
    return any(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x != y).any()), a, b)))


MODELS = {
    "linen": from_linen(LinenNet()),
    "nnx": from_nnx(NnxNet),
    "function": from_function(function_net, init=start_function),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def copied(name, params):
    """Variables of model `name` with the weights of the plain function."""
    variables = MODELS[name].init(jax.random.key(9), images())
    dense = {"kernel": params["kernel"], "bias": params["bias"]}
    if name == "linen":
        new = {"Conv_0": {"kernel": params["conv"]}, "Dense_0": dense}
    elif name == "nnx":
        new = {"conv": {"kernel": params["conv"]}, "layers": {"0": dense}}
    else:
        return {"params": params}
    assert set(new) < set(variables["params"])
    return {**variables, "params": {**variables["params"], **new}}


@pytest.mark.parametrize("name", MODELS)
def test_same_weights_same_logits(name):
    params = start_function(jax.random.key(1), images())
    output, state = MODELS[name].apply(copied(name, params), images())
    assert isinstance(output, Output) and output.logits.shape == (5, 3)
    expected = function_net(params, images())
    np.testing.assert_allclose(output.logits, expected, rtol=1e-5, atol=1e-5)
    assert ("pooled" in output.taps) == (name != "function")


def test_init_gives_plain_arrays_and_depends_on_the_key(model):
    one, two = (model.init(jax.random.key(i), images()) for i in (0, 1))
    assert differ(one["params"], two["params"])
    same(one, model.init(jax.random.key(0), images()))
    for path, leaf in jax.tree.leaves_with_path(one):
        assert all(isinstance(part.key, str) for part in path)
        assert np.asarray(leaf).dtype in (np.float32, np.uint32)


def test_works_under_eval_shape_and_jit(model):
    key, x = jax.random.key(0), images()
    shapes = jax.eval_shape(model.init, key, x)
    variables = jax.jit(model.init)(key, x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)
    for train in (True, False):

        def run(v, x, train=train):
            return model.apply(v, x, train=train)

        plain, compiled = run(variables, x), jax.jit(run)(variables, x)
        assert jax.tree.structure(plain) == jax.tree.structure(compiled)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            plain,
            compiled,
        )


@pytest.mark.parametrize(
    "name, collection", [("linen", "batch_stats"), ("nnx", "state")]
)
def test_statistics_move_in_training_only(name, collection):
    model = MODELS[name]
    variables = model.init(jax.random.key(0), images())
    before = jax.tree.map(np.array, variables)
    _, state = model.apply(variables, images(), train=False)
    same(state, {collection: before[collection]})
    _, state = model.apply(variables, images(), train=True)
    assert differ(state, {collection: before[collection]})
    assert jax.tree.structure(state[collection]) == jax.tree.structure(
        before[collection]
    )
    same(variables, before)
    # And the new ones are used.
    old, _ = model.apply(variables, images())
    new, _ = model.apply({**variables, **state}, images())
    assert differ(old.logits, new.logits)


def test_linen_and_nnx_move_statistics_alike():
    params = start_function(jax.random.key(1), images())
    linen, nnx_ = (copied(name, params) for name in ("linen", "nnx"))
    a, a_state = MODELS["linen"].apply(linen, images(), train=True)
    b, b_state = MODELS["nnx"].apply(nnx_, images(), train=True)
    np.testing.assert_allclose(a.logits, b.logits, rtol=1e-4, atol=1e-5)
    for name in ("mean", "var"):
        one, two = a_state["batch_stats"]["BatchNorm_0"], b_state["state"]["norm"]
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-6)


def test_gradient_reaches_every_parameter_through_jit(model):
    variables = model.init(jax.random.key(0), images())
    state = {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
        output, new = model.apply({"params": params, **state}, images(), train=True)
        return (jax.nn.log_softmax(output.logits)[:, 0]).sum(), new

    gradient, new = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert jax.tree.structure(gradient) == jax.tree.structure(variables["params"])
    assert all(jnp.abs(g).max() > 1e-6 for g in jax.tree.leaves(gradient))
    assert jax.tree.structure(new) == jax.tree.structure(state)


@pytest.mark.full
def test_seeds_stack_under_vmap(model):
    keys = jax.random.split(jax.random.key(3), 3)
    stacked = jax.vmap(model.init, in_axes=(0, None))(keys, images())
    output, state = jax.jit(jax.vmap(lambda v: model.apply(v, images(), train=True)))(
        stacked
    )
    assert output.logits.shape == (3, 5, 3)
    for i in range(3):
        one = jax.tree.map(lambda x, i=i: x[i], stacked)
        alone, alone_state = model.apply(one, images(), train=True)
        np.testing.assert_allclose(output.logits[i], alone.logits, atol=1e-4)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-4),
            state,
            alone_state,
        )


@pytest.mark.parametrize(
    "model",
    [from_linen(LinenNet(rate=0.5)), from_nnx(lambda rngs: NnxNet(rngs, rate=0.5))],
    ids=["linen", "nnx"],
)
def test_dropout_follows_its_key_in_training_only(model):
    variables = model.init(jax.random.key(0), images())

    def logits(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, images(), train=train, rngs=rngs)[0].logits

    same(logits(1, True), logits(1, True))
    assert differ(logits(1, True), logits(2, True))
    same(logits(1, False), logits(2, False))
    same(logits(1, False), model.apply(variables, images())[0].logits)


class TestNnx:
    model = from_nnx(lambda rngs: NnxNet(rngs, rate=0.5))
    variables = model.init(jax.random.key(0), images())

    def streams(self, state):
        return state["state"]["drops"]

    def test_streams_in_the_state_move_on(self):
        _, state = self.model.apply(self.variables, images(), train=True)
        counts = [self.streams(state)[i]["rngs"]["count"] for i in "01"]
        assert counts == [1, 1]
        one, _ = self.model.apply(self.variables, images(), train=True)
        two, _ = self.model.apply({**self.variables, **state}, images(), train=True)
        assert differ(one.taps["first"], two.taps["first"])

    def test_given_keys_leave_the_streams_as_they_were(self):
        rngs = {"dropout": jax.random.key(1)}
        _, state = self.model.apply(self.variables, images(), train=True, rngs=rngs)
        same(self.streams(state), self.streams(self.variables))
        assert differ(state["state"]["norm"], self.variables["state"]["norm"])

    def test_two_layers_drop_different_units(self):
        rngs = {"dropout": jax.random.key(1)}
        output, _ = self.model.apply(self.variables, images(), train=True, rngs=rngs)
        first, second = output.taps["first"] == 0, output.taps["second"] == 0
        assert first.any() and not first.all() and differ(first, second)

    def test_stream_takes_its_own_key_before_the_default(self):
        model = from_nnx(NamedDropout)
        variables = model.init(jax.random.key(0), images())

        def logits(**seeds):
            rngs = {name: jax.random.key(seed) for name, seed in seeds.items()}
            return model.apply(variables, images(), train=True, rngs=rngs)[0].logits

        expected = logits(noise=1)
        same(expected, logits(noise=1, default=2))
        same(expected, logits(default=1, other=2))
        assert differ(expected, logits(noise=2, default=1))
        with pytest.raises(ValueError, match=r"rngs: .*'noise', got \['a', 'b'\]"):
            logits(a=1, b=2)

    def test_instance_keeps_its_weights_and_is_left_alone(self):
        module = NnxNet(nnx.Rngs(4))
        before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(module, nnx.Param)))
        model = from_nnx(module)
        variables = model.init(jax.random.key(1), images())
        same(variables, model.init(jax.random.key(2), images()))
        same(variables["params"]["conv"], before["conv"])
        module.eval()
        expected, _ = module(images())
        output, _ = model.apply(variables, images())
        np.testing.assert_allclose(output.logits, expected, rtol=1e-6)
        model.apply(variables, images(), train=True)
        same(module.norm.mean.get_value(), jnp.zeros(4))

    def test_without_state_there_is_no_collection(self):
        model = from_nnx(lambda rngs: Flatten(rngs))
        variables = model.init(jax.random.key(0), images())
        assert set(variables) == {"params"}
        _, state = model.apply(
            variables, images(), train=True, rngs={"dropout": jax.random.key(0)}
        )
        assert state == {}

    def test_calls_that_write_change_the_state_in_training_only(self):
        model = from_nnx(Counter)
        variables = model.init(jax.random.key(0), images())
        for train in (True, False):
            _, state = model.apply(variables, images(), train=train)
            assert state == {"state": {"calls": int(train)}}
        assert variables["state"] == {"calls": 0}


class Counter(nnx.Module):
    """Counts its calls, and keeps what it saw: a variable that init did not have."""

    def __init__(self, rngs):
        self.calls = nnx.Variable(jnp.zeros((), int))

    def __call__(self, x):
        self.calls.set_value(self.calls.get_value() + 1)
        self.seen = nnx.Intermediate(x)
        return x[:, 0, :, 0]


class NamedDropout(nnx.Module):
    def __init__(self, rngs):
        self.drop = nnx.Dropout(
            0.5, rngs=nnx.Rngs(noise=rngs()), rng_collection="noise"
        )

    def __call__(self, x):
        return self.drop(x[:, 0, :, 0])


class Flatten(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x):
        return self.layer(x.mean((1, 2)))


def test_init_survives_the_donation_of_what_it_returned():
    weights = {"w": jnp.ones((2, 3))}
    for model in (
        from_function(lambda p, x: jnp.dot(x.mean((1, 2)), p["w"]), weights),
        from_nnx(Flatten(nnx.Rngs(0))),
    ):
        first = model.init(jax.random.key(0), images())
        jax.tree.map(lambda x: x.delete(), first)
        model.apply(model.init(jax.random.key(0), images()), images())


def switched(name, in_training):
    """A Linen module whose argument `name` shows in its logits."""

    def call(self, x, flag):
        return jnp.full((x.shape[0], 2), 1.0 if flag == in_training else 0.0)

    source = f"def __call__(self, x, *, {name}): return call(self, x, {name})"
    scope = {"call": call}
    exec(source, scope)
    return type("Switched", (nn.Module,), {"__call__": scope["__call__"]})()


@pytest.mark.parametrize(
    "name, in_training",
    [
        ("train", True),
        ("training", True),
        ("is_training", True),
        ("deterministic", False),
        ("use_running_average", False),
    ],
)
def test_train_switch_is_found_by_name(name, in_training):
    model = from_linen(switched(name, in_training))
    variables = model.init(jax.random.key(0), images())
    for train in (True, False):
        output, _ = model.apply(variables, images(), train=train)
        assert (output.logits == float(train)).all()


def test_module_without_a_switch_is_called_with_images_alone():
    module = nn.Sequential([lambda x: x.mean((1, 2)), nn.Dense(3)])
    model = from_linen(module)
    variables = model.init(jax.random.key(0), images())
    one, _ = model.apply(variables, images(), train=True)
    two, _ = model.apply(variables, images())
    same(one, two)


def test_linen_drops_what_is_sown_and_keeps_other_collections():
    class Sows(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("intermediates", "x", x)
            count = self.variable("counts", "calls", lambda: jnp.zeros(()))
            if not self.is_initializing() and self.is_mutable_collection("counts"):
                count.value += 1
            return nn.Dense(2)(x.mean((1, 2)))

    model = from_linen(Sows())
    variables = model.init(jax.random.key(0), images())
    assert set(variables) == {"params", "counts"}
    for train in (True, False):
        _, state = model.apply(variables, images(), train=train)
        assert state == {"counts": {"calls": float(train)}}


def test_function_takes_params_as_they_are():
    params = start_function(jax.random.key(1), images())
    model = from_function(function_net, params)
    same(model.init(jax.random.key(5), images()), {"params": params})
    with pytest.raises(ValueError, match="expected one of the two, got neither"):
        from_function(function_net)
    with pytest.raises(ValueError, match="expected one of the two, got both"):
        from_function(function_net, params, start_function)


@pytest.mark.parametrize(
    "adapter, given, message",
    [
        (
            from_linen,
            LinenNet,
            "module: expected a flax.linen.Module instance, got type",
        ),
        (from_linen, Flatten(nnx.Rngs(0)), "module: .*, got Flatten"),
        (from_nnx, LinenNet(), "model_or_factory: expected .*nnx.Module.*got LinenNet"),
        (from_nnx, 3, "model_or_factory: expected .*, got int"),
        (from_nnx, lambda rngs: 3, "a factory that returns .*, got int"),
        (from_function, 3, "apply_fn: expected a function, got int"),
    ],
)
def test_wrong_networks_are_refused(adapter, given, message):
    with pytest.raises(TypeError, match=message):
        adapter(given)


@pytest.mark.parametrize(
    "returned, error, message",
    [
        (jnp.zeros(5), ValueError, r"logits: expected .*, got \(5,\)"),
        (jnp.zeros((5, 1, 3)), ValueError, r"logits: expected .*, got \(5, 1, 3\)"),
        (None, TypeError, "apply: expected logits, .*, got NoneType"),
        ((jnp.zeros((5, 3)), jnp.zeros(5)), TypeError, "apply: .*, got tuple"),
        ({"logits": jnp.zeros((5, 3))}, TypeError, "apply: .*, got dict"),
        ((jnp.zeros((5, 3)), {"a": (1,)}), TypeError, r"taps\['a'\]: .*, got tuple"),
    ],
)
def test_wrong_results_are_refused(returned, error, message):
    model = from_function(lambda params, x: returned, {})
    with pytest.raises(error, match=message):
        model.apply({"params": {}}, images())


def test_output_is_taken_as_it_is():
    given = Output(jnp.zeros((5, 3)), {"a": jnp.ones(2)})
    model = from_function(lambda params, x: given, {})
    assert isinstance(model, Model)
    output, state = model.apply({"params": {}}, images())
    assert isinstance(output, Output) and state == {}
    same(output, given)
