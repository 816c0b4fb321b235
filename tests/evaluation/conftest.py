"""A world of concepts with known embeddings: the evaluators' model is a look-up."""

import dataclasses

import numpy as np
import pytest
from image_text_set import image_text_set

from mmcontrast.data.evaluation_set import EvaluationSet

CONCEPTS, GROUPS, DIM = 60, 3, 16


@dataclasses.dataclass
class World:
  """A model that sees each image as its concept's vector plus noise of its style."""

  noise: float = 0.3
  calls: list = dataclasses.field(default_factory=list)

  def __post_init__(self):
    rng = np.random.default_rng(0)
    self.group = np.arange(CONCEPTS) % GROUPS
    self.groups = 2 * rng.normal(size=(GROUPS, DIM))
    self.concepts = self.groups[self.group] + rng.normal(size=(CONCEPTS, DIM))

  def set(self, name, seen, concepts=range(CONCEPTS), style=0, **changes) -> EvaluationSet:
    """An image carries its concept and its style in its first two pixels."""
    ids = np.asarray(concepts)
    images = np.zeros((len(ids), 4, 4, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = ids, style
    return image_text_set(**({
      "name": name, "seen": seen, "images": images, "image_id": ids,
      "captions": [f"concept {i}" for i in range(CONCEPTS)], "caption_id": np.arange(CONCEPTS),
      "labels": {"group": self.group[ids]},
      "label_names": {"group": [f"group {i}" for i in range(GROUPS)]},
      "tags": np.eye(GROUPS + 1, dtype=np.uint8)[self.group[ids]],  # the last tag has no one
      "tag_names": [f"tag {i}" for i in range(GROUPS + 1)],
      "split": np.where(ids % 5 == 0, "test", "train"),
    } | changes))  # fmt: skip

  def embed(self, kind, values):
    self.calls.append((kind, len(values)))
    if kind == "text":
      table = {"concept": self.concepts, "group": self.groups}
      words = [text.split()[-2:] for text in values]
      return np.array([table[which][int(number)] for which, number in words], np.float32)
    rows = []
    for image in values:
      concept, style = int(image[0, 0, 0]), int(image[0, 0, 1])
      noise = np.random.default_rng([concept, style]).normal(size=DIM)
      rows.append(self.concepts[concept] + self.noise * noise)
    return np.array(rows, np.float32)


@pytest.fixture
def world():
  return World()
