"""What methods on data of their own learn in minutes on a core, on objects, voices or subtrees that were held out.

    mmcontrast data build wordnet    # and furniture, emoji_views, emoji_noto, emoji_scenes, emoji_spoken, tux_stamps
    python benchmarks/short_runs.py --out docs/results/short_runs.json
    python benchmarks/short_runs.py --runs graphclip --seeds 3

A run is a config of the package, shortened. Its measures, in per cent: R@k of one modality searched by another among
what was held out, the accuracy of zero-shot classification, of a linear probe, or of a term's own answers. "untrained":
the same with initial weights. "baseline": of retrieval the linear one of modalities.py (canonical correlations of plain
features, fitted on what the run trains on), of others what `with` says. "chance" draws without looking, or, of a probe,
always says the class that is most frequent in what it is fitted on. `loss` is the mean of the first and of the last
tenth of the reports, of all terms together. `minutes` are of processor time that training took, compilation included.

Finished runs in --workdir are reused, each trained in a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from modalities import Linear, Run, config_of_run, retrieved
from record import record

TEMPLATES = ("{}", "a kind of {}")  # of subtrees, as methods/graphclip has them
PROBED = 5000  # synsets that a probe is fitted on, and as many that it is tested on, at least


@dataclasses.dataclass(frozen=True)
class Short:
  """A run, and what is measured of it.

  Attributes:
    pairs: modalities that search each other.
    more: measures of another kind: (trained model, untrained one, config, workdir) -> rows.
  """

  run: Run
  pairs: tuple[tuple[str, str], ...] = ()
  more: Callable[..., Iterator[dict[str, Any]]] | None = None


def short_runs() -> dict[str, Short]:
  """Name -> run."""
  from mmcontrast.data.datasets.spoken_columns import HELD_OUT, SPEAKERS

  def split(dataset: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return ({"held_out": dict(dataset=dataset, split="test", **more)},
            {"to_fit": dict(dataset=dataset, split="train", **more)})  # fmt: skip

  voices = ({f"emoji_spoken:{one}": None for one in HELD_OUT}, {f"emoji_spoken:{one}": None for one in SPEAKERS[:2]})
  emoji = ({"emoji_noto": None}, {f"emoji_views:{style}": None for style in ("twemoji", "openmoji")})
  of_three = (("image", "text"), ("audio", "text"), ("audio", "image"))
  sounds = dict(source=dict(audio="sound"))
  return {
    "graphclip": Short(
      Run("methods/graphclip", 400, ("towers.graph.depth=1",), *split("wordnet")), (), unseen_subtrees
    ),
    # On 5,000 synsets, so that epochs are short, and clusters found before every second one.
    "meow_graphs": Short(
      Run(
        "methods/meow_graphs",
        400,
        ("data.split=validation", "batch.size=128", "objective.views.module.clusters=(30,100)"),
        *split("wordnet"),
      ),
      (),
      groups_of_nouns,
    ),
    "clip2scene": Short(
      Run("methods/clip2scene", 600, (), *split("furniture_pixels")),
      (("points", "image"), ("points", "text"), ("image", "text")),
      groups_of_points,
    ),
    "scene_graph": Short(
      Run("methods/scene_graph", 300, ("batch.size=64",), *split("emoji_scenes")), (("image", "text"),), own_answers
    ),
    "valor-stamps": Short(Run("methods/valor:stamps", 300, (), *split("tux_stamps", **sounds)), of_three[:2]),
    "coavt": Short(Run("methods/coavt", 300, ("batch.size=64",), *voices), of_three),
    "clsr": Short(Run("methods/clsr", 600, ("batch.size=64",), *voices), (("audio", "text"),)),
    "clsr-0.5": Short(
      Run("methods/clsr", 600, ("batch.size=64", "objective.audio_text.temperature.max=0.5"), *voices),
      (("audio", "text"),),
    ),
    "macil": Short(Run("methods/macil", 400, ("batch.size=64",), *emoji), (("image", "text"),), own_answers),
    "macil-1.5": Short(
      Run("methods/macil", 400, ("batch.size=64", "objective.bags.module.contrast.end=1.5"), *emoji),
      (("image", "text"),),
      own_answers,
    ),
  }


def measured(name: str, steps: int, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains a run, if that is not done, and gives {"training": {...}, "rows": [...]}."""
  from mmcontrast.train import train

  short, began, file = short_runs()[name], time.process_time(), workdir / "training.json"
  if not file.exists():
    config = config_of_run(short.run, steps, seed)
    train(config, workdir)
    training = {"minutes": (time.process_time() - began) / 60, **_lengths(config), **_losses(workdir)}
    file.write_text(json.dumps(training) + "\n")
  return {"training": json.loads(file.read_text()), "rows": list(rows_of_run(short, seed, workdir))}


