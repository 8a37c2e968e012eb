"""Fingerprints of trees of arrays."""

import hashlib

import jax
import numpy as np

from kdjax.core import hosts
from kdjax.core.types import BoundModel, PyTree


def digest(tree: PyTree) -> str:
    """16 hex digits that change with any number of a tree of arrays."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        x = np.ascontiguousarray(hosts.fetch_global(leaf))
        sha.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return sha.hexdigest()[:16]


def digest_of_shapes(tree: PyTree) -> str:
    """The same of a tree whose arrays have no values: of their names and shapes."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    told = [f"{jax.tree_util.keystr(at)} {x.dtype}{x.shape}" for at, x in leaves]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def is_abstract(teacher: BoundModel) -> bool:
    """True where a model has shapes in place of values."""
    leaves = jax.tree.leaves(teacher.variables)
    return any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)
