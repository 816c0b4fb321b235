"""A training step compiled for a TPU slice that is not here, by the compiler's estimate; nothing runs.

    pip install 'mmcontrast[tpu_compile]'
    python benchmarks/tpu_step.py --out docs/results/tpu_step.json      # --cases gap: one, the others stay

Cases, each for eight chips:
- map: CLIP with ViT-B/16 at 224 px and a text tower of 12 x 768 at 64 tokens, bfloat16, blocks in a loop; an attention
  pool and remat "full", 256 images a chip, the shapes at which big_vision's two towers take the recorded cycles (its
  commit of 2025-05, remat "nothing_saveable", text tower in bfloat16; measured apart, in the same way).
- gap: the mean of the patches, 64 images a chip, remat "keep_products". gap_128: 128 images; gap_128_unrolled: 128, the
  blocks one by one, which spares the copies of what a loop keeps for its backward pass and takes longer to compile;
  gap_fsdp: 64, parameters and optimizer state cut over the chips.
SigLIP So400m/14 on v6e, and ResNet-50 with MCT's five terms on eight chips, are recipes: tpu_recipes.py.
Cycles are the compiler's, those of kernels ours (tpu_program.py). "copies in ten": how many of the ten dearest
instructions are copies.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
from record import record

from mmcontrast.config import base_config
from mmcontrast.cost import flops, tpu_program, tpu_slice
from mmcontrast.cost.dry_run import find_spec, forward_flops
from mmcontrast.parallel import sharding
from mmcontrast.training.program import make_plans

PEER = {("map", "v5e:2x4"): 1160.0}  # big_vision, millions of cycles


FSDP = {"sharding": "fsdp", "mesh": {"data": 1, "fsdp": -1, "tensor": 1}}


def two_towers(pool: str, remat: str, images: int, scan: bool = True) -> dict:
  """CLIP's step at the shapes of the module's docstring."""
  c = base_config()
  c.batch.size = 8 * images
  c.data.update(dataset="emoji_views", image_size=224, text_length=64, views=dict(image=1, text=1))
  c.augment = dict(image="siglip")
  shape = dict(width=768, depth=12, heads=12, dtype="bfloat16", scan=scan, remat=remat)
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


CASES = {  # name -> (slice, what makes the config)
  "map": ("v5e:2x4", lambda: two_towers("map", "full", 256)),
  "gap": ("v5e:2x4", lambda: two_towers("gap", "keep_products", 64)),
  "gap_128": ("v5e:2x4", lambda: two_towers("gap", "keep_products", 128)),
  "gap_128_unrolled": ("v5e:2x4", lambda: two_towers("gap", "keep_products", 128, scan=False)),
  "gap_fsdp": ("v5e:2x4", lambda: two_towers("gap", "keep_products", 64) | FSDP),
}


def estimate(config: Mapping, topology: str) -> dict[str, Any]:
  """Compiles the step of a config for `topology` and reads the program: a row of a table."""
  devices = tpu_slice.slice_devices(topology)
  chip, size = tpu_program.CHIPS[devices[0].device_kind], config["batch"]["size"]
  images = size / len(devices)
  plan = make_plans(config, lambda run: find_spec(run, "/nowhere")[0], devices)[""]
  program, where = plan.program, sharding.batch_sharding(plan.mesh)
  batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), program.batch)
  start, spent = time.perf_counter(), time.process_time()
  compiled = program.step.lower(program.state, batch).compile()
  seconds, spent = time.perf_counter() - start, time.process_time() - spent
  listed = tpu_program.instructions(compiled.as_text(), chip)
  cycles = sum(one.cycles for one in listed)
  kernels = sum(one.cycles for one in listed if "pallas_call" in one.source)
  operations = forward_flops(program, size)
  dearest, memory = tpu_program.by_source(listed)[:10], compiled.memory_analysis()
  return {
    "topology": topology,
    "batch": size,
    "M parameters": sum(leaf.size for leaf in jax.tree.leaves(program.state.params)) / 1e6,
    "remat": " ".join(f"{name}: {tower.get('remat', 'none')}" for name, tower in config["towers"].items()),
    "M cycles": cycles / 1e6,
    "of kernels": kernels / 1e6,
    "ms": cycles / chip.clock * 1e3,
    "examples/s/chip": images / (cycles / chip.clock),
    "MFU %": 100 * flops.utilisation(operations, images / (cycles / chip.clock), chip.peak),
    "loss % of step": 100 * tpu_program.by_part(listed).get("loss", math.nan) / cycles,
    "GiB/chip": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30,
    "copies in ten": tpu_program.copies(dearest),
    "dearest": [f"{one.cycles / 1e6:.1f} M {one.kind} {one.result[:60]} {one.source[-60:]}" for one in dearest],
    "compile s": seconds,
    "compile, processor s": spent,
  }


def measure(case: str) -> dict[str, Any]:
  """The row of a case."""
  topology, config = CASES[case]
  row, peer = estimate(config(), topology), PEER.get((case, topology))
  return {"case": case, **row, "peer, M cycles": peer, "ratio": row["M cycles"] / peer if peer else None}


def main() -> None:
  """Prints a row a case."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
  parser.add_argument("--out")
  options = parser.parse_args()
  earlier = pathlib.Path(options.out or "")
  rows = {row["case"]: row for row in json.loads(earlier.read_text())["rows"]} if earlier.is_file() else {}
  for case in options.cases:
    rows[case] = measure(case)
    record([rows[name] for name in CASES if name in rows], options.out)


if __name__ == "__main__":
  main()
