"""What adaptation brings on emoji: prompts, a head that saw only texts, maps between models, segmentation by names.

    python benchmarks/adaptation.py --workdir runs/adaptation --out docs/results/adaptation.json

Three small models are trained, on concepts of split train: `transformers` (config methods/clip, a ViT of 3 blocks and a
text transformer of 2, 600 steps), `quickstart` (methods/clip with the quickstart's towers, 400 steps) and `scenes`
(methods/cloc, 250 steps of 48). Numbers are per cent. `transformers` is tried on the style never trained on
(emoji_noto) and on one of the two that it has seen (openmoji): prompts and heads on concepts of the other splits,
retrieval on all. Maps are tried on a fifth of all concepts, which they are not fitted to; segmentation on scenes of
split validation. Finished runs in --workdir are reused.
"""

from __future__ import annotations

import argparse
import pathlib

from record import record

TRANSFORMERS = (
  "--config.towers.image={'name': 'vit', 'patch': 8, 'width': 96, 'depth': 3, 'heads': 4}",
  "--config.towers.text={'name': 'text_transformer', 'width': 96, 'depth': 2, 'heads': 4, 'pool': 'mean'}",
)
RUNS = {
  "transformers": ("methods/clip", ("--config.steps=600", "--config.data.split=train", *TRANSFORMERS)),
  "quickstart": ("methods/clip", ("--config.steps=400", "--config.data.split=train")),
  "scenes": ("methods/cloc", ("--config.steps=250", "--config.batch.size=48")),
}
RECIPE = {"length": 4, "steps": 200, "learning_rate": 0.02}
EVALUATORS = {
  "base_to_new": {"label": "subgroup", "method": ("coop", "maple", "ctp_tft"), "seeds": (1,), "recipe": RECIPE},
  "text_transfer": {"label": ("group", "subgroup")},
  "properties": {},
  "attribute_insertion": {},
}
SETS = ("emoji_noto", "emoji_views:openmoji")


def evaluators(folder: pathlib.Path) -> list[dict]:
  """A row a metric, of both sets."""
  from mmcontrast.evaluate import evaluate_workdir

  found = evaluate_workdir(folder / "transformers", overrides=[f"--config.evaluation.evaluators={EVALUATORS}"])
  metrics = dict.fromkeys(name.split("/", 1)[1] for name in found)
  return [
    {"what": metric, **{one: round(100 * found[f"{one}/{metric}"], 1) for one in SETS}}
    for metric in metrics
    if not metric.endswith("queries")
  ]


def maps(folder: pathlib.Path) -> list[dict]:
  """Maps from the space of `transformers` into that of `quickstart`: a row a method."""
  from mmcontrast.align import align
  from mmcontrast.embed import embed

  for name in ("transformers", "quickstart"):
    embed(folder / name, "emoji_views", folder / f"{name}-rows", split="all")
  rows = []
  for kinds in ("image,image", "image,text"):
    done = align(*(folder / f"{name}-rows" for name in ("transformers", "quickstart")), folder / "map.npz", kinds=kinds)
    for method, of in done.retrieval.items():
      recalls = {f"recall@1 {way}": round(100 * of[f"{way}/recall@1"], 1) for way in ("there", "back")}
      rows.append({"what": f"align {kinds}: {method}", **recalls})
  return rows


def segmentation(folder: pathlib.Path) -> list[dict]:
  """mIoU on composed scenes of concepts never trained on: a row a kind of class vectors."""
  from mmcontrast.segment import segment

  options = dict(head="image_regions", support=100, decoder=True, train_split="train", most=200)
  found = segment(folder / "scenes", "emoji_scenes", split="validation", **options)
  return [
    {"what": f"segment: {name}", "mIoU": round(100 * of["miou"], 1), "pixels": round(100 * of["pixel_accuracy"], 1)}
    for name, of in found.items()
  ]


def main() -> None:
  from mmcontrast.config import load_config
  from mmcontrast.train import train

  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--workdir", default="runs/adaptation", type=pathlib.Path)
  parser.add_argument("--out")
  options = parser.parse_args()
  for name, (config, overrides) in RUNS.items():
    if not (options.workdir / name / "checkpoints").exists():
      train(load_config(config, list(overrides)), options.workdir / name)
  record(
    [*evaluators(options.workdir), *maps(options.workdir), *segmentation(options.workdir)],
    options.out,
    "python benchmarks/adaptation.py --workdir runs/adaptation --out docs/results/adaptation.json",
  )


if __name__ == "__main__":
  main()
