#!/usr/bin/env bash
# SLURM, one node with several GPUs and one process:
#   sbatch experiments/launch/slurm_node.sh cifar10 --workdir runs/cifar10
# Change GPUs, CPUs and time to those of the node; sbatch takes --partition, --account.
#SBATCH --job-name=kdjax
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -uo pipefail

# SLURM sends SIGTERM to this script 120 s before the end: pass it on, then queue again.
kdjax distill "$@" &
child=$!
trap 'kill -TERM "$child"' TERM
wait "$child"
code=$?
# A trap ends `wait` early.
while kill -0 "$child" 2> /dev/null; do
    wait "$child"
    code=$?
done
case $code in
    # A process was lost, SIGTERM; aborted, killed, crashed.
    75 | 143 | 134 | 137 | 139) scontrol requeue "$SLURM_JOB_ID" ;;
    *) exit "$code" ;;
esac
