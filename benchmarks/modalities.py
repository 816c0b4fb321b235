"""What a small model learns of each modality in minutes on one core, beside chance and a linear baseline.

    mmcontrast data build furniture    # and emoji_views, emoji_noto, emoji_spoken, simulated_ecg
    python benchmarks/modalities.py --out docs/results/modalities.json
    python benchmarks/modalities.py --cases video audio --seeds 3
    python benchmarks/modalities.py --cases order --seeds 3 --out docs/results/order.json

A case is a config of the package at a size that trains in some minutes, and two modalities of it, each searched by
the other among what was held out, in per cent. What is held out are objects (video, points_text, points_image),
voices (audio), signals (series, series_simulated) or drawings (written). R@k of "linear" is that of a regularised
canonical correlation analysis between plain features of the two modalities, fitted on the examples that the model
trains on: pixels, frames in order, log-mel spectrograms, amplitude spectra, occupied cells of a grid and mean
colours, words and pairs of words; at most 512 principal components of each, the ridge the best of four on a fifth of
the training examples. "chance" draws without looking. Texts that are equal to the model are one, for all three.

The case "order" trains the same ResNet of frames two ways, whose vectors are averaged (mean), or meet in a transformer
before; and a ViT with X-CLIP's messages between frames, in patches of 8. For all three each clip stands beside its
reverse, as a hard negative, and the motions are classes too. Half of the clips show the frames of the other half in
the opposite order, and their captions differ in nothing else. `caption of two`: how often a clip is nearer to its
caption than to that of the opposite order, of the same object; `clip of two` the other way round; equal counts a half.
The margin of a tower is its least seed's beside the best seed's of the mean. "linear" is the baseline of "video".

Finished runs in --workdir are reused, each trained in a process of its own. `minutes` are of processor time that
training took, compilation included: on one core as many as on the clock where nothing else uses it. Rows that --out has
of other cases stay in it; its "command" is then the commands that made its rows, in their order.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import pathlib
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from methods import config_of
from record import device, record, versions

RECALLS = (1, 10)
CELLS, SEGMENTS, SIDE = 6, 8, 16
COMPONENTS = 512
RIDGES = (0.01, 0.1, 1.0, 10.0)  # over the mean variance of a component


@dataclasses.dataclass(frozen=True)
class Run:
  """A config at its size.

  Attributes:
    words: as on the command line, without "--config.".
    tests, fits: sets that are searched, and those that the linear baseline is fitted on, each the run's own data where
      it gives a table.
  """

  config: str
  steps: int
  words: tuple[str, ...]
  tests: Mapping[str, Any]
  fits: Mapping[str, Any]


def _video(*words: str) -> Run:
  """Clips of 8 frames of 32 px, each beside its reverse."""
  return Run("methods/clip4clip:orders", 700, words, *_of("furniture_turns"))


def _of(dataset: str) -> tuple[dict[str, Any], dict[str, Any]]:
  return {"held_out": dict(dataset=dataset, split="test")}, {"to_fit": dict(dataset=dataset, split="train")}


def runs() -> dict[str, Run]:
  """Name -> run."""
  from mmcontrast.data.datasets.spoken_columns import HELD_OUT, SPEAKERS

  messages = dict(name="video_vit", width=64, depth=2, heads=2, patch=8, temporal="xclip", temporal_heads=2)
  return {
    "video-mean": _video("towers.video.temporal=mean"),
    "video-transformer": _video("towers.video.temporal=transformer"),
    "video-xclip": _video(f"towers.video={messages | dict(temporal_positions=0.5)}"),
    # Clouds of 512 points, pictures of 64 px.
    "points": Run("methods/uni3d", 500, ("data.image_size=48",), *_of("furniture")),
    # English names of 1.5 s at most, eight speakers.
    "audio": Run(
      "methods/clip_audio",
      900,
      (),
      {f"emoji_spoken:{speaker}": None for speaker in HELD_OUT},
      {f"emoji_spoken:{speaker}": None for speaker in SPEAKERS},
    ),
    # Three leads of 8 s at 100 Hz.
    "series": Run("methods/more", 500, (), *_of("heartbeats")),
    # Twelve such leads, in seven conditions.
    "series-simulated": Run("methods/more:simulated", 500, (), *_of("simulated_ecg")),
    # Pictures and pictures of texts of 64 px, one tower of three blocks.
    "written": Run(
      "methods/clippo",
      1800,
      ("batch.size=64",),
      {"emoji_noto": None},
      {f"emoji_views:{style}": None for style in ("twemoji", "openmoji")},
    ),
  }


CASES = {
  "video": ("video-transformer", ("video", "text")),
  "points_text": ("points", ("points", "text")),
  "points_image": ("points", ("points", "image")),
  "audio": ("audio", ("audio", "text")),
  "series": ("series", ("series", "text")),
  "series_simulated": ("series-simulated", ("series", "text")),
  "written": ("written", ("image", "written")),
}
"""Case -> its run, and the two modalities that are compared."""
ORDER = {temporal: f"video-{temporal}" for temporal in ("mean", "transformer", "xclip")}


def config_of_run(run: Run, steps: int, seed: int) -> dict[str, Any]:
  """The resolved config, with its sets."""
  config = config_of(run.config, steps or run.steps, seed, [f"--config.{word}" for word in run.words])
  own = {name: given for name, given in {**run.tests, **run.fits}.items() if given}
  sets = dict(data=own, sets=tuple(run.tests), train_sets=tuple(run.fits), optional_sets=())
  changed = [{**part, "evaluation": {**part["evaluation"], **sets}} for part in (config, *config["stages"])]
  return changed[0] | {"stages": tuple(changed[1:])}


def measured(name: str, steps: int, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains a run and gives {"minutes", "steps", "examples", way: {...}, "order": {...}}."""
  from mmcontrast.evaluate import embedded_sets, load_set
  from mmcontrast.inference import load
  from mmcontrast.train import train

  run, began = runs()[name], time.process_time()
  config = config_of_run(run, steps, seed)
  train(config, workdir)
  found: dict[str, Any] = {"minutes": (time.process_time() - began) / 60, "steps": config["steps"]}
  found["examples"] = config["steps"] * config["batch"]["size"]
  model = load(workdir)
  loaded = {one: load_set(one, model.config, None) for one in (*run.tests, *run.fits)}
  sets = embedded_sets(model, model.config["evaluation"], loaded)
  tests, fits = ([sets[one] for one in some] for some in (run.tests, run.fits))
  pairs = [pair for of, pair in CASES.values() if of == name]
  for pair in pairs or [("video", "text")]:  # of those that only "order" trains
    # Once: the baseline has no seed.
    linear = Linear.fitted(pair, fits, model) if pairs and not seed else None
    found |= retrieved(tests, pair, linear)
    if name in ORDER.values():
      (test,) = tests
      found["order"] = of_order(test, *map(test.joint, pair))
      if linear:
        found["linear order"] = of_order(test, *(linear.rows(one, test.data.things[one].values) for one in pair))
  return found


