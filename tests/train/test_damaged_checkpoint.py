"""A damaged checkpoint is named, and the run goes on from the one before it."""

import json
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.train import restore, state
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.restore import CheckpointError, DamagedError

DAMAGES = {
    "emptied": lambda x: b"",
    "cut": lambda x: x[: len(x) // 2],
    "first byte": lambda x: bytes([x[0] ^ 1]) + x[1:],
    "last byte": lambda x: x[:-1] + bytes([x[-1] ^ 16]),
    "middle": lambda x: x[: len(x) // 2] + b"7" + x[len(x) // 2 + 1 :],
    "missing": None,
}


def make_state(step):
    variables = {"params": {"w": jnp.arange(6.0).reshape(2, 3) + step}}
    made = state.create_state({"student": variables}, optax.sgd(0.1, momentum=0.9))
    return made._replace(step=made.step + step)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    written = Checkpoints(folder)
    written.save(make_state(2), 2, 0.5)
    written.save(make_state(4), 4, 0.25)
    written.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def restore_whole(folder):
    """The restored step, and the warnings; its arrays are those that were saved."""
    opened = Checkpoints(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        back = opened.restore_whole(make_state(0))
    opened.close()
    step = int(back.step)
    jax.tree.map(np.testing.assert_array_equal, back, make_state(step))
    return step, [str(x.message) for x in caught if x.category is UserWarning]


def files(folder):
    return sorted(x for x in (folder / "checkpoints/4").rglob("*") if x.is_file())


def test_every_file_of_the_last_checkpoint_damaged(saved, tmp_path):
    """The run goes on from whole arrays, and a step back never comes without a word."""
    named = set()
    for number, file in enumerate(files(saved)):
        for kind, damage in DAMAGES.items():
            copy = shutil.copytree(saved, tmp_path / f"{number}-{kind}")
            path = copy / file.relative_to(saved)
            if damage is None:
                path.unlink()
            else:
                path.write_bytes(damage(path.read_bytes()))
            step, lines = restore_whole(copy)
            assert len(lines) == (step == 2), (file, kind, lines)
            for line in lines:
                named.add(file.parts[-2:])
                assert "checkpoints/4: expected a whole checkpoint" in line
                assert "steps 3 to 4 are trained again" in line and "\n" not in line
                assert [x.name for x in (copy / "damaged").iterdir()] == ["4-0"]
                assert Checkpoints(copy).steps() == [2]
    assert {("record", "metadata"), ("metrics", "metrics")} <= named
    assert ("default", "_METADATA") in named
    assert ("params.student.w", "zarr.json") in named


def test_a_name_that_was_used_before(folder):
    """One of several damaged checkpoints was removed: no name is used twice."""
    (folder / "damaged" / "4-1").mkdir(parents=True)
    (folder / "damaged" / "4-1" / "a").write_text("")
    (folder / "checkpoints/4/record/metadata").write_text("{")
    step, lines = restore_whole(folder)
    assert step == 2 and len(lines) == 1
    assert sorted(x.name for x in (folder / "damaged").iterdir()) == ["4-0", "4-1"]


def test_a_deletion_that_was_killed(folder):
    """What is left of a deleted checkpoint is no damaged one, and is removed."""
    left = folder / "checkpoints" / "deleted" / "1"
    shutil.copytree(folder / "checkpoints/2", left)
    (left / "record/metadata").unlink()
    assert restore_whole(folder) == (4, [])
    written = Checkpoints(folder)
    written.save(make_state(6), 6, 0.1)
    written.wait()
    assert not left.parent.exists() and written.steps() == [2, 4, 6]
    written.save(make_state(8), 8, 0.1)
    written.close()
    # The best and the last two.
    assert Checkpoints(folder).steps() == [2, 6, 8]
    assert not list((folder / "checkpoints").glob("deleted/*/record"))


def test_where_a_damaged_one_cannot_be_moved(folder):
    (folder / "damaged").write_text("")
    (folder / "checkpoints/4/record/metadata").write_text("{")
    with pytest.raises(DamagedError, match="cannot be moved to .*damaged: File exists"):
        restore_whole(folder)


@pytest.mark.parametrize("name", ["٦", "06", "6.old"])
def test_folders_that_are_no_checkpoints(folder, name):
    """Digits of another script, a leading zero, and a name of the user's own."""
    shutil.copytree(folder / "checkpoints/4", folder / "checkpoints" / name)
    assert restore_whole(folder) == (4, [])


def test_a_checkpoint_under_another_number(folder):
    shutil.copytree(folder / "checkpoints/4", folder / "checkpoints/900")
    step, (line,) = restore_whole(folder)
    assert step == 4 and "checkpoints/900" in line and "that of step 4" in line
    assert "again" not in line


def test_a_copy_of_the_last_one_that_is_damaged_too(folder):
    """What is trained again ends at the step that was reached."""
    shutil.move(folder / "checkpoints/4", folder / "checkpoints/900")
    step, (line,) = restore_whole(folder)
    assert step == 2 and "steps 3 to 4 are trained again" in line


def test_neither_a_record_nor_the_list_of_what_was_saved(folder):
    shutil.rmtree(folder / "checkpoints/4/record")
    (folder / "checkpoints/4/_CHECKPOINT_METADATA").unlink()
    step, (line,) = restore_whole(folder)
    assert step == 2 and "4/_CHECKPOINT_METADATA" in line


def test_a_checkpoint_of_an_earlier_release(folder):
    """It has no record, and is read with a warning."""
    shutil.rmtree(folder / "checkpoints/4/record")
    file = folder / "checkpoints/4/_CHECKPOINT_METADATA"
    saved = json.loads(file.read_text())
    del saved["item_handlers"]["record"]
    file.write_text(json.dumps(saved))
    step, (line,) = restore_whole(folder)
    assert step == 4 and "checkpoints/4: it has no digests" in line


def test_an_array_of_another_checkpoint(folder):
    """Whole files with other values: what no checksum of a file can notice."""
    name = "default/params.student.w"
    shutil.rmtree(folder / "checkpoints/4" / name)
    shutil.copytree(folder / "checkpoints/2" / name, folder / "checkpoints/4" / name)
    step, (line,) = restore_whole(folder)
    assert step == 2
    assert "params/student/w has other values than were saved" in line


def test_a_changed_accuracy_is_no_best_checkpoint(folder):
    file = folder / "checkpoints/2/metrics/metrics"
    file.write_text(json.dumps({"accuracy": 0.125}))
    with pytest.raises(DamagedError, match="checkpoints/2.*metrics has changed"):
        Checkpoints(folder).best_step()
    # The last one is whole, so that the run goes on from there.
    step, (line,) = restore_whole(folder)
    assert step == 4 and "checkpoints/2" in line and "again" not in line
    assert Checkpoints(folder).best_step() == 4


def test_without_a_whole_one_nothing_is_moved(folder):
    for step in (2, 4):
        (folder / f"checkpoints/{step}/record/metadata").write_text("{")
    for _ in range(2):
        with pytest.raises(DamagedError, match="No other is whole; move .* away"):
            restore_whole(folder)
    assert Checkpoints(folder).steps() == [2, 4] and not (folder / "damaged").exists()


def test_another_architecture_is_no_damage(folder):
    other = make_state(0)
    wide = {"student": {"w": jnp.zeros((3, 3))}}
    with pytest.raises(CheckpointError, match="another architecture") as error:
        Checkpoints(folder).restore_whole(other._replace(params=wide))
    assert not isinstance(error.value, DamagedError)
    assert Checkpoints(folder).steps() == [2, 4]


def test_the_record_has_every_array(folder):
    record = restore.read_record(folder / "checkpoints/4")
    assert record is not None and record["step"] == 4 and record["accuracy"] == 0.25
    shapes = {name: x["shape"] for name, x in record["arrays"].items()}
    assert shapes["params/student/w"] == [2, 3] and shapes["step"] == []
    assert len(shapes) == len(jax.tree.leaves(make_state(0)))


def test_an_array_that_the_metadata_leave_out(folder):
    """One bit of `false` is enough; found by a random flip."""
    file = folder / "checkpoints/4/default/_METADATA"
    text = file.read_text()
    old = '"skip_deserialize": false'
    assert old in text
    file.write_text(text.replace(old, '"skip_deserialize": 1'))
    step, (line,) = restore_whole(folder)
    assert step == 2 and "checkpoints/4: expected a whole checkpoint" in line
