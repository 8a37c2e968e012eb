"""The best path of teacher assistants, by dynamic programming, arXiv 1902.03393.

    python -m experiments.stages.best_path 8 4 3 2
    python -m experiments.stages.best_path 8 4 3 2 --scale tiny --workdir runs/try

Sizes are widths on the digits and depths on CIFAR, from the teacher to the student. The
command trains every link, and prints the table of links and the best path. It resumes.
"""

import argparse
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

import kdjax
from experiments.stages import common
from kdjax import jobs, reports
from kdjax.config import FromRun, Run
from kdjax.reports.collect import curve

Path = tuple[int, ...]


def best_paths(
    sizes: Sequence[int], train: Callable[[Path], float]
) -> tuple[dict[int, Path], dict[Path, float]]:
    """The best path from the first size to each one, and the accuracy of each link.

    Sizes come in order. Each learns from every earlier one, which was itself trained
    along its best path: n (n - 1) / 2 links for n sizes.

    Args:
      train: `path -> accuracy` of the last network of a path, which learns from the
        one before it. A path of one network is the teacher.

    Returns:
      `{size: path}` and `{path: accuracy}` of all paths that were trained.
    """
    first, *others = sizes
    best: dict[int, Path] = {first: (first,)}
    accuracies: dict[Path, float] = {(first,): train((first,))}
    for size in others:
        paths = [(*path, size) for path in best.values()]
        accuracies |= {path: train(path) for path in paths}
        best[size] = max(paths, key=lambda path: accuracies[path])
    return best, accuracies


def link(path: Path, scale: str, workdir: pathlib.Path, **changes: object) -> Run:
    """The run of the last network of a path; changes: fields of `Run` to replace."""
    *before, size = path
    model = common.sized(scale, size)
    workdir = workdir.absolute()
    place = {"workdir": str(workdir / _name(path)), "name": _name(path), **changes}
    if not before:
        return common.teacher(scale, model, **place)
    return common.taught(
        scale,
        model=model,
        teacher=FromRun(str(workdir / _name(tuple(before)))),
        terms=common.soft_and_hard(0.5, 0.5, 2.0),
        **place,
    )


def validated(run: Run) -> float:
    """Train a run, or resume it; its last accuracy on validation, mean over seeds."""
    folder = jobs.train(run) if run.teacher is None else kdjax.distill(run)
    (record,) = reports.collect([folder])
    accuracies = curve(record, "accuracy")
    return float(np.mean([*accuracies.values()][-1]))


def _name(path: Path) -> str:
    return "-".join(map(str, path))


def main() -> None:
    parser = argparse.ArgumentParser(description="The best path of assistants.")
    parser.add_argument("sizes", type=int, nargs="+", help="from teacher to student")
    parser.add_argument("--scale", default="digits", help="tiny, digits or cifar")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each network")
    parser.add_argument(
        "--workdir", default="runs/best_path", help="folder of the runs"
    )
    given = parser.parse_args()
    folder = pathlib.Path(given.workdir).expanduser()
    best, accuracies = best_paths(
        given.sizes,
        lambda path: validated(link(path, given.scale, folder, seeds=given.seeds)),
    )
    print("| path | validation accuracy (%) |\n| --- | ---: |")
    for path, accuracy in accuracies.items():
        print(f"| {' to '.join(map(str, path))} | {100 * accuracy:.2f} |")
    print(f"best: {' to '.join(map(str, best[given.sizes[-1]]))}")


if __name__ == "__main__":
    main()
