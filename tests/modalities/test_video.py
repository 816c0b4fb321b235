"""Videos: frames by index of every container, which frames views show, crops alike over a clip, and what is bad."""

import io
import json

import jax
import numpy as np
import pytest
import video_fixture as made
from PIL import Image

from mmcontrast.data.inspection import inspect, pictures
from mmcontrast.data.loader import Loader
from mmcontrast.data.record import BadRecord
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import open_source
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.video_reading import by_time, decode_frames, open_clip, packed
from mmcontrast.modalities.video_sampling import frame_indices

VIDEO = MODALITIES["video"]


@pytest.fixture(scope="module")
def mp4():
  return made.ffmpeg()


@pytest.fixture(scope="module")
def containers(mp4):
  return {
    "MP4": mp4,
    "WEBM": made.ffmpeg(format="webm", codec="libvpx-vp9", options={"lossless": "1"}),
    "MKV": made.ffmpeg(format="matroska"),
    "GIF": made.animation("GIF", 40),
    "WEBP": made.animation("WEBP", 40),
    "FRAMES": packed(made.frame(number) for number in range(40)),
  }


def test_frames_by_index_of_every_container(containers):
  wanted = [39, 0, 17, 18, 33, 17, 10]
  for name, data in containers.items():
    clip = open_clip(data)
    assert (clip.format, clip.count, clip.size) == (name, 40, (made.SIDE, made.SIDE)), name
    frames = decode_frames(clip, wanted)
    assert made.numbers_of(frames) == wanted, name
    assert frames[2] is frames[5] and frames[0].dtype == np.uint8, name
  assert open_clip(containers["MP4"]).seconds == pytest.approx(1.6)
  assert open_clip(containers["GIF"]).seconds == pytest.approx(4.0)


def test_only_what_is_wanted_is_decoded(mp4, monkeypatch):
  import av

  decoded = []
  real = av.Packet.decode

  class Counting:
    def __init__(self, packet):
      self._packet = packet

    def __getattr__(self, name):
      return getattr(self._packet, name)

    def decode(self):
      found = real(self._packet)
      decoded.extend(found)
      return found

  class Container:
    def __init__(self, container):
      self._container = container

    def __enter__(self):
      self._container.__enter__()
      return self

    def __exit__(self, *error):
      return self._container.__exit__(*error)

    def __getattr__(self, name):
      return getattr(self._container, name)

    def demux(self, stream):
      return map(Counting, self._container.demux(stream))

  opened, files = av.open, []

  def opening(*args, **options):
    files.append(args)
    return Container(opened(*args, **options))

  monkeypatch.setattr(av, "open", opening)
  clip = open_clip(mp4)
  assert not decoded  # the file says that it is upright
  assert made.numbers_of(decode_frames(clip, [31])) == [31]
  assert len(decoded) < 10  # of 40: from the key frame before it
  assert len(files) == 1  # it is not looked into twice
  decoded.clear()
  assert made.numbers_of(decode_frames(clip, [31, 3])) == [31, 3] and len(files) == 2


def test_a_large_picture_is_made_smaller_as_it_is_converted(mp4):
  (frame,) = decode_frames(open_clip(mp4), [20], short=8)
  assert frame.shape == (8, 8, 3) and made.numbers_of([frame]) == [20]


def test_sampling_is_a_function_of_the_numbers():
  middle, first = np.full(4, 0.5), np.zeros(4)
  assert frame_indices(16, 4, middle, "uniform").tolist() == [2, 6, 10, 14]
  assert frame_indices(16, 4, first, "uniform").tolist() == [0, 4, 8, 12]
  assert frame_indices(16, 4, np.array([0, 0.99, 0.5, 0.25]), "tsn").tolist() == [0, 7, 10, 13]
  assert frame_indices(16, 4, first, "dense", 2).tolist() == [0, 2, 4, 6]
  assert frame_indices(16, 4, np.full(4, 0.999), "dense", 2).tolist() == [9, 11, 13, 15]
  assert frame_indices(16, 4, first, "dense", 9).tolist() == [0, 5, 10, 15]  # as far apart as fits
  for how in ("uniform", "tsn", "dense"):
    assert frame_indices(1, 4, middle, how).tolist() == [0, 0, 0, 0]
    assert set(frame_indices(3, 4, middle, how)) == {0, 1, 2}
    high = frame_indices(7, 5, np.full(5, np.nextafter(1, 0)), how, 3)
    assert high.max() == 6 and (np.diff(high) >= 0).all()


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (lambda mp4: b"", "empty video"),
    (lambda mp4: b"some words", "not a readable video"),
    (lambda mp4: mp4[:-700], r"video that is cut off: \d+ bytes of its end are missing"),
    (lambda mp4: made.animation("GIF")[:-30], "video that is cut off: its end is missing"),
    (lambda mp4: made.animation("WEBP")[:-30], r"video that is cut off: \d+ bytes"),
    (lambda mp4: made.rotated(mp4), r"rotated video: .* by 270 degrees; data\.video\.rotated='turn'"),
    (lambda mp4: packed([]), "video without frames"),
    (lambda mp4: packed([b"no picture"]), "whose frame 000000.png is no readable picture"),
    (lambda mp4: made.ffmpeg(count=0), "video"),
    (
      lambda mp4: made.ffmpeg(stamps=[n if n < 20 else 2 * n for n in range(40)]),
      r"video of a variable rate: 40 to \d+ ms from frame to frame; data\.video\.variable_rate='time'",
    ),
    (lambda mp4: made.animation("GIF", 3, [50, 500, 50]), "video of a variable rate: 50 to 500 ms"),
  ],
)
def test_a_bad_video_says_why(mp4, data, message):
  with pytest.raises(BadRecord, match=message):
    open_clip(data(mp4))


