#!/usr/bin/env bash
# Cloud TPU, queued resources: asks for a slice, installs kdjax on its hosts, and starts
# one process on each. DISK is an NFS disk for data, or for a run folder without a bucket.
#   NAME=kd ZONE=us-west4-a TYPE=v5litepod-32 DISK=10.0.0.2:/share \
#       experiments/launch/tpu_queued.sh imagenet_funmatch --workdir gs://bucket/bit
# VERSION is the runtime of that TYPE. The same command goes on with a slice that is
# there. At the end the slice stays: `gcloud compute tpus queued-resources delete NAME`.
set -euo pipefail
: "${NAME:?name of the slice}" "${ZONE:?its zone}" "${TYPE:?v5litepod-32, for example}"
: "${DISK:=}" "${VERSION:=v2-alpha-tpuv5-lite}"
: "${REPOSITORY:=https://github.com/kdjax/kdjax}"
tpu() { gcloud compute tpus "$@" --zone "$ZONE"; }
on_hosts() { tpu tpu-vm ssh "$NAME" --worker=all --command "$1"; }

# --autocheckpoint-enabled: SIGTERM comes before maintenance, and all save at one step.
tpu queued-resources describe "$NAME" > /dev/null 2>&1 ||
    tpu queued-resources create "$NAME" --node-id "$NAME" --accelerator-type "$TYPE" \
        --runtime-version "$VERSION" --spot --autocheckpoint-enabled
while true; do
    state=$(tpu queued-resources describe "$NAME" --format 'value(state.state)')
    case $state in
        ACTIVE) break ;;
        FAILED | SUSPENDING | SUSPENDED | DELETING)
            echo "$NAME is $state: delete it, and start again"; exit 1 ;;
    esac
    sleep 30
done

[ -z "$DISK" ] || on_hosts "sudo apt-get install -y -q nfs-common &&
    sudo mkdir -p /runs && sudo mount $DISK /runs"
on_hosts "{ [ -d kdjax ] || git clone -q $REPOSITORY; } &&
    cd kdjax && pip install -q -r requirements-tpu.txt && pip install -q --no-deps -e ."
# A status other than 0 of any host is that of ssh. 1 and 2 are errors of the run.
while true; do
    code=0
    on_hosts "cd kdjax && python3 -m kdjax distill --compute.several-processes True \
        $(printf '%q ' "$@")" || code=$?
    case $code in
        75 | 134 | 137 | 139 | 143) sleep 30 ;;
        *) exit "$code" ;;
    esac
done
