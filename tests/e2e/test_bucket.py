"""Run folders in a bucket, over real processes with caches of their own."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from kdjax.core import runlog
from tests.data.tiny_set import prepare_tiny
from tests.e2e import in_bucket, several
from tests.e2e.saved import saved

pytest.importorskip("gcsfs", reason="needs the extra test-gs")
pytest.importorskip("gcp_storage_emulator", reason="needs the extra test-gs")

# Real processes: the full tier.
pytestmark = pytest.mark.full

URL = f"gs://{in_bucket.NAME}/runs/one"
SHORT = (
    *("--seeds", "1", "--log-every", "10", "--evaluate-every", "40"),
    *("--checkpoint-every", "20", "--optim.warmup", "5"),
)
TRAIN = [sys.executable, "-m", "kdjax", "train", "--workdir", URL, *SHORT]


@pytest.fixture
def bucket():
    with in_bucket.serve() as variables:
        yield variables


@pytest.fixture
def files(bucket, monkeypatch):
    """The bucket as a file system."""
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    # The class without calls of the control service, as in the other processes.
    from gcsfs.core import GCSFileSystem

    return GCSFileSystem(
        token="anon", endpoint_url=bucket["STORAGE_EMULATOR_HOST"], use_listings_cache=0
    )


@pytest.fixture
def kdjax(bucket, tmp_path):
    def run(*words, machine="one", status=0):
        """The output of a command on a machine."""
        command = [sys.executable, "-m", "kdjax", *words]
        environment = in_bucket.environment_of(bucket, tmp_path / machine)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def copy_at(tmp_path, machine):
    place = URL.removeprefix("gs://")
    return tmp_path / machine / "kdjax" / "buckets" / place


def fetch(files, folder):
    """All files of the run in the bucket, in a folder."""
    files.get(f"{URL}/", f"{folder}/", recursive=True)
    return folder


def values(folder):
    """The lines of the log without times, and the arrays of the last checkpoint."""
    timed = "seconds", "images_per_second"
    lines = [
        {k: v for k, v in line.items() if k not in timed}
        for line in runlog.read_metrics(folder)
    ]
    return lines, saved(folder)


def test_a_killed_run_goes_on_on_another_machine(bucket, files, kdjax, tmp_path):
    """It ends as a run in a folder that nothing disturbed, to the last bit."""
    command = [*TRAIN, "--steps", "200"]
    environment = in_bucket.environment_of(bucket, tmp_path / "one")
    killed = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        second = f"{URL}/checkpoints/40/commit_success.txt"
        several.wait_for(lambda: files.exists(second), [killed])
    finally:
        killed.kill()
        killed.wait()
    text = kdjax(*command[3:], machine="two")
    assert "continuing at step" in text and "200/200" in text
    alone = ["train", "--workdir", str(tmp_path / "alone"), *SHORT, "--steps", "200"]
    kdjax(*alone)
    lines, arrays = values(fetch(files, tmp_path / "fetched"))
    expected_lines, expected = values(tmp_path / "alone")
    assert lines == expected_lines and len(lines) > 20
    assert arrays.keys() == expected.keys() and len(arrays) > 20
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value)
    config = json.loads(files.cat(f"{URL}/config.json"))
    assert config["workdir"] == URL
    # A third machine reads what is there, and every word names the bucket.
    text = kdjax("evaluate", URL, machine="three")
    summary = json.loads(files.cat(f"{URL}/summary.json"))
    assert f"{summary['test']['accuracy'][0]:.6f}" in text
    kdjax("export", URL, "--format", "safetensors", machine="three")
    assert files.exists(f"{URL}/export/weights.safetensors")
    text = kdjax("report", URL, "--out", str(tmp_path / "report"), machine="three")
    assert "train" in text
    text = kdjax(*command[3:], machine="three")
    assert f"finished in {URL}" in text and str(tmp_path) not in text


def test_a_damaged_checkpoint_is_set_aside(files, kdjax):
    kdjax(*TRAIN[3:], "--steps", "60")
    arrays = [x for x in files.find(f"{URL}/checkpoints/60/default") if "/c/" in x]
    whole = files.cat(arrays[0])
    files.pipe(arrays[0], whole[:-1] + bytes([whole[-1] ^ 1]))
    # One that was never finished is no checkpoint.
    files.pipe(f"{URL}/checkpoints/70/default/_METADATA", b"{}")
    files.rm(f"{URL}/summary.json")
    text = kdjax(*TRAIN[3:], "--steps", "60", machine="two")
    assert f"{URL}/checkpoints/60: expected a whole checkpoint" in text
    assert "steps 41 to 60 are trained again" in text
    assert files.exists(f"{URL}/damaged/60-0/default")
    assert files.exists(f"{URL}/summary.json")


def test_the_last_to_begin_has_the_bucket(bucket, files, kdjax, tmp_path):
    """A machine that was thought lost ends, and disturbs nothing."""
    command = [*TRAIN, "--steps", "100000"]
    environment = in_bucket.environment_of(bucket, tmp_path / "one")
    first = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    second = None
    try:
        once = f"{URL}/checkpoints/20/commit_success.txt"
        several.wait_for(lambda: files.exists(once), [first])
        second = subprocess.Popen(
            command,
            env=in_bucket.environment_of(bucket, tmp_path / "two"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        output, _ = first.communicate(timeout=300)
        assert first.returncode == 2
        line = f"kdjax: workdir: {URL}: another process trains in it now"
        assert output.splitlines()[-1] == line
        assert second.poll() is None
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()


def test_two_machines_form_one_run(bucket, files, tmp_path, monkeypatch):
    """Two processes whose copies are apart, stopped by SIGTERM and gone on."""
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    options = ["--compute.several-processes", "True", "--compute.lost-after", "30"]
    command = [*TRAIN, *options, "--steps", "400"]
    caches = [{"XDG_CACHE_HOME": str(tmp_path / name)} for name in ("one", "two")]
    running = several.begin(command, processes=2, devices=1, variables=caches)
    try:
        once = f"{URL}/checkpoints/20/commit_success.txt"
        several.wait_for(lambda: files.exists(once), running)
        os.kill(running[1].pid, signal.SIGTERM)
        outputs = [p.communicate(timeout=300)[0] for p in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [p.returncode for p in running] == [143, 143], outputs
    caches = [{"XDG_CACHE_HOME": str(tmp_path / name)} for name in ("three", "four")]
    codes, outputs = several.together(command, processes=2, devices=1, variables=caches)
    assert codes == [0, 0], outputs
    assert "continuing at step" in outputs[0] and "400/400" in outputs[0]
    assert files.exists(f"{URL}/summary.json")
    # The other process has the files of the run, too.
    assert (copy_at(tmp_path, "four") / "summary.json").is_file()


READ = """
import sys
import numpy as np
from kdjax.data import datasets, source
train = datasets.load_splits("tfds:tiny", data_dir=sys.argv[1])["train"]
for place in range(len(train)):
    print(train.labels[place], np.sum(train.read(place), dtype=np.int64))
print(source.fingerprint(train))
"""


def test_a_prepared_set_is_read_from_a_bucket(bucket, files, tmp_path):
    """By gcsfs and array_record; a changed shard has another fingerprint."""
    where = prepare_tiny(tmp_path)
    files.put(f"{where}/", f"{in_bucket.NAME}/sets/", recursive=True)
    environment = in_bucket.environment_of(bucket, tmp_path / "cache")

    def read(place):
        command = [sys.executable, "-c", READ, place]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[-9:-1]

    url = f"gs://{in_bucket.NAME}/sets"
    *images, mark = read(url)
    assert images == read(str(where))[:-1] and len(images) == 7
    assert read(url)[-1] == mark
    (shard,) = files.glob(f"{in_bucket.NAME}/sets/tiny/*/*array_record*")
    whole = bytearray(files.cat(shard))
    whole[-1] ^= 1
    files.pipe(shard, bytes(whole))
    assert read(url)[-1] != mark
