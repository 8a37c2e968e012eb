"""One part of the GPU script, in a process of its own.

python -m experiments.benchmarks.gpu.part NAME FOLDER [--dry] [--seconds N]
"""

import argparse
import importlib
import logging
import pathlib
import warnings

from experiments.benchmarks.gpu.machine import die_with_parent
from experiments.benchmarks.gpu.tables import Table


def main() -> None:
    """Measure one part, its rows written to FOLDER as they are measured."""
    die_with_parent()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--cifar", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Some donated buffers were not usable")
    table = Table(options.name, options.folder, options.seconds)
    module = importlib.import_module(f"experiments.benchmarks.gpu.{options.name}")
    module.measure(table, options)
    table.finish()


if __name__ == "__main__":
    main()
