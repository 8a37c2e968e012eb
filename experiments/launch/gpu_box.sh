#!/usr/bin/env bash
# One machine, all its GPUs: options of `kdjax distill`, restarted while that can help.
#   experiments/launch/gpu_box.sh cifar10 --workdir runs/cifar10
set -uo pipefail
while true; do
    kdjax distill "$@"
    code=$?
    case $code in
        # 75: a process was lost. 134, 137, 139: aborted, killed, crashed.
        75 | 134 | 137 | 139) echo "exit status $code: starting again"; sleep 10 ;;
        *) exit "$code" ;;
    esac
done
