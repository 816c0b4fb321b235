#!/usr/bin/env bash
# Stands in for `python -u -m mmcontrast train ... --workdir DIR`: counts to $STEPS, a step each 0.1 s, and resumes.
# $CODES: exit codes of the first starts of a run, a word each, instead of going to the end.
set -euo pipefail
while (($#)); do
  case $1 in --workdir) workdir=$2 ;; esac
  shift
done
mkdir -p "$workdir"
rank=$(basename "$HOST_OF_SLICE")
echo "port $JAX_COORDINATOR_PORT preempted $MMCONTRAST_PREEMPTED_EXIT_CODE" > "$workdir/environment"
echo start >> "$workdir/starts-$rank"
step=$(cat "$workdir/step-$rank" 2>/dev/null || echo 0)
((step == 0)) || echo "resuming from step $step"
read -r -a codes <<< "${CODES:-}"
start=$(($(wc -l < "$workdir/starts-$rank") - 1))
if ((start < ${#codes[@]})); then echo "ends with ${codes[start]}"; exit "${codes[start]}"; fi
while ((step < ${STEPS:-3})); do
  sleep 0.1
  step=$((step + 1))
  echo "$step" > "$workdir/step-$rank"
  echo "step $step"
done
