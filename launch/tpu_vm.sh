#!/usr/bin/env bash
# TPU VMs by gcloud: a slice is asked for, this checkout is installed on every host, a training is started
# on all of them, watched, and resumed when the slice is taken away. docs/launching.md tells the way.
#
#   launch/tpu_vm.sh babysit mct --zone us-west4-a --type v5litepod-16 --spot -- --config mct_coco --workdir /mnt/runs/mct
#
# Written against stand-ins for gcloud (tests/launch); never run against Google's.
set -euo pipefail

usage() {
  cat >&2 <<'USAGE'
usage: launch/tpu_vm.sh VERB NAME --zone ZONE [options] [-- arguments of `mmcontrast train`]
  create   ask for the slice (a queued resource) and wait until it is there     needs --type
  install  copy the committed tree to every host and install it there
  train    start on all hosts, show the log of the first, end when the run ends
  babysit  create, install, train; a slice that is taken away is deleted, made again, and the run
           resumed; at the end, whatever the end, the slice is deleted           needs --type
  logs     show the log of the first host so far
  stop     ask the run to save its checkpoint and end, on all hosts
  delete   delete the slice and the request for it
options:
  --type TYPE        accelerator type, such as v5litepod-16 (launch/tpu_types.tsv)
  --spot             preemptible, at a lower price
  --slices N         several slices as one run (default 1)
  --project P        of gcloud (default: gcloud's own)
  --restarts N       babysit: how often at most (default 20)
  --keep             babysit: leave the slice at the end
  --poll SECONDS     between two looks at it (default 30)
USAGE
  exit 2
}

fail() { echo "error: $1" >&2; exit 2; }
say() { echo "[$(date +%H:%M:%S)] $1"; }

verb=${1:-} name=${2:-} zone='' type='' spot='' slices=1 project='' restarts=20 keep='' poll=30
case $verb in create|install|train|babysit|logs|stop|delete) ;; *) usage ;; esac
[[ $name =~ ^[a-z][a-z0-9-]{0,60}$ ]] || fail "the name ${name:-(none)}: use lower-case letters, digits and hyphens"
shift 2
while (($#)); do
  case $1 in
    --spot) spot=--spot ;;
    --keep) keep=yes ;;
    --) shift; break ;;
    --zone|--type|--slices|--project|--restarts|--poll)
      (($# > 1)) || fail "$1 has no value"
      printf -v "${1#--}" %s "$2"; shift ;;
    *) fail "no option $1; arguments of mmcontrast train come after --" ;;
  esac
  shift
done
[[ $zone ]] || fail "--zone is missing, such as --zone us-west4-a"
for number in slices restarts poll; do
  [[ ${!number} =~ ^[0-9]+$ ]] || fail "--$number ${!number}: give a number"
done
((slices >= 1)) || fail "--slices 0: give at least 1"
case $verb in
  train|babysit)
    (($#)) || fail "nothing to train: give -- --config CONFIG --workdir DIR"
    [[ " $* " == *' --workdir'* ]] || fail "--workdir is missing: a folder that all hosts see" ;;
  *) ((! $#)) || fail "$verb takes nothing after --" ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
where=(--zone "$zone")
[[ ! $project ]] || where+=(--project "$project")
runtime=''
if [[ $verb == create || $verb == babysit ]]; then
  [[ $type ]] || fail "--type is missing, such as --type v5litepod-16"
  runtime=$(awk -F'\t' -v type="$type" '!/^#/ && index(" " $5, " " type "=") {print $2}' "$here/tpu_types.tsv")
  [[ $runtime ]] || fail "--type $type: not one of $(awk -F'\t' '!/^#/ {gsub(/=[^ ]*/, "", $5); print $5}' "$here/tpu_types.tsv" | xargs)"
fi
if ((slices == 1)); then nodes=("$name"); else mapfile -t nodes < <(seq -f "$name-%.0f" 0 $((slices - 1))); fi

request_state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)' 2>/dev/null || echo NONE
}

create() {
  local state placed=(--node-id "$name")
  ((slices == 1)) || placed=(--node-count "$slices" --node-prefix "$name")
  gcloud compute tpus queued-resources create "$name" "${where[@]}" --accelerator-type "$type" \
    --runtime-version "$runtime" "${placed[@]}" ${spot:+"$spot"} || return 1
  while state=$(request_state); [[ $state != ACTIVE ]]; do
    case $state in FAILED|SUSPENDED|SUSPENDING|NONE) say "the request ended as $state"; return 1 ;; esac
    say "waiting for the slice: $state"
    sleep "$poll"
  done
  say "the slice is there"
}