def retrieved(tests: list, pair: tuple[str, str], fitted: Linear | None) -> dict[str, Any]:
  """Way -> recalls of the model, "linear ..." and "chance ...", means over the sets."""
  from mmcontrast.evaluation.retrieval import retrieval

  out = {}
  for query, gallery in (pair, pair[::-1]):
    rows = []
    for test in tests:
      matches = test.matches(query, gallery)
      scored = retrieval(test.joint(query), test.joint(gallery), matches, test.compare, f"{query}_to_{gallery}")
      row = {f"R@{k}": 100 * scored[f"recall@{k}"] for k in RECALLS}
      row |= {key: int(scored[key]) for key in ("queries", "candidates")}
      if fitted:
        sides = [fitted.rows(one, test.data.things[one].values) for one in (query, gallery)]
        scored = retrieval(*sides, matches)
        row |= {f"linear R@{k}": 100 * scored[f"recall@{k}"] for k in RECALLS}
        row |= {f"chance R@{k}": 100 * chance(matches, k) for k in RECALLS}
      rows.append(row)
    out[f"{query} to {gallery}"] = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
  return out


def chance(matches: Any, k: int) -> float:
  """Recall at k of candidates in an order drawn at random: the mean over queries that have a match."""
  count = matches.shape[1]
  found = []
  for row in matches.dense(matches.answerable()).sum(1).tolist():
    missed = math.prod((count - row - place) / (count - place) for place in range(min(k, count)))
    found.append(1 - max(missed, 0.0))
  return statistics.mean(found)


