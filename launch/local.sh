#!/usr/bin/env bash
# Several processes of one run on this machine, as a cluster would start them.
#
#   launch/local.sh PROCESSES DEVICES hen run --config=sft:tiny --config.data.batch_size=8 \
#       --workdir=runs/tiny
#
# For example 2 4: the 8 rows of a batch over 2 processes of 4 devices. Each process gets DEVICES
# fake CPU devices; with DEVICES=gpu each gets its own GPU. Ends with the exit code of the first
# process that failed; 75: all stopped when asked, and the same command goes on.
set -euo pipefail

if (($# < 3)); then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
processes=$1 devices=$2
shift 2

export HEN_COORDINATOR=${HEN_COORDINATOR:-localhost:$((20000 + $$ % 20000))}
export HEN_NUM_PROCESSES=$processes
started=()
for ((index = 0; index < processes; index++)); do
  if [[ $devices == gpu ]]; then
    HEN_PROCESS_ID=$index CUDA_VISIBLE_DEVICES=$index "$@" &
  else
    HEN_PROCESS_ID=$index JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$devices "$@" &
  fi
  started+=($!)
done

# Interrupts the waits below too; the processes then agree on the step to stop at.
trap 'kill -TERM "${started[@]}" 2>/dev/null || true' TERM INT

code=0
for process in "${started[@]}"; do
  # A trapped signal ends wait early, so it is asked again until the process is gone.
  while true; do
    ended=0
    wait "$process" || ended=$?
    kill -0 "$process" 2>/dev/null || break
  done
  ((code)) || code=$ended
done
exit "$code"
