"""`furniture`: 820 pieces of furniture and household things, each with a turntable clip, maps, points and 18 names.

The meshes of Debian's package sweethome3d-furniture (furniture_pieces.py; 120 MB, CC0 and CC BY 3.0, so not carried
along), taken where they lie: installed, else the file that $MMCONTRAST_FURNITURE names, else by `apt-get download`.
They are drawn on this machine, by two processors in some minutes:

    images   "icon" (the catalogue's picture), "render" (from the front, above), and of that view "depth", "normals",
             "parts": grey, red-green-blue of x, y, z, and a colour for each part
    video    "turntable": 16 frames, a whole turn to the right from the front, as a zip file of pictures
    points   "surface": a .npy file, float16 [4096, 10]: x, y, z in metres, the normal, red, green, blue, the part

An example is an object, its id that of its English name; splits are by object.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import io
import multiprocessing
import os
import pathlib
import tempfile
import zlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmcontrast.data import tokenizers
from mmcontrast.data.datasets.emoji_concepts import SPLITS
from mmcontrast.data.datasets.furniture_pieces import COPYRIGHT, LANGUAGES, PACKAGE, Piece, read_pieces
from mmcontrast.data.meshes import Mesh, surface_points
from mmcontrast.data.rasteriser import Rendering, grey_of_depth, turntable
from mmcontrast.data.record import BadRecord
from mmcontrast.data.sources.furniture import MOTIONS, SCRIPT
from mmcontrast.modalities.video_reading import packed

SIZE, FRAMES, POINTS = 96, 16, 4096
STYLES = ("icon", "render", "depth", "normals", "parts")
VOCABULARY = 800

ATTRIBUTION = """# Licence of the data in this folder

Meshes, pictures and names: Sweet Home 3D's catalogues of furniture, from Debian's {package} {version}, CC0 or CC BY 3.0
as said of each object in metadata.json, with its creator; the package's file of copyrights follows. Changes made:
meshes were fitted to the sizes of the catalogue, drawn from all round, and points were drawn from their surfaces.

"""


class Furniture(tfds.core.GeneratorBasedBuilder):
  """The pieces; splits by hash of the object."""

  VERSION = tfds.core.Version("1.0.1")
  name = "furniture"

  def __init__(self, **options):
    self._scratch = tempfile.TemporaryDirectory(prefix="furniture-")
    root = PACKAGE.root(pathlib.Path(self._scratch.name))
    self._pieces = read_pieces(root / PACKAGE.installed.relative_to("/"))
    self._copyright = (root / COPYRIGHT).read_bytes() if (root / COPYRIGHT).is_file() else b""
    self._bad: list[str] = []
    self._names = sorted({piece.name for piece in self._pieces})
    self._groups = sorted({piece.category for piece in self._pieces})
    uses = collections.Counter(tag for piece in self._pieces for tag in piece.tags)
    self._tags = sorted(tag for tag, count in uses.items() if count > 1)
    super().__init__(**options)

  def _info(self) -> tfds.core.DatasetInfo:
    text, label = tfds.features.Text, tfds.features.ClassLabel
    picture = functools.partial(tfds.features.Image, encoding_format="png")
    images = {style: picture(shape=(SIZE, SIZE, 4 if style == "icon" else 3)) for style in STYLES}
    return tfds.core.DatasetInfo(
      builder=self,
      description="Furniture: meshes drawn from all round, with depth, normals, parts, points and names.",
      features=tfds.features.FeaturesDict(
        {
          "images": images,
          "captions": tfds.features.Sequence(text()),
          "tags": tfds.features.Sequence(label(names=self._tags)),
          "labels": {"group": label(names=self._groups)},
          "id": tfds.features.Scalar(np.int32),
          "key": text(),
          "mirror_safe": tfds.features.Scalar(np.bool_),
          "names": {language: text() for language in LANGUAGES},
          "video": {"turntable": text()},
          "points": {"surface": text()},
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager
    drawn = self._drawn()
    return {split: self._generate_examples(split, drawn) for split in SPLITS}

  def _drawn(self) -> list[dict | str]:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), context) as pool:
      return list(pool.map(draw, self._pieces, chunksize=8))

  def _generate_examples(self, split: str, drawn: list[dict | str]):
    for number, (piece, made) in enumerate(zip(self._pieces, drawn)):
      if piece.split != split:
        continue
      if isinstance(made, str):
        self._bad.append(f"{piece.key}: {made}")
        continue
      yield (
        number,
        {
          "images": {style: io.BytesIO(made[style]) for style in STYLES},
          "captions": captions_of(piece),
          "tags": [tag for tag in piece.tags if tag in self._tags],
          "labels": {"group": piece.category},
          "id": self._names.index(piece.name),
          "key": piece.key,
          "mirror_safe": True,
          "names": piece.names,
          "video": {"turntable": made["turntable"]},
          "points": {"surface": made["surface"]},
        },
      )

  def side_files(self) -> dict[str, bytes | dict]:
    """As of EmojiViews; `licences` tells each object's licence and creator, `left_out` the meshes that are bad."""
    names = [text for piece in self._pieces if piece.split == "train" for text in captions_of(piece)]
    # What is said of the clips that are composed of these, so that its words are tokens too, not letters.
    motions = [*MOTIONS.values(), *(said for said, _ in SCRIPT.values())]
    texts = names + len(self._names) * motions
    self._scratch.cleanup()
    return {
      "metadata.json": {
        "name": self.name,
        "version": str(self.version),
        "trainable": True,
        "styles": list(STYLES),
        "tags": self._tags,
        "labels": {"group": self._groups},
        "concepts": [{"key": name, "name": name, "split": "all"} for name in self._names],
        "things": {"video": ["turntable"], "points": ["surface"]},
        "licences": {piece.key: [piece.licence, piece.creator] for piece in self._pieces},
        "left_out": self._bad,
      },
      "tokenizer.model": tokenizers.train(texts, VOCABULARY),
      "ATTRIBUTION.md": ATTRIBUTION.format(package=PACKAGE.name, version=PACKAGE.version).encode() + self._copyright,
    }


