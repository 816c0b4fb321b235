"""Matrix products of CLIP's towers on a CPU, by what XLA gives them to.

    python benchmarks/matrix_products.py

GFLOP a second of processor time, the best of the rounds, one round after the other: XLA's default and the options that
`mmcontrast.compilation` sets. forward: x w; input: g w^T; weights: x^T g.
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np
from jax import lax
from record import record

from mmcontrast.compilation import compiler_options

SHAPES = ((1600, 768, 3072), (1600, 3072, 768), (1600, 768, 2304), (2464, 512, 2048), (2464, 2048, 512))
FORMS = {"forward": (0, 1, ((1,), (0,))), "input": (2, 1, ((1,), (1,))), "weights": (0, 2, ((0,), (0,)))}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=10)
  parser.add_argument("--out")
  options = parser.parse_args()
  draw, rows = np.random.default_rng(0), []
  for count, inner, columns in SHAPES:
    sides = ((count, inner), (inner, columns), (count, columns))
    arrays = [jax.numpy.asarray(draw.standard_normal(side, np.float32)) for side in sides]
    compiled = {}
    for form, (left, right, contracted) in FORMS.items():
      for name, given in (("default", {}), ("ours", compiler_options("cpu"))):
        pair = (arrays[left], arrays[right])
        product = jax.jit(lambda a, b, axes=contracted: lax.dot_general(a, b, (axes, ((), ()))), compiler_options=given)
        compiled[f"{form}, {name}"] = (product.lower(*pair).compile(), pair)
    best = dict.fromkeys(compiled, float("inf"))
    for _ in range(options.rounds):
      for name, (product, pair) in compiled.items():
        start = time.process_time()
        jax.block_until_ready(product(*pair))
        best[name] = min(best[name], time.process_time() - start)
    gigaflops = 2e-9 * count * inner * columns
    rows.append({"m": count, "k": inner, "n": columns} | {name: gigaflops / taken for name, taken in best.items()})
  record(rows, options.out)


if __name__ == "__main__":
  main()
