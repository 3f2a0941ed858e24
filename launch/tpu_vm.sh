#!/usr/bin/env bash
# A TPU VM pod: the same command on all its workers.
#
#   launch/tpu_vm.sh NAME ZONE doctor
#   launch/tpu_vm.sh NAME ZONE run --config=sft:pod --workdir=/mnt/runs/a
#
# hen_jax stands in ~/hen_jax of every worker, with the extra [tpu] installed; the work directory
# is on storage that all workers mount. Run it again to go on where a preempted pod stopped.
# With HEN_DRY=1 the command is only printed.
set -euo pipefail

if (($# < 3)); then
  sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 zone=$2
shift 2

# jax finds the other workers in the metadata of the TPU VM.
printf -v command 'cd hen_jax && HEN_COORDINATOR=auto exec hen%s' "$(printf ' %q' "$@")"
${HEN_DRY:+echo} gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="$command"
