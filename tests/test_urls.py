"""A URL where a path is needed is refused before anything is read or written."""

import pathlib

import numpy as np
import pytest

from kdjax import jobs, reports
from kdjax.config import ConfigError, FromRun, FromWeights, ModelConfig
from kdjax.data import datasets
from kdjax.experiments import Experiment, sweep
from kdjax.export import Student
from kdjax.jobs import exporting
from kdjax.models.weights import WeightsError, load_weights, save_weights
from kdjax.presets import digits

BUCKET = "gs://b/run"
URLS = ["s3://b/run", BUCKET, "http://h/run", "file:///b/run", "hdfs:/b"]
LOCAL = "expected a folder on this machine (a bucket can be mounted as one)"
OR_BUCKET = f"{LOCAL}, or gs://bucket/path"
WEIGHTS = "expected a file on this machine, or hf:owner/name"


def weights(url):
    return FromWeights(ModelConfig("resnet20", weights=url))


RUNS = {
    "workdir": (lambda url: {"workdir": url}, OR_BUCKET),
    "teacher.run": (lambda url: {"teacher": FromRun(url)}, OR_BUCKET),
    "teacher.model.weights": (lambda url: {"teacher": weights(url)}, WEIGHTS),
    "model.weights": (
        lambda url: {"model": ModelConfig("resnet20", weights=url)},
        WEIGHTS,
    ),
}


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("field", RUNS)
def test_a_url_in_a_config_is_refused(field, url):
    changes, expected = RUNS[field]
    if expected == OR_BUCKET and url == BUCKET:
        digits(**changes(url)).check()
        return
    with pytest.raises(ConfigError) as error:
        digits(**changes(url)).check()
    assert str(error.value) == f"{field}: {expected}, got {url!r}"


EXPERIMENT = Experiment("a claim", {"a": lambda scale: digits()}, {"s": (1,)})


def no_predictions(url):
    student = Student(None, {}, ("a", "b"), 8, 1)
    return list(exporting.predict(student, [url]))


CALLS = {
    "data.name": lambda url: datasets.load_splits(f"folder:{url}"),
    "data.data_dir": lambda url: datasets.load_splits("mnist", data_dir=url),
    "run": jobs.evaluate,
    "runs": lambda url: reports.write_report([url], "unused"),
    "out": lambda url: jobs.export("unused", "stablehlo", out=url),
    "files": no_predictions,
    "workdir": lambda url: sweep(EXPERIMENT, "s", workdir=url),
}


@pytest.mark.parametrize("url", ["gs://b", "gs://b/", "gs:///run", "gs://b/../run"])
@pytest.mark.parametrize("field", ["workdir", "teacher.run"])
def test_a_bucket_without_a_path_is_refused(field, url):
    with pytest.raises(ConfigError, match=f"^{field}: expected .*gs://bucket/path, "):
        digits(**RUNS[field][0](url)).check()


# These are read in a bucket: tests/core/test_bucket.py, tests/e2e/test_bucket.py.
READ = "run", "runs", "data.data_dir"
REFUSED = [(f, x) for f in CALLS for x in URLS if x != BUCKET or f not in READ]


@pytest.mark.parametrize(("field", "url"), REFUSED)
def test_a_url_in_a_call_is_refused(field, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"^{field}: expected a folder on this"):
        CALLS[field](url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["a:b/c", "C:/runs", "x+y", "run[1]", "~/r", "50%/a"])
def test_other_paths_are_no_urls(path):
    digits(workdir=path, teacher=FromRun(path)).check()
    digits(workdir=pathlib.Path(path).as_posix()).check()


def test_weights_at_a_url_are_refused():
    variables = {"params": np.ones(3, np.float32)}
    for url in ("gs://bucket/x.safetensors", pathlib.Path("gs://bucket/x.safetensors")):
        for name, call in (
            ("source", lambda url=url: load_weights(variables, url)),
            ("path", lambda url=url: save_weights(variables, url)),
        ):
            expected = f"^{name}: expected a file .*, got 'gs://bucket/x.safetensors'$"
            with pytest.raises(WeightsError, match=expected):
                call()