def rows_of_run(short: Short, seed: int, workdir: pathlib.Path) -> Iterator[dict[str, Any]]:
  from mmcontrast.evaluate import embedded_sets, load_set
  from mmcontrast.inference import load

  model = load(workdir)
  first = model.untrained(seed)
  if short.pairs:
    loaded = {one: load_set(one, model.config, None) for one in (*short.run.tests, *short.run.fits)}
    options = {**model.config["evaluation"], "sets": tuple(short.run.tests), "train_sets": tuple(short.run.fits)}
    sets, before = (embedded_sets(of, options, loaded) for of in (model, first))
    tests, untrained = ([of[one] for one in short.run.tests] for of in (sets, before))
    for pair in short.pairs:
      # Once: the baseline has no seed.
      linear = None if seed else Linear.fitted(pair, [sets[one] for one in short.run.fits], model)
      found, without = retrieved(tests, pair, linear), retrieved(untrained, pair, None)
      for way, row in found.items():
        for key in (key for key in row if key.startswith("R@")):
          more = {} if seed else {"baseline": row[f"linear {key}"], "with": "linear", "chance": row[f"chance {key}"]}
          yield {"measure": f"{way} {key}", "trained": row[key], "untrained": without[way][key], **more,
                 "of": row["candidates"]}  # fmt: skip
  if short.more:
    yield from short.more(model, first, workdir)


