import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ModelConfig
from kdjax.models import make_model
from kdjax.models.resnet_cifar import ResNetCifar
from kdjax.models.vit import Size, ViT
from kdjax.models.weights import (
    WeightsError,
    find_mismatches,
    format_mismatches,
    load_weights,
    save_weights,
)
from kdjax.models.weights.files import read_arrays, write_arrays
from tests.models.weights import trees


@pytest.fixture
def saved(tmp_path):
    """A tree, and a function writing its timm names with some arrays replaced."""
    variables = trees.tree("timm_bit")
    save_weights(variables, tmp_path / "timm.npz", names="timm_bit")
    arrays = read_arrays(tmp_path / "timm.npz")

    def write(**changes):
        changed = {**arrays, **{k.replace("__", "."): x for k, x in changes.items()}}
        present = {name: x for name, x in changed.items() if x is not None}
        write_arrays(tmp_path / "changed.safetensors", present)
        return tmp_path / "changed.safetensors"

    return variables, write


def replaced(template, path, leaf):
    """The tree with another leaf at `path`."""
    return jax.tree_util.tree_map_with_path(
        lambda p, x: leaf if keystr(p) == path else x, template
    )


def keystr(path):
    return jax.tree_util.keystr(path, simple=True, separator="/")


def test_all_that_does_not_fit_is_named_at_once(saved):
    variables, write = saved
    path = write(
        stem__conv__weight=np.zeros((6, 3, 5, 6), np.float32),
        norm__bias=None,
        head__fc__bias=np.zeros(3, np.int32),
        blocks__strange=np.zeros((2, 2), np.float32),
        another=np.zeros((1,), np.float32),
    )
    with pytest.raises(WeightsError) as caught:
        load_weights(variables, path)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{path}: expected the weights of this model")
    assert first.endswith("(names: timm_bit), got 5 that do not fit:")
    assert sorted(line.strip() for line in lines) == sorted(
        [
            "missing params/norm-pre-head/bias, in the file norm.bias",
            "extra another: shape (1,)",
            "extra blocks.strange: shape (2, 2)",
            "misshapen params/root_block/conv_root/kernel, in the file"
            " stem.conv.weight: expected (6, 3, 6, 6) float32, got (6, 3, 5, 6)"
            " float32 (adapt: stem may help)",
            "misshapen params/head/bias, in the file head.fc.bias: expected (6,)"
            " float32, got (3,) int32 (adapt: head may help)",
        ]
    )


def names_in(line):
    """Every name that a line of the error stands for."""
    kind, name, *rest = line.strip().split(" ", 2)
    listed = re.match(r"\((\d+): [*/]+ = ([\d/ ]+)\)", *rest or [""])
    if listed is None:
        return [(kind, name.rstrip(",:"))]
    numbers = [each.split("/") for each in listed[2].split()]
    assert len(numbers) == int(listed[1])
    pattern = name.replace("*", "{}")
    return [(kind, pattern.format(*each)) for each in numbers]


