"""A fault at every file operation: of checkpoints, a target cache, a run's log.

    python -m experiments.faults.points --out experiments/faults/points.md

A process does some work, and meets a fault at its first file operation; the next one
at its second; and so on, until the work ends without a fault. The faults are those of
`interpose.c`: killed before an operation, killed in the middle of a write, a disk that
is full from here on, one input/output error, a disk that is read-only from here on, no
further open file.

After each fault another process looks at what is left. What was acknowledged must be
there, nothing may be damaged, an error must be one of ours, and the same work done
again must end as if there had been no fault.

Negative controls commit their work before its content is written. A harness that finds
nothing wrong with them would prove nothing.

Linux, with a C compiler.
"""

import argparse
import contextlib
import ctypes
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.faults import page
from kdjax.core import runlog

FAULTS = (
    "killed",
    "torn write",
    "disk full",
    "error",
    "disk read-only",
    "too many open files",
)
SOURCE = pathlib.Path(__file__).with_name("interpose.c")
# Seconds after which a process counts as hanging.
LONGEST = 120
HEADS = (
    "| work | fault | operations | killed | error | went on | wrong |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
)

_fork = multiprocessing.get_context("forkserver")

# Called with a number that grows, once so much work is acknowledged.
Acknowledge = Callable[[int], None]


class Work(NamedTuple):
    """Something that writes files.

    prepare: what is there before; a function of the folder.
    act: does the work, or what is left of it, and acknowledges parts of it.
    check: what is wrong in the folder once so much is acknowledged; empty if nothing.
    """

    prepare: Callable[[pathlib.Path], None]
    act: Callable[[pathlib.Path, Acknowledge], None]
    check: Callable[[pathlib.Path, int], str]


def _prepare_nothing(folder: pathlib.Path) -> None:
    del folder


# --- checkpoints ---------------------------------------------------------------------

STEPS = (2, 4, 6)


def make_state(step: int) -> Any:
    import jax.numpy as jnp
    import optax

    from kdjax.train import state

    variables = {"params": {"w": jnp.arange(6.0).reshape(2, 3) + step}}
    made = state.create_state({"student": variables}, optax.sgd(0.1, momentum=0.9))
    return made._replace(step=made.step + step)


def _save(folder: pathlib.Path, acknowledge: Acknowledge, steps: Sequence[int]) -> None:
    """The later a step, the better it is: the first one is deleted in the end."""
    from kdjax.train.checkpoint import Checkpoints

    checkpoints = Checkpoints(folder)
    state: Any = checkpoints.restore_whole(make_state(0))
    begun = 0 if state is None else int(state.step)
    for step in steps:
        if step > begun:
            checkpoints.save(make_state(step), step, accuracy=step / 10)
            checkpoints.wait()
            acknowledge(step)
    checkpoints.close()


def _prepare_checkpoints(folder: pathlib.Path) -> None:
    _save(folder, lambda _: None, STEPS[:1])


