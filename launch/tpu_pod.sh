#!/usr/bin/env bash
# A TPU pod slice by gcloud: installs this checkout on every host and trains. Never run by us.
#
#   launch/tpu_pod.sh NAME ZONE --config mct_coco --workdir /mnt/shared/runs/mct_coco
#
# The slice must exist (gcloud compute tpus tpu-vm create). All hosts run the same command; JAX finds
# the others in the metadata server, which is why distributed.mode is "on". The working directory must
# be one that all hosts see: a mounted disk, as mmcontrast writes metrics with ordinary files.
set -euo pipefail
(($# >= 4)) || { echo "usage: launch/tpu_pod.sh NAME ZONE --config FILE --workdir DIR" >&2; exit 2; }
name=$1 zone=$2; shift 2
on_all() { gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "$1"; }
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz -o "$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name:mmcontrast.tar.gz" --zone "$zone" --worker=all
on_all 'mkdir -p mmcontrast && tar -xzf mmcontrast.tar.gz -C mmcontrast && cd mmcontrast &&
  { [ -d .venv ] || python3 -m venv .venv; } && .venv/bin/pip install --quiet "jax[tpu]" -e .'
on_all "cd mmcontrast && .venv/bin/python -u -m mmcontrast train --config.distributed.mode=on $(printf '%q ' "$@")"
