"""Checkpoints of a run, by Orbax: saved in the background, the last and best kept.

A checkpoint is the `TrainState` and nothing else. The data position and every random
draw follow from its step; teachers are never written into a student's checkpoint.
"""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from kdjax.core.types import PyTree
from kdjax.train.state import TrainState


def _is_wanted(record: logging.LogRecord) -> bool:
    """False for information and warnings of Orbax: its errors are raised here."""
    return record.levelno >= logging.ERROR or "orbax" not in record.pathname


logging.getLogger("absl").addFilter(_is_wanted)


# The folder of the checkpoints in a run folder.
NAME = "checkpoints"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or written. The text names it and says why."""


def has_checkpoints(folder: str | pathlib.Path) -> bool:
    """True for a run folder with a checkpoint, complete or not."""
    steps = (pathlib.Path(folder) / NAME).glob("*")
    return any(step.name.isdigit() for step in steps)


class Checkpoints:
    """The checkpoints of one run folder.

    The checkpoint with the best validation accuracy (mean over seeds) and the last one
    are kept. A checkpoint without an evaluation can only be the last.
    """

    def __init__(self, folder: str | pathlib.Path, *, read_only: bool = False):
        self.path = pathlib.Path(folder).absolute() / NAME
        policies = [
            checkpoint_managers.LatestN(1),
            checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: metrics["accuracy"],
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=lambda metrics: metrics["accuracy"],
            read_only=read_only,
            create=not read_only,
        )
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"{self.path}: expected a folder, got a file")
        self._is_first_save = True
        try:
            self._manager = ocp.CheckpointManager(
                self.path, options=options, item_handlers=_handler()
            )
        except Exception as error:
            raise CheckpointError(f"{self.path}: cannot be opened: {error}") from error

    def steps(self) -> list[int]:
        """The steps of all checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def last_step(self) -> int | None:
        """The step of the last checkpoint, None where there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the best evaluated checkpoint, None where there is none."""
        return self._manager.best_step()

    def would_be_best(self, accuracy: float) -> bool:
        """True where no checkpoint so far has so high a validation accuracy."""
        best = self.best_step()
        if best is None:
            return True
        metrics = self._manager.metrics(best)
        return metrics is None or accuracy > metrics["accuracy"]

    def save(self, state: TrainState, step: int, accuracy: float | None = None) -> None:
        """Save in the background; an existing checkpoint of the step is kept.

        The first one is waited for and read back, so that a folder in which none can
        be read ends the run before it has trained for long.
        """
        if step in self._manager.all_steps():
            return
        metrics = None if accuracy is None else {"accuracy": accuracy}
        args = ocp.args.PyTreeSave(state._asdict())
        try:
            self._manager.save(step, args=args, metrics=metrics, force=True)
        except Exception as error:
            raise self._failed(error) from error
        if self._is_first_save:
            self.wait()
            self._read({"step": state.step}, step, exact=False)
            self._is_first_save = False

    def wait(self) -> None:
        """Return when everything saved is on disk, or raise what went wrong."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> CheckpointError:
        text = f"{self.path}: a checkpoint could not be written: {_line(error)}"
        return CheckpointError(text)

    def reached_preemption(self, step: int) -> bool:
        """True once a run of several processes has received a stop signal."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """The state at a step (the last if None), laid out like `like`.

        like: a state, or its shapes with shardings; another architecture or optimizer
            is an error that lists every array that differs.
        """
        return TrainState(**self._read(like._asdict(), step, exact=True))

    def restore_network(self, like: PyTree, network: str, step: int | None = None):
        """The variables of one network alone, laid out like `like`."""
        others = {k: v for k, v in like.items() if k != "params"}
        expected = {"params": {network: like["params"]}}
        if others:
            expected["model_state"] = {network: others}
        restored = self._read(expected, step, exact=False)
        return {
            "params": restored["params"][network],
            **restored.get("model_state", {}).get(network, {}),
        }

    def read_network(self, network: str) -> PyTree:
        """The variables of one network in the last checkpoint, as NumPy arrays.

        Their shapes are those of the checkpoint. None where it has no such network.
        """
        step = self.last_step()
        with ocp.Checkpointer(_handler()) as reader:
            saved = reader.metadata(self.path / str(step) / "default").item_metadata
        tree = {} if saved is None else saved.tree
        parts = {
            key: {network: jax.tree.map(_abstract_host, tree[key][network])}
            for key in ("params", "model_state")
            if network in tree.get(key, {})
        }
        if "params" not in parts:
            return None
        restored = jax.device_get(self._read(parts, step, exact=False))
        state = restored.get("model_state", {}).get(network, {})
        return {"params": restored["params"][network], **state}

    def _read(
        self, expected: Mapping[str, Any], step: int | None, exact: bool
    ) -> dict[str, Any]:
        step = self.last_step() if step is None else step
        if step is None:
            raise CheckpointError(f"{self.path}: expected a checkpoint, found none")
        at = self.path / str(step) / "default"
        abstract = jax.tree.map(_abstract, dict(expected))
        try:
            with ocp.Checkpointer(_handler()) as reader:
                metadata = reader.metadata(at).item_metadata
                if metadata is None:
                    raise FileNotFoundError("its metadata is missing")
                saved = _shapes(metadata.tree)
                _compare(at, saved, _shapes(abstract), exact)
                args = ocp.args.PyTreeRestore(
                    item=abstract,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                    partial_restore=True,
                )
                return reader.restore(at, args=args)
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"{at.parent}: expected a complete checkpoint, cannot read it: "
                f"{_line(error)}. Without this folder the run goes on from the "
                "checkpoint before it, if there is one"
            ) from error

    def close(self) -> None:
        """Finish pending work and free the manager's threads."""
        self._manager.close()


def _handler() -> ocp.PyTreeCheckpointHandler:
    """A folder for each array, with checksums.

    Orbax's default (OCDBT) takes a path for a glob pattern: below `run[1]` it writes
    what it cannot read. Its checkpoints of earlier releases are read as before.
    """
    return ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=True)


def _line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    # The details are the whole specification of an array, over many lines.
    return (
        text.splitlines()[0]
        .partition(" See full TensorStore details")[0][:300]
        .rstrip(".")
    )


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))


def _abstract_host(x: Any) -> jax.ShapeDtypeStruct:
    """Of an array that is read to the first device, whatever devices saved it."""
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)

    def name(path: tuple) -> str:
        parts = (
            getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))) for k in path
        )
        return "/".join(str(p) for p in parts)

    return {name(path): tuple(x.shape) for path, x in flat}


def _compare(at: pathlib.Path, saved: dict, expected: dict, exact: bool) -> None:
    """Raise for a checkpoint of another architecture, or for one of an optimizer with
    other arrays, listing the differences; `exact` allows no further arrays."""
    names = sorted({*expected, *(saved if exact else ())})
    lines = [
        f"{k}: expected {expected.get(k, 'nothing')}, got {saved.get(k, 'nothing')}"
        for k in sorted(names, key=lambda k: not k.startswith("params"))
        if saved.get(k) != expected.get(k)
    ]
    if not lines:
        return
    if any(line.startswith(("params", "model_state")) for line in lines):
        what = "a checkpoint of another architecture"
    else:
        what = (
            "a checkpoint whose optimizer keeps other arrays, of another version of "
            "kdjax perhaps (finish the run with that one, or begin in another folder)"
        )
    raise CheckpointError(f"{at}: {what}:\n  " + "\n  ".join(lines))
