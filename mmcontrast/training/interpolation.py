"""Between two runs: WiSE-FT (Wortsman et al., arXiv:2109.01903), `mmcontrast interpolate`.

    (1 - alpha) * weights of the first + alpha * weights of the second

The second was fine-tuned from the first: weights in between often keep what the first does on other
data and most of what the second learned.
"""

from __future__ import annotations

import pathlib

import jax

from mmcontrast.config.stages import run_folder
from mmcontrast.data.tokenizers import FOLDER
from mmcontrast.errors import UserError
from mmcontrast.folders import at, check_empty, whole
from mmcontrast.interop.pretrained import check_same
from mmcontrast.models.lora import NO_LORA
from mmcontrast.parameter_paths import path_name
from mmcontrast.runs.checkpoint import load_run, save_untrained
from mmcontrast.training.initialization import initial_arrays


def interpolate(first: str, second: str, alpha: float, workdir: str | pathlib.Path) -> pathlib.Path:
  """Makes `workdir` a run of the weights between those of two runs: evaluate, embed, search and export work on it.

  Towers, heads and batch statistics are between the two; all else is the second's. The config says in
  `init` what the weights are. The run has been trained for 0 steps, and is not trained further.

  Args:
    first, second: folders of runs; averaged weights (config.ema) where they keep some.
    alpha: 0 gives the first, 1 the second.
  Raises UserError, before anything is written, where the two compute different functions, or `workdir` holds something.
  """
  if not 0 <= alpha <= 1:
    raise UserError(f"--alpha {alpha:g}: give a number from 0, the first run, to 1, the second")
  check_empty(workdir, "--workdir")
  (start, _, _), (config, variables, _) = load_run(first), load_run(second)
  for kind in ("towers", "heads"):
    for name in start[kind].keys() & config[kind].keys():
      check_same(config[kind][name], start[kind][name], f"{second}: config.{kind}.{name}")
  init = {
    kind: ((f"{first}:{kind}", 1 - alpha), (f"{second}:{kind}", alpha))
    for kind in ("towers", "heads")
    if jax.tree.leaves(variables["params"][kind])
  }
  config = {**config, "steps": 0, "init": init, "ema": {"decay": 0.0}, "lora": vars(NO_LORA)}
  arrays = initial_arrays(config, variables, {})
  found = jax.tree_util.tree_map_with_path(lambda path, leaf: arrays.get(path_name(path), leaf), variables)
  with whole(workdir, "--workdir") as folder:
    (folder / FOLDER).mkdir()
    for file in (run_folder(second) / FOLDER).glob("*"):
      (folder / FOLDER / file.name).write_bytes(file.read_bytes())
    save_untrained(folder, config, found)
  return at(workdir, "--workdir")
