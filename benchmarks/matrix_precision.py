"""What `config.matrix.precision` costs and gives: errors of the loss and its gradient, and estimated cycles on a TPU.

    python benchmarks/matrix_precision.py --out docs/results/matrix_precision.json
    python benchmarks/matrix_precision.py --cycles --out docs/results/matrix_cycles.json

Errors: CLIP's loss over N pairs of D numbers at scale 100, through the tiles of `reduce_tiles`, with each product of
the tiles, forward and backward, made as a TPU makes it: both sides are cut into one ("default"), two ("high") or three
("highest") bfloat16 numbers, whose one, three or six leading products are summed in float32. So they are emulated on a
CPU, not measured on a TPU. The truth is the plain formula in float64 of the same float32 numbers. Data: "random": pairs
that have nothing in common; "trained": partners with a cosine of 0.2, at a loss of some tenths. "largest": the largest
difference of a number over the largest number; "norm": the norm of the difference over the norm.

Cycles and memory: value and gradients of the same loss alone at N = 32,768 and D = 512, compiled for slices: by the
ring in each precision and with tiles of several sizes, and by what `impl="auto"` takes. The memory is that of the
compiled program's temporaries: of the loss and nothing else.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from record import record

from mmcontrast.cost import tpu_program, tpu_slice
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.global_matrix import PRECISIONS, choose_impl, reduce_tiles
from mmcontrast.objectives.reductions import Reduction
from mmcontrast.parallel import sharding

PARTS = {"default": 1, "high": 2, "highest": 3}
SCALE = 100.0
QUERY, KEY = "image[0]/image_joint", "text[0]/text_joint"


def split(x: jax.Array, parts: int) -> list[jax.Array]:
  """Numbers of eight bits each that sum up to x, the largest first."""
  found = []
  for _ in range(parts):
    found.append(x.astype(jnp.bfloat16).astype(jnp.float32))
    x = x - found[-1]
  return found


def product(a: jax.Array, b: jax.Array, precision: str) -> jax.Array:
  """[m, k] x [k, n] as a TPU multiplies."""
  count = PARTS[precision]
  left, right = split(a, count), split(b, count)
  pairs = [(i, j) for i in range(count) for j in range(count) if i + j < count]
  return sum(left[i] @ right[j] for i, j in sorted(pairs, key=sum, reverse=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def similarities(rows: jax.Array, columns: jax.Array, precision: str) -> jax.Array:
  """[r, D], [c, D] -> [r, c]; its gradients are products of the same precision."""
  return product(rows, columns.T, precision)


def _backward(precision, saved, dy):
  rows, columns = saved
  return product(dy, columns, precision), product(dy.T, rows, precision)


similarities.defvjp(
  lambda rows, columns, precision: (similarities(rows, columns, precision), (rows, columns)), _backward
)


def tiled_loss(images: jax.Array, texts: jax.Array, precision: str) -> jax.Array:
  """CLIP's loss, by tiles."""
  rows = SCALE * images

  def tile(rows, columns, shared):
    del shared
    return {"logits": similarities(rows, columns, precision)}, None

  sums = {axis: Reduction("logits", axis, "logsumexp") for axis in ("row", "column")}
  found = reduce_tiles(tile, sums, rows, texts, impl="ring")
  return jnp.mean((found["row"] + found["column"]) / 2 - jnp.sum(rows * texts, -1))


def plain_loss(images: jax.Array, texts: jax.Array) -> jax.Array:
  """CLIP's loss by its formula."""
  logits = SCALE * images @ texts.T
  by_row, by_column = (jnp.diag(jax.nn.log_softmax(logits, axis)) for axis in (1, 0))
  return -jnp.mean(by_row + by_column) / 2


def pairs(data: str, n: int, dim: int) -> list[np.ndarray]:
  """Unit vectors [N, D] of two modalities, float32."""
  draw = np.random.default_rng(0)
  shared = {"random": 0.0, "trained": 0.5}[data] * draw.normal(size=(n, dim))
  found = [shared + draw.normal(size=(n, dim)) for _ in range(2)]
  return [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in found]


