"""Modules of every kind: other flags, sown values, lifted ones, array attributes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kdjax
from kdjax.models import from_stateful

KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(5), (3, 4, 4, 1))
DROPOUT = {"dropout": jax.random.key(1)}


def flat(x):
    return x.reshape(len(x), -1)


class Switched(nn.Module):
    """A network whose flag has the name `is_trian` of no list."""

    @nn.compact
    def __call__(self, x, scale=2.0, is_trian=False):
        x = nn.BatchNorm(use_running_average=not is_trian)(flat(x))
        return scale * nn.Dense(2)(nn.Dropout(0.5, deterministic=not is_trian)(x))


def moves(model, variables):
    """Whether a call in training moves statistics, and draws dropout."""
    outputs = []
    for seed in (1, 2):
        rngs = {"dropout": jax.random.key(seed)}
        output, state = model.apply(variables, IMAGES, train=True, rngs=rngs)
        outputs.append(output.logits)
    old = {k: x for k, x in variables.items() if k != "params"}
    same = jax.tree.map(lambda a, b: bool((a == b).all()), old, state)
    drawn = bool((outputs[0] != outputs[1]).any())
    return not all(jax.tree.leaves(same)), drawn


def test_any_name_of_the_flag():
    model = kdjax.from_linen(Switched(), train_arg="is_trian")
    variables = model.init(KEY, IMAGES)
    assert moves(model, variables) == (True, True)
    one, _ = model.apply(variables, IMAGES)
    two, _ = model.apply(variables, IMAGES, train=False, rngs=DROPOUT)
    np.testing.assert_array_equal(one.logits, two.logits)


def test_a_mode_that_never_switches_is_a_warning_once():
    model = kdjax.from_linen(Switched())
    variables = model.init(KEY, IMAGES)
    model.apply(variables, IMAGES)
    line = "^Switched: a call in training moves no running statistics and draws no dro"
    with pytest.warns(UserWarning, match=line) as found:
        assert moves(model, variables) == (False, False)
    assert len(found) == 1


class Inverted(nn.Module):
    frozen: bool = True

    @nn.compact
    def __call__(self, x, *, evaluate=True):
        x = nn.BatchNorm(use_running_average=evaluate and self.frozen)(flat(x))
        return nn.Dense(2)(x)


@pytest.mark.parametrize("train_arg", ["not evaluate", "not frozen"])
def test_inverted_flags_and_fields(train_arg):
    model = kdjax.from_linen(Inverted(), train_arg=train_arg)
    variables = model.init(KEY, IMAGES)
    assert moves(model, variables)[0]
    _, state = model.apply(variables, IMAGES)
    assert state["batch_stats"] is variables["batch_stats"]


def test_an_unknown_flag_is_refused_with_the_nearest_name():
    line = (
        "^train_arg: did you mean 'is_trian'. expected an argument of Switched.__call"
    )
    with pytest.raises(TypeError, match=line):
        kdjax.from_linen(Switched(), train_arg="is_train")
    with pytest.raises(TypeError, match="^train_arg: expected an argument of Own"):
        kdjax.from_nnx(Own, train_arg="is_train")


class Sows(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.Dense(4, name="hidden")(flat(x))
        self.sow("losses", "aux", hidden.sum())
        add = dict(reduce_fn=jnp.add, init_fn=lambda: jnp.zeros(()))
        self.sow("totals", "aux", hidden.sum(), **add)
        count = self.variable("counts", "calls", lambda: jnp.zeros(()))
        self.sow("counts", "mixed", hidden)
        if not self.is_initializing() and self.is_mutable_collection("counts"):
            count.value += 1
        return nn.Dense(2)(hidden)


def test_sown_values_are_no_state():
    model = kdjax.from_linen(Sows())
    variables = model.init(KEY, IMAGES)
    assert set(variables) == {"params", "counts"} == {"params", *variables} - {"losses"}
    state = {"counts": variables["counts"]}
    for calls in (1, 2, 3):
        variables = {**variables, **state}
        output, state = model.apply(variables, IMAGES, train=True)
        assert state == {"counts": {"calls": calls}}
        assert output.taps == {}


def test_a_step_with_sown_values_compiles_once():
    model = kdjax.from_linen(Sows())
    traces = []

    @jax.jit
    def step(variables):
        traces.append(1)
        _, state = model.apply(variables, IMAGES, train=True)
        return {**variables, **state}

    variables = model.init(KEY, IMAGES)
    for _ in range(3):
        variables = step(variables)
    assert len(traces) == 1


def test_sown_values_and_captured_outputs_are_taps_by_request():
    sown = kdjax.from_linen(Sows(), taps=("losses", "totals"))
    captured = kdjax.from_linen(Sows(), capture_intermediates=True)
    variables = sown.init(KEY, IMAGES)
    hidden = flat(IMAGES) @ variables["params"]["hidden"]["kernel"]
    for train in (True, False):
        output, state = sown.apply(variables, IMAGES, train=train)
        assert set(output.taps) == {"aux"} and set(state) == {"counts"}
        np.testing.assert_allclose(output.taps["aux"], hidden.sum(), rtol=1e-6)
        output, _ = captured.apply(variables, IMAGES, train=train)
        assert set(output.taps) == {"hidden", "Dense_0"}
        np.testing.assert_allclose(output.taps["hidden"], hidden, rtol=1e-6)
        np.testing.assert_array_equal(output.taps["Dense_0"], output.logits)


class Memory(nn.Module):
    """Keeps every batch's mean in a variable that grows."""

    @nn.compact
    def __call__(self, x, train=False):
        means = self.variable("memory", "means", lambda: jnp.zeros(1))
        if train:
            means.value = jnp.append(means.value, x.mean())
        return nn.Dense(2)(flat(x))


