import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config
from kdjax.cli.main import main
from kdjax.models import (
    MODELS,
    ResNetCifar,
    count_parameters,
    from_linen,
    make_model,
    zoo,
)
from kdjax.models.weights import save_weights

MINE = """
import jax.numpy as jnp
from kdjax.models import from_function

def make(config, classes):
    shape = (config.width, classes)
    return from_function(lambda p, x: jnp.zeros((x.shape[0], classes)) + p.sum(),
                         jnp.ones(shape))

def wrong(config, classes):
    return classes
"""


def images():
    return jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_resnet_is_made_of_the_config(norm):
    model = make_model(
        config.ModelConfig("resnet", depth=14, width=3, norm=norm, resolution=8), 5
    )
    expected = from_linen(ResNetCifar(14, 3, 5, norm))
    shapes, wanted = (
        jax.eval_shape(m.init, jax.random.key(0), images()) for m in (model, expected)
    )
    assert shapes == wanted and ("batch_stats" in shapes) == (norm == "batch")


def test_axis_name_reaches_batch_norm():
    model = make_model(
        config.ModelConfig("resnet", norm="batch", resolution=8), 5, "data"
    )
    variables = jax.eval_shape(model.init, jax.random.key(0), images())
    with pytest.raises(NameError, match="data"):
        jax.eval_shape(lambda v: model.apply(v, images(), train=True), variables)


def test_own_model_from_a_file(tmp_path):
    path = tmp_path / "mine_for_zoo.py"
    path.write_text(MINE)
    model = make_model(
        config.ModelConfig(name=f"{path}:make", width=4, resolution=8), 3
    )
    variables = model.init(jax.random.key(0), images())
    output, _ = model.apply(variables, images())
    np.testing.assert_array_equal(output.logits, jnp.full((2, 3), 12.0))
    with pytest.raises(config.ConfigError, match="^model.name: .*types.Model, got int"):
        make_model(config.ModelConfig(name=f"{path}:wrong", resolution=8), 3)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(config.ConfigError) as error:
        make_model(config.ModelConfig(name="resnext", resolution=8), 3)
    message = str(error.value)
    assert message.startswith("model.name: ") and "'resnext'" in message
    assert "kdjax models" in message
    with pytest.raises(
        config.ConfigError, match=r"you mean 'resnet20'\? .*got 'resnet_20"
    ):
        make_model(config.ModelConfig(name="resnet_20", resolution=8), 3)
    with pytest.raises(config.ConfigError, match="model.name: .*no_such_module"):
        make_model(config.ModelConfig(name="no_such_module:make", resolution=8), 3)


def test_parameters_are_counted_without_state():
    variables = {"params": {"a": jnp.ones((2, 3)), "b": jnp.ones(())}, "s": jnp.ones(9)}
    assert count_parameters(variables) == 7
    assert count_parameters(jax.eval_shape(lambda: variables)) == 7
    assert type(count_parameters({"params": {}})) is int


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(name="resnext"), "name: did you mean"),
        (dict(name="no_such_module:make"), "name: expected a module that exists"),
        (dict(name="bit_r50x1", norm="batch"), "norm: expected group"),
        (dict(name="vit_ti16"), "resolution: expected height and width in multiples"),
        (dict(normalization="cifar10"), "normalization: expected images of 3 channels"),
    ],
)
def test_errors_name_the_field_of_the_config_that_was_meant(fields, message):
    gray = jnp.zeros((1, 30, 30, 1))
    with pytest.raises(config.ConfigError, match=rf"^teacher\.model\.{message}"):
        fields = {"name": "resnet", **fields}
        model = make_model(config.ModelConfig(**fields), 10, field="teacher.model")
        jax.eval_shape(model.init, jax.random.key(0), gray)


def test_the_command_lists_every_name_once(capsys):
    main(["models"])
    words = re.findall(r"\w+", capsys.readouterr().out)
    assert all(words.count(name) == 1 for name in MODELS)
    main(["models", "vgg1"])
    assert capsys.readouterr().out.split() == [
        *"small images (CIFAR): vgg11, vgg13, vgg16, vgg19".split()
    ]
    with pytest.raises(SystemExit):
        main(["models", "vgg12"])
    assert "name: did you mean 'vgg" in capsys.readouterr().err


def test_a_wide_resnet_of_any_size():
    """WRN-28-2 as published (1605.07146, and the semi-supervised papers): 1.47 M."""
    model = make_model(
        config.ModelConfig(name="wrn_28_2", norm="batch", resolution=8), 10
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert count_parameters(shapes) == 1_467_610
    for name in ("wrn_28_0", "wrn_28", "wrn_28_2_3"):
        with pytest.raises(config.ConfigError, match="model.name: .*a network"):
            make_model(config.ModelConfig(name=name, resolution=8), 10)
    with pytest.raises(config.ConfigError, match="model.depth: expected 6n"):
        model = make_model(config.ModelConfig(name="wrn_27_2", resolution=8), 10)
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


@pytest.mark.full
def test_weights_of_the_other_norm_name_the_option_that_fits(tmp_path):
    def asking(norm, **changes):
        return config.ModelConfig("resnet", 8, 2, norm, **{"resolution": 8, **changes})

    def said(asked, classes=10, field="teacher.model"):
        with pytest.raises(config.ConfigError) as caught:
            zoo.load_pretrained(asked, classes, 3, field)
        assert str(caught.value).startswith(f"{field}.weights: {asked.weights}: expect")
        return str(caught.value).splitlines()[-1].strip()

    paths = {}
    for norm, names in (("batch", "torch_resnet_cifar"), ("group", "own")):
        model = make_model(asking(norm), 10)
        variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
        paths[norm] = str(tmp_path / f"{norm}.safetensors")
        save_weights(variables, paths[norm], names=names)
    batch, group = (paths[norm] for norm in ("batch", "group"))
    fits = "the norms differ: with teacher.model.norm {}, all fit"
    assert said(asking("group", weights=batch)) == fits.format("batch")
    assert said(asking("batch", weights=group)) == fits.format("group")
    assert said(asking("group", weights=batch), 7, "model") == (
        "the norms differ: with model.norm batch, all but 2 fit"
    )
    wide = config.ModelConfig(
        "resnet", depth=8, width=4, norm="batch", weights=batch, resolution=8
    )
    assert "norms" not in said(wide)
    gone = asking("group", weights=str(tmp_path / "nowhere.npz"))
    assert "norms" not in said(gone)
    other = config.ModelConfig(name="bit_r50x1", resolution=32, weights=batch)
    line = "^teacher.model.weights: expected weights of bit_r50x1, .* has resnet"
    with pytest.raises(config.ConfigError, match=line):
        zoo.load_pretrained(other, 10, 3, "teacher.model")