def test_a_picture_is_no_video():
  file = io.BytesIO()
  Image.fromarray(made.frame(3)).save(file, "PNG")
  with pytest.raises(BadRecord, match="a picture, and no video"):
    open_clip(file.getvalue())


def test_a_sound_is_no_video():
  import av

  file = io.BytesIO()
  with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream("aac", rate=16000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.rate = 16000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
  with pytest.raises(BadRecord, match="no video in it, only sound"):
    open_clip(file.getvalue())


def test_what_is_rotated_or_uneven_can_be_let_through(mp4):
  turned = open_clip(made.rotated(mp4), rotated="turn")
  assert turned.turned == 270 and made.numbers_of(decode_frames(turned, [7])) == [7]
  wrong = turned._replace(turned=0)  # as of a file whose frames say otherwise than it does
  with pytest.raises(BadRecord, match="rotated video: frame 7 is to be turned by 270 degrees"):
    decode_frames(wrong, [7])
  gif = open_clip(made.animation("GIF", 4, [100, 100, 500, 100]), variable_rate="time")
  assert by_time(gif).tolist() == [0, 1, 2, 2, 2, 2, 2, 3]


def settings_of(**data):
  video = {"frames": 4, "size": 8, **data.pop("video", {})}
  return resolve({"dataset": "jsonl:x", "views": {"video": 1}, "video": video, **data})


@pytest.fixture(scope="module")
def table(tmp_path_factory, mp4):
  folder = tmp_path_factory.mktemp("videos")
  (folder / "a.mp4").write_bytes(mp4)
  (folder / "b.gif").write_bytes(made.animation("GIF"))
  (folder / "frames").mkdir()
  for number in range(12):
    Image.fromarray(made.frame(number)).save(folder / "frames" / f"f{number}.png")
  broken = bytearray(mp4)  # the last frames' content is no longer what it was
  start = mp4.index(b"mdat")
  end = start + int.from_bytes(mp4[start - 4 : start], "big") - 4
  broken[start + 2 * (end - start) // 3 : end] = b"\x5a" * (end - (start + 2 * (end - start) // 3))
  (folder / "broken.mp4").write_bytes(broken)
  listed = [f"frames/f{number}.png" for number in range(12)]
  rows = ["a.mp4", "b.gif", "frames", listed]
  lines = [json.dumps({"clip": value, "caption": f"video {at}"}) for at, value in enumerate(rows)]
  (folder / "videos.jsonl").write_text("\n".join(lines))
  bad = json.dumps({"clip": "broken.mp4", "caption": "broken"})
  (folder / "bad.jsonl").write_text("\n".join([*lines, bad]))
  return folder


def loader_of(folder, name="videos", **data):
  data = {"split": "all", "source": {"video": "clip"}, "views": {"video": 1, "text": 1}, "tokenizer": "bytes", **data}
  settings = settings_of(**{**data, "dataset": f"jsonl:{folder}/{name}.jsonl"})
  return Loader(open_source(settings, "all"), settings, seed=5)


def test_files_folders_and_lists_of_frames_are_read(table):
  batch = loader_of(table)((np.zeros(4, int), np.arange(4)))
  assert batch["video"].shape == (4, 1, 4, 8, 8, 3) and batch["video"].dtype == np.uint8
  numbers = np.array([made.numbers_of(clip[0]) for clip in batch["video"]])
  assert (np.diff(numbers) > 0).all() and set(np.diff(numbers[0])) == {10} and set(np.diff(numbers[2])) == {3}
  assert (np.diff(numbers[2]) == np.diff(numbers[3])).all()
  assert np.ptp(batch["video"], axis=(3, 4)).max() <= 12  # each frame is of one colour


def test_a_view_is_a_function_of_seed_example_and_epoch(table):
  first, other = loader_of(table), loader_of(table, video={"frames": 4, "size": 8})
  one = first((np.array([0, 1, 1]), np.array([0, 0, 2])))
  two = other((np.array([1]), np.array([2])))
  np.testing.assert_array_equal(one["video"][2], two["video"][0])


def test_the_crop_is_the_same_over_a_clip(table, tmp_path):
  ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], (32, 32, 3))
  (tmp_path / "ramp.zip").write_bytes(packed([np.ascontiguousarray(ramp)] * 6))
  (tmp_path / "videos.jsonl").write_text(json.dumps({"clip": "ramp.zip", "caption": "a ramp"}))
  (clip,) = loader_of(tmp_path, crop={"scale": (0.2, 0.6)})((np.zeros(1, int), np.zeros(1, int)))["video"]
  assert (clip == clip[:, :1]).all() and np.ptp(clip) > 20


