"""Published weights into the variables of a model, and out of them."""

import math
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.core.types import Model, PyTree
from kdjax.models.weights import adapt as adapting
from kdjax.models.weights import hub
from kdjax.models.weights.array_layouts import SAME, file_shape
from kdjax.models.weights.errors import WeightsError
from kdjax.models.weights.files import (
    Arrays,
    check_path,
    read_arrays,
    write_arrays,
)
from kdjax.models.weights.mismatch import Mismatch, format_mismatches
from kdjax.models.weights.naming import Entry
from kdjax.models.weights.schemes import OWN, SCHEMES

Leaves = dict[str, Any]


class _Fit(NamedTuple):
    """The arrays of a file under one naming scheme, and their mismatches.

    values: {path: array in the tree's form}, None where the leaf keeps its own value.
    known_names: the number of names of the file that the scheme contains.
    """

    values: dict[str, np.ndarray | None]
    known_names: int
    mismatches: list[Mismatch]


def load_weights(
    variables: PyTree,
    source: str | os.PathLike,
    *,
    names: str | None = None,
    adapt: Collection[str] = (),
) -> PyTree:
    """`variables` with the values of published weights, checked leaf by leaf.

    Args:
        variables: what the model's `init` returns; shapes (`jax.eval_shape`) are
            enough. Gives the tree, the shapes and the dtypes.
        source: an .npz or .safetensors file, a folder with the model.json of
            TensorFlow.js (~ and $VARIABLES are filled in), or a name on the Hugging
            Face hub, `[hf:]owner/name[@revision][:file]` (file: model.safetensors),
            which needs `huggingface_hub`. Pickles (.pth, .pt, .bin, ...) are refused;
            see `kdjax.models.weights.convert_pth`.
        names: the naming scheme of the file, a key of `SCHEMES`; by default the one
            that fits best.
        adapt: parts that may have another shape in the file. "head": such leaves, and
            missing ones, keep the value they have in `variables`, zero where that is
            only a shape. "position": position embeddings are resampled. "stem": the
            first kernel is summed or repeated over input channels and resampled in
            height and width. Leaves that fit are loaded as they are.

    Returns:
        The same tree with NumPy arrays in the host's memory, in the dtypes of
        `variables`.

    Raises:
        WeightsError: (a ValueError) the file cannot be found or read, or does not fit:
            all missing, extra, misshapen and non-finite leaves are listed at once, and
            are the error's `mismatches`.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> variables = {"params": {"head": {"kernel": jnp.ones((2, 3))}}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(variables, f"{folder}/weights.npz")
        ...     loaded = load_weights(variables, f"{folder}/weights.npz")
        >>> loaded["params"]["head"]["kernel"].shape
        (2, 3)
    """
    leaves = _leaves(variables)
    words = _words(adapt)
    _check_scheme(names)
    arrays = read_arrays(hub.resolve(source))
    if not arrays:
        raise WeightsError(f"{source}: expected weights, got a file without arrays")
    candidates = SCHEMES if names is None else [names]
    fits = {name: _fit(name, arrays, leaves, words) for name in candidates}
    best = min(fits, key=lambda name: _rank(fits[name]))
    if fits[best].known_names == 0:
        expected = f"names as in {best}" if names else "names that fit this model"
        got = f"none of them but {_sample_names(arrays)}"
        text = f"{source}: expected {expected}, got {got}"
        raise WeightsError(text)
    mismatches, values, loaded = fits[best].mismatches, fits[best].values, {}
    if not mismatches:
        loaded = {path: _final(leaves[path], x) for path, x in values.items()}
        mismatches = _not_finite(values, loaded)
    if mismatches:
        text = f"{source}: expected the weights of this model (names: {best}), got"
        raise WeightsError(f"{text} {format_mismatches(mismatches)}", mismatches)
    return jax.tree.unflatten(jax.tree.structure(variables), list(loaded.values()))


