"""Sounds in every source: a column of paths, bytes, base64 or samples, members of shards, files of folders."""

import base64
import io
import json
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
import tensorflow_datasets as tfds
from shard_fixture import jpeg, write_tar, write_tfrecord

from mmcontrast.data.convert import convert
from mmcontrast.data.index_shards import index_shards
from mmcontrast.data.inspection import inspect
from mmcontrast.data.sources import BadRecord, Mixture, open_source
from mmcontrast.data.sources.keys import key_of
from mmcontrast.errors import UserError
from mmcontrast.modalities.audio_reading import decode

RATE = 8_000


def wave(number):
  return (np.sin(np.arange(400) * (number + 1) / 20) / 2).astype(np.float32)


def sound(number, kind="WAV"):
  file = io.BytesIO()
  soundfile.write(file, wave(number), RATE, format=kind, subtype="FLOAT" if kind == "WAV" else None)
  return file.getvalue()


def open_(dataset, **options):
  return open_source({"dataset": dataset, "source": options}, "train")


def holds(source, number, column="audio", tolerance=1e-4):
  """The samples of record `number` are those of sound `number`."""
  record = source[number]
  assert source.info.keys == {"audio": (column,)} and "audio" in source.info.modalities
  np.testing.assert_allclose(decode(record["audio"][column], RATE), wave(number), atol=tolerance)
  return record


