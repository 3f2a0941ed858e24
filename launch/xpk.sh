#!/usr/bin/env bash
# GKE through XPK, which writes the JobSet itself (https://github.com/AI-Hypercomputer/xpk).
#
#   launch/xpk.sh CLUSTER TPU_TYPE SLICES IMAGE run --config=sft:pod --workdir=/mnt/runs/a
#
# For example: launch/xpk.sh pods v5litepod-16 1 IMAGE run ... TPU hosts find each other; exit code
# 75 (stopped, checkpoint saved) and 76 (a process was lost) restart the workload.
# With HEN_DRY=1 the command is only printed.
set -euo pipefail

if (($# < 5)); then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
cluster=$1 tpu_type=$2 slices=$3 image=$4
shift 4

# exec: XPK sends SIGTERM to the shell that it starts the command in.
${HEN_DRY:+echo} xpk workload create \
  --cluster="$cluster" \
  --workload="${HEN_WORKLOAD:-hen-$(date +%m%d-%H%M)}" \
  --tpu-type="$tpu_type" \
  --num-slices="$slices" \
  --docker-image="$image" \
  --max-restarts=20 \
  --restart-on-exit-codes=75,76 \
  --termination-grace-period-seconds=300 \
  --command="exec hen$(printf ' %q' "$@")"