def save_weights(
    variables: PyTree, path: str | os.PathLike, *, names: str = OWN
) -> None:
    """Write `variables` to `path` (.npz or .safetensors) under the names of a scheme.

    names: a key of `SCHEMES`; "own" are this project's and serve any network.

    The file is written whole or not at all.

    Raises `WeightsError` for another suffix, a file that cannot be written, an unknown
    scheme, or leaves (all of them listed) that are no arrays of numbers or that the
    scheme has no name for.
    """
    _check_scheme(names)
    leaves = _leaves(variables, with_values=True)
    shapes = {key: tuple(leaf.shape) for key, leaf in leaves.items()}
    entries = SCHEMES[names].entries(shapes)
    unknown = [key for key, entry in entries.items() if entry is None]
    if unknown:
        raise WeightsError(f"names: expected a scheme for {unknown}, got {names!r}")
    arrays = {
        entry.name: entry.layout.to_file(np.asarray(leaves[key]))
        for key, entry in entries.items()
        if entry is not None
    }
    check_path("path", path)
    write_arrays(pathlib.Path(path), SCHEMES[names].write(arrays, shapes))


def _words(adapt: Collection[str]) -> tuple[str, ...]:
    choices = sorted(adapting.LEAVES)
    if isinstance(adapt, str) or not set(adapt) <= set(choices):
        raise WeightsError(f"adapt: expected words of {choices}, got {adapt!r}")
    return tuple(adapt)


def _check_scheme(names: str | None) -> None:
    if names is not None and names not in SCHEMES:
        choices = sorted(SCHEMES)
        raise WeightsError(f"names: expected one of {choices}, got {names!r}")


def _leaves(variables: PyTree, *, with_values: bool = False) -> Leaves:
    """{"params/head/kernel": leaf}, in the order of the tree.

    with_values: every leaf must have values; else a shape and a dtype are enough.
    """
    if isinstance(variables, Model):
        hint = "" if with_values else _SHAPES
        expected = f"what the model's init returns{hint}"
        raise WeightsError(f"variables: expected {expected}, got the Model")
    flat, _ = jax.tree_util.tree_flatten_with_path(variables)
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in flat
    }
    unfit = [path for path, x in leaves.items() if not _is_array(x, with_values)]
    if unfit:
        expected = "an array of numbers" if with_values else "an array, or its shape,"
        text = f"variables: expected {expected} in every leaf, got "
        kinds = [f"{type(leaves[path]).__name__} in {path}" for path in unfit[:3]]
        more = f" and {len(unfit) - 3} more" if len(unfit) > 3 else ""
        raise WeightsError(text + ", ".join(kinds) + more)
    return leaves


_SHAPES = " (its shapes are enough: jax.eval_shape(model.init, key, images))"


def _is_array(x: Any, with_values: bool) -> bool:
    if not with_values:
        return hasattr(x, "shape") and hasattr(x, "dtype")
    if not isinstance(x, (np.ndarray, np.generic, jax.Array)):
        return False
    return any(jnp.issubdtype(x.dtype, kind) for kind in (np.number, np.bool_))


def find_mismatches(variables: PyTree, other: PyTree) -> list[Mismatch]:
    """Leaves of the tree `other` that do not fit `variables`.

    Of either, shapes are enough.
    """
    leaves = _leaves(variables)
    entries = {path: Entry(path, SAME) for path in leaves}
    return _match(OWN, entries, _leaves(other), leaves, ()).mismatches


def _fit(name: str, arrays: Arrays, leaves: Leaves, adapt: tuple[str, ...]) -> _Fit:
    scheme = SCHEMES[name]
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    file = scheme.read(arrays, shapes)
    return _match(name, scheme.entries(shapes), file, leaves, adapt)


