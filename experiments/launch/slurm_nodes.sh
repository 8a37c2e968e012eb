#!/usr/bin/env bash
# SLURM, several nodes with one process for each GPU; the run folder on a shared disk:
#   sbatch experiments/launch/slurm_nodes.sh cifar10 --workdir /shared/runs/cifar10
# One task and its share of the CPUs for each GPU; sbatch takes --partition, --account.
#SBATCH --job-name=kdjax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -uo pipefail

# JAX finds the other processes through SLURM's variables, and takes one GPU each.
srun --kill-on-bad-exit=1 kdjax distill --compute.several-processes True "$@" &
child=$!
trap 'scancel --signal=TERM "$SLURM_JOB_ID.0"' TERM
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
