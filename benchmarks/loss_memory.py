"""Memory and time of one loss term over the global matrix, value and gradients.

    python benchmarks/loss_memory.py --out docs/results/loss_memory.json
    python benchmarks/loss_memory.py --quick
    python benchmarks/loss_memory.py --compile_only

A row is one compiled program: float32, gradients of both embeddings and the temperature (of the
queries only where keys are momentum keys). `temp_mib` is what XLA's buffer assignment gives to
temporaries on one device, arguments and results aside; `seconds` the median of the timed calls, and
`of_dense` the median of the ratios to dense: in each round every implementation is called once.
On a CPU it simulates 8 devices that share the machine's cores. Accelerators, where JAX finds them,
are used as they are, with larger n; there it also gives the highest memory in use so far in the
process, `peak_mib`, and what does not fit gets a row that says so in `note`.

impl is dense, rows or ring of ours, or a peer: "compiler", the loss as one writes it down, with
global arrays that XLA shards by itself; "open_clip", open_clip's own on one device in torch, where
`peak_mib` is what a call allocates at most (open_clip_loss.py) and `loss_error` and `grad_error`
compare its loss and gradients with our ring's on the same embeddings. It needs torch and open_clip;
its row says so in `note` where they are missing, or where it does not fit in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

QUERY, KEY = "image[0]/joint", "text[0]/joint"
SOFT = dict(name="soft_similarity", of="image[0]/frozen@momentum")
TEACHER = dict(name="teacher", query=f"{QUERY}@momentum", key=f"{KEY}@momentum", temperature=0.01)
# name of the case -> (what its row says, the term's config)
CASES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
  "softmax": (dict(criterion="softmax", target="identity", columns="batch"), dict(direction="both")),
  "sigmoid": (
    dict(criterion="sigmoid", target="identity", columns="batch"),
    dict(criterion="sigmoid", bias=dict(init=-10.0)),
  ),
  "same_id": (dict(criterion="softmax", target="same_id", columns="batch"), dict(direction="both", target="same_id")),
  "soft": (dict(criterion="softmax", target="soft_similarity", columns="batch"), dict(direction="both", target=SOFT)),
  "teacher": (dict(criterion="softmax", target="teacher", columns="batch"), dict(direction="both", target=TEACHER)),
  "queue": (
    dict(criterion="softmax", target="identity", columns="batch+queue:65536"),
    dict(key=f"{KEY}@momentum", negatives="batch+queue:65536"),
  ),
}

CPU_SIZES = [4096, 16384, 32768]
ACCELERATOR_SIZES = [4096, 16384, 32768, 65536]
PLAIN = ("softmax", "sigmoid")  # Cases that the peers have.
PEERS = ("compiler", "open_clip")
OPEN_CLIP_MATRICES = 6  # Of N x N floats in memory at a time, at most (measured).


def plain_loss(case: str, image, text, log_scale, bias):
  """The loss as it is usually written: one `i @ t.T`, dense; cases of PLAIN only."""
  import jax
  import jax.numpy as jnp

  image, text = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
  logits = jnp.exp(log_scale) * image @ text.T + bias
  if case == "sigmoid":
    return -jnp.sum(jax.nn.log_sigmoid((2.0 * jnp.eye(len(image)) - 1.0) * logits)) / len(image)
  rows, columns = (jnp.diag(jax.nn.log_softmax(logits, axis)) for axis in (1, 0))
  return -jnp.mean(rows + columns) / 2


def compile_term(case: str, impl: str, n: int, dim: int, mesh: Any, tile: int) -> tuple[Any, Callable[[], tuple]]:
  """The compiled value and gradients of one case, and what makes its arguments."""
  import jax
  import jax.numpy as jnp
  from jax.sharding import NamedSharding, PartitionSpec

  from mmcontrast.objectives import terms as objective

  config, temperature = CASES[case][1], dict(init=0.07, learned=True)
  terms = objective.parse_terms({"t": dict(query=QUERY, key=KEY, temperature=temperature) | config})

  def arguments():
    keys = iter(jax.random.split(jax.random.key(0), 8))

    def unit(rows):
      return jax.random.normal(next(keys), (rows, dim)) / dim**0.5

    embeddings = {name: unit(n) for name in objective.required_embeddings(terms)}
    trained = {name: x for name, x in embeddings.items() if not name.endswith("@momentum")}
    fixed = {name: x for name, x in embeddings.items() if name.endswith("@momentum")}
    queues = {name: {"keys": unit(length)} for name, length in objective.queues(terms).items()}
    return trained, objective.init_parameters(terms), fixed, {"id": jnp.arange(n) // 2}, queues

  def loss(trained, parameters, fixed, info, queues):
    if impl == "compiler":
      own = parameters["t"]
      return plain_loss(case, trained[QUERY], trained[KEY], own["log_scale"], own.get("bias", 0.0))
    return objective.evaluate(terms, trained | fixed, info, parameters, queues, {}, mesh=mesh, impl=impl, tile=tile)[0]

  split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
  shardings = jax.tree.map(lambda x: split if x.ndim else whole, jax.eval_shape(arguments))
  function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), in_shardings=shardings)
  compiled = function.lower(*jax.eval_shape(arguments)).compile()
  return compiled, lambda: jax.jit(arguments, out_shardings=shardings)()


def measure(case: str, impls: list[str], n: int, dim: int, repeats: int, tile: int) -> list[dict[str, Any]]:
  """A row of the table for each of `impls`; `seconds` is None when nothing is to be timed."""
  import jax

  devices = jax.device_count()
  mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  rows, programs, values = {}, {}, None
  for impl in impls:
    tiled = impl in ("rows", "ring")
    row = dict(impl=impl, **CASES[case][0], n=n, dim=dim, devices=devices, tile=tile if tiled else None)
    rows[impl] = row | {"temp_mib": None, "seconds": None, "of_dense": None}
    with _if_it_fits(rows[impl]):
      program, arguments = compile_term(case, impl, n, dim, mesh, tile)
      rows[impl]["temp_mib"] = round(program.memory_analysis().temp_size_in_bytes / 2**20, 1)
      if repeats:
        values = arguments() if values is None else values
        _call(program, values)  # warms up
        programs[impl] = program
    stats = jax.local_devices()[0].memory_stats()
    if stats and impl in programs:
      rows[impl]["peak_mib"] = round(stats["peak_bytes_in_use"] / 2**20, 1)
  rounds = [{impl: _call(program, values) for impl, program in programs.items()} for _ in range(repeats)]
  for impl in programs:
    rows[impl]["seconds"] = round(statistics.median(seconds[impl] for seconds in rounds), 4)
    if "dense" in programs:
      ratio = statistics.median(seconds[impl] / seconds["dense"] for seconds in rounds)
      rows[impl]["of_dense"] = round(ratio, 3)
  return list(rows.values())


@contextlib.contextmanager
def _if_it_fits(row: dict[str, Any]) -> Iterator[None]:
  """Notes in the row that the device's memory does not suffice, if so."""
  import jax

  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    row["note"] = "not run: does not fit in memory"


