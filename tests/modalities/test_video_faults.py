"""Videos as strangers make them: what plays everywhere is read, what does not is one line, and nothing is opened beside
the bytes that were given."""

import io
import json
import struct
import time
import zipfile

import av
import numpy as np
import pytest
import video_fixture as made
from PIL import Image

from mmcontrast.data.record import BadRecord
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import open_source
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.video_reading import by_time, decode_frames, in_order, open_clip, packed

VIDEO = MODALITIES["video"]


@pytest.fixture(scope="module")
def mp4():
  return made.ffmpeg(20)


def with_matrix(data: bytes, a: float, b: float, c: float, d: float) -> bytes:
  """An MP4 whose track is to be shown at (a x + c y, b x + d y)."""
  values = (*(round(value * 65536) for value in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
  at = data.index(b"tkhd") + 4 + 40
  return data[:at] + struct.pack(">9i", *values) + data[at + 36 :]


def png(number: int, side: int = 8) -> bytes:
  file = io.BytesIO()
  Image.fromarray(made.frame(number, side)).save(file, "PNG")
  return file.getvalue()


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", compression) as out:
    for name, data in files.items():
      out.writestr(name, data)
  return file.getvalue()


def encrypted(data: bytes) -> bytes:
  """A zip file of one member that says that it is encrypted."""
  data = bytearray(data)
  data[6] |= 1
  data[data.index(b"PK\x01\x02") + 8] |= 1
  return bytes(data)


def sound_with_cover() -> bytes:
  file = io.BytesIO()
  with av.open(file, "w", format="mp4") as container:
    sound, cover = container.add_stream("aac", rate=16000), container.add_stream("mjpeg", rate=1)
    cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
    cover.disposition = av.stream.Disposition.attached_pic
    picture = av.VideoFrame.from_ndarray(made.frame(3), format="rgb24")
    picture.pts = 0
    container.mux(cover.encode(picture))
    container.mux(cover.encode())
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.rate = 16000
    container.mux(sound.encode(frame))
    container.mux(sound.encode())
  return file.getvalue()


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (lambda mp4: mp4[: mp4.index(b"moov") - 4], r"cut off: its index \(moov\) is missing"),
    (lambda mp4: sound_with_cover(), "no video in it, only sound"),
    (lambda mp4: b"ffconcat version 1.0\nfile /etc/passwd\n", "not a readable video .* begins with b'ffconcat'"),
    (lambda mp4: with_matrix(mp4, 0.7, 0.7, -0.7, 0.7), "the matrix .*, which is no quarter of a turn"),
    (lambda mp4: with_matrix(mp4, 0, 0, 0, 0), "the matrix .*, which is no quarter of a turn"),
    (lambda mp4: with_matrix(mp4, -1, 0, 0, 1), r"mirrored video: its frames are to be mirrored; data\.video\.rotated"),
    (lambda mp4: with_matrix(mp4, 1, 0, 0, -1), "rotated video: .* mirrored and turned by 180 degrees; "),
    (lambda mp4: made.ffmpeg(20, "webm", "libvpx", options={"live": "1"})[:-40], r"cut off: 40 bytes of its end"),
    (lambda mp4: zipped({"a.txt": b"words"}), "video without frames: a zip file without pictures"),
    (lambda mp4: encrypted(zipped({"0.png": png(0)})), r"not a readable zip file of frames \(.*encrypted"),
    (
      lambda mp4: zipped({"0.png": png(0), "1.png": bytes(2**26 + 1)}, zipfile.ZIP_DEFLATED),
      "whose frame 1.png has 67108865 bytes, over data.limits.bytes",
    ),
  ],
)
def test_a_bad_video_says_why(mp4, data, message):
  with pytest.raises(BadRecord, match=message) as error:
    open_clip(data(mp4))
  assert "\n" not in str(error.value)


def test_a_webp_that_is_cut_off_is_found_by_its_frames():
  data = made.animation("WEBP")[:-30]
  with pytest.raises(BadRecord, match=r"cut off: \d+ bytes of a frame are missing"):
    open_clip(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])


def test_bytes_that_name_an_address_are_not_followed():
  session = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
  began = time.monotonic()
  with pytest.raises(BadRecord, match="not a readable video"):
    open_clip(session + b"a=rtpmap:96 H264/90000\n")
  assert time.monotonic() - began < 5  # FFmpeg would listen for twenty seconds


def test_what_stands_behind_the_end_of_an_mp4_is_left(mp4):
  clip = open_clip(mp4 + b"uploaded by a program " * 9)
  assert made.numbers_of(decode_frames(clip, [0, 19])) == [0, 19]


def test_frames_that_an_edit_list_cuts_off_are_not_there():
  clip = open_clip(made.ffmpeg(20, stamps=list(range(-6, 14))))
  assert clip.count == 14 and made.numbers_of(decode_frames(clip, [0, 1, 13])) == [6, 7, 19]