def unseen_subtrees(model: Any, first: Any, workdir: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Graphs of subtrees that were held out, told apart by their names, of one word mostly; and which of the names of all
  has most in common with the words of the graph's nodes."""
  from mmcontrast.evaluate import embedded_sets, load_set
  from mmcontrast.evaluation.retrieval import retrieval
  from mmcontrast.evaluation.zero_shot import class_embeddings
  from mmcontrast.modalities.hashed_words import hashed_words

  config = model.config
  for split in ("validation", "test"):
    own = dict(data={split: dict(split=split, source={})}, sets=(split,), train_sets=())
    given = {**config, "evaluation": {**config["evaluation"], **own}}
    loaded = load_set(split, given, None)
    label = f"{split}_subtree"
    names, things = loaded.label_names[label], loaded.things["graph"]
    of = np.asarray(loaded.labels[label])[things.example]
    places = np.flatnonzero(of >= 0)
    right = of[places]
    answers: dict[str, Any] = {}
    for who, one in (("trained", model), ("untrained", first)):
      test = embedded_sets(one, given["evaluation"], {split: loaded})[split]
      answers[who] = test.joint("graph")[places] @ class_embeddings(test.embed, names, TEMPLATES).T
      if who == "trained":
        found = retrieval(test.joint("graph"), test.joint("text"), test.matches("graph", "text"))
    features = np.stack([things.values[place]["graph"] for place in places])
    called = hashed_words(names, features.shape[-1])
    mean = features.sum(1) @ called.T
    closest = (features @ called.T).max(1)
    for best, text in ((closest, "the node most like a name"), (mean, "the mean of nodes")):
      yield {"measure": f"zero-shot, {split}", **{who: _right(scores, right) for who, scores in answers.items()},
             "baseline": _right(best, right), "with": text, "chance": 100 / len(names), "of": len(names)}  # fmt: skip
    yield {"measure": f"graph to text R@10, {split}", "trained": 100 * found["recall@10"], "of": found["candidates"]}


def _right(scores: np.ndarray, right: np.ndarray) -> float:
  return 100 * float((scores.argmax(1) == right).mean())


def groups_of_nouns(model: Any, first: Any, workdir: pathlib.Path) -> Iterator[dict[str, Any]]:
  """A linear probe of WordNet's 26 files on what the tower gives, fitted on some of the train split."""
  from mmcontrast.data.sources.wordnet import open_wordnet
  from mmcontrast.evaluation.linear_probe import fit
  from mmcontrast.modalities import MODALITIES

  graphs: dict[str, np.ndarray] = {}
  labels: dict[str, np.ndarray] = {}
  for name, split in (("to_fit", "train"), ("test", "test")):
    source = open_wordnet("", {}, split, None)
    records = [source[place] for place in range(0, len(source), max(1, len(source) // PROBED))]
    graphs[name] = np.stack([
      MODALITIES["graph"].evaluation_view(record["graph"]["neighbourhood"], model.data) for record in records
    ])  # fmt: skip
    labels[name] = np.array([record["labels"]["group"] for record in records])

  def probed(features: Callable[[np.ndarray], np.ndarray]) -> float:
    return 100 * fit(features(graphs["to_fit"]), labels["to_fit"]).accuracy(features(graphs["test"]), labels["test"])

  yield {
    "measure": "probe of groups, unseen subtrees",
    "trained": probed(lambda these: model.embed("graph_features", these)),
    "untrained": probed(lambda these: first.embed("graph_features", these)),
    "baseline": probed(lambda these: np.concatenate([these["graph"].mean(1), these["graph"][:, 0]], 1)),
    "with": "probe of hashed words",
    "chance": 100 * float((labels["test"] == np.bincount(labels["to_fit"]).argmax()).mean()),
    "of": len(np.unique(labels["to_fit"])),
  }


def groups_of_points(model: Any, first: Any, workdir: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Clouds, and images, told by the mean text of each group of what is trained on, as the term's prompts are."""
  from mmcontrast.evaluate import embedded_sets, load_set
  from mmcontrast.evaluation.embed import unit

  loaded = {name: load_set(name, model.config, None) for name in ("held_out", "to_fit")}
  answers: dict[str, dict[str, float]] = {"points": {}, "image": {}}
  for who, one in (("trained", model), ("untrained", first)):
    sets = embedded_sets(one, model.config["evaluation"], loaded)
    group = {name: np.asarray(loaded[name].labels["group"]) for name in sets}
    texts, of = sets["to_fit"].joint("text"), group["to_fit"][loaded["to_fit"].things["text"].example]
    prompts = unit(np.stack([texts[of == number].mean(0) for number in range(of.max() + 1)]))
    for modality, found in answers.items():
      right = group["held_out"][loaded["held_out"].things[modality].example]
      found[who] = _right(sets["held_out"].joint(modality) @ prompts.T, right)
      most = 100 * float((right == np.bincount(group["to_fit"]).argmax()).mean())
  for modality, found in answers.items():
    yield {"measure": f"group of {modality}, by mean texts", **found, "chance": most, "of": int(of.max()) + 1}


def own_answers(model: Any, first: Any, workdir: pathlib.Path) -> Iterator[dict[str, Any]]:
  """The metrics of training that say how often a term's nearest is right, of the last reports."""
  for key, values in _reports(workdir).items():
    if key.endswith("top1") and "/" in key:
      yield {"measure": f"{key} in training", "trained": 100 * values[-1]}


def _reports(workdir: pathlib.Path) -> dict[str, list[float]]:
  """The numbers that training reported, by name, of the last stage."""
  from mmcontrast.config.stages import run_folder

  found: dict[str, list[float]] = {}
  for line in (run_folder(workdir) / "metrics.jsonl").read_text().splitlines():
    for key, value in json.loads(line).items():
      if isinstance(value, int | float):
        found.setdefault(key, []).append(float(value))
  return found


def _losses(workdir: pathlib.Path) -> dict[str, float]:
  losses = _reports(workdir)["loss"]
  some = max(1, len(losses) // 10)
  return {"loss at first": statistics.mean(losses[:some]), "loss at last": statistics.mean(losses[-some:])}


def _lengths(config: Mapping[str, Any]) -> dict[str, int]:
  from mmcontrast.config import stages

  runs = stages.resolve(config).values()
  return {
    "steps": sum(run["steps"] for run in runs),
    "examples": sum(run["steps"] * run["batch"]["size"] for run in runs),
  }


def run_apart(name: str, options: argparse.Namespace, seed: int) -> dict[str, Any] | None:
  """`measured` in a process of its own; reused if done; None where it failed, or is not to be done."""
  workdir = options.workdir / f"{name}-{seed}"
  done = workdir / "measured.json"
  if not done.exists() and not options.finished:
    workdir.mkdir(parents=True, exist_ok=True)
    print(f"{name}, seed {seed}: {workdir / 'log.txt'}", flush=True)
    command = [sys.executable, __file__, "--one", name, "--one_seed", str(seed), "--steps", str(options.steps)]
    with (workdir / "log.txt").open("w") as log:
      subprocess.run([*command, "--workdir", str(workdir)], check=False, stdout=log, stderr=log)
  if not done.exists():
    print(f"left out: {name}, seed {seed}", flush=True)
    return None
  return json.loads(done.read_text())


def rows_of(name: str, of_seeds: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
  """Of each measure the means over the seeds, and how far the trained ones are apart; the baselines of the first."""
  for number, row in enumerate(of_seeds[0]["rows"]):
    values = [one["rows"][number] for one in of_seeds]
    found = {"run": name, **row}
    for key in ("trained", "untrained"):
      if key in row:
        found[key] = statistics.mean(value[key] for value in values)
    if len(values) > 1:
      found["trained sd"] = statistics.stdev(value["trained"] for value in values)
    training = {key: statistics.mean(one["training"][key] for one in of_seeds) for key in of_seeds[0]["training"]}
    found |= {**training, "seeds": len(of_seeds)}
    yield {key: round(value, 2) if isinstance(value, float) else value for key, value in found.items()}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--runs", nargs="+", help="(default: all)")
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--steps", type=int, default=0, help="of every run (default: its own)")
  parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/short_runs"))
  parser.add_argument("--finished", action="store_true", help="train nothing: rows of the runs that --workdir has")
  parser.add_argument("--out")
  parser.add_argument("--one", help=argparse.SUPPRESS)
  parser.add_argument("--one_seed", type=int, default=0, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.one:
    found = measured(options.one, options.steps, options.one_seed, options.workdir)
    (options.workdir / "measured.json").write_text(json.dumps(found) + "\n")
    return
  rows: list[dict[str, Any]] = []
  for name in options.runs or short_runs():
    of_seeds = [row for seed in range(options.seeds) if (row := run_apart(name, options, seed))]
    rows += rows_of(name, of_seeds) if of_seeds else []
  record(rows, options.out)


if __name__ == "__main__":
  main()
