"""Mutation check: 30 small wrong changes, and the tests that ought to fail on each.

    python tests/mutate.py [--only TEXT] [--jobs 2] [--list]

Each change is made alone, in a temporary copy of the checkout; the checkout itself is
never touched. The tests must pass without any change first.

Exit status 1: fewer than 28 of the 31 changes (or not all of a selection) made a test
fail. Exit status 2: a change whose old text is not in the package exactly once, tests
that are not found, or tests that fail unchanged.
"""

import argparse
import os
import pathlib
import queue
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAY_SURVIVE = 2
PASSED, FAILED = 0, 1


class Mutant(NamedTuple):
    """A wrong change: `old` to `new` in the one file under kdjax/ that has `old`.

    paths: what pytest collects. names: its `-k`, the tests that ought to fail.
    """

    what: str
    old: str
    new: str
    paths: str
    names: str


class Error(Exception):
    """The check itself cannot be made."""


MUTANTS = [
    # Changes that passed the tests before they were written for them.
    Mutant(
        "the tail rule never reaches the loss",
        "tail=run.cache.tail",
        'tail="uniform"',
        "tests/e2e/test_cached.py",
        "tail_rule_of_the_config",
    ),
    Mutant(
        "probabilities of several teachers averaged at temperature 1",
        "at=run.mean_at or 1.0",
        "at=1.0",
        "tests/test_setup.py",
        "weights_and_temperatures_of_the_config",
    ),
    Mutant(
        "the live teacher runs in training mode",
        "model.apply(constants[name], images, train=False",
        "model.apply(constants[name], images, train=True",
        "tests/teachers",
        "predicts_as_in_evaluation",
    ),
    Mutant(
        "the moving average takes the parameters from before the step",
        "averaged, variables = {}, {}, join(params, model_state)",
        "averaged, variables = {}, {}, join(state.params, model_state)",
        "tests/train",
        "moving_average_is_of_the_variables_after",
    ),
    Mutant(
        "the gradients of the parts of a batch are added",
        "jax.tree.map(lambda x: x / parts, total)",
        "jax.tree.map(lambda x: x / 1, total)",
        "tests/train/test_compute.py",
        "parts_of_a_batch",
    ),
    Mutant(
        "every step has the key of step 0",
        'keys.step_key(inputs["seed"], "model", state.step)',
        'keys.step_key(inputs["seed"], "model", 0)',
        "tests/train",
        "key_of_a_step_is_its_own",
    ),
    Mutant(
        "a target cache records the number of images, not the images",
        '"content": fingerprint(train)}',
        '"content": str(len(train))}',
        "tests/cache/test_manifest.py",
        "other_images_change",
    ),
    Mutant(
        "validation images are no part of a run",
        "{split: fingerprint(source) for split, source in data.items()}",
        '{k: fingerprint(x) for k, x in data.items() if k != "validation"}',
        "tests/jobs",
        "images_of_every_split",
    ),
    Mutant(
        "a resumed run forgets the time spent before",
        "clock = _Clock(seconds)",
        "clock = _Clock(0.0)",
        "tests/train",
        "images_per_second",
    ),
    Mutant(
        "crops lie on the diagonal",
        "jnp.stack([u[2] * (1 - h), u[3] * (1 - w), h, w])",
        "jnp.stack([u[2] * (1 - h), u[2] * (1 - w), h, w])",
        "tests/augment",
        "uniform_aspect_area_and_position",
    ),
    Mutant(
        "jitter is drawn from the key of the crop",
        'color.draw_jitter(keys_for("jitter"), views.jitter)',
        'color.draw_jitter(keys_for("crop"), views.jitter)',
        "tests/augment",
        "no_two_draws",
    ),
    Mutant(
        "SGD clips the gradient after decay is added",
        'optax.chain(clip, _plus("wd"), momentum',
        'optax.chain(_plus("wd"), clip, momentum',
        "tests/train",
        "sgd_clips_the_gradient",
    ),
    Mutant(
        "the last tenth of a curve begins one line early",
        'if step > 0.9 * run.config["steps"]',
        'if step >= 0.9 * run.config["steps"]',
        "tests/experiments",
        "nine_tenths",
    ),
    # Further changes.
    Mutant(
        "losses: T in place of T squared",
        "log_teacher, jnp.square(jnp.asarray(temperature, student.dtype))",
        "log_teacher, jnp.asarray(temperature, student.dtype)",
        "tests/losses/test_kl.py",
        "softmax_kl_fixture",
    ),
    Mutant(
        "losses: RKD's mean distance counts the diagonal",
        "unit = total / jnp.maximum(count * (count - 1), 1)",
        "unit = total / jnp.maximum(count * count, 1)",
        "tests/losses/test_rkd.py",
        "test_fixture",
    ),
    Mutant(
        "losses: DIST correlates over the classes where it ought to over the batch",
        "_correlation_gap(student, teacher, eps, 0, where)",
        "_correlation_gap(student, teacher, eps, -1, where)",
        "tests/losses/test_dist_mlld.py",
        "test_dist_fixtures",
    ),
    Mutant(
        "losses: the hint is not halved",
        "masked_sum(jnp.square(gap), channels, where) / 2",
        "masked_sum(jnp.square(gap), channels, where)",
        "tests/losses/test_hint.py",
        "test_hand_worked",
    ),
    Mutant(
        "core: a masked mean divides by the number of all values",
        "selected = jnp.broadcast_to(where, values.shape)",
        "selected = jnp.ones(values.shape, bool)",
        "tests/core/test_reduce.py",
        "with_a_mask_they_are_numpy",
    ),
    Mutant(
        "strategies: the labels of mixup have each other's weight",
        "value = weight * value + (1.0 - weight) * second",
        "value = (1.0 - weight) * value + weight * second",
        "tests/strategies",
        "mixed_labels",
    ),
    Mutant(
        "strategies: schedules end one step late",
        "scalar.end, max(1, steps - 1)",
        "scalar.end, steps",
        "tests/strategies",
        "follow_their_schedules",
    ),
    Mutant(
        "teachers: the decay of the moving average and its complement swapped",
        "(share * new + (1.0 - share) * old)",
        "(keep * new + (1.0 - keep) * old)",
        "tests/teachers",
        "begins_as_a_mean",
    ),
    Mutant(
        "teachers: a gradient reaches the live teacher",
        "jax.lax.optimization_barrier(jax.lax.stop_gradient(output))",
        "jax.lax.optimization_barrier(output)",
        "tests/teachers",
        "no_gradient",
    ),
    Mutant(
        "train: the cosine counts from the start of the warm-up",
        "decay_steps = steps - optim.warmup",
        "decay_steps = steps",
        "tests/train",
        "cosine_with_warm_up",
    ),
    Mutant(
        "train: biases are decayed",
        'decay = optax.masked(_plus("wd"), kernel_mask)',
        'decay = _plus("wd")',
        "tests/train",
        "one_step_of_the_paper",
    ),
    Mutant(
        "train: padding counts in held-out metrics",
        "mask = np.arange(batch) < len(labels)",
        "mask = np.arange(batch) <= len(labels)",
        "tests/train",
        "ragged_split",
    ),
    Mutant(
        "jobs: a run continues at its best checkpoint, not at its last",
        "state = checkpoints.restore_whole(like)",
        "state = checkpoints.restore(like, checkpoints.best_step() or 0)",
        "tests/e2e/test_resume.py",
        "last_checkpoint",
    ),
    Mutant(
        "augment: flags of mirroring inverted",
        "jnp.where(crop.flip[:, None, None, None], mirrored, cut)",
        "jnp.where(crop.flip[:, None, None, None], cut, mirrored)",
        "tests/augment",
        "flip_mirrors",
    ),
    Mutant(
        "augment: the student has the teacher's resolution",
        "student = cut(draw.student, student_size)",
        "student = cut(draw.student, teacher_size)",
        "tests/augment",
        "one_box_and_one_flip",
    ),
    Mutant(
        "data: an epoch that begins within a batch has the order of the one before",
        "_permutation(n, seed, last)[slots])",
        "_permutation(n, seed, first)[slots])",
        "tests/data/test_order.py",
        "whatever_the_batch",
    ),
    Mutant(
        "metrics: top-k is top-(k + 1)",
        "jnp.sum(ahead, axis=-1) < k)",
        "jnp.sum(ahead, axis=-1) <= k)",
        "tests/test_metrics.py",
        "test_top_k_against_sorting",
    ),
    Mutant(
        "setup: the two baselines of labels have each other's views",
        'mode = "function_matching" if name == "labels_mixup" else "consistent"',
        'mode = "function_matching" if name == "labels" else "consistent"',
        "tests/test_setup.py",
        "baseline_with_mixup",
    ),
]


