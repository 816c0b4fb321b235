"""Small tar and TFRecord shards, written by others' code: tarfile, and tensorboard's record writer."""

import io
import pathlib
import tarfile

from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example


def jpeg(number: int, side: int = 24) -> bytes:
  """A JPEG of one colour, another for each number."""
  buffer = io.BytesIO()
  Image.new("RGB", (side, side), (10 * number % 256, 200, 30)).save(buffer, "jpeg")
  return buffer.getvalue()


def write_tar(path: pathlib.Path, members, format=tarfile.PAX_FORMAT) -> pathlib.Path:
  """`members`: (name, content) of each."""
  with tarfile.open(path, "w", format=format) as tar:
    for name, content in members:
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  return path


def pairs(first: int, count: int):
  """Members of `count` samples, each a picture and a caption."""
  for n in range(first, first + count):
    yield f"{n:05d}.jpg", jpeg(n)
    yield f"{n:05d}.txt", f"caption {n}".encode()


def write_tfrecord(path: pathlib.Path, rows) -> pathlib.Path:
  """`rows`: feature -> bytes, text, int or float of each record."""
  with path.open("wb") as file:
    writer = RecordWriter(file)
    for row in rows:
      example = Example()
      for name, value in row.items():
        feature = example.features.feature[name]
        if isinstance(value, int):
          feature.int64_list.value.append(value)
        elif isinstance(value, float):
          feature.float_list.value.append(value)
        else:
          feature.bytes_list.value.append(value.encode() if isinstance(value, str) else value)
      writer.write(example.SerializeToString())
  return path
