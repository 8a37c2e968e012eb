"""The README's examples of other libraries, where these are installed."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdjax

README = pathlib.Path(kdjax.__file__).parent / "models" / "README.md"
BLOCKS = re.findall(r"^```py\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
LIBRARIES = ["haiku", "equinox", "keras"]


def example(library, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip(library)
    (code,) = (x for x in BLOCKS if f"import {library}" in x)
    scope = {"__name__": "page"}
    exec(compile(code, "<page>", "exec"), scope)
    return scope["model"]


def test_there_is_an_example_of_each():
    assert len(BLOCKS) == len(LIBRARIES)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_example_trains(library, monkeypatch, tmp_path):
    with jax.numpy_rank_promotion("allow"):
        model = example(library, monkeypatch)
        images = jax.random.normal(jax.random.key(5), (6, 8, 8, 1))
        variables = model.init(jax.random.key(0), images)
        before = jax.tree.map(np.array, variables)

        def call(seed, train):
            rngs = {"dropout": jax.random.key(seed)} if train else None
            return model.apply(variables, images, train=train, rngs=rngs)

        (one, new), (two, _) = call(1, True), call(2, True)
        assert one.logits.shape == (6, 10)
        # Keras draws from its own state, and not from the key.
        assert bool((one.logits != two.logits).any()) == (library != "keras")
        moved = jax.tree.map(
            lambda a, b: bool((a != b).any()), before["state"], new["state"]
        )
        assert any(jax.tree.leaves(moved))
        evaluated, same = call(1, False)
        jax.tree.map(np.testing.assert_array_equal, same, {"state": before["state"]})
        assert bool((evaluated.logits != one.logits).any())
        optim = kdjax.config.Optim(warmup=1)
        run = kdjax.presets.digits_labels(
            workdir=str(tmp_path / "run"), optim=optim, seeds=2, steps=3
        )
        folder = kdjax.jobs.train(run, model=model)
        metrics = kdjax.evaluate(folder, model=model)
        assert len(metrics["accuracy"]) == 2 and np.isfinite(metrics["nll"]).all()
        assert jnp.asarray(metrics["accuracy"]).min() > 0
