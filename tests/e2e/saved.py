"""Checkpoints as plain arrays, to compare runs bitwise."""

import pathlib

import jax
import numpy as np

from kdjax.train.checkpoint import Checkpoints


def saved(folder):
    """The last checkpoint as plain arrays by name."""
    import orbax.checkpoint as ocp

    step = Checkpoints(folder).last_step()
    path = pathlib.Path(folder) / "checkpoints" / str(step) / "default"
    with ocp.PyTreeCheckpointer() as reader:
        shapes = reader.metadata(path).item_metadata.tree
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        tree = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=plain))
    return {
        jax.tree_util.keystr(path): np.asarray(x)
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