class Doubled(nnx.Module):
    def __init__(self, rngs):
        self.layer, self.means = nnx.Linear(16, 2, rngs=rngs), nnx.Variable(jnp.ones(1))

    def __call__(self, x):
        self.means.set_value(jnp.tile(self.means.get_value(), 2))
        return self.layer(flat(x))


def append(params, state, key, images, train):
    return flat(images) @ params, {"means": jnp.append(state["means"], 1.0)}


@pytest.mark.parametrize(
    "model, name",
    [
        (kdjax.from_linen(Memory()), "memory/means"),
        (kdjax.from_nnx(Doubled), "state/means"),
        (
            from_stateful(
                append, lambda *_: (jnp.ones((16, 2)), {"means": jnp.ones(1)})
            ),
            "state/means",
        ),
    ],
    ids=["linen", "nnx", "stateful"],
)
def test_a_variable_that_grows_is_refused(model, name):
    variables = model.init(KEY, IMAGES)
    model.apply(variables, IMAGES)
    line = rf"^state: {name}: expected float32\[1\] .*, got float32\[2\]"
    with pytest.raises(ValueError, match=line):
        model.apply(variables, IMAGES, train=True, rngs=DROPOUT)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(0.5, deterministic=not train)(flat(x))
        return nn.Dense(2)(nn.BatchNorm(use_running_average=not train)(x))


def test_lifted_modules():
    plain, lifted = Net(), nn.remat(Net, static_argnums=(2,))()
    models = [kdjax.from_linen(x) for x in (plain, lifted)]
    variables = models[1].init(KEY, IMAGES)
    for train in (True, False):
        one, two = (
            x.apply(variables, IMAGES, train=train, rngs=DROPOUT)[0] for x in models
        )
        np.testing.assert_allclose(one.logits, two.logits, rtol=1e-6)
    assert moves(models[1], variables) == (True, True)
    for lift, name in ((nn.remat, "nn.remat"), (nn.jit, "nn.jit")):
        traced = kdjax.from_linen(lift(Net)())
        line = rf"^module: {name} traces the flag .*{name}\(Net, static_argnums"
        with pytest.raises(TypeError, match=line):
            traced.apply(variables, IMAGES, train=True, rngs=DROPOUT)


class Noise(nn.Module):
    """A call that takes keys, and a stream of another name than dropout."""

    @nn.compact
    def __call__(self, x, rngs=None):
        if rngs is None:
            return nn.Dense(2)(flat(x))
        noise = jax.random.normal(rngs["dropout"], x.shape)
        noise += jax.random.normal(self.make_rng("noise"), x.shape)
        return nn.Dense(2)(flat(x + noise))


def test_linen_calls_that_take_keys():
    model = kdjax.from_linen(Noise())
    variables = model.init(KEY, IMAGES)
    assert moves(model, variables)[1]
    one, _ = model.apply(variables, IMAGES)
    two, _ = model.apply(variables, IMAGES, rngs=None)
    np.testing.assert_array_equal(one.logits, two.logits)