def _check_checkpoints(folder: pathlib.Path, acknowledged: int) -> str:
    from kdjax.train.checkpoint import Checkpoints

    checkpoints = Checkpoints(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state: Any = checkpoints.restore_whole(make_state(0))
    checkpoints.close()
    told = [str(x.message) for x in caught if x.category is UserWarning]
    if told:
        return told[0]
    step = 0 if state is None else int(state.step)
    least = max(acknowledged, STEPS[0])
    if step < least:
        return f"step {step}, though {least} was acknowledged"
    assert state is not None
    return _compare(state._asdict(), make_state(step)._asdict())


def _compare(found: Any, expected: Any) -> str:
    import jax

    found, expected = jax.device_get((found, expected))
    try:
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    except (AssertionError, ValueError) as error:
        return f"other values: {error}"
    return ""


# --- a target cache ------------------------------------------------------------------

_MANIFEST = {"teacher": {"step": 1}, "seeds": 1}
_ROWS, _BLOCK = 12, 4


def _targets() -> dict[str, np.ndarray]:
    rows = np.arange(_ROWS, dtype=np.float32)
    return {"logits": rows[:, None] + np.arange(3, dtype=np.float32), "weight": rows}


def _open_cache(folder: pathlib.Path) -> Any:
    from kdjax.cache.store import Column, create_store

    columns = {"logits": Column((3,), "float32"), "weight": Column((), "float32")}
    options = {"records": _ROWS, "block": _BLOCK}
    return create_store(folder / "store", _MANIFEST, columns, **options)


def _cache(folder: pathlib.Path, acknowledge: Acknowledge) -> None:
    store = _open_cache(folder)
    for block in store.missing():
        records = store.span(block)
        store.write(block, {k: v[records] for k, v in _targets().items()})
        acknowledge(block + 1)


def _check_cache(folder: pathlib.Path, acknowledged: int) -> str:
    from kdjax.cache.store import open_store

    if not acknowledged and not (folder / "store" / "manifest.json").exists():
        return ""
    # As the next `kdjax cache-targets` opens it, but nothing is written.
    store = _open_cache(folder) if not acknowledged else open_store(folder / "store")
    unfinished = {
        record // _BLOCK
        for span in store.unfinished()
        for record in range(span.start, span.stop)
    }
    missing = set(store.missing())
    if damaged := missing - unfinished:
        return f"blocks {sorted(damaged)} are damaged"
    if lost := missing & set(range(acknowledged)):
        return f"blocks {sorted(lost)} are lost"
    whole = [store.span(x) for x in range(store.blocks) if x not in missing]
    targets = _targets()
    found = [store.read(span) for span in whole]
    return _compare(found, [{k: v[x] for k, v in targets.items()} for x in whole])


# --- the log and the summary of a run ------------------------------------------------

_LINES = [{"kind": "train", "step": x, "loss": [x / 7]} for x in range(1, 5)]
_SUMMARY = {"name": "run", "seconds": 1.5, "test": {"accuracy": [0.5], "examples": 9}}


def _log(folder: pathlib.Path, acknowledge: Acknowledge) -> None:
    if runlog.read_summary(folder):
        return
    done = len(runlog.read_metrics(folder))
    # As a run that resumes from a checkpoint one step earlier.
    begun = max(done - 1, 0)
    runlog.truncate_metrics(folder, begun)
    for line in _LINES[begun:]:
        runlog.append_metrics(folder, line)
        acknowledge(line["step"])
    runlog.write_json(folder / "summary.json", _SUMMARY)
    acknowledge(len(_LINES) + 1)


def _check_log(folder: pathlib.Path, acknowledged: int) -> str:
    lines, summary = runlog.read_metrics(folder), runlog.read_summary(folder)
    if lines != _LINES[: len(lines)]:
        return "other lines"
    # A run that begins again from the checkpoint before writes its last line again.
    if len(lines) < min(acknowledged, len(_LINES)):
        return f"{len(lines)} lines, though {acknowledged} were acknowledged"
    if summary is None and (folder / "summary.json").exists():
        return "a part of a summary"
    if summary is None and acknowledged > len(_LINES):
        return "no summary, though it was acknowledged"
    return "" if summary in (None, _SUMMARY) else "another summary"


# --- negative controls ---------------------------------------------------------------


def _copy_marker_first(
    folder: pathlib.Path, acknowledge: Acknowledge, work: str, marker: str
) -> None:
    """Copy the files of a finished work, the one that commits it first."""
    del acknowledge
    whole = folder.parent / "whole"
    if not whole.exists():
        whole.mkdir()
        WORKS[work].prepare(whole)
        WORKS[work].act(whole, lambda _: None)
    files = sorted(x for x in whole.rglob("*") if x.is_file())
    for file in sorted(files, key=lambda x: not x.match(marker)):
        to = folder / file.relative_to(whole)
        if not to.exists() or to.read_bytes() != file.read_bytes():
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(file.read_bytes())


WORKS = {
    "checkpoints": Work(
        _prepare_checkpoints, functools.partial(_save, steps=STEPS), _check_checkpoints
    ),
    "target cache": Work(_prepare_nothing, _cache, _check_cache),
    "log": Work(_prepare_nothing, _log, _check_log),
}


def _control(work: str, marker: str) -> Work:
    act = functools.partial(_copy_marker_first, work=work, marker=marker)
    return WORKS[work]._replace(act=act)


CONTROLS = {
    "checkpoints": _control("checkpoints", "_CHECKPOINT_METADATA"),
    "target cache": _control("target cache", "mark/c/*"),
    "log": _control("log", "summary.json"),
}


# --- the harness ---------------------------------------------------------------------


class Outcome(NamedTuple):
    """The effect of one fault.

    how: killed, error, went on, or over: the work ended before its k-th operation.
    wrong: what is wrong after it; empty if nothing.
    """

    how: str
    wrong: str


def _act(kind: str, control: bool, folder: str, k: int, fault: str, output: str):
    """In a process of its own: the work, with a fault at the k-th operation."""
    work = (CONTROLS if control else WORKS)[kind]
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(os.open(output + ".txt", os.O_WRONLY | os.O_CREAT), descriptor)

    def tell(**fields: Any) -> None:
        os.write(file, json.dumps(fields).encode() + b"\n")

    # The libraries are imported, and the first arrays made, before the count begins.
    make_state(0)
    faults = ctypes.CDLL(None)
    faults.fault_arm(folder.encode(), k, 1 + FAULTS.index(fault))
    try:
        work.act(pathlib.Path(folder), lambda n: tell(acknowledged=n))
    except BaseException as error:
        tell(error=type(error).__name__, text=str(error))
    tell(operations=faults.fault_count())
    # No thread of Orbax waits for what could not be written.
    os._exit(0)


def _check(kind: str, control: bool, folder: str, acknowledged: int, output: str):
    """In a process of its own: what a fault left, and the work done to its end."""
    work, path = (CONTROLS if control else WORKS)[kind], pathlib.Path(folder)
    last = [acknowledged]
    try:
        wrong = work.check(path, acknowledged)
        if not wrong:
            work.act(path, last.append)
            wrong = work.check(path, last[-1])
    except BaseException as error:
        wrong = f"{type(error).__name__}: {error}"
    pathlib.Path(output).write_text(json.dumps(wrong))
    os._exit(0)


def _begin() -> None:
    """Nothing, in a process of its own."""


def _run(target: Callable[..., None], *args: Any) -> int | None:
    """The exit status of a function in a process of its own; None if it hangs."""
    process = _fork.Process(target=target, args=args)
    process.start()
    process.join(LONGEST)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def try_fault(
    kind: str, k: int, fault: str, scratch: pathlib.Path, control: bool = False
) -> Outcome:
    """Do a work with a fault at its k-th operation, and look at what is left.

    scratch: with the folder `before`, as it is prepared.
    """
    folder, told = scratch / "trial", scratch / "told"
    shutil.rmtree(folder, ignore_errors=True)
    told.unlink(missing_ok=True)
    shutil.copytree(scratch / "before", folder)
    code = _run(_act, kind, control, str(folder), k, fault, str(told))
    lines = [json.loads(x) for x in told.read_text().splitlines()]
    acknowledged = max((x.get("acknowledged", 0) for x in lines), default=0)
    errors = [x for x in lines if "error" in x]
    if code is None:
        return Outcome("went on", "hangs")
    if code == 0 and lines[-1]["operations"] < k:
        return Outcome("over", "; ".join(f"{x['error']}: {x['text']}" for x in errors))
    how = "killed" if code else "error" if errors else "went on"
    ours = "CheckpointError", "DamagedError", "StoreError", "RunFolderError"
    for line in errors:
        if line["error"] not in ours or "\n" in line["text"]:
            return Outcome(how, f"{line['error']}: {line['text']}")
    answer = scratch / "answer"
    answer.unlink(missing_ok=True)
    if _run(_check, kind, control, str(folder), acknowledged, str(answer)) is None:
        return Outcome(how, "the next process hangs")
    wrong = json.loads(answer.read_text())
    if wrong and errors:
        wrong += f" (after {errors[0]['text']})"
    return Outcome(how, wrong)


def try_all(
    kind: str, fault: str, every: int = 1, control: bool = False
) -> list[Outcome]:
    """The outcome of a fault at every operation of a work, until none is left.

    every: look at every n-th operation only.
    """
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder).resolve()
        (scratch / "before").mkdir()
        _run(WORKS[kind].prepare, scratch / "before")
        k = 1
        while True:
            outcome = try_fault(kind, k, fault, scratch, control)
            if outcome.how == "over":
                if outcome.wrong:
                    raise RuntimeError(f"{kind} fails without a fault: {outcome.wrong}")
                return outcomes
            if outcome.wrong:
                print(f"{kind}, {fault} at operation {k}: {outcome.wrong}", flush=True)
            outcomes.append(outcome)
            k += every


