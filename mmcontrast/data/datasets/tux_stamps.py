"""`tux_stamps`: photographs and drawings, named in 76 languages and spoken by people in a dozen of them.

The stamps of Tux Paint, from Debian's package tuxpaint-stamps-default (161 MB, GPL 2, so never carried along): 792
pictures, some 700 English captions, 6,000 recorded captions, 120 sounds of the thing itself. The package is taken
where it lies: installed, else the file that $MMCONTRAST_TUX_STAMPS names, else by `apt-get download`. Stamps that are
letters are left out. Stamps with the same English caption have one id, and are in one split.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import pathlib
import re
import tempfile
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmcontrast.data import tokenizers
from mmcontrast.data.datasets.debian_package import DebianPackage
from mmcontrast.data.datasets.emoji_concepts import SPLITS, split_of
from mmcontrast.data.datasets.emoji_views import SIZE
from mmcontrast.data.datasets.spoken_columns import EFFECT, VOICES

PACKAGE = DebianPackage(
  dataset="tux_stamps",
  name="tuxpaint-stamps-default",
  version="2022.06.04-1",
  sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
  installed=pathlib.Path("/usr/share/tuxpaint/stamps"),
  variable="MMCONTRAST_TUX_STAMPS",
)
COPYRIGHT = pathlib.Path(f"usr/share/doc/{PACKAGE.name}/copyright")
VOCABULARY = 1000
_LEFT_OUT = "symbols/alphabets"

ATTRIBUTION = """# Licence of the data in this folder

Pictures, texts and sounds: the stamps of Tux Paint, copyright Bill Kendrick and the contributors of tuxpaint-stamps,
GNU General Public License 2, from Debian's {package} {version}; its file of copyrights follows. Changes made: pictures
were fitted into 96 x 96 pixels; letters were left out.

