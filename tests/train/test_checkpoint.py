"""Checkpoints: exact, atomic, last and best kept, clear when they cannot be read."""

import errno
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.errors import JaxRuntimeError

from kdjax.train import restore, state
from kdjax.train.checkpoint import CheckpointError, Checkpoints


def make_state(step=0, width=3, value=0.0, optimizer=None):
    variables = {
        "student": {
            "params": {"kernel": jnp.full((2, width), value), "bias": jnp.ones(width)},
            "batch_stats": {"mean": jnp.arange(3.0)},
        },
        "hint connector": {"params": {"kernel": jnp.ones((2, 2))}},
    }
    if optimizer is None:
        optimizer = optax.adam(0.1, mu_dtype=jnp.bfloat16)
    made = state.create_state(variables, optimizer)
    return made._replace(step=made.step + step)


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path)
    yield made
    made.close()


def save(checkpoints, step, accuracy=None, **options):
    checkpoints.save(make_state(step, **options), step, accuracy)
    checkpoints.wait()


def steps(checkpoints):
    return sorted(int(p.name) for p in checkpoints.path.iterdir() if p.name.isdigit())


def test_everything_comes_back_bit_for_bit(checkpoints):
    saved = make_state(3, value=0.1)
    checkpoints.save(saved, 3)
    checkpoints.wait()
    back = checkpoints.restore(make_state())
    assert jax.tree.structure(back) == jax.tree.structure(saved)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(saved), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_one_network_alone(checkpoints):
    save(checkpoints, 3, value=0.7)
    like = state.network_variables(make_state(), "student")
    back = checkpoints.restore_network(like, "student")
    np.testing.assert_array_equal(back["params"]["kernel"], np.full((2, 3), 0.7, "f"))
    np.testing.assert_array_equal(back["batch_stats"]["mean"], np.arange(3.0))


def test_orbax_is_silent_and_others_are_not(checkpoints, caplog, monkeypatch):
    # The command line, in an earlier test of this process, silences all of absl.
    caplog.set_level(logging.WARNING, "absl")
    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    save(checkpoints, 3)
    checkpoints.restore(make_state())
    assert [x for x in caplog.records if x.levelno >= logging.WARNING] == []
    logging.getLogger("absl").warning("a warning of another library")
    assert "a warning of another library" in caplog.text


def test_the_last_and_the_best_are_kept(checkpoints):
    for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.7), (4, None), (5, 0.6)):
        save(checkpoints, step, accuracy, value=float(step))
    assert steps(checkpoints) == [2, 4, 5]
    assert checkpoints.last_step() == 5 and checkpoints.best_step() == 2
    best = checkpoints.restore(make_state(), 2)
    assert float(best.params["student"]["kernel"][0, 0]) == 2.0


def test_an_unmeasured_checkpoint_is_never_the_best(checkpoints):
    for step, accuracy in ((1, 0.5), (2, None)):
        save(checkpoints, step, accuracy)
    assert checkpoints.best_step() == 1 and checkpoints.last_step() == 2


def test_another_architecture_is_refused_with_every_leaf(checkpoints):
    save(checkpoints, 1, width=3)
    with pytest.raises(CheckpointError) as error:
        checkpoints.restore(make_state(width=4))
    text = str(error.value)
    assert "another architecture" in text
    assert "params/student/kernel: expected (2, 4), got (2, 3)" in text
    assert "params/student/bias: expected (4,), got (3,)" in text


@pytest.mark.parametrize("rate", [0.1, optax.linear_schedule(0.1, 0.0, 9)])
def test_an_optimizer_with_more_or_fewer_arrays_is_refused(checkpoints, rate):
    rates = {False: 0.1, True: optax.linear_schedule(0.1, 0.0, 9)}
    other = rates[not callable(rate)]
    save(checkpoints, 1, optimizer=optax.adam(rate))
    with pytest.raises(CheckpointError, match="another version of kdjax") as error:
        checkpoints.restore(make_state(optimizer=optax.adam(other)))
    found = ("(), got nothing", "nothing, got ()")[callable(rate)]
    assert f"opt_state/1/count: expected {found}" in str(error.value)


def flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", [flip, lambda x: x[: len(x) // 2], lambda x: b""])
def test_a_damaged_array_is_refused(checkpoints, damage):
    save(checkpoints, 1)
    array = checkpoints.path / "1" / "default" / "params.student.kernel"
    # Of several arrays, Orbax leaves the reads of the others behind when one fails.
    kernel = {"params": {"kernel": make_state().params["student"]["kernel"]}}
    files = [p for p in array.rglob("*") if p.is_file()]
    assert len(files) == 2
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(damage(whole))
        with pytest.raises(CheckpointError, match="a whole checkpoint") as error:
            checkpoints.restore_network(kernel, "student")
        assert "\n" not in str(error.value) and "TensorStore(" not in str(error.value)
        file.write_bytes(whole)
    checkpoints.restore(make_state())


