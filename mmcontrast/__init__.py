"""mmcontrast: multimodal contrastive pretraining in JAX, each method a config.

    import mmcontrast
    config = mmcontrast.load_config("own_data", ["--config.data.dataset=jsonl:/data/mine.jsonl"])
    mmcontrast.train(config, "runs/mine")
    mmcontrast.evaluate("runs/mine")
    model = mmcontrast.load("runs/mine")

docs/python.md tells the whole way. What takes seconds to import is imported at first use.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
  import os

  from mmcontrast import align, benchmark, caption, embed, evaluate, index, layers, match, search, train
  from mmcontrast.config import base_config, load_config
  from mmcontrast.errors import UserError
  from mmcontrast.inference import Inference

__version__ = "0.1.0"
__all__ = [
  "UserError",
  "align",
  "base_config",
  "benchmark",
  "caption",
  "embed",
  "evaluate",
  "index",
  "layers",
  "load",
  "load_config",
  "match",
  "search",
  "segment",
  "train",
]

_MODULES = (
  "align",
  "benchmark",
  "caption",
  "embed",
  "evaluate",
  "index",
  "layers",
  "match",
  "search",
  "segment",
  "train",
)  # each is called as its function: called.py
_PLACES = {"UserError": "errors", "base_config": "config", "load_config": "config"}


def __getattr__(name: str) -> typing.Any:
  if name in _MODULES:
    return importlib.import_module(f"mmcontrast.{name}")
  if name in _PLACES:
    return getattr(importlib.import_module(f"mmcontrast.{_PLACES[name]}"), name)
  raise AttributeError(f"module 'mmcontrast' has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})


def load(workdir: str | os.PathLike, step: int | None = None, data_dir: str | None = None) -> Inference:
  """The model of a run, from its newest checkpoint or that of `step`: see `Inference.encode_image`, `encode_text`.

  Args:
    workdir: the folder of a run, trained or imported. It may have been moved: its tokenizer is in it.
    data_dir: where datasets live, for a run that was trained before tokenizers were kept with it.
  Raises UserError when there is no such checkpoint or its tokenizer is missing.
  """
  from mmcontrast import inference  # takes seconds

  return inference.load(workdir, step, data_dir)