def test_mismatches_that_are_alike_share_a_line_that_names_them_all(tmp_path):
    """BatchNorm's weights for a network of GroupNorm: another name for every leaf."""
    group = trees.shapes(ResNetCifar(20, 4, norm="group"))
    batch = trees.shapes(ResNetCifar(20, 4, norm="batch"))
    save_weights(trees.values(batch, largest=16), tmp_path / "batch.npz")
    with pytest.raises(WeightsError) as caught:
        load_weights(group, tmp_path / "batch.npz")
    ours, theirs = (
        {keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (group, batch)
    )
    first, *lines = str(caught.value).splitlines()
    named = sorted(each for line in lines for each in names_in(line))
    want = {("missing", name) for name in ours - theirs}
    want |= {("extra", name) for name in theirs - ours}
    assert named == sorted(want) and first.endswith("got 126 that do not fit:")
    assert sorted((x.kind, x.name) for x in caught.value.mismatches) == named
    assert len(lines) <= 20


def test_trees_are_compared_as_files_are():
    ours = {"params": {"a1": np.ones((2, 3)), "a2": np.ones(2)}, "state": np.ones(())}
    theirs = {
        "params": {"a1": shape_of((3, 2)), "a3": np.ones(2)},
        "state": np.ones(()),
    }
    assert find_mismatches(ours, ours) == []
    assert format_mismatches(find_mismatches(ours, theirs)).splitlines() == [
        "3 that do not fit:",
        "  misshapen params/a1: expected (2, 3) float64, got (3, 2) float32",
        "  missing params/a2",
        "  extra params/a3: shape (2,)",
    ]


def test_numbers_that_are_none_are_named(saved):
    variables, write = saved
    path = write(norm__bias=np.array([0, np.nan, 0, 0, 0, np.inf], np.float32))
    with pytest.raises(WeightsError, match="not finite params/norm-pre-head/bias$"):
        load_weights(variables, path)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_numbers_too_large_for_the_tree_are_named(dtype, tmp_path):
    path = tmp_path / "wide.npz"
    np.savez(path, **{"params/a": [1.0, -1e300], "params/b": np.ones(2)})
    template = {"params": {"a": np.ones(2, dtype), "b": np.ones(2, dtype)}}
    with pytest.raises(WeightsError) as caught:
        load_weights(template, path)
    got = str(caught.value).splitlines()[1:]
    assert got == [f"  not finite params/a: -1e+300 does not fit {dtype}"]


def test_weights_of_another_kind_of_network(saved, tmp_path):
    variables, _ = saved
    save_weights(trees.tree("timm_vit"), tmp_path / "vit.npz", names="timm_vit")
    text = "vit.npz: expected names that fit this model, got none of them but blocks.0"
    with pytest.raises(WeightsError, match=text):
        load_weights({"params": {"x": {"kernel": jnp.ones(3)}}}, tmp_path / "vit.npz")
    # BiT shares the name `norm` with it: everything else is missing or extra.
    with pytest.raises(
        WeightsError, match=r"(?s)missing params/block\*.*extra pos_embed"
    ):
        load_weights(variables, tmp_path / "vit.npz")


def test_keras_and_pytorch_forms_of_resnet_do_not_mix(tmp_path):
    keras = trees.tree("keras_resnet")
    save_weights(keras, tmp_path / "keras.npz", names="keras_resnet")
    with pytest.raises(WeightsError, match="extra conv1/bias"):
        load_weights(trees.tree("torch_resnet"), tmp_path / "keras.npz")


def test_names_can_be_said(saved):
    variables, write = saved
    trees.same(load_weights(variables, write(), names="timm_bit"), variables)
    text = "expected names as in bit, got none of them but head.fc.bias"
    with pytest.raises(WeightsError, match=text):
        load_weights(variables, write(), names="bit")
    with pytest.raises(WeightsError, match="names: expected one of .*, got 'tf'"):
        load_weights(variables, write(), names="tf")


def test_any_network_round_trips_under_its_own_names(tmp_path):
    variables = {"params": {"a": {"b": np.arange(3.0)}}, "state": {"n": np.array(4)}}
    save_weights(variables, tmp_path / "own.safetensors")
    trees.same(load_weights(variables, tmp_path / "own.safetensors"), variables)


def test_what_a_scheme_has_no_name_for_is_not_saved(tmp_path):
    with pytest.raises(WeightsError, match=r"a scheme for \['params/x/kernel'\], got"):
        variables = {"params": {"x": {"kernel": np.ones(3)}}}
        save_weights(variables, tmp_path / "x.npz", names="bit")


# --- another head -------------------------------------------------------------------


def with_head(variables, classes, make):
    template = replaced(variables, "params/head/kernel", make((6, classes)))
    return replaced(template, "params/head/bias", make((classes,)))


def shape_of(shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_another_head_is_an_error_unless_told(saved):
    variables, write = saved
    template = with_head(variables, 4, np.ones)
    with pytest.raises(WeightsError, match="2 that do not fit"):
        load_weights(template, write())


@pytest.mark.parametrize("missing", [False, True])
def test_another_head_keeps_its_own_values(saved, missing):
    variables, write = saved
    template = with_head(variables, 4, np.ones)
    changes = {"head__fc__weight": None, "head__fc__bias": None} if missing else {}
    loaded = load_weights(template, write(**changes), adapt=("head",))
    trees.same(loaded, template)


def test_another_head_of_shapes_alone_is_zero(saved):
    variables, write = saved
    template = with_head(variables, 4, shape_of)
    loaded = load_weights(template, write(), adapt=["head"])
    trees.same(loaded["params"]["root_block"], variables["params"]["root_block"])
    assert loaded["params"]["head"]["kernel"].shape == (6, 4)
    assert not loaded["params"]["head"]["kernel"].any()


def test_a_head_that_fits_is_loaded_all_the_same(saved):
    variables, write = saved
    trees.same(load_weights(variables, write(), adapt=("head", "stem")), variables)


def test_a_head_of_the_same_shape_is_never_left_out(saved):
    """Only another shape makes another head; and no advice where the shape is right."""
    variables, write = saved
    path = write(head__fc__bias=np.zeros(6, np.int32))
    line = r"dtype params/head/bias, .*: expected \(6,\) float32, got \(6,\) int32$"
    with pytest.raises(WeightsError, match=line):
        load_weights(variables, path, adapt=("head",))


@pytest.mark.parametrize("adapt", ["head", ("heads",)])
def test_what_may_be_adapted_is_a_list_of_known_words(saved, adapt):
    variables, write = saved
    text = r"adapt: expected words of \['head', 'position', 'stem'\], got "
    with pytest.raises(WeightsError, match=text + re.escape(repr(adapt))):
        load_weights(variables, write(), adapt=adapt)


# --- another stem, another image size -------------------------------------------------


def test_another_stem_only_when_told(saved):
    variables, write = saved
    path = "params/root_block/conv_root/kernel"
    kernel = variables["params"]["root_block"]["conv_root"]["kernel"]
    template = replaced(variables, path, shape_of((6, 6, 1, 6)))
    with pytest.raises(
        WeightsError, match=r"misshapen params/root_block.*\(adapt: stem may"
    ):
        load_weights(template, write())
    loaded = load_weights(template, write(), adapt=("stem",))
    new = loaded["params"]["root_block"]["conv_root"]["kernel"]
    np.testing.assert_allclose(new, kernel.sum(2, keepdims=True), rtol=1e-5)


def vit(patch, side):
    module = ViT(Size(8, 1, 2), patch, 3)
    return module, trees.values(trees.shapes(module, side), largest=64)


@pytest.mark.parametrize("names", ["timm_vit", "big_vision_vit", "own"])
def test_positions_of_another_image_size_only_when_told(names, tmp_path):
    _, variables = vit(4, 8)
    _, larger = vit(4, 16)
    save_weights(variables, tmp_path / "v.npz", names=names)
    with pytest.raises(WeightsError, match="1 that do not fit(.|\n)*pos_embedding"):
        load_weights(larger, tmp_path / "v.npz")
    loaded = load_weights(larger, tmp_path / "v.npz", adapt=("position",))
    positions = loaded["params"]["pos_embedding"]
    assert positions.shape == (1, 17, 8)
    # The mean over the grid stays, and so does the class token's.
    old = variables["params"]["pos_embedding"]
    first = 0 * old[:, 0] if names == "big_vision_vit" else old[:, 0]
    np.testing.assert_array_equal(positions[:, 0], first)
    np.testing.assert_allclose(
        positions[:, 1:].mean(1), old[:, 1:].mean(1), rtol=1e-4, atol=1e-5
    )


def test_another_patch_and_the_positions_that_go_with_it(tmp_path):
    _, variables = vit(4, 16)
    _, coarse = vit(8, 16)
    save_weights(variables, tmp_path / "v.npz", names="timm_vit")
    adapt = ("position", "stem")
    loaded = load_weights(coarse, tmp_path / "v.npz", adapt=adapt)["params"]
    assert loaded["embedding"]["kernel"].shape == (8, 8, 3, 8)
    assert loaded["pos_embedding"].shape == (1, 5, 8)
    with pytest.raises(WeightsError, match="1 that do not fit"):
        load_weights(coarse, tmp_path / "v.npz", adapt=("position",))


def test_a_model_in_place_of_its_variables_is_named(tmp_path):
    model = make_model(ModelConfig(name="plain_cnn_student", resolution=32), 10)
    for function in (load_weights, save_weights):
        with pytest.raises(
            WeightsError,
            match="^variables: expected what the model's init .*the Model",
        ):
            function(model, tmp_path / "weights.npz")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("leaf", [shape_of((2,)), 0.5, np.array([None])])
def test_only_arrays_of_numbers_are_saved(leaf, suffix, tmp_path):
    variables = {"params": {"a": np.ones(2), "b": leaf}}
    text = (
        r"^variables: expected an array of numbers in every leaf, got \w+ in params/b$"
    )
    with pytest.raises(WeightsError, match=text):
        save_weights(variables, tmp_path / f"x.{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_leaf_without_a_shape_is_named(tmp_path):
    save_weights({"params": {"a": np.ones(2)}}, tmp_path / "x.npz")
    with pytest.raises(WeightsError, match="^variables: .*, got float in params/a$"):
        load_weights({"params": {"a": 0.5}}, tmp_path / "x.npz")


@pytest.mark.parametrize("array", [np.array(["a", "b"]), np.ones(2, complex)])
def test_another_kind_of_number_is_named(array, tmp_path):
    np.savez(tmp_path / "x.npz", **{"params/a": array})
    line = rf"another dtype params/a: expected \(2,\) int32, got \(2,\) {array.dtype}$"
    with pytest.raises(WeightsError, match=line):
        load_weights({"params": {"a": np.ones(2, np.int32)}}, tmp_path / "x.npz")


def test_what_is_no_path_is_named():
    variables = {"params": {"a": np.ones(2)}}
    with pytest.raises(WeightsError, match="^source: expected the name of a .*None$"):
        load_weights(variables, None)  # type: ignore
    with pytest.raises(WeightsError, match="^path: expected the name of a .*None$"):
        save_weights(variables, None)  # type: ignore