def _match(
    name: str,
    entries: Mapping[str, Entry | None],
    file: Mapping[str, Any],
    leaves: Leaves,
    adapt: tuple[str, ...],
) -> _Fit:
    """The value of each leaf from its entry in the file, and the mismatches."""
    values: dict[str, np.ndarray | None] = {}
    mismatches = []
    for path, entry in entries.items():
        word = adapting.role(path, adapt)
        value = file.get(entry.name) if entry else None
        if value is None:
            values[path] = None
            if word != "head":
                where = _where(path, entry) if entry else f"no name in {name}"
                mismatches.append(Mismatch("missing", path, where))
            continue
        assert entry is not None
        values[path] = _value(entry, value, leaves[path], word)
        is_other_head = word == "head" and not _has_shape(entry, value, leaves[path])
        if values[path] is None and not is_other_head:
            mismatches.append(_misshapen(path, entry, value, leaves[path]))
    used = {entry.name for entry in entries.values() if entry}
    extra = sorted(set(file) - used)
    mismatches += [
        Mismatch("extra", key, "", f"shape {file[key].shape}") for key in extra
    ]
    return _Fit(values, len(file) - len(extra), mismatches)


def _where(path: str, entry: Entry) -> str:
    return "" if entry.name == path else f"in the file {entry.name}"


def _has_shape(entry: Entry, value: Any, leaf: Any) -> bool:
    return value.shape == file_shape(entry.layout, tuple(leaf.shape))


@np.errstate(over="ignore")
def _value(
    entry: Entry, value: np.ndarray, leaf: Any, word: str | None
) -> np.ndarray | None:
    """The array in the tree's form, adapted where that is allowed; None if unfit."""
    shape = tuple(leaf.shape)
    if _kind(value) != _kind(leaf):
        return None
    if _has_shape(entry, value, leaf):
        return entry.layout.to_tree(value, shape)
    if value.ndim != len(file_shape(entry.layout, shape)):
        return None
    if word == "position":
        return adapting.resample_positions(value, shape)
    if word == "stem":
        return adapting.adapt_stem(entry.layout.to_tree(value, shape), shape)
    return None


def _misshapen(path: str, entry: Entry, value: Any, leaf: Any) -> Mismatch:
    expected = f"{file_shape(entry.layout, tuple(leaf.shape))} {leaf.dtype}"
    word = adapting.role(path, tuple(adapting.LEAVES))
    word = None if _has_shape(entry, value, leaf) else word
    hint = f" (adapt: {word} may help)" if word else ""
    shapes = f"expected {expected}, got {value.shape} {value.dtype}{hint}"
    kind = "another dtype" if _has_shape(entry, value, leaf) else "misshapen"
    return Mismatch(kind, path, _where(path, entry), shapes)


def _not_finite(
    values: Mapping[str, np.ndarray | None], loaded: Mapping[str, np.ndarray]
) -> list[Mismatch]:
    """Leaves that hold no finite number, in the file or in the dtype of the tree."""
    mismatches = []
    for path, x in values.items():
        is_finite = np.isfinite(loaded[path])
        if x is None or is_finite.all():
            continue
        lost = x[np.isfinite(x) & ~is_finite]
        dtype = loaded[path].dtype
        text = f"{float(lost[0]):g} does not fit {dtype}" if lost.size else ""
        mismatches.append(Mismatch("not finite", path, "", text))
    return mismatches


def _kind(x: Any) -> Any:
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return next((kind for kind in kinds if jnp.issubdtype(x.dtype, kind)), None)


def _rank(fit: _Fit) -> tuple[float, int]:
    """Least for the best fit: the fewest mismatches, if any name matches at all."""
    return (len(fit.mismatches) if fit.known_names else math.inf), -fit.known_names


def _sample_names(arrays: Arrays) -> str:
    return f"{', '.join(sorted(arrays)[:3])}, ..."


@np.errstate(over="ignore")
def _final(leaf: Any, value: np.ndarray | None) -> np.ndarray:
    if value is not None:
        return np.array(value, leaf.dtype, order="C")
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return np.zeros(leaf.shape, leaf.dtype)
    return np.asarray(leaf)
