"""Stores on disk as the first release wrote them still open."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from kdjax.cache import reader
from kdjax.cache.manifest import make_manifest
from kdjax.cache.store import Column, create_store, read_manifest
from kdjax.config import Cache, Scalar, Term, Views
from kdjax.core.types import BoundModel
from kdjax.data import datasets
from kdjax.models import from_function
from kdjax.presets import digits, digits_teacher

# {store: {file: text of JSON, or hexadecimal digits}}.
STORES = json.loads((pathlib.Path(__file__).parent / "stores.json").read_text())
IMAGES = np.arange(288).reshape(6, 4, 4, 3).astype(np.uint8)
TRAIN = datasets.from_arrays(IMAGES, np.arange(6) % 3)
WEIGHTS = {"params": np.ones((2, 3), np.float32)}
TEACHER = BoundModel(from_function(lambda w, x: x, params=0), WEIGHTS, None, 8)
COLUMNS = {
    "fixed": {"logits": Column((1, 3), "float32")},
    "replayed": {
        "log_probs": Column((1, 2, 1), "float16"),
        "indices": Column((1, 2, 1), "uint16"),
        "log_normaliser": Column((1, 2), "float32"),
        "tap middle": Column((1, 2, 2), "float32"),
    },
}


@pytest.fixture(params=sorted(STORES))
def kind(request):
    return request.param


@pytest.fixture
def store(tmp_path, kind):
    """The folder of a store of 6 records, in blocks of 4."""
    for name, text in STORES[kind].items():
        file = tmp_path / "store" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        is_text = name.endswith(".json")
        file.write_bytes(text.encode() if is_text else bytes.fromhex(text))
    return tmp_path / "store"


def run_of(kind, store):
    """The run that the store was written for."""
    run = digits(
        batch=2, steps=6, seeds=1, terms={"soft": Term(temperature=Scalar(2.0))}
    )
    cache = Cache(path=str(store), top_k=1, taps=("middle",))
    if kind == "fixed":
        cache = Cache(path=str(store))
        run = dataclasses.replace(run, views=Views(mode="fixed"))
    return dataclasses.replace(run, teacher=digits_teacher(cache=cache))


def values_of(kind):
    """Counted numbers in every column."""
    if kind == "fixed":
        return {"logits": np.arange(18.0).reshape(6, 1, 3)}
    return {
        "log_probs": -np.arange(12.0).reshape(6, 1, 2, 1),
        "indices": (np.arange(12) % 3).reshape(6, 1, 2, 1),
        "log_normaliser": np.arange(12.0).reshape(6, 1, 2),
        "tap middle": np.arange(24.0).reshape(6, 1, 2, 2),
    }


def test_the_manifest_is_that_of_the_run(kind, store):
    stored = read_manifest(store)
    del stored["layout"]
    manifest = make_manifest(run_of(kind, store), TRAIN, TEACHER)
    assert json.loads(json.dumps(manifest)) == stored


def test_a_store_opens_for_its_run_with_its_values(kind, store):
    opened = reader.open_cache(run_of(kind, store), TRAIN, TEACHER)
    assert (opened.records, opened.block, opened.missing()) == (6, 4, [])
    assert opened.columns == COLUMNS[kind]
    found = opened.read(slice(0, 6))
    values = values_of(kind)
    assert set(found) == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == COLUMNS[kind][name].dtype


def test_a_store_is_written_byte_for_byte_as_before(kind, store, tmp_path):
    manifest = make_manifest(run_of(kind, store), TRAIN, TEACHER)
    again = create_store(
        tmp_path / "again", manifest, COLUMNS[kind], records=6, block=4
    )
    values = values_of(kind)
    for block in range(again.blocks):
        span = again.span(block)
        again.write(block, {name: value[span] for name, value in values.items()})

    def files(folder):
        paths = [x for x in folder.rglob("*") if x.is_file()]
        return {x.relative_to(folder): x.read_bytes() for x in paths}

    assert files(tmp_path / "again") == files(store)