def row(kind: str, fault: str, outcomes: Sequence[Outcome]) -> str:
    counts = [
        sum(x.how == how for x in outcomes) for how in ("killed", "error", "went on")
    ]
    wrong = sum(bool(x.wrong) for x in outcomes)
    numbers = " | ".join(map(str, (len(outcomes), *counts, wrong)))
    return f"| {kind} | {fault} | {numbers} |"


@contextlib.contextmanager
def interposed():
    """Within the block, processes that are started can meet faults."""
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder, "interpose.so")
        words = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
        subprocess.run([*words, "-ldl"], check=True)
        before = os.environ.get("LD_PRELOAD")
        os.environ["LD_PRELOAD"] = str(library)
        modules = ["kdjax.train.checkpoint", "kdjax.cache.store", __name__]
        _fork.set_forkserver_preload(modules)
        try:
            # The process from which all others are forked begins here.
            _run(_begin)
            yield
        finally:
            os.environ.pop("LD_PRELOAD")
            if before is not None:
                os.environ["LD_PRELOAD"] = before


def main() -> None:
    parser = argparse.ArgumentParser(description="A fault at every file operation.")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, help="a page; rows are appended")
    args = parser.parse_args()
    rows = []
    with interposed():
        for kind in args.works:
            for fault in args.faults:
                rows.append(row(kind, fault, try_all(kind, fault, args.every)))
            controls = try_all(kind, "killed", args.every, control=True)
            rows.append(row(f"{kind}, committed first", "killed", controls))
            print(rows[-1], flush=True)
    print(*HEADS, *rows, sep="\n")
    if args.out:
        text = __doc__ or ""
        page.add_rows(args.out, "A fault at every operation", text, HEADS, rows)


if __name__ == "__main__":
    main()
