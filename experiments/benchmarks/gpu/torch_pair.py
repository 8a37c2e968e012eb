"""The pair of part `cifar` in PyTorch, in a process of its own.

python -m experiments.benchmarks.gpu.torch_pair [--dry] BATCH BATCH
"""

import argparse
import importlib
import importlib.util
import itertools
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.gpu.machine import die_with_parent, for_child
from experiments.benchmarks.gpu.tables import LATE, Table, one_line

MODES, KINDS = ("eager", "compiled"), ("bfloat16", "float32")
# A turn in steps, and turns.
STEPS, TURNS = 64, 6


def cases(batches: Sequence[int]) -> list[tuple[str, str, int]]:
    """`(mode, kind, batch)` of the rows, the most telling first."""
    large_first = sorted(batches, reverse=True)
    order = itertools.product(large_first, KINDS, MODES)
    return [(mode, kind, batch) for batch, kind, mode in order]


def label(mode: str, kind: str, batch: int) -> str:
    """The name of a row."""
    return f"batch {batch}, {mode}, {kind}"


def names(batches: Sequence[int]) -> list[str]:
    """The names of all rows."""
    return [label(*case) for case in cases(batches)]


def measure(table: Table, title: str, batches: Sequence[int], dry: bool) -> None:
    """Add the rows as the process writes them; at most 0.4 of the time that is left."""
    if importlib.util.find_spec("torch") is None:
        for name in names(batches):
            table.skip(title, name, "torch is not installed")
        return
    deadline = time.monotonic() + max(0.4 * table.left(), 5.0)
    command = [sys.executable, "-m", __name__, *map(str, batches)]
    command += ["--dry"] if dry else []
    process = subprocess.Popen(
        command, env=for_child(os.environ), stdout=subprocess.PIPE, text=True
    )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_pass_on, args=(process, lines), daemon=True).start()
    left = dict.fromkeys(names(batches))
    why = LATE
    try:
        wait = max(deadline - time.monotonic(), 0.0)
        while (line := lines.get(timeout=wait)) is not None:
            row = json.loads(line)
            left.pop(row["name"], None)
            if "error" in row:
                table.skip(title, row["name"], f"error: {row['error']}")
            else:
                table.put(title, row["name"], row["values"])
            wait = max(deadline - time.monotonic(), 0.0)
        status = process.wait(timeout=5)
        why = f"error: the PyTorch process ended with status {status}"
    except (queue.Empty, subprocess.TimeoutExpired):
        table.note("The PyTorch process was stopped when its share of the part ended.")
    finally:
        process.kill()
        process.wait()
    for name in left:
        table.skip(title, name, why)


def note(table: Table) -> None:
    """The line below the tables."""
    table.note(
        "PyTorch runs teacher and student step on fixed arrays, as the bare floor; "
        "channels last; bfloat16 by autocast; float32 with TF32 in convolutions."
    )


def _pass_on(process: subprocess.Popen, lines: queue.Queue) -> None:
    """Lines of a process into a queue, then None."""
    assert process.stdout is not None
    with process.stdout as printed:
        for line in printed:
            if line.startswith("{"):
                lines.put(line)
    lines.put(None)


def resnet(torch: Any, depth: int) -> Any:
    """CIFAR-style ResNet with projections, as kdjax's of the same name."""
    nn = torch.nn

    class Block(nn.Module):
        """Two 3x3 convolutions and a shortcut."""

        def __init__(self, before: int, after: int, stride: int):
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
            same = stride == 1 and before == after
            layers = [nn.Conv2d(before, after, 1, stride, bias=False)]
            layers += [nn.BatchNorm2d(after)]
            self.short = nn.Identity() if same else nn.Sequential(*layers)

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.short(x))

    blocks, before = [], 16
    for stage, after in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            stride = 2 if stage and not block else 1
            blocks.append(Block(before, after, stride))
            before = after
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*stem, *blocks, *head)


def make_step(torch: Any, mode: str, kind: str, batch: int, dry: bool) -> Any:
    """A function of no arguments: one step, returning its loss."""
    device = "cpu" if dry else "cuda"
    depths = (8, 8) if dry else (20, 56)
    student, teacher = (
        resnet(torch, depth).to(device, memory_format=torch.channels_last)
        for depth in depths
    )
    teacher.eval().requires_grad_(False)
    images = torch.rand(batch, 3, 32, 32, device=device) * 2 - 1
    images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    loss_of, half = torch.nn.functional.kl_div, kind == "bfloat16"

    def forward() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            with torch.no_grad():
                targets = teacher(images)
            logits = student(images)
        log_p = torch.log_softmax(targets.float() / 4, -1)
        log_q = torch.log_softmax(logits.float() / 4, -1)
        return 16 * loss_of(log_q, log_p, reduction="batchmean", log_target=True)

    if mode == "compiled":
        forward = torch.compile(forward, dynamic=False)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def row(torch: Any, mode: str, kind: str, batch: int, dry: bool) -> dict[str, Any]:
    """Images a second and memory of one case."""
    if not dry:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = make_step(torch, mode, kind, batch, dry)
    start = time.perf_counter()
    step().item()
    first = time.perf_counter() - start
    times, count = [], 2 if dry else STEPS
    for _ in range(2 if dry else TURNS + 1):
        start, loss = time.perf_counter(), step()
        for _ in range(count - 1):
            loss = step()
        # The loss on the host: everything before it has run.
        loss.item()
        times.append(time.perf_counter() - start)
    spent = statistics.median(times[1:]) / count
    values = {
        "images/s": batch / spent,
        "ms a step": 1e3 * spent,
        "first step s": first,
    }
    if not dry:
        values["peak MiB"] = torch.cuda.max_memory_allocated() / 2**20
    return values


def load(dry: bool) -> Any:
    """PyTorch, which must have CUDA unless the run is dry."""
    torch: Any = importlib.import_module("torch")
    if not dry and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch has no CUDA")
    torch.backends.cudnn.benchmark = True
    return torch


def main() -> None:
    """One JSON line for each case."""
    die_with_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("batches", nargs="+", type=int)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    torch, why = None, ""
    try:
        torch = load(options.dry)
    except Exception as error:
        why = one_line(error)
    for case in cases(options.batches):
        result: dict[str, Any] = {"name": label(*case)}
        try:
            if why:
                result["error"] = why
            else:
                result["values"] = row(torch, *case, options.dry)
        except Exception as error:
            result["error"] = one_line(error)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
