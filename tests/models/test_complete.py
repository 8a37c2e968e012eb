"""Models whose config is completed by their published weights."""

import dataclasses
import warnings

import jax
import numpy as np
import pytest

from kdjax import setup
from kdjax.config import ConfigError, Ensemble, FromWeights, ModelConfig
from kdjax.models.weights import save_weights
from kdjax.models.weights.files import write_arrays
from kdjax.models.zoo import make_model
from kdjax.presets import digits
from kdjax.setup import identity
from tests.models.weights import trees


@pytest.fixture
def resnet20(tmp_path):
    """A file in the names of a published ResNet-20 for CIFAR-10."""
    file = tmp_path / "resnet20.safetensors"
    write_arrays(file, trees.akamaster(20))
    return str(file)


@pytest.fixture
def vit(tmp_path):
    """A file in timm's names, which two pixel scales share."""
    file = tmp_path / "vit.safetensors"
    shapes = trees.published_shapes("vit_ti16", "timm_vit")
    write_arrays(file, {name: np.zeros(x, np.int8) for name, x in shapes.items()})
    return str(file)


def test_weights_alone_are_enough(resnet20):
    expected = ModelConfig(
        name="resnet20",
        norm="batch",
        resolution=32,
        weights=resnet20,
        normalization="imagenet",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert setup.complete_model(ModelConfig(weights=resnet20), "model") == expected
        assert setup.complete_model(expected, "model") == expected


def test_a_run_is_completed_with_a_line_for_each_model(resnet20):
    published = FromWeights(ModelConfig(weights=resnet20))
    other = FromWeights(ModelConfig(weights=resnet20, resolution=64))
    run = digits(teacher=Ensemble((published, other)))
    run.check()
    completed, lines = setup.complete_models(run)
    assert completed.model == run.model
    assert [x.model.resolution for x in completed.teacher.members] == [32, 64]
    assert setup.teacher_resolutions(completed) == (32, 64)
    first, second = lines
    assert first == (
        "teacher.members.0.model: name resnet20, norm batch, resolution 32, "
        f"normalization imagenet, as published with {resnet20}"
    )
    assert second.startswith("teacher.members.1.model: ") and "resolution" not in second
    assert setup.complete_models(completed) == (completed, [])


def test_another_scale_than_the_published_one_is_a_warning(resnet20):
    config = ModelConfig(weights=resnet20, normalization="symmetric")
    line = "teacher.model.normalization is symmetric, but .* was trained with imagenet"
    with pytest.warns(UserWarning, match=line):
        completed = setup.complete_model(config, "teacher.model")
    assert completed.normalization == "symmetric" and completed.name == "resnet20"


def test_a_scale_that_the_names_do_not_tell_must_be_stated(vit):
    line = r"^m.normalization: expected symmetric \(augreg\) or imagenet \(DeiT\): .*"
    with pytest.raises(ConfigError, match=line):
        setup.complete_model(ModelConfig(weights=vit), "m")
    stated = ModelConfig(weights=vit, normalization="imagenet")
    completed = setup.complete_model(stated, "m")
    assert (completed.name, completed.resolution) == ("vit_ti16", 224)


def test_weights_of_no_publisher_need_a_name_and_a_scale(tmp_path):
    file = tmp_path / "mine.npz"
    config = ModelConfig("resnet", 8, 2, resolution=8)
    image = np.zeros((1, 8, 8, 3), np.float32)
    shapes = jax.eval_shape(make_model(config, 10).init, jax.random.key(0), image)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    save_weights(zeros, file)
    mine = ModelConfig(weights=str(file))
    with pytest.raises(ConfigError, match="^m.name: .* of no known publisher: set"):
        setup.complete_model(mine, "m")
    named = dataclasses.replace(mine, name="resnet")
    with pytest.raises(ConfigError, match="^m.normalization: .* of no known publisher"):
        setup.complete_model(named, "m")
    stated = dataclasses.replace(named, normalization="unit")
    completed = setup.complete_model(stated, "m")
    assert (completed.norm, completed.resolution) == ("group", 32)
    # A function of the user's own scales its images as it likes.
    own = dataclasses.replace(mine, name="net.py:make")
    assert setup.complete_model(own, "m").normalization == "symmetric"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"^m.weights: .*gone.npz: expected .*npz"):
        setup.complete_model(ModelConfig(weights=f"{tmp_path}/gone.npz"), "m")


def test_open_fields_have_defaults_without_weights():
    config = ModelConfig("resnet8")
    assert (config.norm, config.resolution) == ("group", 32)
    assert config.normalization == "symmetric" and config.open_fields == ()
    assert dataclasses.replace(ModelConfig("vgg8", weights="x"), weights="").norm
    with pytest.raises(ConfigError, match="^m.name: expected a name, got ''"):
        ModelConfig().check("m")


def test_weights_of_another_network_are_one_line(resnet20):
    config = ModelConfig("resnet8", weights=resnet20)
    line = "^m.weights: expected weights of resnet8, .* has resnet20 .akamaster/.*[)]$"
    with pytest.raises(ConfigError, match=line):
        setup.load_pretrained(config, 10, 3, "m")


def test_a_folder_is_that_of_the_config_that_left_fields_open(resnet20):
    published = FromWeights(ModelConfig(weights=resnet20))
    for teacher in (published, Ensemble((published, published))):
        run = digits(teacher=teacher)
        completed, _ = setup.complete_models(run)
        folder, planned = (identity.identify_planned(x) for x in (completed, run))
        assert identity.find_differences(folder, planned) == []
    gone = digits(teacher=FromWeights(ModelConfig(weights="nowhere.npz")))
    assert len(identity.find_differences(folder, identity.identify_planned(gone))) > 0
    scale = dataclasses.replace(published.model, normalization="unit")
    other = digits(teacher=FromWeights(scale))
    with pytest.warns(UserWarning, match="is unit"):
        other = identity.identify_planned(other)
    folder = identity.identify_planned(digits(teacher=published))
    (line,) = identity.find_differences(folder, other)
    assert line.startswith('teacher.model.normalization: folder has "imagenet"')
