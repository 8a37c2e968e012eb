"""The claims: the overlap of attention maps, and the metrics of a report."""

import pathlib

import numpy as np

from experiments.claims import attention
from kdjax.experiments import load_experiment
from kdjax.experiments.results import reported_metrics

FOLDER = pathlib.Path(attention.__file__).parent


def test_overlap_of_attention_maps():
    """1 for equal maps, 0 for disjoint ones, else the common part."""
    left, right = np.zeros((2, 2, 4)), np.zeros((2, 2, 4))
    left[:, 0, :2] = 0.5
    right[:, 1, :2] = 0.5
    assert attention.overlap(left, left) == 1 and attention.overlap(left, right) == 0
    assert attention.overlap(left, (left + 3 * right) / 4) == 0.25


def test_the_table_of_overlaps_has_leads_seed_by_seed():
    overlaps = {"stage1": {"labels": [0.5, 0.7], "attention": [0.7, 0.8]}}
    lines = attention.table(overlaps).splitlines()
    claim = "attention: overlap at stage1 above labels"
    assert lines[2] == f"| {claim} | – | +0.150 ± 0.050 | 2 | 0.2 | undecided |"
    assert "| labels | 0.600 ± 0.100 |" in lines
    assert "| attention | 0.750 ± 0.050 |" in lines


def test_metrics_beyond_the_usual_are_reported_where_a_hypothesis_has_them():
    usual = {"accuracy", "agreement", "kl", "train_loss"}
    assert set(reported_metrics(attention.EXPERIMENT)) == usual
    calibration = load_experiment(FOLDER / "calibration.py")
    assert set(reported_metrics(calibration)) == usual | {"nll", "calibration_error"}
