"""Evaluation of a trained model: the numbers, the table and the picture."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping

from mmcontrast.data.evaluation_set import load_evaluation_set
from mmcontrast.evaluation.suite import run_suite
from mmcontrast.inference import Inference


def evaluate_model(model: Inference, config: Mapping, data_dir: str | None = None) -> dict[str, float]:
  """Flat results, dataset first: {"emoji_noto/image_to_text/recall@1": 0.31, ...}, fractions."""
  return run_suite(model.embed, config["evaluation"], functools.partial(
      load_evaluation_set, image_size=config["data"]["image_size"], data_dir=data_dir))


def write_results(results: Mapping[str, float], workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes evaluation.json; returns its path."""
  path = pathlib.Path(workdir) / "evaluation.json"
  path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
  return path