def jsonl(folder, rows):
  (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return f"jsonl:{folder}/a.jsonl"


FORMS = {
  "path": lambda folder, n: f"{n}.wav",
  "data URL": lambda folder, n: f"data:audio/wav;base64,{base64.b64encode(sound(n)).decode()}",
  "samples": lambda folder, n: wave(n).tolist(),
  "16-bit samples": lambda folder, n: np.round(wave(n) * 2**15).astype(int).tolist(),
  "samples with a rate": lambda folder, n: {"array": wave(n).tolist(), "sampling_rate": RATE, "path": None},
  "path in a table": lambda folder, n: {"bytes": None, "path": f"{n}.wav"},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_json_lines(tmp_path, form):
  for n in range(2):
    (tmp_path / f"{n}.wav").write_bytes(sound(n))
  rows = [{"clip": form(tmp_path, n), "caption": f"beep {n}", "hz": RATE} for n in range(2)]
  for rate in (RATE, "hz"):
    source = open_(jsonl(tmp_path, rows), audio="clip", audio_rate=rate)
    for n in range(2):
      record = holds(source, n, column="audio")
      assert record["captions"] == {"caption": [f"beep {n}"]} and not record["images"] and not source.info.styles


def test_csv_with_images_and_two_sounds(tmp_path):
  for n in range(2):
    (tmp_path / f"{n}.wav").write_bytes(sound(n))
    (tmp_path / f"{n}.jpg").write_bytes(jpeg(n))
  (tmp_path / "a.csv").write_text("image,near,far,caption\n0.jpg,0.wav,1.wav,a\n1.jpg,,0.wav,b\n")
  source = open_(f"csv:{tmp_path}/a.csv", audio={"near": "near", "far": "far"})
  assert source.info.keys == {"audio": ("far", "near")} and source.info.modalities == ("image", "text", "audio")
  assert list(source[0]["audio"]) == ["far", "near"] and list(source[1]["audio"]) == ["far"]
  assert source[1]["audio"]["far"] == sound(0) and source[0]["images"]["image"] == jpeg(0)
  before = [key_of(source, n) for n in range(2)]
  (tmp_path / "1.wav").write_bytes(sound(3, "FLAC"))  # of record 0 only
  assert [key_of(source, n) == before[n] for n in range(2)] == [False, True]


def test_parquet_as_hugging_face_writes_it(tmp_path):
  table = pyarrow.table(
    {
      "audio": [{"bytes": sound(n, "FLAC"), "path": f"{n}.flac"} for n in range(3)],
      "bare": [wave(n).tolist() for n in range(3)],
      "text": ["a", "b", "c"],
    }
  )
  pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
  for n in range(3):
    holds(open_(f"parquet:{tmp_path}/a.parquet", audio="audio"), n)
    holds(open_(f"parquet:{tmp_path}/a.parquet", audio="bare", audio_rate=RATE), n)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_members_of_a_shard(tmp_path, kind):
  members = []
  for n in range(3):
    members += [(f"{n}.{kind.lower()}", sound(n, kind)), (f"{n}.txt", b"a caption")]
  path = write_tar(tmp_path / "0.tar", members)
  index_shards(str(path), workers=1)
  source = open_(f"webdataset:{path}")
  assert holds(source, 2, tolerance=0.2 if kind in ("OGG", "MP3") else 1e-4)["captions"] == {"caption": ["a caption"]}


def test_members_of_tfrecords(tmp_path):
  path = write_tfrecord(tmp_path / "0.tfrecord", [{"sound": sound(n), "txt": "a"} for n in range(2)])
  index_shards(str(path), workers=1)
  holds(open_(f"tfrecord:{path}", audio="sound"), 1)


def test_a_folder_of_sounds(tmp_path):
  for n, name in enumerate(["cat/0.wav", "dog/1.FLAC"]):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(sound(n, name[-4:].strip(".").upper()))
  (tmp_path / "cat" / "0.txt").write_text("a purr\n")
  source = open_(f"folder:{tmp_path}")
  assert len(source) == 2 and not source.info.styles and source.info.label_names == {"class": ("cat", "dog")}
  assert holds(source, 0)["captions"] == {"caption": ["a purr"]} and holds(source, 1)["labels"] == {"class": 1}
  text = inspect(source).text
  assert re.search(r"2 of 2 records; WAV 8000 Hz 1, FLAC 8000 Hz 1; .* 0\.05 / 0\.05 / 0\.05 seconds", text), text


def test_a_folder_of_images_and_their_sounds(tmp_path):
  for n in range(2):
    (tmp_path / f"{n}.jpg").write_bytes(jpeg(n))
  (tmp_path / "1.ogg").write_bytes(sound(1, "OGG"))
  (tmp_path / "2.wav").write_bytes(sound(2))
  source = open_(f"folder:{tmp_path}")
  assert [(record["name"], list(record["images"]), list(record.get("audio", ()))) for record in source] == [
    ("0.jpg", ["image"], []),
    ("1.jpg", ["image"], ["audio"]),
    ("2.wav", [], ["audio"]),
  ]
  before = key_of(source, 1)
  (tmp_path / "1.ogg").write_bytes(sound(5, "OGG"))
  assert key_of(source, 1) != before


def test_a_folder_of_neither_says_what_is_known(tmp_path):
  (tmp_path / "a.xyz").write_bytes(b"-")
  with pytest.raises(UserError, match=r"no image in it; known are \.jpg, .*; no sounds: \.wav, \.wave, \.flac"):
    open_(f"folder:{tmp_path}")


def test_a_dataset_of_tfds(tmp_path):
  with tfds.core.registered.skip_registration():

    class Beeps(tfds.core.GeneratorBasedBuilder):
      VERSION = tfds.core.Version("1.0.0")

      def _info(self):
        features = {"wave": tfds.features.Tensor(shape=(None,), dtype=np.float32), "text": tfds.features.Text()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

      def _split_generators(self, download_manager):
        return {"train": self._generate_examples()}

      def _generate_examples(self):
        yield 0, {"wave": wave(0), "text": "a beep"}

  tfds.disable_progress_bar()
  Beeps(data_dir=tmp_path, file_format="array_record").download_and_prepare()
  source = open_source({"dataset": "tfds:beeps", "source": {"audio": "wave", "audio_rate": RATE}}, "train", tmp_path)
  assert holds(source, 0)["captions"] == {"text": ["a beep"]}


def test_converted_and_mixed(tmp_path):
  rows = [{"audio": wave(n).tolist(), "caption": "a"} for n in range(2)]
  dataset, options = jsonl(tmp_path, rows), {"audio": "audio", "audio_rate": RATE}
  convert(dataset, options, "train", tmp_path / "out", workers=1)
  source = open_(f"array_record:{tmp_path}/out")
  holds(source, 1)
  (tmp_path / "b.jsonl").write_text('{"caption": "b"}\n')
  mixture = Mixture({"a": source, "b": open_(f"jsonl:{tmp_path}/b.jsonl", image=None)}, {"a": 1.0, "b": 1.0})
  holds(mixture, 1)
  assert "audio" not in mixture[2]


@pytest.mark.parametrize(
  "value, options, message",
  [
    ([0.1, 0.2], {}, r"column 'audio' holds samples without a rate; set data\.source\.audio_rate to their Hz"),
    ([0.1, "a"], {"audio_rate": RATE}, "sound of type <U32; floats, uint8 and signed integers"),
    ([[0.1], [0.2, 0.3]], {"audio_rate": RATE}, "sound that is no array"),
    ({"array": [0.1, 0.2], "sampling_rate": "x"}, {}, "column 'audio': could not convert string to float"),
    ({"array": [0.1, 0.2], "sampling_rate": -1}, {}, "sound with a rate of -1"),
    (7, {}, "column 'audio' is a int, not bytes, a path or base64"),
  ],
)
def test_what_is_no_sound_is_a_bad_record(tmp_path, value, options, message):
  source = open_(jsonl(tmp_path, [{"audio": value, "caption": "a"}]), audio="audio", **options)
  with pytest.raises(BadRecord, match=message):
    source[0]


def test_what_is_not_there_is_none(tmp_path):
  source = open_(jsonl(tmp_path, [{"audio": None, "caption": "a"}, {"caption": "b"}]), audio="audio")
  assert source[0]["audio"] == {} and source[1]["audio"] == {}
  source = open_(jsonl(tmp_path, [{"audio": "gone.wav", "caption": "a"}]), audio="audio")
  with pytest.raises(OSError, match=r"gone\.wav"):
    source[0]


@pytest.mark.parametrize(
  "options, message",
  [
    ({"audio": "clap"}, r"no column 'clap', which data\.source\.audio names; did you mean 'clip'"),
    ({"audio": "clip", "audio_rate": "hertz"}, r"no column 'hertz', which data\.source\.audio_rate names"),
    ({"audoi": "clip"}, r"data\.source: no option 'audoi'; did you mean 'audio'"),
    ({"audio": 7}, r"data\.source\.audio: 7 is not a table such as"),
  ],
)
def test_columns_that_are_not_there(tmp_path, options, message):
  with pytest.raises(UserError, match=message):
    open_(jsonl(tmp_path, [{"clip": "a.wav", "caption": "a", "hz": 8_000}]), **options)
