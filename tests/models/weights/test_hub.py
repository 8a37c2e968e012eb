import socket
import sys
import types

import pytest

from kdjax.models.weights import WeightsError, load_weights, save_weights
from kdjax.models.weights.hub import HubFile, parse_name, resolve
from tests.models.weights import trees


@pytest.mark.parametrize(
    "source, expected",
    [
        ("hf:timm/a.b_1k", HubFile("timm/a.b_1k", "model.safetensors", None)),
        ("timm/a.b_1k", HubFile("timm/a.b_1k", "model.safetensors", None)),
        ("hf:o/n@v1.0", HubFile("o/n", "model.safetensors", "v1.0")),
        ("o/n:sub/x.npz", HubFile("o/n", "sub/x.npz", None)),
        ("hf:o/n@refs/pr/1:x.npz", HubFile("o/n", "x.npz", "refs/pr/1")),
        ("folder/x.npz", None),
        ("a/b/c", None),
        ("/abs/olute", None),
        ("x.npz", None),
    ],
)
def test_names_and_paths_are_told_apart(source, expected):
    assert parse_name(source) == expected


def test_what_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "model").mkdir()
    assert resolve("timm/model").is_dir()


def test_nothing_there(tmp_path):
    with pytest.raises(WeightsError, match="x.npz: expected .* got nothing there"):
        resolve(tmp_path / "x.npz")


def test_home_and_variables_are_filled_in(tmp_path, monkeypatch):
    (tmp_path / "x.npz").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SOMEWHERE", f"{tmp_path}/")
    for source in ("~/x.npz", "$SOMEWHERE/x.npz", "${SOMEWHERE}/x.npz"):
        assert resolve(source).samefile(tmp_path / "x.npz")
    with pytest.raises(WeightsError, match=rf"y.npz: .* there \({tmp_path}//y.npz\)"):
        resolve("$SOMEWHERE/y.npz")
    monkeypatch.delenv("SOMEWHERE")
    want = "the environment variable SOMEWHERE to be set, got none"
    with pytest.raises(WeightsError, match=f"x.npz: expected {want}"):
        resolve("$SOMEWHERE/x.npz")
    # A dollar in a name that is there is a letter like any other.
    (tmp_path / "$SOMEWHERE.npz").touch()
    assert resolve(tmp_path / "$SOMEWHERE.npz").is_file()


@pytest.mark.parametrize(
    "source", ["here/weights.pth", "here/weights.PTH", "hf:o/n:pytorch_model.bin"]
)
def test_pickles_are_refused_before_they_are_fetched(source):
    with pytest.raises(WeightsError, match=f"^{source}: expected .* got a pickle"):
        resolve(source)


class Gone(Exception):
    pass


class Entry(Gone):
    pass


class Local(Entry):
    pass


class Repository(Gone):
    pass


class Revision(Gone):
    pass


@pytest.fixture
def fake_hub(monkeypatch):
    """huggingface_hub as far as it is used; `answer` raises or returns a path."""
    hub = types.ModuleType("huggingface_hub")
    errors = types.ModuleType("huggingface_hub.errors")
    errors.LocalEntryNotFoundError = Local
    errors.EntryNotFoundError = Entry
    errors.RepositoryNotFoundError = Repository
    errors.RevisionNotFoundError = Revision
    constants = types.ModuleType("huggingface_hub.constants")
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    server = socket.create_server(("127.0.0.1", 0))
    constants.ENDPOINT = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)

    def answer(result):
        def download(repo, file, revision, local_files_only):
            hub.asked = (repo, file, revision)
            hub.offline = local_files_only
            if isinstance(result, Exception):
                raise result
            return str(result)

        hub.hf_hub_download = download
        hub.server = server
        return hub

    yield answer
    server.close()


@pytest.mark.parametrize(
    "error, text",
    [
        (Local("offline"), "expected the network, or the file in the local cache"),
        (Repository("404"), "expected a repository o/n that you may read, got 404"),
        (Revision("404"), "expected revision v2 in o/n, got 404"),
        (Entry("404"), "expected a file model.safetensors in o/n, got 404"),
        (OSError("no route to host"), "from the hub, got: no route to host"),
    ],
)
def test_what_the_hub_cannot_give_is_said(fake_hub, error, text):
    fake_hub(error)
    with pytest.raises(WeightsError, match=f"^hf:o/n@v2: .*{text}"):
        resolve("hf:o/n@v2")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    text = r"^hf:o/n: expected .*pip install 'kdjax\[hub\]'"
    with pytest.raises(WeightsError, match=text):
        resolve("hf:o/n")


def test_weights_by_hub_name(fake_hub, tmp_path):
    variables = trees.tree("timm_bit")
    save_weights(variables, tmp_path / "model.safetensors", names="timm_bit")
    hub = fake_hub(tmp_path / "model.safetensors")
    trees.same(load_weights(variables, "hf:timm/resnetv2_50x1_bit"), variables)
    assert hub.asked == ("timm/resnetv2_50x1_bit", "model.safetensors", None)
    assert not hub.offline


def test_without_a_network_only_the_cache_is_asked(fake_hub, tmp_path):
    hub = fake_hub(tmp_path)
    hub.server.close()
    assert resolve("hf:o/n") == tmp_path and hub.offline
