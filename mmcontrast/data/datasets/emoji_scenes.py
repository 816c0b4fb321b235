"""`emoji_scenes`: composed pictures of four to nine emoji, with the box, the name and the mask of each.

The scenes are put together by this program, from numbers: nobody photographed or drew them, and what stands beside
what means nothing. A scene shows concepts of its own split only, so that those of test are new.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmcontrast.data.datasets import emoji_concepts, emoji_views

SIZE = 128  # pixels, of a scene
SCENES = {"train": 3000, "validation": 400, "test": 400}
LEAST, MOST = 4, 9  # emoji in a scene
SIDES = (26, 52)  # pixels, of an emoji: its drawing with margins
SEEN = 0.7  # share of an emoji that later ones must leave to be seen
MIRROR_SAFE = 0.5  # probability that a scene is made of what may be mirrored only

ATTRIBUTION = """# Composed scenes

The pictures in this folder were composed by a program: four to nine emoji on a plain background, at random places and
in random sizes. They are no photographs, and no person arranged them. Boxes, names and masks are true by construction.

- Drawings and names: as in the ATTRIBUTION.md of `emoji_views`: of every two concepts one is drawn by Twemoji
  (CC-BY 4.0) and one by OpenMoji (CC BY-SA 4.0). Share-alike: pass the scenes on under CC BY-SA 4.0 only.

