"""The options that `kdjax losses NAME` prints: they parse, and the term has a value.

The shapes are those of the networks of the preset, and of taps of a user's own network
where a loss needs such.
"""

import jax
import jax.numpy as jnp
import pytest

from kdjax import config, losses
from kdjax.cli import main as cli
from kdjax.core.types import Batch, Model, Output
from kdjax.models.zoo import make_model
from kdjax.presets import digits
from kdjax.strategies.offline import offline

TERMS = {name: entry.term for name, entry in losses.REGISTRY.items() if entry.term}
N, CLASSES, SIZE = 4, 10, 8
TOKENS = ("token_kl", "token_jsd", "sequence_nll")
USERS = {
    "class_maps": jnp.zeros((N, 4, 4, CLASSES)),
    "attention0": jnp.ones((N, 2, 5, 5)),
    "values0": jnp.ones((N, 2, 5, 3)),
    "hidden_states": jnp.ones((N, 2, 5, 3)),
    "tokens": jnp.zeros((N, 5), int),
}


@pytest.fixture(scope="module")
def run():
    """All printed terms in one run, from one command line."""
    commands = [term.command(name, name) for name, term in TERMS.items()]
    runs = []

    class Jobs:
        distill = runs.append

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_start", lambda job, *_: job(Jobs))
        cli.main(["distill", *" ".join(commands).split()])
    return runs[0]


@pytest.fixture(scope="module")
def outputs():
    """Shapes of the outputs of student and teacher, by the width of the network."""
    images = jax.ShapeDtypeStruct((N, SIZE, SIZE, 1), jnp.float32)

    def output(key, width):
        model = make_model(
            config.ModelConfig("resnet", width=width, resolution=8), CLASSES
        )
        image = jnp.zeros(images.shape)
        variables = model.init(key, image)
        return model.apply(variables, image, train=False, rngs=None)[0]

    return [
        jax.eval_shape(lambda key, width=width: output(key, width), jax.random.key(0))
        for width in (2, 8)
    ]


@pytest.mark.parametrize("name", TERMS)
def test_a_printed_term_has_a_value(name, run, outputs):
    student, teacher = (
        Output(
            jnp.zeros((N, 5, CLASSES) if name in TOKENS else x.logits.shape),
            {k: jnp.zeros(tap.shape) for k, tap in x.taps.items()} | USERS,
        )
        for x in outputs
    )
    model = Model(
        lambda key, image: {"params": {}},
        lambda variables, image, *, train, rngs: (student, {}),
    )
    batch = Batch({"image": jnp.zeros((N, 1))}, jnp.zeros(N, int), teacher)
    strategy = offline(model, {name: run.terms[name]}, steps=3)

    def value(key):
        variables = strategy.init(key, batch)
        params = {k: x["params"] for k, x in variables.items()}
        projector = set(params) - {"student"}
        assert projector == ({f"{name} connector"} if TERMS[name].projector else set())
        state = {k: {} for k in params}
        return strategy.loss(params, state, batch, strategy.schedules(0), key)[0]

    found = jax.eval_shape(value, jax.random.key(0))
    assert found["student"].shape == ()
    assert strategy.schedules(0)[name]["weight"] == jnp.float32(TERMS[name].weight)


@pytest.mark.parametrize("name", TERMS)
def test_the_term_from_python_is_the_term_from_the_command_line(name, run):
    scope = {"Term": config.Term}
    term = eval(TERMS[name].python(name), scope)
    digits(terms={name: term}).check()
    assert config.to_dict(term) == config.to_dict(run.terms[name])