def locate(mutant: Mutant) -> pathlib.Path:
    """The file, from the root of the checkout, that has the old text exactly once."""
    counts = {
        file: file.read_text().count(mutant.old)
        for file in sorted((ROOT / "kdjax").rglob("*.py"))
    }
    there = [file for file, count in counts.items() if count]
    if sum(counts.values()) != 1:
        where = ", ".join(str(file.relative_to(ROOT)) for file in there) or "no file"
        text = f"{mutant.what}: expected the old text once, found it in {where}"
        raise Error(f"{text}:\n  {mutant.old}")
    return there[0].relative_to(ROOT)


def copy(folder: pathlib.Path) -> pathlib.Path:
    """What the tests need of the checkout, below a temporary folder."""
    for name in ("kdjax", "tests", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_tests(folder: pathlib.Path, paths: list[str], names: str) -> tuple[int, str]:
    """pytest's exit status and last lines, on the package of a copy."""
    command = [sys.executable, "-m", "pytest", *paths, "-x", "-q", "-k", names]
    command += ["-p", "no:cacheprovider", "--no-header"]
    cache = str((ROOT / ".cache" / "jax").resolve())
    given = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {"JAX_COMPILATION_CACHE_DIR": cache, **os.environ, **given}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, "\n".join((done.stdout + done.stderr).splitlines()[-15:])


def check_unchanged(folder: pathlib.Path, mutants: list[Mutant]) -> None:
    """Raise `Error` if a test fails, or is not found, without any change."""
    paths = sorted({path for m in mutants for path in m.paths.split()})
    code, text = run_tests(folder, paths, " or ".join(m.names for m in mutants))
    if code != PASSED:
        raise Error(f"the tests do not pass unchanged:\n{text}")


def caught(folder: pathlib.Path, file: pathlib.Path, mutant: Mutant) -> bool:
    """Whether a test fails on the change; the copy is as before afterwards."""
    before = (folder / file).read_text()
    (folder / file).write_text(before.replace(mutant.old, mutant.new))
    try:
        code, text = run_tests(folder, mutant.paths.split(), mutant.names)
    finally:
        (folder / file).write_text(before)
    if code not in (PASSED, FAILED):
        command = f"{mutant.paths} -k {shlex.quote(mutant.names)}"
        raise Error(f"{mutant.what}: pytest {command}: exit status {code}\n{text}")
    return code == FAILED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="changes whose text contains this")
    parser.add_argument("--jobs", type=int, default=2, help="tests at a time")
    parser.add_argument("--list", action="store_true", help="find the lines only")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if options.only in m.what]
    files = [locate(m) for m in chosen]
    if options.list:
        for mutant, file in zip(chosen, files, strict=True):
            print(f"{file}: {mutant.what}")
        return 0
    with tempfile.TemporaryDirectory(prefix="kdjax-mutants-") as temporary:
        copies = queue.Queue()
        for i in range(options.jobs):
            copies.put(copy(pathlib.Path(temporary) / str(i)))
        check_unchanged(pathlib.Path(temporary) / "0", chosen)

        def one(file: pathlib.Path, mutant: Mutant) -> bool:
            folder, begun = copies.get(), time.monotonic()
            try:
                found = caught(folder, file, mutant)
            finally:
                copies.put(folder)
            word, spent = ("survived", "caught  ")[found], time.monotonic() - begun
            print(f"{word} {spent:5.0f} s  {file}: {mutant.what}", flush=True)
            return found

        with ThreadPoolExecutor(options.jobs) as pool:
            count = sum(pool.map(one, files, chosen))
    print(f"{count} of {len(chosen)} caught")
    # Of a selection none may survive.
    allowed = 0 if options.only else MAY_SURVIVE
    return 0 if len(chosen) - count <= allowed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Error as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