def of_order(test: Any, of_clips: np.ndarray, of_texts: np.ndarray) -> dict[str, float]:
  """In per cent: how often the right one of two captions, or clips, of opposite order is the nearer one.

  Args:
    of_clips, of_texts: unit rows of the things of `test`.
  """
  from mmcontrast.data.sources.furniture import MOTIONS, OPPOSITE

  names = list(MOTIONS)
  clips, texts = (test.data.things[one] for one in ("video", "text"))
  scores = of_clips @ of_texts.T
  at = {(int(example)): place for place, example in enumerate(texts.example)}
  clip_at = {(int(example)): place for place, example in enumerate(clips.example)}
  motion = test.data.labels["motion"]
  # Examples of an object stand together, in the order of MOTIONS.
  other = [number - motion[number] + names.index(OPPOSITE[names[motion[number]]]) for number in range(len(motion))]
  captions, backwards = [], []
  for number, opposite in enumerate(other):
    right = scores[clip_at[number], at[number]]
    captions.append(_nearer(right, scores[clip_at[number], at[opposite]]))
    backwards.append(_nearer(right, scores[clip_at[opposite], at[number]]))
  return {"caption of two": 100 * statistics.mean(captions), "clip of two": 100 * statistics.mean(backwards)}


def _nearer(right: float, wrong: float) -> float:
  return 0.5 if abs(right - wrong) <= 1e-6 else float(right > wrong)


