"""Checkpoints of a run, by Orbax: saved in the background, the newest and best kept.

A checkpoint is the `TrainState`, with digests of its arrays. The data position and
every random draw follow from its step; teachers are never written into a student's
checkpoint.
"""

import contextlib
import functools
import itertools
import logging
import pathlib
import shutil
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from kdjax.core import bucket, hosts, runlog
from kdjax.core.types import PyTree
from kdjax.train import restore
from kdjax.train.restore import CheckpointError, DamagedError
from kdjax.train.state import TrainState


def _is_wanted(record: logging.LogRecord) -> bool:
    """False for what Orbax writes: its errors are raised here, in one line."""
    return "orbax" not in record.pathname


logging.getLogger("absl").addFilter(_is_wanted)


# Folder among the checkpoints, of those that are being deleted.
_DELETED = "deleted"
# The last file of a checkpoint in a bucket, by Orbax.
_COMMITTED = "commit_success.txt"
# Folders in a run folder: of its checkpoints, and of those that proved damaged.
NAME, DAMAGED = "checkpoints", "damaged"


def has_checkpoints(folder: str | pathlib.Path) -> bool:
    """True for a run folder with a checkpoint, complete or not."""
    steps = bucket.find_place(pathlib.Path(folder) / NAME).glob("*")
    return any(step.name.isdigit() for step in steps)


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which leaves stop signals to the loop.

    JAX counts the calls that look for one (`hosts.reached_preemption`). Orbax's own
    calls, with steps in place of the count, would disturb it.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of one run folder.

    The last two are kept, and the one with the best validation accuracy (mean over
    seeds). A checkpoint without an evaluation is never the best.

    path: their folder, which is in the bucket where the run folder is a copy of one.
    """

    def __init__(self, folder: str | pathlib.Path):
        self._folder = pathlib.Path(folder).absolute()
        self.path = bucket.find_place(self._folder / NAME)
        self._in_bucket = not isinstance(self.path, pathlib.Path)
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"{self.path}: expected a folder, got a file")
        self._is_first_save = True
        self._opened: ocp.CheckpointManager | None = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Orbax's manager, which writes; opened when it is first needed.

        It reads the metrics of all checkpoints, which may be damaged before
        `restore_whole`.
        """
        if self._opened is None:
            self._opened = self._open()
            self._delete()
        return self._opened

    def _open(self) -> ocp.CheckpointManager:
        policies = [
            checkpoint_managers.LatestN(2),
            checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: metrics["accuracy"],
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=lambda metrics: metrics["accuracy"],
            # A kill in the middle of a deletion must not leave half a checkpoint. In
            # a bucket it may: nothing can be renamed there.
            todelete_subdir=None if self._in_bucket else _DELETED,
        )
        restore.silence_orbax()
        handlers = {
            restore.ARRAYS: restore.make_handler(),
            restore.RECORD: ocp.JsonCheckpointHandler(),
        }
        try:
            return _Manager(self.path, options=options, item_handlers=handlers)
        except Exception as error:
            raise CheckpointError(f"{self.path}: cannot be opened: {error}") from error

    @functools.cached_property
    def _best_accuracy(self) -> float:
        """The best accuracy of a checkpoint so far, of those being written too."""
        values = (restore.read_accuracy(self._at(step)) for step in self.steps())
        return max((x for x in values if x is not None), default=-1.0)

    def steps(self) -> list[int]:
        """The steps of all checkpoints on disk, in order."""
        bucket.forget_listings(self.path)
        names = (x.name for x in self.path.glob("*") if self._is_saved(x))
        # Digits of other scripts, and leading zeros, are no names of checkpoints.
        return sorted(int(x) for x in names if x.isdecimal() and x == str(int(x)))

    def _is_saved(self, step: pathlib.Path) -> bool:
        """True for a folder; in a bucket its last file must be there."""
        return (step / _COMMITTED).exists() if self._in_bucket else step.is_dir()

    def last_step(self) -> int | None:
        """The step of the last checkpoint on disk, None where there is none."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step of the best evaluated checkpoint on disk; None where there is none.

        Raises DamagedError where an accuracy cannot be read.
        """
        values = ((restore.read_accuracy(self._at(x)), x) for x in self.steps())
        return max(((a, x) for a, x in values if a is not None), default=(0, None))[1]

    def would_be_best(self, accuracy: float) -> bool:
        """True where no checkpoint so far has so high a validation accuracy."""
        return accuracy > self._best_accuracy

    def save(self, state: TrainState, step: int, accuracy: float | None = None) -> None:
        """Save in the background; an existing checkpoint of the step is kept.

        The first one is waited for and read back, so that a folder in which none can
        be read ends the run before it has trained for long.
        """
        if step in self._manager.all_steps():
            return
        # Those that the last save has put aside.
        self._delete()
        # The metrics of a checkpoint are in its bucket before it is.
        bucket.push(self._folder)
        best = self._best_accuracy
        metrics = None if accuracy is None else {"accuracy": accuracy}
        tree = _items(state)
        log = runlog.hash_metrics(self._folder)
        record = restore.make_record(tree, step, accuracy, log)
        items = {
            restore.ARRAYS: ocp.args.PyTreeSave(tree),
            restore.RECORD: ocp.args.JsonSave(record),
        }
        args = ocp.args.Composite(**items)
        try:
            self._manager.save(step, args=args, metrics=metrics, force=True)
        except Exception as error:
            self._raise(error)
        if accuracy is not None:
            self._best_accuracy = max(best, accuracy)
        if self._is_first_save:
            self.wait()
            self._read({"step": state.step}, step, exact=False)
            self._is_first_save = False

    def wait(self) -> None:
        """Return when everything saved is on disk, or raise what went wrong."""
        if self._opened is None:
            return
        try:
            self._opened.wait_until_finished()
            self._opened.check_for_errors()
        except Exception as error:
            self._raise(error)
        self._delete()
        if not self._in_bucket:
            with contextlib.suppress(OSError):
                (self.path / _DELETED).rmdir()

    def _delete(self) -> None:
        """Delete the checkpoints that Orbax has put aside to be deleted.

        The folder itself stays: a thread of Orbax may be about to put one into it.
        """
        if hosts.is_first() and not self._in_bucket:
            for folder in (self.path / _DELETED).glob("*"):
                shutil.rmtree(folder, ignore_errors=True)

    def _raise(self, error: Exception) -> NoReturn:
        """Raise what went wrong with writing, or with another process."""
        if hosts.means_lost(error):
            raise error
        text = f"a checkpoint could not be written: {restore.first_line(error)}"
        raise CheckpointError(f"{self.path}: {text}") from error

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """The state at a step (the last if None), laid out like `like`.

        like: a state, or its shapes with shardings; another architecture or optimizer
            is an error that lists every array that differs.
        """
        return TrainState(**self._read(_items(like), step, exact=True))

    def restore_whole(self, like: TrainState) -> TrainState | None:
        """The state of the last checkpoint that is whole, laid out like `like`.

        None where there is no checkpoint. Damaged ones are moved out of the way, to
        `damaged` in the run folder, with a warning each.

        Raises DamagedError where there are checkpoints and none is whole.
        """
        steps, state, found = self.steps(), None, 0
        damage: dict[int, DamagedError] = {}
        for step in reversed(steps):
            try:
                self._check_accuracy(step)
                if state is None:
                    state, found = self.restore(like, step), step
            except DamagedError as error:
                damage[step] = error
        if damage and state is None:
            text = f"{damage[steps[-1]]}. No other is whole; move {self.path} away "
            raise DamagedError(f"{text}to begin again")
        for step, error in damage.items():
            self._set_aside(step, error, found)
        return state

    def has_log(self, step: int) -> bool:
        """False where the metrics up to a step differ from those when it was saved."""
        record = restore.read_record(self._at(step))
        log = record.get("log") if record else None
        return log in (None, runlog.hash_metrics(self._folder, step))

    def _check_accuracy(self, step: int) -> None:
        """Raise `DamagedError` on every process where one cannot read the accuracy."""
        problem = None
        try:
            restore.read_accuracy(self._at(step))
        except DamagedError as error:
            problem = error
        if hosts.any_of(problem is not None):
            text = f"{self._at(step)}: another process cannot read it"
            raise problem or DamagedError(text)

    def _set_aside(self, step: int, error: DamagedError, found: int) -> None:
        """Move a damaged checkpoint away, and warn of what is lost.

        found: the step from which the run goes on.
        """
        folder = self.path.parent / DAMAGED
        if hosts.is_first():
            try:
                free = (folder / f"{step}-{i}" for i in itertools.count())
                bucket.move(self._at(step), next(x for x in free if not x.exists()))
            except OSError as problem:
                text = f"{error}; it cannot be moved to {folder}: {problem.strerror}"
                raise DamagedError(text) from problem
            last = step if error.step is None else error.step
            text = f"{error}. It was moved to {folder}"
            if last > found:
                text += f"; steps {found + 1} to {last} are trained again"
            warnings.warn(text, stacklevel=4)
        hosts.wait_for_all(f"moved checkpoint {step}")

    def restore_network(self, like: PyTree, network: str, step: int | None = None):
        """The variables of one network alone, laid out like `like`: their moving
        average where the checkpoint has one."""
        tree = restore.read_shapes(self._at(self._require_step(step)))
        if network in tree.get("averages", {}):
            expected = {"averages": {network: {"average": like}}}
            restored = self._read(expected, step, exact=False)
            return restored["averages"][network]["average"]
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
        step = self._require_step(None)
        tree = restore.read_shapes(self._at(step))
        if network in tree.get("averages", {}):
            saved = tree["averages"][network]["average"]
        elif network in tree["params"]:
            state = tree.get("model_state", {}).get(network, {})
            saved = {"params": tree["params"][network], **state}
        else:
            return None
        like = jax.tree.map(_abstract_host, saved)
        return jax.device_get(self.restore_network(like, network, step))

    def _read(
        self, expected: Mapping[str, Any], step: int | None, exact: bool
    ) -> dict[str, Any]:
        folder = self._at(self._require_step(step))
        return restore.read_arrays(folder, expected, exact=exact)

    def _require_step(self, step: int | None) -> int:
        step = self.last_step() if step is None else step
        if step is None:
            raise CheckpointError(f"{self.path}: expected a checkpoint, found none")
        return step

    def _at(self, step: int) -> pathlib.Path:
        return self.path / str(step)

    def close(self) -> None:
        """Finish pending work and free the manager's threads."""
        if self._opened is not None:
            self._opened.close()
            self._delete()


def _items(state: TrainState) -> dict[str, PyTree]:
    """The state by name, without the averages that it has not: checkpoints of earlier
    releases have none."""
    items = state._asdict()
    if not items["averages"]:
        del items["averages"]
    return items


def _abstract_host(x: Any) -> jax.ShapeDtypeStruct:
    """Of an array that is read to the first device, whatever devices saved it."""
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one)