"""


@dataclasses.dataclass(frozen=True)
class Stamp:
  """One stamp: where its picture and its sounds are, and what it is called."""

  key: str  # its path below the stamps' folder, without an ending: "animals/birds/blackbird"
  picture: pathlib.Path
  caption: str
  names: dict[str, str]  # by language
  sounds: dict[str, pathlib.Path]  # by language of the speaker; EFFECT: of the thing itself
  mirror_safe: bool

  @property
  def category(self) -> str:
    return self.key.partition("/")[0]


def read_stamps(folder: pathlib.Path) -> list[Stamp]:
  """All stamps that have a picture and an English caption, in the order of their paths."""
  found = []
  for text in sorted(folder.rglob("*.txt")):
    key = text.relative_to(folder).with_suffix("").as_posix()
    pictures = [path for path in (text.with_suffix(".png"), text.with_suffix(".svg")) if path.is_file()]
    caption, *lines = text.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if key.startswith(_LEFT_OUT) or not pictures or not caption.strip():
      continue
    names = {match[1]: match[2].strip() for line in lines if (match := re.match(r"(\w+)\.utf8=(.*)", line))}
    sounds = {language: _beside(text, f"_desc_{language}") for language in VOICES}
    sounds |= {"en": _beside(text, "_desc"), EFFECT: _beside(text, "")}
    options = text.with_suffix(".dat")
    found.append(
      Stamp(
        key,
        pictures[0],
        caption.strip(),
        {"en": caption.strip(), **{language: name for language, name in names.items() if name}},
        {name: path for name, path in sounds.items() if path},
        not (options.is_file() and "nomirror" in options.read_text(errors="replace")),
      )
    )
  return found


def _beside(text: pathlib.Path, ending: str) -> pathlib.Path | None:
  paths = (text.with_name(f"{text.stem}{ending}{suffix}") for suffix in (".ogg", ".wav"))
  return next((path for path in paths if path.is_file()), None)


def drawn(path: pathlib.Path) -> bytes:
  """PNG bytes (RGBA, fitted into SIZE x SIZE) of a picture; raises OSError or ValueError where it is none."""
  if path.suffix == ".svg":
    import resvg_py

    data = bytes(resvg_py.svg_to_bytes(svg_string=path.read_text(encoding="utf-8"), width=2 * SIZE, dpi=96))
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
  else:
    picture = Image.open(path).convert("RGBA")
  picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
  square = Image.new("RGBA", (SIZE, SIZE))
  square.paste(picture, tuple((SIZE - side) // 2 for side in picture.size))
  out = io.BytesIO()
  square.save(out, "PNG")
  return out.getvalue()


class TuxStamps(tfds.core.GeneratorBasedBuilder):
  """The stamps; splits by hash of the English caption."""

  VERSION = tfds.core.Version("1.0.0")
  name = "tux_stamps"

  def __init__(self, **options):
    self._scratch = tempfile.TemporaryDirectory(prefix="tux_stamps-")
    self._bad: list[str] = []
    root = PACKAGE.root(pathlib.Path(self._scratch.name))
    self._stamps = read_stamps(root / PACKAGE.installed.relative_to("/"))
    self._copyright = (root / COPYRIGHT).read_bytes() if (root / COPYRIGHT).is_file() else b""
    self._captions = list(dict.fromkeys(stamp.caption for stamp in self._stamps))
    self._languages = sorted({language for stamp in self._stamps for language in stamp.names})
    self._groups = sorted({stamp.category for stamp in self._stamps})
    uses = collections.Counter(word for stamp in self._stamps for word in stamp.key.split("/")[:-1])
    self._tags = sorted(uses)
    super().__init__(**options)

  def _info(self) -> tfds.core.DatasetInfo:
    text, label = tfds.features.Text, tfds.features.ClassLabel
    return tfds.core.DatasetInfo(
      builder=self,
      description="Stamps of Tux Paint: pictures, captions in 76 languages, captions spoken by people.",
      features=tfds.features.FeaturesDict(
        {
          "images": {"stamp": tfds.features.Image(shape=(SIZE, SIZE, 4), encoding_format="png")},
          "captions": tfds.features.Sequence(text()),
          "tags": tfds.features.Sequence(label(names=self._tags)),
          "labels": {"group": label(names=self._groups)},
          "id": tfds.features.Scalar(np.int32),
          "key": text(),
          "mirror_safe": tfds.features.Scalar(np.bool_),
          "names": {language: text() for language in self._languages},
          "audio": {column: text() for column in (*VOICES, EFFECT)},
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split: str):
    for number, stamp in enumerate(self._stamps):
      if split_of(stamp.caption) != split:
        continue
      try:
        picture = drawn(stamp.picture)
      except (OSError, ValueError) as error:
        self._bad.append(f"{stamp.key}: {error}")
        continue
      yield (
        number,
        {
          "images": {"stamp": io.BytesIO(picture)},
          "captions": [stamp.caption],
          "tags": sorted(set(stamp.key.split("/")[:-1])),
          "labels": {"group": stamp.category},
          "id": self._captions.index(stamp.caption),
          "key": stamp.key,
          "mirror_safe": stamp.mirror_safe,
          "names": {language: stamp.names.get(language, "") for language in self._languages},
          "audio": {
            column: stamp.sounds[column].read_bytes() if column in stamp.sounds else b"" for column in (*VOICES, EFFECT)
          },
        },
      )

  def side_files(self) -> dict[str, bytes | dict]:
    """As of EmojiViews; `left_out` tells the stamps whose picture cannot be drawn, and why."""
    train = [caption for caption in self._captions if split_of(caption) == "train"]
    self._scratch.cleanup()
    return {
      "metadata.json": {
        "name": self.name,
        "version": str(self.version),
        "trainable": True,
        "styles": ["stamp"],
        "tags": self._tags,
        "labels": {"group": self._groups},
        "concepts": [{"key": text, "name": text, "split": split_of(text)} for text in self._captions],
        "audio": [*VOICES, EFFECT],
        "left_out": self._bad,
      },
      "tokenizer.model": tokenizers.train(train, VOCABULARY),
      "ATTRIBUTION.md": ATTRIBUTION.format(package=PACKAGE.name, version=PACKAGE.version).encode() + self._copyright,
    }
