"""What GRAM's volume of a drawing and two names is solved with, by which of the three is the anchor.

    python benchmarks/gram_forms.py --steps 250 --out docs/results/gram_forms.json

The same data and schedule in three forms: the English name as the anchor with one text tower (drawing and German name
are the tuple); the drawing as the anchor with one text tower; and the config methods/gram, the drawing as the anchor
with a text tower for each language. Of each, on drawings whose style was not trained on: the median rank, among all
concepts, of the right pair of names by the volume that a drawing spans with it, and of the right drawing, among all,
by that of a pair of names; and how often the German name alone finds its English one, by the volume of the two. A
model that does not look at drawings has a median rank of half the number of concepts.
"""

from __future__ import annotations

import argparse
import copy
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from methods import config_of
from record import record

STYLE = "emoji_noto"


def forms(steps: int) -> dict[str, dict[str, Any]]:
  """Name of a form -> its config."""
  shipped = config_of("gram", steps)
  alone = copy.deepcopy(shipped)
  ((name, term),) = alone["objective"].items()
  english, german = "text[0]/text_joint", "text[1]/text_joint"
  del alone["towers"]["german"], alone["heads"]["german_joint"]
  image = term["query"]
  first = {**alone, "objective": {name: {**term, "query": english, "key": (image, german)}}}
  second = {**alone, "objective": {name: {**term, "key": (english, german)}}}
  return {
    "English anchor, one text tower": first,
    "drawing anchor, one text tower": second,
    "drawing anchor, two text towers": shipped,
  }


def measure(workdir: pathlib.Path, data_dir: str | None) -> dict[str, float]:
  """Ranks by the volume, of the newest checkpoint of `workdir`."""
  from mmcontrast.data.evaluation_set import load_evaluation_set
  from mmcontrast.data.sources import emoji
  from mmcontrast.inference import Inference, load
  from mmcontrast.objectives.terms import parse_terms

  model = load(workdir, None, data_dir)
  score = next(iter(parse_terms(model.config["objective"]).values())).score
  drawings = load_evaluation_set(STYLE, "all", model.config["data"], data_dir)
  concepts = emoji.open_built("emoji_views", "all", data_dir)
  records = (concepts[index] for index in range(len(concepts)))
  names = {record["id"]: record["names"] for record in records}
  english, german = ([names[number][language] for number in range(len(names))] for language in ("en", "de"))
  head = "german_joint" if "german_joint" in model.config["heads"] else "text_joint"
  evaluation = {**model.config["evaluation"], "text": head}
  of_german = Inference({**model.config, "evaluation": evaluation}, model.model, model.variables, model.tokenizer)
  image, first, second = (
    model.embed("image", drawings.things["image"].values),
    model.embed("text", english),
    of_german.embed("text", german),
  )
  matrix = np.asarray(score.tile(image, score.join([first, second])))
  right = matrix[np.arange(len(image)), drawings.things["image"].concept]
  of_names = _ranks(matrix, right[:, None])
  of_drawings = _ranks(matrix[:, drawings.image_id].T, right[:, None])
  alone = np.asarray(score.tile(second, score.join([first])))
  return {
    "drawing to names, median rank": float(np.median(of_names)),
    "names to drawing, median rank": float(np.median(of_drawings)),
    "concepts": len(names),
    "drawings": len(image),
    "German to English R@1": round(100 * float(np.mean(alone.argmax(1) == np.arange(len(names)))), 1),
  }


def _ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
  """1 for the best; equals count against the model."""
  return np.sum(scores >= right, axis=1)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--steps", type=int, default=250)
  parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/gram_forms"))
  parser.add_argument("--data_dir")
  parser.add_argument("--out")
  options = parser.parse_args()
  from mmcontrast.train import train

  rows: list[Mapping[str, Any]] = []
  for number, (name, config) in enumerate(forms(options.steps).items()):
    workdir = options.workdir / f"form-{number}-{options.steps}"
    train(config, workdir, options.data_dir)
    rows.append({"form": name, "steps": options.steps, **measure(workdir, options.data_dir)})
  record(rows, options.out)


if __name__ == "__main__":
  main()
