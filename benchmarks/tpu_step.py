"""A training step compiled for a TPU slice that is not here, by the compiler's estimate; nothing runs.

    pip install 'mmcontrast[tpu_compile]'
    python benchmarks/tpu_step.py --topology v5e:2x4 --out docs/results/tpu_step.json

Cases: CLIP with ViT-B/16 at 224 px and a text tower of 12 x 768 at 64 tokens, bfloat16, blocks in a loop; "map": an
attention pool and remat "full", 256 images a chip, the shapes at which big_vision's two towers take the recorded cycles
(its commit of 2025-05, remat "nothing_saveable", text tower in bfloat16; measured apart, in the same way); "gap": the
mean of the patches, 64 images a chip, remat "dots_with_no_batch_dims_saveable". Cycles are the compiler's, those of
kernels ours (tpu_program.py); "dearest copy": the place of the first copy among the dearest instructions.
"""

from __future__ import annotations

import argparse
import math
import time

import jax
from record import record

from mmcontrast.config import base_config
from mmcontrast.cost import flops, tpu_program, tpu_slice
from mmcontrast.cost.dry_run import find_spec
from mmcontrast.objectives import terms as objective
from mmcontrast.parallel import sharding
from mmcontrast.training.program import make_plans, view_shapes

PEER = {("map", "v5e:2x4"): 1160.0}  # big_vision, millions of cycles
CASES = {"map": ("map", "full", 256), "gap": ("gap", "dots_with_no_batch_dims_saveable", 64)}


def config(pool: str, remat: str, batch_size: int) -> dict:
  """CLIP's step at the shapes of the module's docstring."""
  c = base_config()
  c.batch.size = batch_size
  c.data.update(dataset="emoji_views", image_size=224, text_length=64, views=dict(image=1, text=1))
  c.augment = dict(image="siglip")
  shape = dict(width=768, depth=12, heads=12, dtype="bfloat16", scan=True, remat=remat)
  c.towers = dict(
    image=dict(name="vit", patch=16, pool=pool, **shape),
    text=dict(name="text_transformer", vocab_size=32_000, max_length=64, **shape),
  )
  c.heads = dict(
    image_joint=dict(tower="image", name="linear", dim=768), text_joint=dict(tower="text", name="linear", dim=768)
  )
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True),
    )
  )
  return c.to_dict()


def measure(case: str, topology: str) -> dict[str, object]:
  """Compiles one case for `topology` and reads the program."""
  pool, remat, images = CASES[case]
  devices = tpu_slice.slice_devices(topology)
  chip, size = tpu_program.CHIPS[devices[0].device_kind], images * len(devices)
  plan = make_plans(config(pool, remat, size), lambda run: find_spec(run, "/nowhere")[0], devices)[""]
  program, where = plan.program, sharding.batch_sharding(plan.mesh)
  batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), program.batch)
  start = time.perf_counter()
  compiled = program.step.lower(program.state, batch).compile()
  seconds = time.perf_counter() - start
  listed = tpu_program.instructions(compiled.as_text(), chip)
  cycles = sum(one.cycles for one in listed)
  kernels = sum(one.cycles for one in listed if "pallas_call" in one.source)
  names = objective.required_embeddings(program.recipe.terms)
  variables = {"params": program.state.params, "batch_stats": program.state.batch_stats}
  forward = (
    flops.forward_flops(
      lambda v, x: program.recipe.model.embed(v, x, names, train=False), variables, view_shapes(program.batch)
    )
    / size
  )
  copies = [place for place, one in enumerate(tpu_program.by_source(listed), 1) if one.kind == "copy"]
  memory, peer = compiled.memory_analysis(), PEER.get((case, topology))
  return {
    "case": case,
    "topology": topology,
    "images/chip": images,
    "remat": remat,
    "M cycles": cycles / 1e6,
    "of kernels": kernels / 1e6,
    "peer, M cycles": peer,
    "ratio": cycles / 1e6 / peer if peer else None,
    "MFU %": 100 * flops.utilisation(forward, images / (cycles / chip.clock), chip.peak),
    "loss % of step": 100 * tpu_program.by_part(listed).get("loss", math.nan) / cycles,
    "GiB/chip": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30,
    "dearest copy": copies[0] if copies else None,
    "compile s": seconds,
  }


def main() -> None:
  """Prints a row a case."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--topology", default="v5e:2x4")
  parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
  parser.add_argument("--out")
  options = parser.parse_args()
  record([measure(case, options.topology) for case in options.cases], options.out)


if __name__ == "__main__":
  main()
