"""The launch files: their options exist, and their loops start a run again."""

import importlib.util
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from kdjax.cli.options import parse_job

FILES = pathlib.Path(__file__).parents[2] / "experiments" / "launch"
SCRIPTS = sorted(FILES.glob("*.sh"))
# What stands for the user's own words in the files.
WORDS = re.compile(r'"\$@"|\$\(printf .*?"\$@"\)|\$OPTIONS')


def text(name):
    return (FILES / name).read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda x: x.name)
def test_scripts_are_programs_of_bash(script):
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_every_file_is_in_the_table():
    table = re.findall(r"^\| \[`(.+?)`\]", text("README.md"), re.MULTILINE)
    files = {x.name for x in FILES.iterdir() if x.name != "README.md"}
    assert sorted(table) == sorted(files)


@pytest.mark.parametrize("name", [*(x.name for x in SCRIPTS), "sky.yaml"])
def test_options_of_kdjax_exist(name):
    """As the command reads them, with the words of the example in the file's head."""
    # Lines that go on are one, and comments are none.
    whole = re.sub(r"\\\n|^ *#.*$", " ", text(name), flags=re.MULTILINE)
    plain = WORDS.sub(" ", whole)
    commands = re.findall(r"kdjax distill (.*?)(?:\"|;|&|$)", plain, re.MULTILINE)
    example = re.search(r"(?:\.sh|OPTIONS=')\s*(\w+ --workdir [\w/]+)", text(name))
    assert commands and example, name
    for words in commands:
        run = parse_job("distill", [*example[1].split(), *words.split()])
        several = name not in ("gpu_box.sh", "slurm_node.sh")
        assert run.compute.several_processes == several


def options(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


@pytest.mark.skipif(not shutil.which("sbatch"), reason="needs SLURM's sbatch")
@pytest.mark.parametrize("name", ["slurm_node.sh", "slurm_nodes.sh"])
def test_options_of_slurm_exist(tmp_path, name):
    config = tmp_path / "slurm.conf"
    config.write_text("ClusterName=x\nSlurmctldHost=localhost\n")
    help_ = subprocess.run(
        ["sbatch", "--help"],
        env={**os.environ, "SLURM_CONF": str(config)},
        capture_output=True,
        text=True,
    ).stdout
    used = options("\n".join(x for x in text(name).splitlines() if "#SBATCH" in x))
    assert len(used) > 5 and used <= options(help_) | {"--open-mode"}, used


@pytest.mark.skipif(not shutil.which("xpk"), reason="needs xpk")
def test_options_of_xpk_exist():
    help_ = subprocess.run(
        ["xpk", "workload", "create", "--help"], capture_output=True, text=True
    ).stdout
    command = text("gke_xpk.sh").partition("xpk workload create")[2]
    used = options(command.partition("--command")[0]) | {"--command"}
    assert len(used) > 8 and used <= options(help_), used - options(help_)


@pytest.mark.skipif(not importlib.util.find_spec("sky"), reason="needs SkyPilot")
def test_fields_of_skypilot_exist():
    import yaml
    from jsonschema import validate
    from sky.utils import schemas

    task = yaml.safe_load(text("sky.yaml"))
    validate(task, schemas.get_task_schema())
    validate(task["resources"], schemas.get_resources_schema())


def run_with(tmp_path, script, codes):
    """A script with programs that note their words, and end with `codes` in turn."""
    program = tmp_path / "kdjax"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, sys\n"
        f"log = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "lines = log.read_text().splitlines() if log.exists() else []\n"
        "name = os.path.basename(sys.argv[0])\n"
        "log.write_text('\\n'.join([*lines, ' '.join([name, *sys.argv[1:]])]))\n"
        f"codes = {codes!r}\n"
        "sys.exit(0 if name in ('scontrol', 'sleep') else codes[min(len([x for x in "
        "lines if x.startswith(('kdjax', 'srun'))]), len(codes) - 1)])\n"
    )
    program.chmod(0o755)
    for name in ("srun", "scontrol", "sleep"):
        shutil.copy(program, tmp_path / name)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [FILES / script, "digits", "--workdir", "runs/a b"],
        env={**environment, "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, (tmp_path / "log").read_text().splitlines()


@pytest.mark.parametrize(
    ("codes", "starts"), [([0], 1), ([2], 1), ([1], 1), ([75, 137, 0], 3), ([143], 1)]
)
def test_one_machine_starts_again_where_that_can_help(tmp_path, codes, starts):
    code, log = run_with(tmp_path, "gpu_box.sh", codes)
    begun = [line for line in log if line.startswith("kdjax")]
    assert code == codes[-1] and len(begun) == starts
    assert set(begun) == {"kdjax distill digits --workdir runs/a b"}


@pytest.mark.parametrize("script", ["slurm_node.sh", "slurm_nodes.sh"])
@pytest.mark.parametrize("code", [0, 2, 75, 134, 137, 139, 143])
def test_slurm_queues_again_where_that_can_help(tmp_path, script, code):
    done, log = run_with(tmp_path, script, [code])
    again = "scontrol requeue 7" in log
    assert again == (code > 2) and (again or done == code)


@pytest.mark.parametrize("script", ["slurm_node.sh", "slurm_nodes.sh", "gpu_box.sh"])
def test_a_signal_is_passed_on_and_waited_for(tmp_path, script):
    """The run has its time to save; its status decides."""
    for name in ("kdjax", "srun"):
        program = tmp_path / name
        program.write_text(
            "#!/usr/bin/env bash\n"
            f"echo $$ > {tmp_path}/pid\n"
            f"trap 'sleep 1; echo saved >> {tmp_path}/log; exit 143' TERM\n"
            "while true; do sleep 0.1; done\n"
        )
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/log\n")
    # SLURM's own command, which signals the step.
    cancel = f"#!/bin/sh\nkill -TERM $(cat {tmp_path}/pid)\n"
    (tmp_path / "scancel").write_text(cancel)
    for name in ("kdjax", "srun", "scontrol", "scancel"):
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    running = subprocess.Popen(
        [FILES / script, "digits"], env={**environment, "SLURM_JOB_ID": "7"}
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    code = running.wait(timeout=30)
    log = (tmp_path / "log").read_text().splitlines()
    if script == "gpu_box.sh":
        # Somebody stopped it.
        assert (log, code) == (["saved"], 143)
    else:
        assert log == ["saved", "requeue 7"]


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_a_slice_that_will_not_come_is_not_waited_for(tmp_path, state):
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(f"#!/bin/sh\necho {state}\n")
    gcloud.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [FILES / "tpu_queued.sh", "digits"],
        env={**os.environ, **path, "NAME": "kd", "ZONE": "z", "TYPE": "v5litepod-8"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stdout == f"kd is {state}: delete it, and start again\n"
