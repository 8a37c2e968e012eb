"""The stages of generated images, and a network that starts from another of a run."""

import numpy as np
import pytest

from experiments.stages import generated
from kdjax import jobs, setup
from kdjax.config import ConfigError, ModelConfig, Network
from kdjax.core import runlog
from kdjax.train import sharding
from tests.e2e.saved import saved


def test_the_stages_name_each_other():
    for stages in (generated.digits(), generated.tiny()):
        stages.check()
        assert [*stages.runs] == ["teacher", "gan", "real", "augment", "replace"]
        assert stages.earlier("replace") == ["gan", "teacher"]


def test_a_network_of_no_run_is_refused():
    network = Network(ModelConfig("resnet"), network="generator")
    with pytest.raises(ConfigError) as caught:
        network.check("networks.generator", 8)
    expected = "expected none, without a run as the weights of its model"
    assert (
        str(caught.value) == f"networks.generator.network: {expected}, got 'generator'"
    )


@pytest.mark.full
def test_the_generator_of_the_gan_makes_the_images(tmp_path):
    """The frozen network has the generator's variables, one set for the one seed."""
    stages = generated.tiny(workdir=str(tmp_path))
    runs = {k: x for k, x in stages.runs.items() if k in ("teacher", "gan", "replace")}
    folder = jobs.run_stages(type(stages)(runs, workdir=str(tmp_path)))
    assert runlog.is_finished(folder / "replace")
    run = setup.read_run(folder / "replace")
    train = setup.load_source(run, "train")
    mesh = sharding.make_mesh(run.compute, run.batch)
    initial = setup.load_initial(run, train, mesh)["generator"].variables
    trained = saved(folder / "gan")
    name = "['params']['generator']['dense']['kernel']"
    np.testing.assert_array_equal(
        initial["params"]["dense"]["kernel"], trained[name][0]
    )