def test_damage_that_views_meet_is_counted_and_replaced(table):
  loader = loader_of(table, "bad", video={"frames": 8, "size": 8}, on_error={"max_share": 0.5})
  batch = loader((np.zeros(5, int), np.arange(5)))
  assert list(loader.bad) == [4] and "video" in loader.bad[4] and "bad.jsonl:5" in loader.bad[4]
  assert batch["index"].tolist() == [0, 1, 2, 3, 0] and batch["why"].tolist() == [0, 0, 0, 0, 1]


def test_inspect_and_the_contact_sheet(table):
  source = open_source(settings_of(dataset=f"jsonl:{table}/bad.jsonl", source={"video": "clip"}), "all")
  found = inspect(source)
  assert "MP4 2, FRAMES 2, GIF 1" in found.text and "12 / 12 / 40 frames" in found.text
  assert "bad videos" in found.text and "1 of 5 records: record 4: " in found.text and not found.fault
  shown, words = pictures(source)
  assert words[0] == "video 0" and shown[0].picture.shape == (98, 4 * 98, 3)
  np.testing.assert_allclose(shown[0].picture[40, [40, 140, 240, 340], 0] / 5, [0, 13, 26, 39], atol=0.7)


def test_the_device_augments_all_frames_alike(table):
  config = {
    "data": settings_of(video={"masked": {"views": 1, "tubelet": (2, 4, 4), "share": 0.5}}, facts=("masked", "pixels")),
    "augment": {"video": {"brightness": 0.5}},
    "normalize": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
  }
  prepare = VIDEO.preparation(config)
  still = np.broadcast_to(np.random.default_rng(0).integers(0, 256, (2, 1, 1, 8, 8, 3), np.uint8), (2, 1, 4, 8, 8, 3))
  batch = {"video": jax.numpy.asarray(still), "seed": np.array([1, 2], np.uint32), "mirror_safe": np.ones(2, bool)}
  out = jax.jit(lambda batch: (prepare(batch, True), prepare.facts(batch, True)))(batch)
  clips = out[0]["video"].values
  assert (clips == clips[:, :, :1]).all() and not np.allclose(clips, (still / 255 - 0.5) / 0.5)
  hidden = out[1]["video_masked"]["masked"]
  assert hidden.shape == (2, 1, 8) and (hidden.sum(-1) == 4).all() and (hidden[..., :4] == hidden[..., 4:]).all()
  np.testing.assert_array_equal(out[0]["video_masked"].mask, ~hidden)
  np.testing.assert_array_equal(out[1]["video_masked"]["pixels"], clips)
  assert not prepare.facts(batch, False)["video_masked"]["masked"].any()


def test_evaluation_takes_files_folders_and_arrays(table, mp4):
  settings = settings_of()
  from_file, from_bytes = (VIDEO.accepts(thing, settings, "x") for thing in (table / "a.mp4", mp4))
  assert from_file.shape == (4, 8, 8, 3) and made.numbers_of(from_file) == [5, 15, 25, 35]
  np.testing.assert_array_equal(from_file, from_bytes)
  assert made.numbers_of(VIDEO.accepts(str(table / "frames"), settings, "x")) == [1, 4, 7, 10]
  array = np.stack([made.frame(number) for number in range(8)])
  assert made.numbers_of(VIDEO.accepts(array, settings, "x")) == [1, 3, 5, 7]
  assert len(VIDEO.many(np.stack([array, array]), "x")) == 2
  with pytest.raises(UserError, match=r"x: float32 \[3, 3\] is not uint8 \[N, H, W, 3\]; give a path"):
    VIDEO.accepts(np.zeros((3, 3), np.float32), settings, "x")
  (table / "empty").mkdir(exist_ok=True)
  with pytest.raises(UserError, match="empty: a folder without pictures; give the path of a video"):
    VIDEO.accepts(table / "empty", settings, "x")


@pytest.mark.parametrize(
  ("video", "message"),
  [
    ({"sampling": "tns"}, "data.video.sampling: no such choice 'tns'.*tsn"),
    ({"frames": 0}, "data.video.frames: 0"),
    ({"masked": {"views": 2}}, "data.video.masked.views: 2 masked versions of 1 video views"),
    (
      {"masked": {"views": 1, "tubelet": (3, 8, 8)}},
      "clips of 4 frames of 8 px do not split into tubelets of 3 frames",
    ),
    ({"masked": {"tubelet": (2, 8)}}, "data.video.masked.tubelet: "),
    ({"masked": {"share": 1.0}}, "data.video.masked.share: 1.0; give a share over 0"),
    ({"variable_rate": "drop"}, "data.video.variable_rate: no such choice"),
  ],
)
def test_wrong_settings(video, message):
  with pytest.raises(UserError, match=message):
    settings_of(video=video)
