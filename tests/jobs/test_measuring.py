"""The table of `kdjax evaluate`."""

import dataclasses

import numpy as np
import pytest

from kdjax.config import ConfigError, Data
from kdjax.data.datasets import from_arrays
from kdjax.jobs import measuring


def test_the_table_names_split_checkpoint_seeds_and_meanings(tiny_run, monkeypatch):
    run = dataclasses.replace(
        tiny_run(seed=3, seeds=2), data=Data("digits", test="test[:50]")
    )
    monkeypatch.setattr(measuring.setup, "read_run", lambda _: run)
    results = {"accuracy": [0.5, 0.25], "kl": [1.5, 2.0], "own": [1.0, 0.0]}
    text = measuring.format_results("run", results, split="test", checkpoint="best")
    assert text.splitlines() == [
        "# test split (test[:50]), best checkpoint",
        "#                     seed 3    seed 4",
        "accuracy            0.500000  0.250000"
        "  # fraction whose most probable class is the label",
        "kl                  1.500000  2.000000"
        "  # mean KL(teacher || student) at temperature 1, nats",
        "own                 1.000000  0.000000",
    ]


def test_every_metric_of_an_evaluation_has_a_meaning():
    measured = {"accuracy", "top_5", "nll", "calibration_error", "agreement", "kl"}
    assert measuring.MEANINGS.keys() == measured


def test_images_of_other_channels_are_refused():
    source = from_arrays(np.zeros((2, 8, 8, 3), np.uint8), np.arange(2))
    measuring._check_channels(source, 3, "data.test")
    measuring._check_channels(source, None, "data.test")
    with pytest.raises(ConfigError) as error:
        measuring._check_channels(source, 1, "data.test")
    expected = "data.test: expected images of 1 channels, as the run has, got 3"
    assert str(error.value) == expected
