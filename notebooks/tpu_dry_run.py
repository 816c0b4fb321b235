# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a TPU pod would do, from a CPU
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/tpu_dry_run.ipynb)
#
# A dry run compiles the training step of a config for a slice of TPUs that are not attached, with Google's own
# compiler, which comes as a package of 690 MB. It says whether the step fits into memory, what it would cost, and where
# the time would go. These are the compiler's estimates, not measurements. No data are needed.

# %% cellView="form"
# @title Install
# @markdown In a checkout nothing need be filled in. Elsewhere give the address of the repository, such as
# @markdown `https://github.com/OWNER/NAME`. `tpu_compile` brings the compiler; without it, devices of this machine are
# @markdown simulated instead.
repository = "ADDRESS"  # @param {type:"string"}
extras = "tpu_compile"  # @param ["tpu_compile", ""]

import os
import pathlib
import subprocess
import sys

small = os.environ.get("MMCONTRAST_NOTEBOOKS") == "small"  # seconds instead of minutes, for tests
if small:
  extras = ""
above = [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]
checkout = next((path for path in above if (path / "mmcontrast" / "__init__.py").is_file()), None)
if not checkout and repository == "ADDRESS":
  raise ValueError("fill in `repository`: the address of the page where you found this notebook")
extras = f"[{extras}]" if extras else ""
package = f"{checkout}{extras}" if checkout else f"mmcontrast{extras} @ git+{repository}"
done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", package], capture_output=True, text=True)
if done.returncode:
  raise RuntimeError(done.stderr)

# %% [markdown]
# ## A config on a slice
#
# `own_data:size=small` is CLIP with a ViT-S/16 at 224 pixels. `v5e:4x4` are sixteen v5e chips; v4, v5p and v6e are
# known too. The batch is that of all chips together. With `scan` the blocks of a tower are one loop, which is compiled
# once; `coco_captions` says only how much data there would be.

# %% cellView="form"
# @title Dry run
config = "own_data:size=small,held_out=0"  # @param {type:"string"}
topology = "v5e:4x4"  # @param {type:"string"}
batch_size = 2048  # @param {type:"integer"}

import importlib.util

config, batch_size = ("own_data:smoke,held_out=0", 64) if small else (config, batch_size)
compiler = importlib.util.find_spec("libtpu") is not None
devices = ["--topology", topology] if compiler else ["--devices", "4" if small else "16"]
always = ["--config.towers.image.depth=2", "--config.towers.text.depth=2"] if small else []
always += ["--config.data.dataset=coco_captions", "--config.towers.image.scan=True", "--config.towers.text.scan=True"]


def dry_run(*words):
  """Runs `mmcontrast train --dry_run` and prints what it says."""
  command = [sys.executable, "-m", "mmcontrast", "train", "--config", config, "--dry_run", *devices, *always, *words]
  print("mmcontrast", *command[3:], "\n", flush=True)
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    raise RuntimeError(done.stderr)
  print(done.stdout)


dry_run(f"--config.batch.size={batch_size}")

# %% [markdown]
# ## The same batch in parts
#
# With microbatches the towers see a part of the batch at a time, and the loss still sees all of it: its gradient is
# that of the whole batch. Memory of activations falls, and the forward pass of the towers is done twice.

# %% cellView="form"
# @title Microbatches
microbatches = 4  # @param {type:"integer"}

dry_run(f"--config.batch.size={batch_size}", f"--config.batch.microbatches={microbatches}")

# %% [markdown]
# ## Parameters sharded
#
# `fsdp` shards parameters and optimizer over the chips: more of them fit, for the price of gathering them. For towers
# of this size it costs more than it saves; for those of a ViT-L/14 it does not.

# %%
dry_run(f"--config.batch.size={batch_size}", "--config.sharding=fsdp", "--config.mesh.fsdp=4")

# %% [markdown]
# ## From here to a pod
#
# [docs/launching.md](../docs/launching.md) starts from a project with quota and ends at a resumed run. The command is
# the one above without `--dry_run`, with a bucket to write to:
#
#     launch/tpu_vm.sh babysit mine --zone us-west4-a --type v5litepod-16 --spot -- \
#         --config own_data --config.data.dataset=jsonl:gs://my-bucket/mine.jsonl \
#         --config.data.tokenizer=gs://my-bucket/mine.model --workdir gs://my-bucket/runs/clip
