"""A student taken out of its run gives what the run's evaluation gave."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import kdjax
from kdjax import jobs
from kdjax.cli.main import main
from kdjax.config import ConfigError, labels_only
from kdjax.core import runlog
from kdjax.data.datasets import digits as digits_data
from kdjax.models import from_function
from kdjax.presets import digits

IMAGES, LABELS = digits_data()["test"]
MODEL = """
import jax
from kdjax.models import from_function


def linear(config, classes):
    def apply(params, images):
        return images.reshape(images.shape[0], -1) @ params["w"]

    def init(key, images):
        return {"w": 0.1 * jax.random.normal(key, (images[0].size, classes))}

    return from_function(apply, init=init)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of two seeds of a linear model."""
    root = tmp_path_factory.mktemp("export")
    (root / "own.py").write_text(MODEL)
    run = labels_only(digits(), teacher=None)
    model = run.model.__class__(f"{root}/own.py:linear", resolution=8)
    change = {"seeds": 2, "seed": 3, "steps": 30, "batch": 32, "evaluate_every": 10}
    optim = run.optim.__class__(warmup=2, lr=0.05)
    run = digits(
        **change,
        workdir=str(root / "run"),
        model=model,
        optim=optim,
        terms=run.terms,
        teacher=None,
        baselines=(),
        checkpoint_every=10,
    )
    return jobs.train(run)


def accuracy(student):
    return float(np.mean(student(IMAGES).argmax(-1) == LABELS))


def test_each_seed_has_the_accuracy_of_its_run(folder):
    test = runlog.read_summary(folder)["test"]["accuracy"]
    for seed, expected in zip((3, 4), test, strict=True):
        assert accuracy(kdjax.load(folder, seed=seed)) == pytest.approx(expected)
    first = kdjax.load(folder)
    assert accuracy(first) == pytest.approx(test[0]) and test[0] != test[1]
    assert first.classes == tuple("0123456789")
    assert (first.resolution, first.channels, first.members) == (8, 1, 0)
    assert first.variables["params"]["w"].shape == (64, 10)


def test_the_best_checkpoint(folder):
    best = kdjax.evaluate(folder, checkpoint="best")["accuracy"][0]
    assert accuracy(kdjax.load(folder, checkpoint="best")) == pytest.approx(best)


def test_an_ensemble_is_the_mean_of_probabilities(folder):
    both = [kdjax.load(folder, seed=seed) for seed in (3, 4)]
    mean = np.mean([jax.nn.softmax(one(IMAGES)) for one in both], axis=0)
    logits = kdjax.load(folder, seed="ensemble")(IMAGES)
    np.testing.assert_allclose(np.exp(logits), mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "images, got",
    [
        (IMAGES[0], r"uint8 \(8, 8, 1\)"),
        (IMAGES / 255, r"float64 \(597, 8, 8, 1\)"),
        (np.repeat(IMAGES, 3, -1), r"uint8 \(597, 8, 8, 3\)"),
        (IMAGES[:0], r"uint8 \(0, 8, 8, 1\)"),
    ],
    ids=["one", "floats", "color", "none"],
)
def test_other_images_are_refused(folder, images, got):
    with pytest.raises(ConfigError, match=f"^images: expected uint8 .*{got}"):
        kdjax.load(folder)(images)


def test_what_cannot_be_loaded_is_named(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"seed: expected one of \[3, 4\] or 'ens"):
        kdjax.load(folder, seed=0)
    with pytest.raises(ConfigError, match="checkpoint: expected last or best"):
        kdjax.load(folder, checkpoint="first")  # type: ignore[arg-type]
    with pytest.raises(
        runlog.RunFolderError, match="no run in .*: the folder is empty"
    ):
        kdjax.load(tmp_path)


def test_a_model_from_python_is_needed_again(tmp_path):
    def init(key, images):
        return {"w": 0.1 * jax.random.normal(key, (images[0].size, 10))}

    model = from_function(lambda p, x: x.reshape(len(x), -1) @ p["w"], init=init)
    run = labels_only(digits(), teacher=None, workdir=str(tmp_path / "run"))
    run = run.__class__(**{**vars(run), "seeds": 1, "steps": 2, "batch": 8})
    run = run.__class__(**{**vars(run), "optim": run.optim.__class__(warmup=1)})
    folder = jobs.train(run, model=model)
    with pytest.raises(ConfigError, match="^model: expected the model of this run"):
        kdjax.load(folder)
    assert kdjax.load(folder, model=model)(IMAGES).shape == (597, 10)


def test_predict_files_folders_and_standard_input(
    folder, tmp_path, capsys, monkeypatch
):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.fromarray(IMAGES[i, ..., 0]).save(photos / f"{i}.png")
    # An image of another size is resized as the run's evaluation resizes.
    Image.fromarray(IMAGES[3, ..., 0]).resize((16, 16)).save(tmp_path / "large.png")
    main(["predict", str(folder), str(photos), str(tmp_path / "large.png"), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"].rpartition("/")[2] for line in lines] == [
        "0.png", "1.png", "2.png", "large.png"
    ]  # fmt: skip
    probabilities = np.asarray(jax.nn.softmax(kdjax.load(folder)(IMAGES[:3])))
    for line, row in zip(lines, probabilities, strict=False):
        order = np.argsort(-row)[:5]
        assert line["classes"] == [str(i) for i in order]
        np.testing.assert_allclose(line["probabilities"], row[order], rtol=1e-5)
    content = (photos / "1.png").read_bytes()
    stdin = type("In", (), {"buffer": type("B", (), {"read": lambda _: content})()})
    monkeypatch.setattr("sys.stdin", stdin())
    main(["predict", str(folder), "-", "--top", "1"])
    text = capsys.readouterr().out
    assert text.startswith(f"standard input  {lines[1]['classes'][0]} ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "files: expected at least one image, got none"),
        (("nowhere.png",), "files: expected regular image files, or folders"),
        ((".", "--seed", "x"), "seed: expected a number or ensemble, got 'x'"),
    ],
)
def test_wrong_options_are_one_line(
    folder, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(folder), *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


def test_a_damaged_image_is_named(folder, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(SystemExit):
        main(["predict", str(folder), str(tmp_path / "broken.png")])
    assert "broken.png: cannot be decoded" in capsys.readouterr().err


FRESH = """
import sys
import jax
import jax.export
import numpy as np

