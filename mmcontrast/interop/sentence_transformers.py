"""What sentence-transformers adds to a folder of transformers: modules.json and the files that it names."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.interop.json_files import read_json

_MODULES = ("Transformer", "Pooling", "Normalize")
_POOLS = {"mean_tokens": "mean", "cls_token": "cls", "mean": "mean", "cls": "cls"}


def read_pool(folder: pathlib.Path) -> str | None:
  """The `pool` of an encoder, "mean" or "cls"; None where there is no modules.json.

  Unit vectors, which a module may ask for, are what every joint space has. Raises UserError for another module or
  pooling.
  """
  pool, file = None, folder / "modules.json"
  for module in read_json(file, list) if file.is_file() else ():
    kind = module["type"].rpartition(".")[2]
    if kind not in _MODULES:
      raise UserError(f"{file}: a module {kind!r}, which no encoder has; {nearest(kind, _MODULES)}")
    if kind == "Pooling":
      path = folder / module["path"] / "config.json"
      found = read_json(path)
      modes = [key.removeprefix("pooling_mode_") for key, on in found.items() if key.startswith("pooling_mode_") and on]
      pool = _POOLS[choose("+".join(modes) or found.get("pooling_mode"), _POOLS, f"{path}: pooling_mode")]
  return pool


def read_settings(folder: pathlib.Path) -> dict[str, Any]:
  """`max_seq_length` and `do_lower_case`, where the folder has them."""
  file = folder / "sentence_bert_config.json"
  return read_json(file) if file.is_file() else {}


def write(folder: pathlib.Path, pool: str, width: int, length: int) -> None:
  """Adds to a folder of transformers that sentences are the `pool` of its tokens [L, width], L2-normalised."""
  paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
  modules = [
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for i, (kind, path) in enumerate(paths.items())
  ]
  pooling = {
    "word_embedding_dimension": width,
    "pooling_mode_cls_token": pool == "cls",
    "pooling_mode_mean_tokens": pool == "mean",
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
  }
  for name, content in {
    "modules.json": modules,
    "1_Pooling/config.json": pooling,
    "sentence_bert_config.json": {"max_seq_length": length, "do_lower_case": False},
  }.items():
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content, indent=2) + "\n")
  (folder / "2_Normalize").mkdir(exist_ok=True)
