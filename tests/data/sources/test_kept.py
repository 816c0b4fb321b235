"""An index of kept records: what is read by it, and what it is not of."""

import json
import pathlib

import numpy as np
import pytest

from mmcontrast.data.sources import open_source
from mmcontrast.data.sources.kept import write_kept
from mmcontrast.data.sources.keys import key_of
from mmcontrast.errors import UserError


@pytest.fixture
def rows(tmp_path):
  path = tmp_path / "rows.jsonl"
  path.write_text("".join(json.dumps({"caption": f"text {n}"}) + "\n" for n in range(6)))
  return path


def opened(rows, **more):
  return open_source({"dataset": f"jsonl:{rows}", "source": {"image": None}, **more}, "train")


def kept(rows, indices, **source):
  folder = rows.parent / "kept"
  folder.mkdir(exist_ok=True)
  of = {"dataset": f"jsonl:{rows}", "options": {}, "split": "train"}
  write_kept(folder, np.array(indices, np.int64), opened(rows), {**of, **source}, {"exact": 6 - len(indices)})
  return str(folder)


def test_only_the_kept_records_are_read(rows):
  whole, some = opened(rows), opened(rows, kept=kept(rows, [1, 4, 5]))
  assert [some[n]["captions"]["caption"] for n in range(len(some))] == [["text 1"], ["text 4"], ["text 5"]]
  assert key_of(some, 1) == key_of(whole, 4) and some.info.notes[-1].startswith("3 of 6 records are kept")
  mixture = {name: {"dataset": f"jsonl:{rows}", "source": {"image": None}} for name in "ab"}
  mixture["a"]["kept"] = kept(rows, [0, 3])
  both = open_source({"mixture": mixture}, "train")
  assert len(both) == 2 + 6 and both[1]["captions"]["caption"] == ["text 3"]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ("rows", r"made of the 6 records of split 'train' of jsonl:.* has 7 in split 'train'; make it of the data"),
    ("names", r"made of other data: record 1 is .*, not 'another'; make it anew"),
    ("none", "keeps none of 6 records"),
    ("torn", "cannot be read .*; make it anew"),
    ("parts", r"holds no kept\.json; not all of its parts are made"),
    ("missing", r"holds no kept\.json; make it by mmcontrast data filter, dedup or balance"),
    ("mixture", r"is of one dataset, and this is a mixture; set data\.mixture\.NAME\.kept"),
  ],
)
def test_an_index_that_does_not_fit_is_said(rows, change, message):
  folder = pathlib.Path(kept(rows, [] if change == "none" else [1, 4]))
  more = {"kept": str(folder)}
  if change == "rows":
    rows.write_text(rows.read_text() + '{"caption": "another"}\n')
  if change == "names":
    notes = json.loads((folder / "kept.json").read_text())
    (folder / "kept.json").write_text(json.dumps({**notes, "names": {"1": "another"}}))
  if change == "torn":
    (folder / "kept.npy").write_bytes(b"\x93NUMPY")
  if change in ("parts", "missing"):
    (folder / "kept.json").unlink()
  if change == "parts":
    (folder / "manifest.json").write_text("{}")
  if change == "mixture":
    more["mixture"] = {"a": {"dataset": f"jsonl:{rows}", "source": {"image": None}}}
  with pytest.raises(UserError, match=f"^data.kept: .*{message}") as caught:
    opened(rows, **more)
  assert "\n" not in str(caught.value)