def test_a_container_that_finds_no_times_and_a_decoder_that_leaves_nothing_out():
  clip = open_clip(made.ffmpeg(20, "mpegts", "mpeg2video", options={"b:v": "4M"}))
  assert np.abs(np.subtract(made.numbers_of(decode_frames(clip, [0, 1, 2, 7, 19])), [0, 1, 2, 7, 19])).max() <= 1
  data = made.ffmpeg(12, codec="libsvtav1", side=64)
  assert np.abs(np.subtract(made.numbers_of(decode_frames(open_clip(data), [1, 4, 7])), [1, 4, 7])).max() <= 1


def test_mirrored_videos_are_shown_as_they_ask():
  ramp = np.zeros((32, 32, 3), np.uint8)
  ramp[:16, :16] = 250  # the corner at the top left
  file = io.BytesIO()
  with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.width = stream.height = 32
    stream.pix_fmt = "yuv420p"
    for number in range(3):
      frame = av.VideoFrame.from_ndarray(ramp, format="rgb24")
      frame.pts = number
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  corners = {}
  for name, matrix in {
    "mirrored": (-1, 0, 0, 1),
    "upside down, mirrored": (1, 0, 0, -1),
    "turned": (0, 1, -1, 0),
    "transposed": (0, 1, 1, 0),
    "transposed the other way": (0, -1, -1, 0),
  }.items():
    (shown,) = decode_frames(open_clip(with_matrix(file.getvalue(), *matrix), rotated="turn"), [1])
    lit = [[shown[8, 8, 0], shown[8, 24, 0]], [shown[24, 8, 0], shown[24, 24, 0]]]
    corners[name] = tuple(np.argwhere(np.array(lit) > 120)[0].tolist())
  assert corners == {
    "mirrored": (0, 1),  # x' = -x: the right
    "upside down, mirrored": (1, 0),
    "turned": (0, 1),  # clockwise
    "transposed": (0, 0),
    "transposed the other way": (1, 1),
  }


def test_frames_without_a_time_are_shown_for_a_tenth_of_a_second():
  for name in ("GIF", "WEBP"):
    clip = open_clip(made.animation(name, 4, 0), variable_rate="time")
    assert clip.seconds == pytest.approx(0.4) and by_time(clip).tolist() == [0, 1, 2, 3], name


def test_names_of_frames_are_ordered_whatever_stands_in_them():
  assert in_order(["f10.png", "f9.png", "f²1.png", "x.txt"]) == ["f9.png", "f10.png", "f²1.png"]
  assert in_order(["²1.png", "10.png", "a1.png", "1.png"]) == ["1.png", "10.png", "a1.png", "²1.png"]
  assert in_order([f"{'9' * 5000}.png", "10.png"])[0] == "10.png"  # more digits than Python makes a number of
  left = ["__MACOSX/f/._1.png", "f/._1.png", "f/1.png", ".hidden/2.png"]
  assert in_order(left) == ["f/1.png"]


def test_inspection_finds_a_picture_that_is_bad_among_good_ones():
  frames = {f"{number}.png": png(number) for number in range(9)}
  VIDEO.check_raw(zipped(frames))
  with pytest.raises(BadRecord, match="whose frame 4 is bad: not a readable image"):
    VIDEO.check_raw(zipped({**frames, "4.png": png(4)[:45]}))
  with pytest.raises(BadRecord, match="whose frames are of different sizes"):
    VIDEO.check_raw(zipped({**frames, "4.png": png(4, 9)}))


def test_folders_and_lists_that_are_no_videos_are_one_line(tmp_path):
  (tmp_path / "frames" / "1.png").mkdir(parents=True)
  settings = resolve({"dataset": "jsonl:x", "views": {"video": 1}, "video": {"frames": 2, "size": 8}})
  with pytest.raises(UserError, match=r"1\.png: Is a directory; give a path"):
    VIDEO.accepts(tmp_path / "frames", settings, "x")
  (tmp_path / "empty").mkdir()
  (tmp_path / "0.png").write_bytes(png(0))
  values = ["empty", [], ["0.png", None], [None], [0], "gone.mp4"]
  lines = [json.dumps({"clip": value, "caption": "x"}) for value in values]
  (tmp_path / "rows.jsonl").write_text("\n".join(lines))
  source = open_source({"dataset": f"jsonl:{tmp_path}/rows.jsonl", "source": {"video": "clip"}}, "all")
  messages = {}
  for index in range(len(values)):
    with pytest.raises((BadRecord, OSError)) as error:
      VIDEO.check_raw(source[index]["video"]["video"])
    messages[index] = str(error.value)
  assert "empty: a folder without pictures" in messages[0]
  assert "column 'clip' is an empty list" in messages[1]
  assert "column 'clip': frame 1 is missing" in messages[2] and "column 'clip': frame 0 is missing" in messages[3]
  assert "column 'clip' is a int" in messages[4] and "gone.mp4" in messages[5]


def test_packed_frames_are_ordered_as_they_were_given():
  clip = open_clip(packed(made.frame(number) for number in range(12)))
  assert made.numbers_of(decode_frames(clip, range(12))) == list(range(12))
