"""mmcontrast: multimodal contrastive pretraining in JAX, each method a config."""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
  import os

  from mmcontrast.inference import Inference

__version__ = "0.1.0"


def load(workdir: str | os.PathLike, step: int | None = None, data_dir: str | None = None) -> Inference:
  """The model of a run, from its newest checkpoint or that of `step`: see `Inference.encode_image`, `encode_text`.

  Args:
    workdir: the folder of a run, trained or imported. It may have been moved: its tokenizer is in it.
    data_dir: where datasets live, for a run that was trained before tokenizers were kept with it.
  Raises UserError when there is no such checkpoint or its tokenizer is missing.
  """
  from mmcontrast import inference  # takes seconds
  return inference.load(workdir, step, data_dir)