program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
images = np.load(sys.argv[2])
np.save(sys.argv[3], np.asarray(program.call(images)))
print([name for name in sys.modules if name.startswith("kdjax")])
"""


def test_stablehlo_in_a_fresh_process(folder, tmp_path):
    pytest.importorskip("flatbuffers")
    import subprocess
    import sys

    path = jobs.export(folder, "stablehlo", out=tmp_path / "out")
    np.save(tmp_path / "images.npy", IMAGES[:100])
    files = [path, tmp_path / "images.npy", tmp_path / "logits.npy"]
    command = [sys.executable, "-c", FRESH, *map(str, files)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    expected = kdjax.load(folder)(IMAGES[:100])
    np.testing.assert_allclose(np.load(files[2]), expected, rtol=1e-5, atol=1e-5)
    card = json.loads((tmp_path / "out/card.json").read_text())
    assert card["input"] == "uint8 [batch, 8, 8, 1]" and card["parameters"] == 640
    assert card["bytes"] == path.stat().st_size and card["milliseconds"].keys() == {
        "1",
        "64",
    }
    assert "| parameters | 640 |" in (tmp_path / "out/card.md").read_text()


def test_the_card_has_the_metrics_of_the_exported_seed(folder, tmp_path):
    for seed, name in ((None, "first"), (4, "second")):
        jobs.export(folder, "safetensors", out=tmp_path / name, seed=seed)
        card = json.loads((tmp_path / name / "card.json").read_text())
        student = kdjax.load(folder, seed=seed)
        assert card["test"]["accuracy"] == pytest.approx(accuracy(student))
    # Those of an ensemble were never measured.
    jobs.export(folder, "safetensors", out=tmp_path / "all", seed="ensemble")
    assert json.loads((tmp_path / "all" / "card.json").read_text())["test"] == {}


def test_safetensors_by_the_library(folder, tmp_path):
    from safetensors.numpy import load_file

    arrays = load_file(jobs.export(folder, "safetensors", out=tmp_path))
    (values,) = arrays.values()
    np.testing.assert_array_equal(values, kdjax.load(folder).variables["params"]["w"])


def test_iree_on_its_runtime(folder, tmp_path):
    pytest.importorskip("iree.compiler")
    runtime = pytest.importorskip("iree.runtime")
    path = jobs.export(folder, "iree", out=tmp_path, batch=100)
    module = runtime.load_vm_flatbuffer_file(str(path), driver="local-task")
    logits = module["main"](IMAGES[:100]).to_host()
    expected = kdjax.load(folder)(IMAGES[:100])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_iree_needs_a_batch(folder, tmp_path):
    with pytest.raises(ConfigError, match="^batch: expected a number above 0"):
        jobs.export(folder, "iree", out=tmp_path)
    with pytest.raises(ConfigError, match="^format: did you mean 'iree'"):
        jobs.export(folder, "ireee", out=tmp_path)


@pytest.mark.parametrize("out", ["afile", "afile/x"])
def test_a_file_in_place_of_the_folder_is_refused_before_loading(
    out, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").touch()
    with pytest.raises(ConfigError) as error:
        jobs.export(tmp_path / "no run", "safetensors", out=out)
    assert str(error.value) == "out: expected a folder, got the file afile"


def test_a_single_file_is_predicted_by_its_path(folder, tmp_path):
    file = tmp_path / "0.png"
    Image.fromarray(IMAGES[0, ..., 0]).save(file)
    student = kdjax.load(folder)
    (expected,) = jobs.predict(student, [file])
    for one in (file, str(file)):
        assert list(jobs.predict(student, one)) == [expected]
    (same,) = jobs.predict(student, file.read_bytes())
    assert same.classes == expected.classes


def test_converted_images_are_counted_once(folder, tmp_path):
    gray = IMAGES[0, ..., 0]
    for i, pixels in enumerate([gray, gray, np.stack([gray] * 3, -1)]):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    student = kdjax.load(folder)
    text = "^files: 1 of 3 images have 3 channels and become gray"
    with pytest.warns(UserWarning, match=text) as caught:
        first, _, third = jobs.predict(student, tmp_path)
    assert len(caught) == 1 and third.classes == first.classes


def test_weights_have_no_batch(tmp_path):
    with pytest.raises(ConfigError) as error:
        jobs.export(tmp_path / "no run", "safetensors", batch=8)
    assert str(error.value) == "batch: expected none with safetensors, got 8"
