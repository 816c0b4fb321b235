"""Several processes as one run: started only when asked for or found, ended together.

    with distributed.session(config["distributed"]):
      train(config, workdir)

Processes find each other by `config.distributed`, or by the environment:
    MMCONTRAST_COORDINATOR=host:port MMCONTRAST_PROCESSES=2 MMCONTRAST_PROCESS_ID=0
or by what SLURM (srun) and TPU pods say. Every process runs the same command, and the working
directory is one that all of them see.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmcontrast.errors import Preempted, UserError, choose

MODES = ("auto", "on", "off")
_LOST = ("Gloo", "Connection reset", "Connection closed", "Socket closed", "NCCL", "coordination service", "heartbeat")
_COORDINATOR_STAYS_SECONDS = 2.0


class Launch(NamedTuple):
  """How to start; None where JAX finds out by itself (SLURM, TPU pods)."""

  coordinator: str | None
  processes: int | None
  process_id: int | None
  local_devices: tuple[int, ...] | None = None


def launch_of(config: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Launch | None:
  """What `config.distributed` and the environment ask for; None: this is the only process.

  Raises UserError when the three numbers of a run are incomplete or impossible.
  """
  mode = choose(config["mode"], MODES, "config.distributed.mode")
  for key in ("timeout_seconds", "start_timeout_seconds"):
    if not config[key] >= 1:
      raise UserError(f"config.distributed.{key}={config[key]}: give at least 1")
  coordinator = config["coordinator"] or environment.get("MMCONTRAST_COORDINATOR", "")
  if mode == "off":
    return None
  if not coordinator:
    return Launch(None, None, None, _slurm_gpus(environment)) if mode == "on" or _cluster(environment) else None
  processes = _number(config["processes"] or environment.get("MMCONTRAST_PROCESSES"), "processes")
  given = config["process_id"] if config["process_id"] >= 0 else environment.get("MMCONTRAST_PROCESS_ID")
  process_id = _number(given, "process_id")
  if not coordinator.rpartition(":")[2].isdigit() or ":" not in coordinator:
    raise UserError(f"config.distributed.coordinator: {coordinator!r} has no port; give host:port of process 0")
  if processes < 1 or not 0 <= process_id < processes:
    raise UserError(
      f"config.distributed: process_id={process_id} of processes={processes}; "
      "number the processes from 0 to processes - 1"
    )
  return Launch(coordinator, processes, process_id)


def initialize(config: Mapping[str, Any]) -> bool:
  """Joins the other processes if there are any; call it before JAX's first computation.

  All of them must have started within `config.distributed.start_timeout_seconds`: hosts that are still
  installing need more patience than a run under way. A process whose heartbeats stop for
  `config.distributed.timeout_seconds` ends the others: JAX says which one is gone ("another task died")
  and stops the process.

  Returns whether this is now one of several processes.
  """
  launch = launch_of(config)
  if launch is None:
    return False
  start, timeout = int(config["start_timeout_seconds"]), int(config["timeout_seconds"])
  try:
    jax.distributed.initialize(
      launch.coordinator,
      launch.processes,
      launch.process_id,
      launch.local_devices,
      initialization_timeout=start,
      heartbeat_timeout_seconds=timeout,
      shutdown_timeout_seconds=timeout,
    )
  except (ValueError, RuntimeError) as error:
    reason = str(error).strip().splitlines()[0]
    raise UserError(
      f"config.distributed: the processes did not find each other within {start} seconds "
      f"({reason}); check coordinator, processes and process_id, or set mode='off'"
    ) from error
  return True


def shutdown() -> None:
  """Leaves the run after waiting for the others, at most the configured timeout."""
  jax.distributed.shutdown()


@contextlib.contextmanager
def session(config: Mapping[str, Any]) -> Iterator[None]:
  """`initialize`, then `shutdown`; an error in one of several processes ends them all.

  A process that fails does not wait for the others, who wait for it: it says why in one line (or
  by a traceback, if it is no mistake of the user) and exits with 2 (or 1).
  """
  started = initialize(config)
  try:
    yield
  except Preempted:  # in all of them, at the same step
    if started:
      shutdown()
    raise
  except BaseException as error:
    if started:
      _leave(error)
    raise
  if started:
    shutdown()


def is_first() -> bool:
  """Whether this process writes what only one may write."""
  return jax.process_index() == 0


def first_says(value: bool) -> bool:
  """The first process's `value`, in all of them: for what they read from a shared disk."""
  if jax.process_count() == 1:
    return value
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def lost_another(error: BaseException) -> bool:
  """Whether `error` is that another process of the run ended or cannot be reached."""
  return isinstance(error, jax.errors.JaxRuntimeError) and any(word in str(error) for word in _LOST)


