#!/usr/bin/env bash
# GKE through xpk: one workload on a cluster that xpk has made.
#   CLUSTER=pod ZONE=us-east5-b TYPE=v5p-128 IMAGE=gcr.io/project/kdjax \
#       experiments/launch/gke_xpk.sh imagenet_funmatch --workdir /runs/bit
# NAME is that of the workload, new for each; SLICES their number; STORAGE the storage of
# xpk that is mounted for the run folder.
set -euo pipefail
: "${CLUSTER:?cluster of xpk}" "${ZONE:?its zone}" "${TYPE:?v5p-128, for example}"
: "${IMAGE:?image with kdjax[tpu,gs]}" "${NAME:=kdjax}" "${SLICES:=1}" "${STORAGE:=runs}"

# JobSet starts all again on 42 and 127 to 255, among them 143 (SIGTERM); and on 75.
xpk workload create --workload "$NAME" --cluster "$CLUSTER" --zone "$ZONE" \
    --device-type "$TYPE" --num-slices "$SLICES" --docker-image "$IMAGE" \
    --storage "$STORAGE" --max-restarts 100 --restart-on-exit-codes 75 \
    --command "kdjax distill --compute.several-processes True $(printf '%q ' "$@")"