# The hosts get the last commit: what is not in it is refused before anything is asked for.
check_tree() {
  if [[ $verb != train && -n $(git -C "$here/.." status --porcelain) ]]; then
    git -C "$here/.." status --short >&2
    fail "the tree has changes that are not committed, and the hosts get the last commit; commit them first"
  fi
  local word before='' file
  for word; do
    file=${word#--config=} file=${file%%:*}
    if [[ ($before == --config || $word == --config=*) && $file == *.py && $file != /* ]] &&
      ! { git -C "$here/.." ls-files --error-unmatch -- "$file" && git -C "$here/.." diff --quiet HEAD -- "$file"; } \
        > /dev/null 2>&1; then
      fail "--config $file: not as in the last commit, which the hosts get; commit it, or give its path on their disk"
    fi
    before=$word
  done
}

INSTALL='mkdir -p mmcontrast && tar -xzf mmcontrast.tar.gz -C mmcontrast && mmcontrast/launch/tpu_host.sh install'

# --force deletes the nodes too; a request that was suspended stays until it is deleted.
delete() { gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet; }

on_host() { gcloud compute tpus tpu-vm ssh "$1" "${where[@]}" --worker="$2" --command "$3"; }

install() {
  local archive node
  archive=$(mktemp --suffix=.tar.gz)
  git -C "$here/.." archive --format=tar.gz -o "$archive" HEAD
  for node in "${nodes[@]}"; do
    if ! { gcloud compute tpus tpu-vm scp "$archive" "$node:mmcontrast.tar.gz" "${where[@]}" --worker=all &&
      on_host "$node" all "$INSTALL"; }; then
      rm -f "$archive"
      return 1
    fi
  done
  rm -f "$archive"
}

# Follows a training until it ends on all hosts. Returns its exit code, or 125 when the slice is gone.
train() {
  local node seen=0 misses=0 answer status command
  command="mmcontrast/launch/tpu_host.sh start $(printf '%q ' "$@")"
  for node in "${nodes[@]}"; do on_host "$node" all "$command" || return 125; done
  while :; do
    sleep "$poll"
    if ! answer=$(on_host "${nodes[0]}" 0 "mmcontrast/launch/tpu_host.sh log $seen"); then
      # An ssh may fail once; a slice that is taken away says so.
      [[ $(request_state) == ACTIVE ]] && ((++misses < 5)) || return 125
      continue
    fi
    misses=0 status=0
    seen=${answer%%$'\n'*}
    [[ $answer != *$'\n'* ]] || printf '%s\n' "${answer#*$'\n'}"
    for node in "${nodes[@]}"; do
      answer=$(on_host "$node" all 'mmcontrast/launch/tpu_host.sh status') || { status=running; break; }
      [[ $answer != *running* ]] || { status=running; break; }
      answer=$(grep -v '^0$' <<< "$answer" | head -n 1) || true
      [[ ! $answer || $status == 2 ]] || status=$answer
    done
    if [[ $status != running ]]; then  # what was written since
      on_host "${nodes[0]}" 0 "mmcontrast/launch/tpu_host.sh log $seen" | sed 1d || true
      return "$status"
    fi
  done
}

babysit() {
  local code tries=0
  # Nothing that costs money stays behind, on an error or Ctrl-C either.
  [[ $keep ]] || trap 'say "deleting $name"; delete || say "NOT DELETED: launch/tpu_vm.sh delete $name --zone $zone"' EXIT
  trap 'exit 130' INT TERM
  while :; do
    code=0
    if [[ $(request_state) == ACTIVE ]] || create; then
      { install && train "$@"; } || code=$?
    else
      code=125
    fi
    case $code in
      0) say "done"; return 0 ;;
      2) say "the run ended with an error that another start does not mend"; return 2 ;;
    esac
    ((++tries <= restarts)) || { say "ended with $code, after $restarts restarts"; return 1; }
    say "ended with $code; restart $tries of $restarts"
    if [[ $(request_state) != ACTIVE ]]; then
      delete || true
      sleep "$poll"
    else
      stop || true  # hosts that have not noticed yet
    fi
  done
}

logs() { on_host "${nodes[0]}" 0 'mmcontrast/launch/tpu_host.sh log 0' | sed 1d; }

stop() {
  local node
  for node in "${nodes[@]}"; do on_host "$node" all 'mmcontrast/launch/tpu_host.sh stop'; done
}

case $verb in install|train|babysit) check_tree "$@" ;; esac
"$verb" "$@"
