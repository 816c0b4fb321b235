#!/usr/bin/env bash
# What launch/tpu_vm.sh does on a host of a slice. Its folder is the checkout's; the run's files stand beside it.
#   install             a Python of its own (the images' is 3.10), then the package with jax[tpu] and gs://
#   start ARGUMENTS     `mmcontrast train` in the background: it outlives the ssh that started it
#   log SEEN            how many bytes the log has, then what is in it after SEEN bytes
#   status              running, the exit code, or none
#   stop                asks a run under way to save and end; kills it after a minute
set -euo pipefail
cd "$(dirname "$0")/.."
verb=$1; shift
running() { [[ ! -f run.code && -f run.pid ]] && kill -0 "$(cat run.pid)" 2>/dev/null; }
case $verb in
  install)
    command -v uv > /dev/null || python3 -m pip install --quiet --user uv
    export PATH=$HOME/.local/bin:$PATH
    [[ -x .venv/bin/python ]] || uv venv --quiet --python 3.12 .venv
    uv pip install --quiet --python .venv/bin/python "jax[tpu]" -e ".[gs]" ;;
  start)
    if running; then echo "a training runs here already; launch/tpu_vm.sh stop ends it" >&2; exit 1; fi
    rm -f run.code
    # The firewall rule that Google makes for slices opens 8476; JAX's newer default, 8482, it does not.
    export JAX_COORDINATOR_PORT=${JAX_COORDINATOR_PORT:-8476}
    # A run that was stopped and saved is not one that is done.
    export MMCONTRAST_PREEMPTED_EXIT_CODE=143
    # shellcheck disable=SC2016
    setsid nohup bash -c 'code=0; .venv/bin/python -u -m mmcontrast train "$@" || code=$?; echo "$code" > run.code' \
      run --config.distributed.mode=on --config.distributed.start_timeout_seconds=1800 "$@" > run.log 2>&1 < /dev/null &
    echo $! > run.pid ;;
  log)
    size=$(stat -c %s run.log)
    echo "$size"
    tail -c "+$(($1 + 1))" run.log | head -c "$((size - $1))" ;;
  status)
    if running; then echo running
    elif [[ -f run.code ]]; then cat run.code
    else echo none; fi ;;
  stop)
    for ((second = 0; second < 60; second++)); do
      running || exit 0
      ((second)) || kill -TERM -- "-$(cat run.pid)"
      sleep 1
    done
    kill -KILL -- "-$(cat run.pid)" ;;
  *) echo "error: no verb $verb" >&2; exit 2 ;;
esac
