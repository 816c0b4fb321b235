"""Twenty-four coloured shapes, each as a picture, a sound, a clip, points, a graph and a caption, and runs of them.

The runs are of methods that differ in their structure, and tiny.
"""

import io
import itertools
import json

import numpy as np
from PIL import Image, ImageDraw

from mmcontrast.modalities.audio_reading import to_wav
from mmcontrast.modalities.rows import to_npy
from mmcontrast.modalities.video_reading import packed

COLOURS = {"red": (208, 40, 40), "green": (30, 140, 60), "blue": (40, 80, 200), "yellow": (220, 180, 20)}
SHAPES = {"circle": 0, "square": 4, "triangle": 3, "diamond": 4.5, "hexagon": 6, "ring": -1}
SIDE = 48
COUNT = len(COLOURS) * len(SHAPES)

EMOJI = ["--config.evaluation.sets=('emoji_views:twemoji',)"]
THINGS = ["--config.data.dataset=jsonl:{things}/rows.jsonl", "--config.data.split=all", "--config.data.languages=()",
          "--config.data.captions=None", "--config.data.tokenizer=bytes", "--config.evaluation.train_sets=()",
          "--config.evaluation.data={{'things': {{'split': 'all'}}}}", "--config.evaluation.sets=('things',)",
          "--config.evaluation.optional_sets=()"]  # fmt: skip
RUNS = {
  "filip": ["methods/filip", *EMOJI],
  "simclr": ["methods/simclr", *THINGS, "--config.data.source={{'labels': 'shape'}}"],
  "albef": ["methods/albef", *EMOJI],
  "clippo": ["methods/clippo", *THINGS, "--config.data.source={{'labels': 'shape'}}"],
  "sounds": ["trimodal", *THINGS, "--config.data.source={{'audio': 'audio', 'labels': 'shape'}}"],
  "clips": ["methods/clip4clip", *THINGS, "--config.data.source={{'video': 'video', 'image': None, 'labels': 'shape'}}",
            "--config.evaluation.evaluators={{'retrieval': {{}}}}"],
  "points": ["methods/uni3d", *THINGS, "--config.data.source={{'points': 'points', 'labels': 'shape'}}"],
  "graphs": ["methods/graphclip", *THINGS,
             "--config.data.source={{'graph': 'graph', 'image': None, 'labels': 'shape'}}",
             "--config.evaluation.evaluators={{'retrieval': {{}}, 'zero_shot': {{'label': 'shape'}}}}"],
  "graphs alone": ["methods/meow_graphs", *THINGS,
                   "--config.data.source={{'graph': 'graph', 'image': None, 'caption': None, 'labels': 'shape'}}",
                   "--config.objective.views.module.clusters=(4, 6)", "--config.evaluation.evaluators={{'knn': {{}}}}"],
}  # fmt: skip
"""Name -> the config, of which `:smoke` is trained, and what is changed."""


def write_things(folder) -> None:
  """Writes rows.jsonl and the files that it names."""
  rows = []
  for number, ((colour, rgb), shape) in enumerate(itertools.product(COLOURS.items(), SHAPES)):
    picture = drawn(shape, rgb)
    (folder / f"{number}.png").write_bytes(picture_file(picture))
    time = np.arange(4000) / 8000
    pitch = 220 * (1 + list(SHAPES).index(shape)) * (1 + 0.05 * list(COLOURS).index(colour))
    (folder / f"{number}.wav").write_bytes(to_wav(0.5 * np.sin(2 * np.pi * pitch * time) * np.exp(-3 * time), 8000))
    frames = [np.roll(picture, 3 * step - 12, 1) for step in range(8)]
    (folder / f"{number}.zip").write_bytes(packed(np.stack(frames)))
    (folder / f"{number}.npy").write_bytes(to_npy(points(picture)))
    nodes = [f"{colour} {shape}", colour, shape, "thing"]
    edges = [[one, other, "hypernym"] for one, other in ((0, 1), (0, 2), (2, 3))]
    rows.append(dict(image=f"{number}.png", audio=f"{number}.wav", video=f"{number}.zip", points=f"{number}.npy",
                     graph=dict(nodes=nodes, edges=edges), caption=f"a {colour} {shape}", shape=shape))  # fmt: skip
  (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


def drawn(shape: str, rgb: tuple[int, int, int]) -> np.ndarray:
  """A shape in the middle of white, uint8 [SIDE, SIDE, 3]."""
  image, corners, near, far = Image.new("RGB", (SIDE, SIDE), "white"), SHAPES[shape], 8, SIDE - 8
  pen = ImageDraw.Draw(image)
  if corners <= 0:
    pen.ellipse((near, near, far, far), rgb if corners == 0 else None, rgb, 7)
  else:
    turn = 0 if corners != 4.5 else 45
    pen.regular_polygon((SIDE / 2, SIDE / 2, SIDE / 2 - 6), int(corners), turn, rgb)
  return np.asarray(image)


def points(picture: np.ndarray, count: int = 200) -> np.ndarray:
  """Places and colours, float [count, 6], of what is not white."""
  rows, columns = np.nonzero((picture < 250).any(-1))
  which = np.random.default_rng(0).integers(0, len(rows), count)
  places = np.stack([columns[which] / SIDE - 0.5, 0.5 - rows[which] / SIDE, np.linspace(-0.05, 0.05, count)], -1)
  return np.concatenate([places, picture[rows[which], columns[which]] / 255], -1)


def picture_file(pixels: np.ndarray) -> bytes:
  """A PNG."""
  Image.fromarray(pixels).save(out := io.BytesIO(), "PNG")
  return out.getvalue()


def changes(name: str, things) -> list[str]:
  """What is changed in the config of a run, of things in a folder."""
  return [change.format(things=things) for change in RUNS[name][1:]]
