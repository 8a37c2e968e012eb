#!/usr/bin/env bash
# Turn 8 minutes of one GPU into tables: see gpu.md beside this.
#
#   experiments/benchmarks/gpu.sh [OUT] [--parts a,b] [--dry] [--cifar FILE.npz]
#                                 [--copy FOLDER] [--commit TEXT]
#                                 [--limit PART=SECONDS] [--deadline SECONDS]
#
# The limits, the order and the reporting are in gpu/__main__.py.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1
# Modules of this checkout, also where the current folder holds another one.
export PYTHONSAFEPATH=1
# exec: a signal to this script reaches the program that cleans up.
exec "${PYTHON:-python3}" -m experiments.benchmarks.gpu "$@"
