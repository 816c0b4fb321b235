"""Images with a caption in each of several languages, line by line: the files of Multi30k and XTD10 as published.

    FOLDER/test_2016_flickr.txt, test_2016_flickr.en, test_2016_flickr.de, ...       Multi30k: names of images, captions
    FOLDER/test_image_names.txt, test_1kcaptions_en.txt, test_1kcaptions_de.txt, ... XTD10
    FOLDER/images                                                                    the images, or in FOLDER itself

Line i of each file is of the image that line i of the names is. Others are read where they are named as one of the two.

Sources: Multi30k (arXiv:1605.00459); XTD10 (arXiv:2012.05107).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

import numpy as np

from mmcontrast.data.record import BadRecord, Info, Record
from mmcontrast.data.sources import files
from mmcontrast.data.sources.keys import digest_of, key_of_file
from mmcontrast.errors import MissingData, UserError

_XTD = "test_image_names.txt"
_LANGUAGE = r"([a-z]{2,3}(?:[-_][A-Za-z]{2,4})?)"


class MultilingualCaptions:
  """The images of a set, in its order. `languages`: language -> a caption an image."""

  def __init__(self, name: str, paths: Sequence[str], languages: dict[str, list[str]]):
    self.languages, self._paths = languages, list(paths)
    self.info = Info(name=name, styles=("image",), tag_names=(), label_names={}, row_ids=True)

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> Record:
    path = self._paths[index]
    try:
      image = files.read(path)
    except FileNotFoundError:
      raise BadRecord(f"{posixpath.basename(path)}: no such file, {path}") from None
    return Record(
      images={"image": image},
      captions={language: [texts[index]] for language, texts in self.languages.items()},
      names={},
      tags=np.zeros(0, np.uint8),
      labels={},
      id=index,
      name=posixpath.basename(path),
      mirror_safe=False,
      paths={"image": path},
    )

  def key(self, index: int) -> str:
    """See keys.key_of."""
    return digest_of([[texts[index] for texts in self.languages.values()], key_of_file(self._paths[index])])


def multilingual(folder: str) -> dict[str, MultilingualCaptions]:
  """Name -> the images of each set of a folder, such as "test_2016_flickr".

  Raises UserError: no set there, one of fewer than two languages or of a single image, files of different lengths, an
  empty line.
  """
  names = files.names_in(folder)
  images = posixpath.join(folder, "images") if "images" in names else folder
  out = {}
  for file, name, pattern in _sets(names):
    where = f"mrv:{posixpath.join(folder, file)}"
    listed = _lines(posixpath.join(folder, file), where)
    if len(listed) < 2:
      raise UserError(f"{where}: names {len(listed)} image; ranks are of two or more")
    languages = {}
    for other in sorted(names):
      if found := re.fullmatch(pattern, other):
        texts = _lines(posixpath.join(folder, other), f"mrv:{posixpath.join(folder, other)}")
        if len(texts) != len(listed):
          raise UserError(f"mrv:{posixpath.join(folder, other)}: {len(texts)} captions of the {len(listed)} images of "
                          f"{file}; a line each")  # fmt: skip
        languages[found[1]] = texts
    if len(languages) < 2:
      there = f"captions in {' and '.join(languages)} alone" if languages else "no captions"
      raise UserError(f"{where}: {there}; ranks are compared between two languages or more, in files beside it such as "
                      f"{_example(name, 'en')} and {_example(name, 'de')}")  # fmt: skip
    out[name] = MultilingualCaptions(where, [posixpath.join(images, one) for one in listed], languages)
  if not out:
    raise MissingData(
      f"mrv:{folder}: no {_XTD} and no names of images such as test_2016_flickr.txt beside test_2016_flickr.en and "
      "test_2016_flickr.de; give the folder of XTD10's or Multi30k's files"
    )
  return out


def _sets(names: Sequence[str]) -> list[tuple[str, str, str]]:
  """(file of the names of images, name of the set, what files of captions are called) of each set."""
  found = [(_XTD, "xtd10", rf"test_1kcaptions_{_LANGUAGE}\.txt")] if _XTD in names else []
  for file in sorted(set(names) - {_XTD}):
    stem = file.removesuffix(".txt")
    if file != stem and any(re.fullmatch(rf"{re.escape(stem)}\.{_LANGUAGE}", one) for one in names if one != file):
      found.append((file, stem, rf"(?!.*\.txt$){re.escape(stem)}\.{_LANGUAGE}"))
  return found


def _example(name: str, language: str) -> str:
  return f"test_1kcaptions_{language}.txt" if name == "xtd10" else f"{name}.{language}"


def _lines(path: str, where: str) -> list[str]:
  try:
    lines = [line.strip() for line in files.read(path).decode("utf-8-sig").rstrip("\n").split("\n")]
  except UnicodeDecodeError as error:
    raise UserError(f"{where}: is not UTF-8 ({error})") from None
  if "" in lines:
    raise UserError(f"{where}: line {lines.index('') + 1} is empty; a line an image")
  return lines