class Own(nnx.Module):
    """Arrays as attributes, a tree in one Variable, and a call that takes keys."""

    def __init__(self, rngs):
        self.mean = jnp.zeros((1, 1))
        self.scale = np.full((1, 1), 2.0, np.float32)
        self.key = jax.random.key(3)
        self.tree = nnx.Variable({"calls": jnp.zeros(()), "other": jnp.ones(2)})
        self.layer = nnx.Linear(16, 2, rngs=rngs)
        self.drop = nnx.Dropout(0.5)

    def __call__(self, x, *, rngs=None):
        x = self.drop(flat(x), rngs=rngs)
        self.sow(nnx.Intermediate, "features", x)
        if not self.drop.deterministic:
            self.mean = 0.5 * self.mean + 0.5 * x.mean()
            tree = self.tree.get_value()
            self.tree.set_value({**tree, "calls": tree["calls"] + 1})
        return self.scale * self.layer(x) + self.mean


@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
@pytest.mark.parametrize("source", [Own, lambda rngs: Own(rngs), Own(nnx.Rngs(0))])
def test_nnx_modules_with_arrays_as_attributes(source):
    model = kdjax.from_nnx(source)
    variables = jax.jit(model.init)(KEY, IMAGES)
    assert set(variables["state"]) == {"mean", "scale", "key", "tree"}
    jitted = jax.jit(lambda v, r: model.apply(v, IMAGES, train=True, rngs=r))
    for calls in (1, 2):
        output, state = jitted(variables, DROPOUT)
        assert jax.tree.structure(state) == jax.tree.structure(
            {"state": variables["state"]}
        )
        assert state["state"]["tree"]["calls"] == calls
        assert (state["state"]["mean"] != variables["state"]["mean"]).all()
        variables = {**variables, **state}
    output, same = model.apply(variables, IMAGES)
    assert same == {"state": variables["state"]}
    layer = jax.tree.map(np.asarray, variables["params"]["layer"])
    expected = 2 * (np.asarray(flat(IMAGES)) @ layer["kernel"] + layer["bias"])
    expected += np.asarray(state["state"]["mean"])
    np.testing.assert_allclose(output.logits, expected, rtol=1e-5)


class Still(nnx.Module):
    """A flag of its own name, which decides in place of train() and eval()."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.layer = nnx.Linear(16, 2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, learning=False):
        x = self.norm(flat(x), use_running_average=not learning)
        return self.layer(self.drop(x, deterministic=not learning))


def test_nnx_flags_of_any_name():
    model = kdjax.from_nnx(Still, train_arg="learning")
    variables = model.init(KEY, IMAGES)
    _, state = model.apply(variables, IMAGES, train=True, rngs=DROPOUT)
    assert (state["state"]["norm"]["mean"] != 0).all()
    still = kdjax.from_nnx(Still)
    line = "^Still: a call in training moves no running statistics and draws no dropout"
    with pytest.warns(UserWarning, match=line) as found:
        for _ in range(2):
            still.apply(variables, IMAGES, train=True, rngs=DROPOUT)
    assert len(found) == 1


def test_ordinary_modules_are_silent():
    # A warning is an error in all tests (pyproject.toml).
    for model in (
        kdjax.from_linen(Net()),
        kdjax.from_linen(nn.Sequential([flat, nn.Dense(2)])),
        kdjax.from_nnx(lambda rngs: nnx.Sequential(flat, nnx.Linear(16, 2, rngs=rngs))),
        # Its call takes keys and hands them on, past the dropout's own.
        kdjax.from_nnx(
            lambda rngs: nnx.Sequential(
                flat, nnx.Dropout(0.5, rngs=rngs), nnx.Linear(16, 2, rngs=rngs)
            )
        ),
        kdjax.make_model(kdjax.config.ModelConfig("plain_cnn_student"), 10),
    ):
        images = jnp.ones((2, 4, 4, 1))
        variables = model.init(KEY, images)
        model.apply(variables, images, train=True, rngs=DROPOUT)


def test_a_stateful_function():
    def apply(params, state, key, images, train):
        x = flat(images)
        if train:
            state = {"count": state["count"] + 1}
            x = x + jax.random.normal(key, x.shape)
        return x @ params["w"], state

    def init(key, images):
        return {"w": jnp.ones((16, 2))}, {"count": jnp.zeros((), int)}

    model = from_stateful(apply, init)
    variables = model.init(KEY, IMAGES)
    assert moves(model, variables) == (True, True)
    output, state = model.apply(variables, IMAGES)
    assert state == {"state": {"count": 0}}
    np.testing.assert_allclose(output.logits[:, 0], flat(IMAGES).sum(1), rtol=1e-5)
    with pytest.raises(TypeError, match=r"^apply_fn: expected \(output, new_state\)"):
        from_stateful(lambda *x: x[-2], init).apply(variables, IMAGES)
    with pytest.raises(TypeError, match="^init: expected a function, got int"):
        from_stateful(apply, 3)
