#!/usr/bin/env bash
# Several processes on this machine, as on several hosts: to try a run out, or one process a GPU.
#
#   launch/local.sh 2 --config quickstart --workdir runs/quickstart
#
# On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=2 gives each process two devices.
# On GPUs, process i sees GPU i alone (never run by us: no machine with two GPUs).
# SIGTERM is passed on: the run writes a checkpoint and ends with 0.
set -euo pipefail
[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || { echo "usage: launch/local.sh PROCESSES --config FILE --workdir DIR" >&2; exit 2; }
processes=$1; shift
export MMCONTRAST_COORDINATOR=127.0.0.1:${PORT:-8476} MMCONTRAST_PROCESSES=$processes
children=()
trap 'kill "${children[@]}" 2>/dev/null || true' EXIT TERM
for ((i = 0; i < processes; i++)); do
  MMCONTRAST_PROCESS_ID=$i CUDA_VISIBLE_DEVICES=$i \
    "${PYTHON:-python}" -m mmcontrast train "$@" &
  children+=($!)
done
status=0
for child in "${children[@]}"; do
  code=0; wait "$child" || code=$?
  # A signal ends `wait` before the child: 128 + its number, and the child goes on.
  while ((code > 128)) && kill -0 "$child" 2>/dev/null; do code=0; wait "$child" || code=$?; done
  ((code == 0)) || status=$code
done
exit $status