def errors(n: int, dim: int) -> list[dict[str, Any]]:
  """A row for each kind of data and precision."""
  rows = []
  for data in ("random", "trained"):
    inputs = pairs(data, n, dim)
    with jax.enable_x64(True):
      truth, exact = jax.value_and_grad(plain_loss, (0, 1))(*(jnp.asarray(x, jnp.float64) for x in inputs))
      truth, exact = float(truth), [np.asarray(g) for g in exact]
    for precision in PRECISIONS:
      loss, gradients = jax.jit(jax.value_and_grad(functools.partial(tiled_loss, precision=precision), (0, 1)))(*inputs)
      away = [np.asarray(g, np.float64) - true for g, true in zip(gradients, exact)]
      rows.append(
        {
          "data": data,
          "precision": precision,
          "n": n,
          "dim": dim,
          "loss": truth,
          "error of the loss": abs(float(loss) - truth),
          "gradient, largest": max(abs(d).max() / abs(true).max() for d, true in zip(away, exact)),
          "gradient, norm": max(np.linalg.norm(d) / np.linalg.norm(true) for d, true in zip(away, exact)),
        }
      )
  return rows


def compile_loss(devices: Any, n: int, dim: int, tile: int, precision: str, impl: str = "ring") -> Any:
  """Value and gradients of CLIP's loss alone, compiled for `devices`."""
  mesh = sharding.make_mesh(dict(data=-1, fsdp=1, tensor=1), devices)
  terms = objective.parse_terms({"t": dict(query=QUERY, key=KEY, temperature=dict(init=0.01, learned=True))})

  def loss(embeddings, parameters):
    options = dict(mesh=mesh, impl=impl, tile=tile, precision=precision)
    return objective.evaluate(terms, embeddings, {}, parameters, {}, {}, **options)[0]

  cut, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  embeddings = {name: jax.ShapeDtypeStruct((n, dim), jnp.float32, sharding=cut) for name in (QUERY, KEY)}
  parameters = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
    jax.eval_shape(lambda: objective.init_parameters(terms)),
  )
  return jax.jit(jax.value_and_grad(loss, (0, 1))).lower(embeddings, parameters).compile()


def cycles(topology: str, n: int, dim: int, impl: str, tile: int, precision: str) -> dict[str, Any]:
  """A row: what the loss alone costs on a slice."""
  devices = tpu_slice.slice_devices(topology)
  compiled = compile_loss(devices, n, dim, tile, precision, impl)
  text = compiled.as_text()
  listed = tpu_program.instructions(text, tpu_program.CHIPS[devices[0].device_kind])
  moved = [one for one in tpu_program.collectives(text) if one.kind == "collective-permute"]
  return {
    "topology": topology,
    "impl": f"auto: {choose_impl(n, n, dim, len(devices))}" if impl == "auto" else impl,
    "precision": precision,
    "tile": tile,
    "n": n,
    "dim": dim,
    "M cycles": sum(one.cycles for one in listed) / 1e6,
    "MiB of temporaries": compiled.memory_analysis().temp_size_in_bytes / 2**20,
    "permutes": sum(one.count for one in moved),
    "hidden": sum(one.hidden for one in moved),
  }


CASES = [
  *(("v5e:2x4", "ring", 512, precision) for precision in PRECISIONS),
  *(("v5e:2x4", "ring", tile, "highest") for tile in (256, 1024, 2048)),
  *(("v5e:16x16", impl, 512, "highest") for impl in ("auto", "ring", "rows")),
  *(("v5e:16x16", "ring", 512, precision) for precision in ("high", "default")),
]


def main() -> None:
  """Prints a row a precision, or a case."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--n", type=int, default=4096, help="pairs, for errors")
  parser.add_argument("--dim", type=int, default=512)
  parser.add_argument("--cycles", action="store_true", help="compile the loss for slices instead")
  parser.add_argument("--out")
  options = parser.parse_args()
  if not options.cycles:
    record(errors(options.n, options.dim), options.out)
    return
  rows = []
  for topology, impl, tile, precision in CASES:
    rows.append(cycles(topology, 32_768, options.dim, impl, tile, precision))
    record(rows, options.out)


if __name__ == "__main__":
  main()
