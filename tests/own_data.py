"""A small data set of rows, and how to write it in each format of rows, to any filesystem."""

import csv
import io
import json

import fsspec
import numpy as np
from PIL import Image

from mmcontrast.data.sources import files

COUNT = 24
KINDS = {"jsonl": "rows.jsonl", "csv": "rows.csv", "parquet": "rows.parquet"}
OPTIONS = {"caption": ["caption", "alt"], "tags": "tags", "labels": "kind", "id": "key", "languages": {"de": "name_de"}}


def picture(number: int) -> bytes:
  """A PNG of its own colours."""
  pixels = np.random.default_rng(number).integers(0, 255, (18, 24, 3), np.uint8)
  out = io.BytesIO()
  Image.fromarray(pixels).save(out, "PNG")
  return out.getvalue()


def rows(count: int = COUNT) -> list[dict]:
  """Rows by column; awkward text among them."""
  return [{
    "image": f"images/{number:02d}.png",
    "caption": f'thing {number}, "quoted"\nand é ☃\u2028',
    "alt": f"alt of {number}",
    "tags": ",".join(["round", "red", "old"][: number % 4]),
    "kind": ("cat", "dog", "10", "9")[number % 4],
    "key": f"key-{number // 2}",
    "name_de": f"Ding {number}",
  } for number in range(count)]  # fmt: skip


def write(path: str, data: bytes) -> str:
  """Writes a file, with the folders it needs; returns its path."""
  with fsspec.open(path, "wb", auto_mkdir=True) as file:
    file.write(data)
  return path


def encode(kind: str, table: list[dict]) -> bytes:
  """The bytes of a file of `kind` that holds the rows."""
  if kind == "jsonl":
    return "".join(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n" for number, row in enumerate(table)).encode()
  if kind == "csv":
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue().encode()
  import pyarrow
  import pyarrow.parquet

  buffer = io.BytesIO()
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), buffer, row_group_size=5)
  return buffer.getvalue()


def write_own_data(folder: str, kind: str) -> str:
  """Writes the rows, in two files, and their images; returns `data.dataset`."""
  table, stem, suffix = rows(), *KINDS[kind].split(".")
  for number, row in enumerate(table):
    write(files.join(folder, row["image"]), picture(number))
  for part in range(2):
    write(f"{folder}/{stem}-{part:03d}.{suffix}", encode(kind, table[part * COUNT // 2 : (part + 1) * COUNT // 2]))
  return f"{kind}:{folder}/{stem}-{{000..001}}.{suffix}"