@pytest.mark.parametrize("name", ["run[1]", "a*b?", "{a,b}", "50%20 #1 !"])
def test_a_folder_is_no_pattern(tmp_path, name):
    first = Checkpoints(tmp_path / name)
    first.save(make_state(3, value=0.7), 3)
    first.close()
    again = Checkpoints(tmp_path / name)
    back = again.restore(make_state())
    again.close()
    np.testing.assert_array_equal(back.params["student"]["kernel"], np.float32(0.7))


def test_the_first_checkpoint_is_read_back(tmp_path, monkeypatch):
    """Orbax's OCDBT writes into such a folder what it cannot read."""
    monkeypatch.setattr(restore, "make_handler", ocp.PyTreeCheckpointHandler)
    made = Checkpoints(tmp_path / "run[1]")
    with pytest.raises(CheckpointError, match=r"run\[1\].*/3: expected a whole"):
        made.save(make_state(3), 3)
    made.close()


def test_a_checkpoint_of_an_earlier_release_is_read(tmp_path):
    made = ocp.CheckpointManager(
        (tmp_path / "checkpoints").absolute(),
        options=ocp.CheckpointManagerOptions(best_fn=lambda x: x["accuracy"]),
        item_handlers=ocp.PyTreeCheckpointHandler(),
    )
    items = make_state(3, value=0.7)._asdict()
    del items["averages"]
    args = ocp.args.PyTreeSave(items)
    made.save(3, args=args, metrics={"accuracy": 0.5})
    made.close()
    assert (tmp_path / "checkpoints/3/default/manifest.ocdbt").is_file()
    later = Checkpoints(tmp_path)
    with pytest.warns(UserWarning, match="checkpoints/3: it has no digests"):
        back = later.restore(make_state())
    np.testing.assert_array_equal(back.params["student"]["kernel"], np.float32(0.7))
    later.save(back._replace(step=back.step + 1), 4, 0.6)
    later.wait()
    assert later.best_step() == 4
    later.close()


def test_a_checkpoint_without_its_files_is_refused(checkpoints):
    save(checkpoints, 1)
    shutil.rmtree(checkpoints.path / "1" / "default")
    with pytest.raises(CheckpointError, match="expected a whole checkpoint"):
        checkpoints.restore(make_state())


def test_no_checkpoint_is_said(checkpoints):
    assert checkpoints.last_step() is None
    with pytest.raises(CheckpointError, match="expected a checkpoint, found none"):
        checkpoints.restore(make_state())


def test_a_full_disk_is_said_and_leaves_the_earlier_checkpoint(
    checkpoints, monkeypatch
):
    save(checkpoints, 1, value=1.0)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager._checkpointer, "save", full)
        with pytest.raises(
            CheckpointError, match="could not be written.*no space is left"
        ):
            save(checkpoints, 2, value=2.0)
    assert steps(checkpoints) == [1]
    back = checkpoints.restore(make_state())
    assert float(back.params["student"]["kernel"][0, 0]) == 1.0


def test_restoring_onto_another_layout(tmp_path):
    """Saved from one device, restored over eight, and back."""
    from kdjax.config import Compute
    from kdjax.train import sharding

    def make():
        kernel = jnp.arange(64.0 * 32).reshape(1, 64, 32)
        made = state.create_state({"s": {"params": {"kernel": kernel}}}, optax.sgd(0.1))
        return made._replace(step=made.step + 1)

    first = Checkpoints(tmp_path)
    first.save(make(), 1)
    first.wait()
    first.close()
    mesh = sharding.make_mesh(Compute(data=4, fsdp=2), 8)
    again = Checkpoints(tmp_path)
    back = again.restore(sharding.abstract_sharded(make, mesh))
    again.close()
    kernel = back.params["s"]["kernel"]
    np.testing.assert_array_equal(kernel, np.arange(64.0 * 32).reshape(1, 64, 32))
    assert kernel.addressable_shards[0].data.size == 64 * 32 // 2


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "checkpoints").write_text("x")
    with pytest.raises(CheckpointError, match="expected a folder, got a file"):
        Checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (JaxRuntimeError("UNKNOWN: Gloo AllGather failed: Connection closed"), "Gloo"),
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed"), "Gloo"),
        (JaxRuntimeError("INTERNAL: out of luck"), "could not be written: INTERNAL"),
        (OSError("no luck"), "could not be written: no luck"),
    ],
)
def test_a_lost_process_is_no_fault_of_the_disk(tmp_path, monkeypatch, error, expected):
    """The error of JAX goes on: what ends this process names the other."""

    def fail(*_, **__):
        raise error

    made = Checkpoints(tmp_path)
    monkeypatch.setattr(type(made._manager), "wait_until_finished", fail)
    kind = type(error) if expected == "Gloo" else CheckpointError
    with pytest.raises(kind, match=expected):
        made.wait()
