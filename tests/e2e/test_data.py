"""A folder of photographs, from its files to the report and the picture."""

import json
import pathlib
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kdjax import jobs
from kdjax.config import HARD, ConfigError, Data
from kdjax.core.runlog import RunFolderError
from kdjax.models import from_function

# Runs of convolutional networks: the full tier.
pytestmark = pytest.mark.full


def _init(key, images):
    return {"w": jnp.zeros((images[0].size, 2))}


LINEAR = from_function(
    lambda params, x: x.reshape(len(x), -1) @ params["w"], init=_init
)


@pytest.fixture
def photos(tmp_path):
    """30 JPEGs of several sizes in three splits and two classes; one is damaged."""
    rng = np.random.default_rng(0)
    for i in range(30):
        split = ("train", "train", "train", "validation", "test")[i % 5]
        path = tmp_path / "photos" / split / ("cat", "dog")[i % 2] / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    damaged = tmp_path / "photos/train/cat/00.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    return f"folder:{tmp_path / 'photos'}"


def test_a_run_says_what_it_left_out_and_shows_its_views(photos, tiny_run, tmp_path):
    data = Data(photos, train="train", store=8, on_error="skip")
    run = tiny_run(data=data, batch=4, steps=3, terms={"hard": HARD}, teacher=None)
    with pytest.warns(UserWarning, match="data.train: left out 1 of 18 .*cat/00.jpg"):
        folder = jobs.train(run, model=LINEAR)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["left_out"] == {"train": 1}
    text = (folder / "report.md").read_text()
    assert "- Left out: 1 of the train split, images that cannot be decoded" in text

    with pytest.warns(UserWarning, match="left out 1 of 18"):
        assert jobs.show_views(run) == folder / "views.png"
    with Image.open(folder / "views.png") as picture:
        assert picture.format == "PNG"
    for out, kind, message in (
        ("x.jpg", ConfigError, "out: expected a file whose name ends in .png"),
        (tmp_path, ConfigError, "out: expected a file whose name ends in .png"),
        (folder / "config.json/x.png", RunFolderError, "out: cannot write in .*json"),
    ):
        with warnings.catch_warnings(), pytest.raises(kind, match=message):
            warnings.simplefilter("ignore")
            jobs.show_views(run, out=out)


def test_a_picture_of_a_run_to_come_does_not_claim_its_folder(tiny_run, monkeypatch):
    run = tiny_run()
    work = pathlib.Path(run.workdir)
    monkeypatch.chdir(work.parent)
    assert jobs.show_views(run, count=2) == pathlib.Path("views.png")
    assert (work.parent / "views.png").is_file() and not work.exists()