Changes made: drawings were rasterised, scaled and put together; names were joined to captions.
"""


class Placed(NamedTuple):
  """A scene: its picture uint8 [S, S, 3]; which emoji each pixel shows, uint8 [S, S], 0 for none, else 1, 2, ...; and
  the box of each, x0, y0, x1, y1 in pixels, of what is seen of it."""

  picture: np.ndarray
  masks: np.ndarray
  boxes: np.ndarray


def compose(drawings: Sequence[Image.Image], draw: np.random.Generator) -> Placed:
  """Puts RGBA drawings on a plain background, one after the other; of each at least SEEN stays to be seen."""
  background = draw.integers(170, 256, 3)
  canvas = Image.new("RGB", (SIZE, SIZE), tuple(int(value) for value in background))
  masks = np.zeros((SIZE, SIZE), np.uint8)
  whole: list[int] = []  # pixels of each, before others came
  for number, drawing in enumerate(drawings, start=1):
    small, ink, (left, top) = _place(drawing, masks, whole, draw)
    canvas.paste(small, (left, top), small)
    part = masks[top : top + small.height, left : left + small.width]
    part[ink] = number
    whole.append(int(ink.sum()))
  boxes = np.array([_box(masks == number) for number in range(1, len(drawings) + 1)])
  return Placed(np.asarray(canvas), masks, boxes)


def _place(drawing: Image.Image, masks: np.ndarray, whole: Sequence[int], draw: np.random.Generator):
  """A drawing scaled, its ink bool [h, w], and where it goes: the first place tried that leaves all others to be seen;
  it becomes smaller as tries fail, so that there is one."""
  sides = draw.uniform(*SIDES)
  for attempt in range(200):
    side = max(12, round(sides * 0.985**attempt))
    small = drawing.resize((side, side), Image.Resampling.BOX)
    ink = np.asarray(small)[..., 3] > 127
    left, top = (int(value) for value in draw.integers(0, SIZE - side + 1, 2))
    part = masks[top : top + side, left : left + side]
    left_over = np.bincount(masks.ravel(), minlength=len(whole) + 1) - np.bincount(part[ink], minlength=len(whole) + 1)
    if all(left_over[number] >= SEEN * count for number, count in enumerate(whole, start=1)):
      return small, ink, (left, top)
  raise AssertionError("an emoji of 12 pixels finds no place among eight others")


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def captions(names: Sequence[str]) -> list[str]:
  """Two captions of the whole: of all that it shows, and of the first three."""
  return [f"a picture of {', '.join(names[:-1])} and {names[-1]}", f"{', '.join(names[:3])} and others"]


class EmojiScenes(tfds.core.GeneratorBasedBuilder):
  """Composed scenes of 4 to 9 emoji with boxes, names and masks; splits by concept."""

  VERSION = tfds.core.Version("1.0.0")
  name = "emoji_scenes"

  def _info(self) -> tfds.core.DatasetInfo:
    image = {"image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png")}
    return tfds.core.DatasetInfo(
      builder=self,
      description="Composed by a program: emoji on plain backgrounds, with the box, name and mask of each.",
      features=tfds.features.FeaturesDict(
        {
          "images": image,
          "masks": tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png"),
          "captions": tfds.features.Sequence(tfds.features.Text()),
          "regions": tfds.features.Sequence(
            {
              "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
              "text": tfds.features.Text(),
              "concept": tfds.features.Scalar(np.int32),
            }
          ),
          "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=emoji_concepts.vocabulary("tags"))),
          "labels": {"count": tfds.features.ClassLabel(names=_COUNTS)},
          "id": tfds.features.Scalar(np.int32),
          "key": tfds.features.Text(),
          "mirror_safe": tfds.features.Scalar(np.bool_),
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager  # nothing is downloaded: the packages are installed
    tables = emoji_views.drawings({concept.key for concept in emoji_concepts.concepts()})
    styles = sorted(tables)
    self._svg = {c.key: tables[styles[c.id % 2]][c.key] for c in emoji_concepts.concepts()}
    return {split: self._generate_examples(split) for split in SCENES}

  def _generate_examples(self, split: str):
    own = [concept for concept in emoji_concepts.concepts() if concept.split == split]
    safe = [concept for concept in own if concept.mirror_safe]
    drawings: dict[str, Image.Image] = {}
    first = sum(count for name, count in SCENES.items() if list(SCENES).index(name) < list(SCENES).index(split))
    for number in range(first, first + SCENES[split]):
      draw = np.random.default_rng([number, 7_041_776])
      among = safe if draw.random() < MIRROR_SAFE else own
      concepts = [among[i] for i in draw.choice(len(among), draw.integers(LEAST, MOST + 1), replace=False)]
      for key in (concept.key for concept in concepts if concept.key not in drawings):
        drawings[key] = Image.open(io.BytesIO(emoji_views.render(self._svg[key], SIDES[1]))).convert("RGBA")
      yield number, example(number, split, concepts, compose([drawings[c.key] for c in concepts], draw))

  def side_files(self) -> dict[str, bytes | dict]:
    """File name -> content to keep next to the data."""
    return {
      "metadata.json": {
        "name": self.name, "version": str(self.version), "trainable": True, "composed": True, "styles": ["image"],
        "tags": emoji_concepts.vocabulary("tags"), "labels": {"count": _COUNTS}, "concepts": [],
        "packages": {name: version for name, version in emoji_concepts.PACKAGES.items() if version},
      },
      "tokenizer.model": emoji_views.train_tokenizer(),
      "ATTRIBUTION.md": ATTRIBUTION.encode(),
    }  # fmt: skip


_COUNTS = [str(count) for count in range(LEAST, MOST + 1)]


def example(number: int, split: str, concepts: Sequence[emoji_concepts.Concept], scene: Placed) -> dict:
  """The tfds example of a scene of `concepts`, in the order of the composition."""
  return {
    "images": {"image": _png(scene.picture)},
    "masks": _png(scene.masks),
    "captions": captions([concept.name for concept in concepts]),
    "regions": [
      {"box": (box / SIZE).astype(np.float32), "text": concept.name, "concept": concept.id}
      for box, concept in zip(scene.boxes, concepts)
    ],
    "tags": sorted({tag for concept in concepts for tag in concept.tags}),
    "labels": {"count": str(len(concepts))},
    "id": number,
    "key": f"{split} scene {number}",
    "mirror_safe": all(concept.mirror_safe for concept in concepts),
  }


def _png(pixels: np.ndarray) -> io.BytesIO:
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "png")
  return io.BytesIO(buffer.getvalue())