class Linear:
  """Canonical correlation analysis of two modalities with a ridge, of principal components of plain features."""

  def __init__(self, sides: Mapping[str, _Side]):
    self._sides = sides

  @classmethod
  def fitted(cls, pair: tuple[str, str], fits: list, model: Any) -> Linear:
    features = {one: Features(one, model, [x.data.things[one].values for x in fits]) for one in pair}
    values = {one: [features[one](x.data.things[one].values) for x in fits] for one in pair}
    places = [_pairs(*(x.data.things[one] for one in pair)) for x in fits]
    rows, columns = (
      np.concatenate([of[place[:, side]] for of, place in zip(values[one], places)]) for side, one in enumerate(pair)
    )
    cut = np.arange(len(rows)) * 5 // len(rows)  # whole examples: they stand together
    held = np.flatnonzero(cut == 4)[:: max(1, (cut == 4).sum() // 1000)]
    best = max(
      RIDGES, key=lambda ridge: _hits(*_cca(rows[cut < 4], columns[cut < 4], ridge), rows[held], columns[held])
    )
    sides = _cca(rows, columns, best)
    return cls({one: dataclasses.replace(side, features=features[one]) for one, side in zip(pair, sides)})

  def rows(self, modality: str, values: Any) -> np.ndarray:
    """float32 [N, D], unit rows."""
    side = self._sides[modality]
    return side(side.features(values))


@dataclasses.dataclass(frozen=True)
class _Side:
  mean: np.ndarray
  weight: np.ndarray
  features: Any = None

  def __call__(self, features: np.ndarray) -> np.ndarray:
    rows = (features - self.mean) @ self.weight
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _pairs(one: Any, other: Any) -> np.ndarray:
  """int [P, 2]: places of the things that are of one example; of one concept where examples are not known."""
  by_example = (one.example >= 0).all() and (other.example >= 0).all()
  keys, asked = (one.example, other.example) if by_example else (one.concept, other.concept)
  at: dict[int, list[int]] = {}
  for place, key in enumerate(asked.tolist()):
    at.setdefault(key, []).append(place)
  return np.array([(place, match) for place, key in enumerate(keys.tolist()) for match in at.get(key, ())])


def _cca(rows: np.ndarray, columns: np.ndarray, ridge: float) -> tuple[_Side, _Side]:
  """Both sides mapped to where they correlate most, each direction by its correlation."""
  (of_rows, x), (of_columns, y) = _whitened(rows, ridge), _whitened(columns, ridge)
  left, strength, right = np.linalg.svd(x.T @ y / len(x), full_matrices=False)
  return (
    dataclasses.replace(of_rows, weight=of_rows.weight @ (left * strength)),
    dataclasses.replace(of_columns, weight=of_columns.weight @ (right.T * strength)),
  )


def _whitened(features: np.ndarray, ridge: float) -> tuple[_Side, np.ndarray]:
  mean = features.mean(0)
  centred = features - mean
  variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
  variance, axes = variance[::-1][:COMPONENTS], axes[:, ::-1][:, :COMPONENTS]
  weight = axes / np.sqrt(np.maximum(variance, 0) + ridge * np.mean(np.maximum(variance, 0)) + 1e-12)
  return _Side(mean, weight), centred @ weight


def _hits(of_rows: _Side, of_columns: _Side, rows: np.ndarray, columns: np.ndarray) -> float:
  """How many rows of the held-out pairs have their column among the ten nearest."""
  scores = of_rows(rows) @ of_columns(columns).T
  return float((np.sum(scores > np.diag(scores)[:, None], axis=1) < 10).mean())


class Features:
  """Plain features of the things of a modality, float32 [N, F], as evaluation shows them.

  Args:
    fits: values of things; words are those in them.
  """

  def __init__(self, modality: str, model: Any, fits: list):
    self._modality, self._model = modality, model
    self._words: dict[str, int] = {}
    if modality == "text":
      uses: dict[str, int] = {}
      for text in itertools.chain(*fits):
        for word in set(_words_of(text)):
          uses[word] = uses.get(word, 0) + 1
      often = sorted((word for word in uses if uses[word] > 1), key=lambda word: (-uses[word], word))
      self._words = {word: place for place, word in enumerate(often[:2000])}

  def __call__(self, values: Any) -> np.ndarray:
    if self._modality == "text":
      found = np.zeros((len(values), len(self._words)), np.float32)
      for row, text in enumerate(values):
        for word in _words_of(text):
          if word in self._words:
            found[row, self._words[word]] = 1
      return found
    return np.concatenate([self._of(values[start : start + 256]) for start in range(0, len(values), 256)])

  def _of(self, values: Any) -> np.ndarray:
    """Of what the tower reads."""
    from mmcontrast.modalities import MODALITIES

    of, data = MODALITIES[self._modality], self._model.data
    inputs = of.inputs(of.batch(values, data, self._model.tokenizer), {**self._model.config, "data": data})
    shown = np.asarray(inputs.values, np.float32)
    mask = None if inputs.mask is None else np.asarray(inputs.mask)
    return PLAIN[self._modality](shown, mask).reshape(len(shown), -1)


def _words_of(text: str) -> list[str]:
  words = text.lower().replace(",", " ").split()
  return words + [f"{one} {other}" for one, other in itertools.pairwise(words)]


def _averaged(images: np.ndarray, side: int) -> np.ndarray:
  """[..., H, W, C] -> [..., side, side, C], or as it is where it is smaller."""
  block = max(1, images.shape[-2] // side)
  rows, columns = images.shape[-3] // block, images.shape[-2] // block
  cut = images[..., : rows * block, : columns * block, :]
  return cut.reshape(*images.shape[:-3], rows, block, columns, block, -1).mean((-4, -2))


def _spectrogram(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
  """[N, F, mels]: the means of equal parts of what is heard, so that slow and fast speakers are alike."""
  heard = np.full(len(values), values.shape[1]) if mask is None else np.maximum(mask.sum(1), SEGMENTS)
  parts = [
    [one[place].mean(0) for place in np.array_split(np.arange(min(count, len(one))), SEGMENTS)]
    for one, count in zip(values, heard)
  ]
  return np.array(parts, np.float32)


def _amplitudes(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
  """[N, L, C]: the logarithms of the amplitudes of the lowest 256 frequencies of each channel."""
  return np.log1p(np.abs(np.fft.rfft(values, axis=1))[:, :256]).astype(np.float32)


def _cells(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
  """[N, P, 6]: the share of points in each cell of a grid, and the mean colours of its cells."""
  cell = np.clip(((values[..., :3] + 1) / 2 * CELLS).astype(int), 0, CELLS - 1) @ np.array([CELLS**2, CELLS, 1])
  out = np.zeros((len(values), CELLS**3, 4), np.float32)
  for row, (where, cloud) in enumerate(zip(cell, values)):
    np.add.at(out[row], where, np.concatenate([np.ones((len(cloud), 1)), cloud[:, 3:]], 1) / len(cloud))
  return out


PLAIN: dict[str, Callable[[np.ndarray, np.ndarray | None], np.ndarray]] = {
  "image": lambda values, mask: _averaged(values, SIDE),
  "written": lambda values, mask: _averaged(values[..., :1], 2 * SIDE),
  "video": lambda values, mask: _averaged(values, SIDE // 2),
  "audio": _spectrogram,
  "series": _amplitudes,
  "points": _cells,
}


def run_apart(name: str, options: argparse.Namespace, seed: int) -> dict[str, Any] | None:
  """`measured` in a process of its own; reused if done; None where it failed, or is not to be done."""
  workdir = options.workdir / f"{name}-{options.steps or runs()[name].steps}-{seed}"
  row = workdir / "row.json"
  if not row.exists() and options.finished:
    return None
  if not row.exists():
    workdir.mkdir(parents=True, exist_ok=True)
    print(f"{name}, seed {seed}: {workdir / 'log.txt'}", flush=True)
    command = [sys.executable, __file__, "--one", name, "--one_seed", str(seed), "--steps", str(options.steps)]
    with (workdir / "log.txt").open("w") as log:
      done = subprocess.run([*command, "--workdir", str(workdir)], check=False, stdout=log, stderr=log)
    if done.returncode:
      print(f"failed: {name}, seed {seed}: {workdir / 'log.txt'}", flush=True)
      return None
  return json.loads(row.read_text())


def rows_of_case(case: str, of_seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Two rows, one a way."""
  rows = []
  for query, gallery in (CASES[case][1], CASES[case][1][::-1]):
    ways = [one[f"{query} to {gallery}"] for one in of_seeds]
    row: dict[str, Any] = {"case": case, "way": f"{query} to {gallery}"}
    for k in RECALLS:
      row |= summary(f"R@{k}", [way[f"R@{k}"] for way in ways])
      row |= {f"{of} R@{k}": round(ways[0][f"{of} R@{k}"], 2) for of in ("linear", "chance")}
    rows.append(row | {key: ways[0][key] for key in ("queries", "candidates")} | _training(of_seeds))
  return rows


def rows_of_order(of_towers: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
  """A row for each tower, and one for the linear baseline."""
  rows: list[dict[str, Any]] = []
  for linear in (one["linear order"] for of_seeds in of_towers.values() for one in of_seeds if "linear order" in one):
    found = {key: round(value, 1) for key, value in linear.items()}
    rows.append({"case": "order", "tower": "linear", **found, "chance": 50.0})
  for tower, of_seeds in of_towers.items():
    row: dict[str, Any] = {"case": "order", "tower": tower}
    for key in ("caption of two", "clip of two"):
      values = [one["order"][key] for one in of_seeds]
      row |= summary(key, values) | {f"{key} least": round(min(values), 1), f"{key} most": round(max(values), 1)}
    row["chance"] = 50.0
    for way in ("video to text", "text to video"):
      row |= summary(f"{way} R@1", [one[way]["R@1"] for one in of_seeds])
    rows.append(row | _training(of_seeds))
  return rows


def summary(name: str, values: list[float]) -> dict[str, float | None]:
  deviation = round(statistics.stdev(values), 1) if len(values) > 1 else None
  return {name: round(statistics.mean(values), 1), f"{name} sd": deviation}


def _training(of_seeds: list[dict[str, Any]]) -> dict[str, Any]:
  minutes = round(statistics.mean(one["minutes"] for one in of_seeds), 1)
  return {"seeds": len(of_seeds), **{key: of_seeds[0][key] for key in ("steps", "examples")}, "minutes": minutes}


def beside_kept(
  rows: list[dict[str, Any]], cases: Sequence[str], out: str | None, command: str
) -> tuple[list[dict[str, Any]], str]:
  """`rows` with those of `out` that are of other cases, in the order of CASES, and the commands that made them all.

  A kept row that was measured on another device, or with other versions, says so itself.
  """
  path = pathlib.Path(out or "")
  if not out or not path.exists():
    return rows, command
  there = json.loads(path.read_text())
  kept = [row for row in there["rows"] if row["case"] not in cases]
  if not kept:
    return rows, command
  now = versions()
  other = {package: of for package, of in there["versions"].items() if now.get(package, of) != of}
  marks = {"device": there["device"]} if there["device"] != device() else {}
  marks |= {"versions": " ".join(f"{package} {of}" for package, of in other.items())} if other else {}
  kept = [marks | row for row in kept]
  places = [*CASES, "order"]
  commands, renewed = [command], set(cases)
  for one in reversed(there["command"].split(" && ")):
    if not set(cases_of(one)) <= renewed:
      commands.insert(0, one)
    renewed |= set(cases_of(one))
  return sorted([*kept, *rows], key=lambda row: places.index(row["case"])), " && ".join(commands)


def cases_of(command: str) -> list[str]:
  """What a command line of this script was asked for."""
  words = shlex.split(command)
  if "--cases" not in words:
    return [*CASES, "order"]
  return list(itertools.takewhile(lambda word: not word.startswith("-"), words[words.index("--cases") + 1 :]))


def say_margin(rows: list[dict[str, Any]]) -> None:
  """Whether towers that see time are above the one that averages, by more than seeds differ."""
  mean = next((row for row in rows if row.get("tower") == "mean"), None)
  for row in rows if mean else ():
    if row["tower"] not in ("mean", "linear"):
      for key in ("caption of two", "clip of two"):
        margin = row[f"{key} least"] - mean[f"{key} most"]
        spread = max(of[f"{key} most"] - of[f"{key} least"] for of in (row, mean))
        print(f"{row['tower']}, {key}: its least seed {margin:+.1f} points over the best of mean; seeds differ by up "
              f"to {spread:.1f}")  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--cases", nargs="+", choices=(*CASES, "order"), default=(*CASES, "order"))
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--steps", type=int, default=0, help="of every run (default: its own)")
  parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/modalities"))
  parser.add_argument("--finished", action="store_true", help="train nothing: rows of the runs that --workdir has")
  parser.add_argument("--out")
  parser.add_argument("--one", help=argparse.SUPPRESS)
  parser.add_argument("--one_seed", type=int, default=0, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.one:
    row = measured(options.one, options.steps, options.one_seed, options.workdir)
    (options.workdir / "row.json").write_text(json.dumps(row) + "\n")
    return

  def all_seeds(name: str) -> list[dict[str, Any]]:
    return [row for seed in range(options.seeds) if (row := run_apart(name, options, seed))]

  rows: list[dict[str, Any]] = []
  for case in options.cases:
    if case != "order" and (of_seeds := all_seeds(CASES[case][0])):
      rows += rows_of_case(case, of_seeds)
  if "order" in options.cases:
    of_towers = {tower: of_seeds for tower, name in ORDER.items() if (of_seeds := all_seeds(name))}
    rows += (of_order_rows := rows_of_order(of_towers))
  made = sorted({row["case"] for row in rows})
  together, command = beside_kept(rows, made, options.out, shlex.join(["python", *sys.argv]))
  record(together, options.out, command)
  if "order" in options.cases:
    say_margin(of_order_rows)


if __name__ == "__main__":
  main()