def _call(program: Any, values: tuple) -> float:
  """Seconds of one call."""
  import jax

  start = time.perf_counter()
  jax.block_until_ready(program(*values))
  return time.perf_counter() - start


def measure_open_clip(case: str, n: int, dim: int, repeats: int, tile: int) -> dict[str, Any]:
  """A row of open_clip's own loss; without figures where it cannot run, and then it says why."""
  import jax
  import numpy as np
  import open_clip_loss

  row = dict(impl="open_clip", **CASES[case][0], n=n, dim=dim, devices=1, tile=None, temp_mib=None)
  row["seconds"] = None
  try:
    open_clip_loss.load()
  except ImportError as error:
    return row | {"note": f"not run: {error}"}
  needed = OPEN_CLIP_MATRICES * 4 * n * n
  if needed > 0.8 * _free_bytes():
    return row | {"note": f"not run: needs about {needed >> 20} MiB"}
  mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  compiled, arguments = compile_term(case, "ring", n, dim, mesh, tile)
  values = arguments()
  wanted, (by_embedding, by_temperature) = jax.device_get(compiled(*values))
  own = {name: float(x) for name, x in jax.device_get(values[1])["t"].items()}
  inputs = [np.asarray(values[0][name]) for name in (QUERY, KEY)]
  found, loss, gradients = open_clip_loss.measure(
    case, *inputs, float(np.exp(own["log_scale"])), own.get("bias", 0.0), repeats
  )
  ours = [by_embedding[QUERY], by_embedding[KEY], by_temperature["t"]["log_scale"]]
  errors = [np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in zip(gradients, ours)]
  row |= found | {"loss_error": abs(loss / float(wanted) - 1), "grad_error": float(max(errors))}
  return row


def _free_bytes() -> int:
  return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """Every case by every implementation by every size, peers where they have the case."""
  for n in arguments.n:
    for case in arguments.cases:
      timed = n <= arguments.timed_up_to and case in arguments.timed
      repeats = arguments.repeats if timed else 0
      impls = [impl for impl in arguments.impls if impl not in PEERS or case in PLAIN]
      ours = [impl for impl in impls if impl != "open_clip"]
      yield from measure(case, ours, n, arguments.dim, repeats, arguments.tile)
      if timed and "open_clip" in impls:
        yield measure_open_clip(case, n, arguments.dim, repeats, arguments.tile)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--n", type=int, nargs="+", help="batch sizes (default: by the machine)")
  parser.add_argument("--dim", type=int, default=512)
  parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
  parser.add_argument("--timed", nargs="*", choices=CASES, default=list(PLAIN), help="other cases are only compiled")
  parser.add_argument("--impls", nargs="+", default=["dense", "rows", "ring", *PEERS])
  parser.add_argument("--tile", type=int, default=512)
  parser.add_argument("--devices", type=int, default=8, help="simulated devices, on a CPU")
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--timed_up_to", type=int, help="larger n are only compiled (default: by the machine)")
  parser.add_argument("--compile_only", action="store_true", help="memory only: nothing is run")
  parser.add_argument("--quick", action="store_true", help="n 2048, one timed call")
  parser.add_argument("--out", help="JSON file to write")
  arguments = parser.parse_args()
  if arguments.quick:
    arguments.n, arguments.repeats = [2048], 1
  if arguments.compile_only:
    arguments.timed = []
  # Only the CPU reads this, and only before JAX starts.
  flag = f"--xla_force_host_platform_device_count={arguments.devices}"
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"

  import jax
  from record import record

  accelerated = jax.default_backend() != "cpu"
  arguments.n = arguments.n or (ACCELERATOR_SIZES if accelerated else CPU_SIZES)
  arguments.timed_up_to = arguments.timed_up_to or (max(arguments.n) if accelerated else 16384)
  record(list(rows(arguments)), arguments.out)


if __name__ == "__main__":
  main()
