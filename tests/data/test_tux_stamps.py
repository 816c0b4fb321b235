"""The stamps of Tux Paint: what their files say, and what is refused."""

import pytest
from PIL import Image

from mmcontrast.data.datasets import tux_stamps
from mmcontrast.data.sources import open_source
from mmcontrast.errors import UserError


@pytest.fixture
def folder(tmp_path):
  birds, letters = tmp_path / "animals" / "birds", tmp_path / "symbols" / "alphabets"
  for place in (birds, letters):
    place.mkdir(parents=True)
  Image.new("RGBA", (30, 20), (200, 0, 0, 255)).save(birds / "robin.png")
  (birds / "robin.txt").write_text("A robin.\nde.utf8=Ein Rotkehlchen.\nfr.utf8=\n")
  for name in ("robin_desc.ogg", "robin_desc_fr.ogg", "robin.wav"):
    (birds / name).write_bytes(name.encode())
  (birds / "robin.dat").write_text("nomirror\n")
  (birds / "ghost.txt").write_text("A stamp without a picture.")
  Image.new("RGB", (8, 8)).save(letters / "a.png")
  (letters / "a.txt").write_text("A")
  return tmp_path


def test_a_stamp_is_its_files(folder):
  (stamp,) = tux_stamps.read_stamps(folder)
  assert stamp.key == "animals/birds/robin" and stamp.category == "animals" and not stamp.mirror_safe
  assert stamp.names == {"en": "A robin.", "de": "Ein Rotkehlchen."}
  assert {column: path.name for column, path in stamp.sounds.items()} == {
    "en": "robin_desc.ogg",
    "fr": "robin_desc_fr.ogg",
    "sound": "robin.wav",
  }


def test_a_picture_is_fitted_into_a_square(folder):
  import io

  made = Image.open(io.BytesIO(tux_stamps.drawn(folder / "animals" / "birds" / "robin.png")))
  assert made.size == (96, 96) and made.mode == "RGBA"
  assert made.getbbox() == (33, 38, 63, 58)  # not enlarged, in the middle


def test_another_package_is_refused(tmp_path):
  (tmp_path / "other.deb").write_bytes(b"!<arch>\n")
  with pytest.raises(UserError, match=r"other\.deb: not tuxpaint-stamps-default 2022\.06\.04-1 \(sha256 "):
    tux_stamps.PACKAGE.unpack(tmp_path / "other.deb", tmp_path)
  with pytest.raises(
    UserError, match=r"MMCONTRAST_TUX_STAMPS=.*none\.deb: No such file or directory; name the \.deb file"
  ):
    tux_stamps.PACKAGE.unpack(tmp_path / "none.deb", tmp_path)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(audio="fra"), r"data\.source\.audio: no such choice 'fra'"),
    (dict(sound=1), r"data\.source: no option 'sound'"),
  ],
)
def test_columns_of_sound(options, message, tmp_path):
  with pytest.raises(UserError, match=message):
    open_source(dict(dataset="tux_stamps", source=options), "train", tmp_path)
