"""`emoji_tones`: 316 emoji of people and hands, each in yellow and in five skin tones, drawn by Twemoji and OpenMoji.

Examples that share all but one thing: the concept says what is drawn, the tone how. The label "toned" tells yellow
from the rest, "tone" which of the five it is, light (0) to dark (4), -1 for yellow: an ordered one. All six of a
concept are in its split (emoji_concepts.py), so that none is trained on where another is evaluated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import tensorflow_datasets as tfds

from mmcontrast.data.datasets import emoji_concepts, emoji_views

TONES = ("light", "medium light", "medium", "medium dark", "dark")
_MODIFIERS = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
LABELS = {"tone": TONES, "toned": ("yellow", "toned")}


@dataclasses.dataclass(frozen=True)
class Variant:
  """One drawing of a concept: `tone` is its place in TONES, -1 for the yellow one; `key` names its drawings."""

  concept: emoji_concepts.Concept
  key: str
  tone: int


def variants() -> tuple[Variant, ...]:
  """All of them, a concept's six together, in Unicode's order. Raises UserError when a package is missing."""
  keys = emoji_concepts.variations()
  return tuple(
    Variant(concept, key, tone)
    for concept in emoji_concepts.concepts()
    if (toned := keys.get(concept.key)) and all(modifier in toned for modifier in _MODIFIERS)
    for tone, key in enumerate((concept.key, *(toned[modifier] for modifier in _MODIFIERS)), start=-1)
  )


def captions(variant: Variant) -> list[str]:
  """The concept's, with the tone as CLDR names it: "waving hand: dark skin tone"."""
  tone = f" {TONES[variant.tone]} skin tone" if variant.tone >= 0 else ""
  return [caption + tone for caption in variant.concept.captions]


class EmojiTones(emoji_views.EmojiViews):
  """See the module."""

  VERSION = tfds.core.Version("1.0.0")
  name = "emoji_tones"

  def _info(self) -> tfds.core.DatasetInfo:
    features = dict(emoji_views.features(self.STYLES).items())
    label = {name: tfds.features.ClassLabel(names=names) for name, names in LABELS.items()}
    features["labels"] = {**features["labels"], **label}
    features["names"] = {"en": features["names"]["en"]}  # the other languages' say nothing of the tone
    return tfds.core.DatasetInfo(
      builder=self,
      description="Emoji of people and hands in six skin tones.",
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
    )

  def wanted(self) -> set[str]:
    return {variant.key for variant in variants()}

  def _generate_examples(self, split: str, drawings: Mapping[str, Mapping[str, str | bytes]]) -> Iterator:
    for number, variant in enumerate(variants()):
      if variant.concept.split != split:
        continue
      rendered = {style: emoji_views.render(table[variant.key]) for style, table in drawings.items()}
      example = emoji_views.example(variant.concept, rendered)
      texts = captions(variant)
      labels = example["labels"] | {"tone": variant.tone, "toned": int(variant.tone >= 0)}
      # As many ids as drawings: two tones of a concept do not show the same thing.
      own = dict(captions=texts, labels=labels, id=number, key=variant.key, names={"en": texts[0]})
      yield number, example | own

  def side_files(self) -> dict[str, bytes | dict]:
    files = super().side_files()
    concepts = [{"key": v.key, "name": captions(v)[0], "split": v.concept.split} for v in variants()]
    labels = files["metadata.json"]["labels"] | {name: list(names) for name, names in LABELS.items()}
    return files | {"metadata.json": files["metadata.json"] | {"labels": labels, "concepts": concepts}}