def on_this_process(tree: Any) -> Any:
  """Global arrays -> arrays of this process's first device; alone, they are what they are."""
  if jax.process_count() == 1:
    return tree
  mesh = jax.tree.leaves(tree)[0].sharding.mesh
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  whole = jax.jit(lambda leaves: leaves, out_shardings=everywhere)(tree)
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)


def _cluster(environment: Mapping[str, str]) -> bool:
  """Whether SLURM's srun or a TPU pod started several of us."""
  tasks = environment.get("SLURM_NTASKS", "1") if "SLURM_STEP_NUM_NODES" in environment else "1"
  return int(tasks) > 1 or "," in environment.get("TPU_WORKER_HOSTNAMES", "")


def _slurm_gpus(environment: Mapping[str, str]) -> tuple[int, ...] | None:
  """Which of the GPUs it sees are this task's; None where srun says nothing of GPUs.

  JAX takes the one numbered as the task on its node, which is wrong where a task sees only its GPUs
  (--gpus-per-task), where one task has all of a node, and where a task has several.
  """
  visible = environment.get("CUDA_VISIBLE_DEVICES", "")
  if "SLURM_LOCALID" not in environment or not visible:
    return None
  count = len(visible.split(","))
  # "2(x3),1": two tasks on each of three nodes, one on the fourth.
  tasks_of_nodes = []
  for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
    tasks, _, times = part.rstrip(")").partition("(x")
    tasks_of_nodes += [int(tasks)] * int(times or 1)
  node = int(environment.get("SLURM_NODEID", "0"))
  tasks, task = tasks_of_nodes[min(node, len(tasks_of_nodes) - 1)], int(environment["SLURM_LOCALID"])
  if count == 1 or tasks == 1:
    return tuple(range(count))
  if count % tasks:
    raise UserError(
      f"SLURM started {tasks} tasks on this node, which see {count} GPUs "
      f"(CUDA_VISIBLE_DEVICES={visible}): start one task for each GPU (--ntasks-per-node), or one for "
      "each node"
    )
  return tuple(range(task * count // tasks, (task + 1) * count // tasks))


def _number(value: Any, name: str) -> int:
  try:
    return int(value)
  except (TypeError, ValueError):
    raise UserError(
      f"config.distributed.{name}: {value!r} is not a number; with a coordinator, give it or "
      f"${'MMCONTRAST_' + name.upper()}"
    ) from None


def _leave(error: BaseException) -> None:
  first = jax.process_index() == 0
  if isinstance(error, UserError):
    print(f"error: {error}", file=sys.stderr)
  elif lost_another(error):
    print(
      f"error: process {jax.process_index()} lost another process of this run, which ended or cannot be "
      f"reached; its own output says why ({str(error).splitlines()[0]}); start all of them again to resume "
      "from the last checkpoint",
      file=sys.stderr,
    )
  else:
    traceback.print_exception(error)
  sys.stdout.flush()
  sys.stderr.flush()
  if first and isinstance(error, UserError):
    time.sleep(_COORDINATOR_STAYS_SECONDS)  # the others, with the same mistake, get to say so
  os._exit(2 if isinstance(error, UserError) else 1)  # atexit would wait for the others
