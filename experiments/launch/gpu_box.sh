#!/usr/bin/env bash
# One machine, all its GPUs: options of `kdjax distill`, restarted while that can help.
#   experiments/launch/gpu_box.sh cifar10 --workdir runs/cifar10
set -uo pipefail
stopped= child=
trap 'stopped=1; kill -TERM "$child" 2> /dev/null' TERM INT
while [ -z "$stopped" ]; do
    kdjax distill "$@" &
    child=$!
    wait "$child"
    code=$?
    # A trap ends `wait` early: SIGTERM and Control-C are passed on, and all is saved.
    while kill -0 "$child" 2> /dev/null; do
        wait "$child"
        code=$?
    done
    case $stopped$code in
        # 75: a process was lost. 134, 137, 139: aborted, killed, crashed.
        75 | 134 | 137 | 139) echo "exit status $code: starting again"; sleep 10 ;;
        *) exit "$code" ;;
    esac
done
exit 143
