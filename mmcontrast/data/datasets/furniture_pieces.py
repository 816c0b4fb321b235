"""The pieces of furniture of Debian's package sweethome3d-furniture (120 MB): 820 meshes with their pictures.

Five catalogues of Sweet Home 3D: zip files with a table of properties, which names each piece in some 20 languages,
sorts it into one of 12 categories and says how large the thing is, and OBJ files with their materials. CC0 or CC BY
3.0, by catalogue; who made a piece is kept.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import posixpath
import re
import zipfile

import numpy as np

from mmcontrast.data.datasets.debian_package import DebianPackage
from mmcontrast.data.datasets.emoji_concepts import split_of
from mmcontrast.data.meshes import Mesh, read_obj

PACKAGE = DebianPackage(
  dataset="furniture",
  name="sweethome3d-furniture",
  version="1.8-1",
  sha256="3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
  installed=pathlib.Path("/usr/share/sweethome3d/furniture"),
  variable="MMCONTRAST_FURNITURE",
)
COPYRIGHT = pathlib.Path(f"usr/share/doc/{PACKAGE.name}/copyright")
LANGUAGES = (
  "en", "bg", "cs", "de", "el", "es", "fi", "fr", "hu", "it", "ja", "nl", "pl", "pt", "ru", "sv", "tr", "zh"
)  # fmt: skip
"""In which every piece has a name; Portuguese as in Brazil, Chinese as in Taiwan."""
_FILES = {"en": "", "zh": "_zh_TW"}  # how a language's table is called otherwise
_LICENCES = {"BlendSwap-CC-0": "CC0 1.0", "Scopia": "CC BY 3.0", "BlendSwap-CC-BY": "CC BY 3.0"}
_NO_TAGS = frozenset({"blend swap", "scpts"})  # where it is from
_CENTIMETRE = 0.01


@dataclasses.dataclass(frozen=True)
class Piece:
  """One piece of furniture.

  Attributes:
    key: "Scopia#bathroom3", stable.
    name: in English, lower case: "iron bed".
    names: by language, as in the catalogue.
    tags: in English, lower case, without the name: ("double",).
    category: one of 12: "Living room".
    size: width (x), height (y), depth (z) in metres, of the thing itself.
    licence, creator: of the mesh.
    split: by hash of the key: "train", "validation" or "test".
    archive, model, picture: the catalogue's zip file, and the OBJ and PNG in it.
    rotation: float [3, 3], which the mesh is turned by first.
  """

  key: str
  name: str
  names: dict[str, str]
  tags: tuple[str, ...]
  category: str
  size: tuple[float, float, float]
  licence: str
  creator: str
  split: str
  archive: pathlib.Path
  model: str
  picture: str
  rotation: tuple[tuple[float, ...], ...]

  def mesh(self) -> Mesh:
    """In metres, y up, the front towards +z, standing on y = 0 with its middle at x = z = 0. BadRecord if damaged."""
    folder = posixpath.dirname(self.model)
    mesh = read_obj(self._file(self.model), lambda name: self._file(posixpath.normpath(posixpath.join(folder, name))))
    return mesh.moved(np.array(self.rotation)).fitted(self.size)

  def icon(self) -> bytes:
    """PNG bytes of the catalogue's picture of it."""
    return self._file(self.picture) or b""

  def _file(self, name: str) -> bytes | None:
    try:
      return _opened(self.archive).read(name)
    except KeyError:
      return None


def read_pieces(folder: pathlib.Path) -> list[Piece]:
  """All pieces of the catalogues (.sh3f) in a folder, by key."""
  found = []
  for archive in sorted(folder.glob("*.sh3f")):
    tables = {language: _table(archive, language) for language in LANGUAGES}
    for number, entry in tables["en"].items():
      name = entry["name"].strip()
      names = {language: table.get(number, {}).get("name", "").strip() for language, table in tables.items()}
      tags = {tag.strip().lower() for tag in entry.get("tags", "").split(",")} - {"", name.lower(), *_NO_TAGS}
      rotation = [float(value) for value in entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()]
      found.append(
        Piece(
          key=entry["id"],
          name=name.lower(),
          names={language: text or name for language, text in names.items()},
          tags=tuple(sorted(tags)),
          category=entry["category"],
          size=tuple(float(entry[side]) * _CENTIMETRE for side in ("width", "height", "depth")),
          licence=_LICENCES.get(archive.stem, "CC BY 3.0 US"),
          creator=entry.get("creator", ""),
          split=split_of(entry["id"]),
          archive=archive,
          model=entry["model"].lstrip("/"),
          picture=entry["icon"].lstrip("/"),
          rotation=tuple(map(tuple, np.reshape(rotation, (3, 3)).tolist())),
        )
      )
  return sorted(found, key=lambda piece: piece.key)


@functools.lru_cache(maxsize=8)
def _opened(archive: pathlib.Path) -> zipfile.ZipFile:
  return zipfile.ZipFile(archive)


def _table(archive: pathlib.Path, language: str) -> dict[int, dict[str, str]]:
  """Number of a piece -> key -> value, of a table of properties: "name#3=Bed"."""
  data = _opened(archive).read(f"PluginFurnitureCatalog{_FILES.get(language, f'_{language}')}.properties")
  found: dict[int, dict[str, str]] = {}
  for line in data.decode("latin1").splitlines():
    if match := re.match(r"(\w+)#(\d+)=(.*)", line.strip()):
      text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda escape: chr(int(escape[1], 16)), match[3])
      found.setdefault(int(match[2]), {})[match[1]] = re.sub(r"\\(.)", r"\1", text)
  return found