def captions_of(piece: Piece) -> list[str]:
  """One to three English captions: the name, alone, with the room it stands in, with its tags."""
  named = [piece.name, f"{piece.name}, {piece.category.lower()}"]
  return named + ([f"{piece.name}, {', '.join(piece.tags)}"] if piece.tags else [])


def draw(piece: Piece) -> dict[str, bytes] | str:
  """All that is made of a piece, encoded, or why nothing can be."""
  try:
    return made_of(piece.mesh(), piece.icon(), seed=zlib.crc32(piece.key.encode()))
  except (BadRecord, OSError, ValueError) as error:
    return str(error)


def made_of(mesh: Mesh, icon: bytes, seed: int) -> dict[str, bytes]:
  """Styles of images, "turntable" and "surface", encoded. Raises BadRecord, or OSError of an icon that is none."""
  views = turntable(mesh, SIZE, [360 * frame / FRAMES for frame in range(FRAMES)])
  maps = {"render": views[0].colour, **maps_of(views[0])}
  return {
    "icon": _icon(icon),
    **{style: _encoded(picture, "PNG") for style, picture in maps.items()},
    "turntable": packed(_encoded(view.colour, "WEBP", quality=85) for view in views),
    "surface": _points(mesh, seed),
  }


def maps_of(view: Rendering) -> dict[str, np.ndarray]:
  """What a view shows beside colours, as pictures, uint8 [S, S, 3]; black where nothing is."""
  there = np.isfinite(view.depth)[..., None]
  number = view.parts[..., None].astype(np.int64) + 1
  colours = 64 + number * np.array([67, 101, 149]) % 192  # no two of the first hundred parts look alike
  return {
    "depth": grey_of_depth(view.depth)[..., None].repeat(3, axis=2),
    "normals": np.where(there, np.round(127.5 * (view.normals + 1)), 0).astype(np.uint8),
    "parts": np.where(there, colours, 0).astype(np.uint8),
  }


def _points(mesh: Mesh, seed: int) -> bytes:
  drawn = surface_points(mesh, POINTS, seed)
  columns = [drawn["positions"], drawn["normals"], drawn["colours"], drawn["parts"][:, None]]
  buffer = io.BytesIO()
  np.save(buffer, np.concatenate(columns, axis=1).astype(np.float16))
  return buffer.getvalue()


def _icon(data: bytes) -> bytes:
  picture = Image.open(io.BytesIO(data)).convert("RGBA")
  picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
  square = Image.new("RGBA", (SIZE, SIZE))
  square.paste(picture, tuple((SIZE - side) // 2 for side in picture.size))
  return _encoded(np.asarray(square), "PNG")


def _encoded(pixels: np.ndarray, form: str, **options) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, form, **options)
  return buffer.getvalue()
