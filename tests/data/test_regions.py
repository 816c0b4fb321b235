"""Regions of images: from columns of a table to the arrays of a batch, and boxes that are none."""

import json

import numpy as np
import pytest
from PIL import Image

from mmcontrast.data import pipeline, regions
from mmcontrast.data.fingerprint import changes, fingerprint
from mmcontrast.data.record import BadRecord, Region
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import array_record, open_source
from mmcontrast.errors import UserError

COLUMNS = dict(box="boxes", text="names")
BOXES = [[0.0, 0.0, 0.5, 0.5], [0.25, 0.5, 1.0, 1.0], [0.5, 0.5, 0.5, 1.0]]  # the last without an area
NAMES = ["a red ball", ["a dog", "an animal"], "nothing"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
  """Four rows: one without regions, one whose box is in pixels."""
  folder = tmp_path_factory.mktemp("regions")
  Image.new("RGB", (20, 10), (200, 0, 0)).save(folder / "a.png")
  row = dict(image="a.png", caption="a scene", boxes=BOXES, names=NAMES, others=["x", "y", "z"])
  bad = {**row, "boxes": [[0, 0, 10, 10]], "names": ["a ball"], "others": ["x"]}
  lines = [row, {**row, "boxes": [], "names": [], "others": []}, row, bad]
  (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
  return folder / "rows.jsonl"


def source_of(rows, **options):
  return open_source(dict(dataset=f"jsonl:{rows}", source=dict(regions=COLUMNS) | options), "all")


def test_a_batch_says_what_and_where_regions_are(rows):
  config = dict(dataset=f"jsonl:{rows}", source=dict(regions=COLUMNS), split="all", views=dict(image=1, text=1),
                image_size=8, text_length=12, tokenizer="bytes", facts=("box",), regions=dict(views=4),
                token_ids=dict(pad=0, bos=1, eos=2), on_error=dict(max_share=0.5))  # fmt: skip
  batches = pipeline.train_batches(config, seed=0, batch_size=4)
  try:
    batch, text = next(batches), batches.tokenizer
  finally:
    batches.close()
  shapes = {name: shape[1:] for name, (shape, _) in pipeline.spec(config, 4).batch.items()}
  assert {name: batch[name].shape[1:] for name in ("text", "text_region", "text_region_box")} == {
    name: shapes[name] for name in ("text", "text_region", "text_region_box")
  }
  said = {
    tuple(text.encode([words], 12)[0]): number for number, words in enumerate(("a red ball", "a dog", "an animal", ""))
  }
  for row, index in enumerate(batch["index"]):
    found = sorted(
      (said[tuple(ids)], tuple(box)) for ids, box in zip(batch["text_region"][row], batch["text_region_box"][row])
    )
    nothing = (3, (0.0,) * 4)
    if index == 1:
      assert found == [nothing] * 4
    else:  # each of the two that have an area once; no two regions alike
      assert found[0] == (0, tuple(BOXES[0])) and found[1][0] in (1, 2) and found[1][1] == tuple(BOXES[1])
      assert found[2:] == [nothing] * 2
  assert len(batches.bad_records) == 1 and "box 0: 0, 0, 10, 10 lies outside the picture" in str(batches.bad_records)


def test_regions_differ_by_epoch_and_not_by_who_asks():
  every = [Region((0.1 * n, 0.0, 0.1 * n + 0.1, 1.0), (f"{n}",)) for n in range(8)]
  draws = np.random.default_rng(0).random((50, 6))
  boxes = np.zeros((3, 4), np.float32)
  texts = [regions.draw(every, 3, row, boxes) for row in draws]
  assert all(len(set(row)) == 3 for row in texts) and len(set(map(tuple, texts))) > 40
  np.testing.assert_allclose(boxes, [every[int(text)].box for text in texts[-1]], atol=1e-6)
  assert regions.draw((), 2, draws[0, :4], None) == ["", ""]


def test_they_are_packed_with_a_record(rows):
  record = source_of(rows)[0]
  assert record["regions"][1] == Region((0.25, 0.5, 1.0, 1.0), ("a dog", "an animal"))
  assert array_record.unpack(array_record.pack(record), 0)["regions"] == record["regions"]


def test_a_run_that_goes_on_notices_other_regions(rows):
  on_error = resolve({})["on_error"]
  found = [
    fingerprint(source_of(rows, regions=dict(box="boxes", text=text)), None, on_error) for text in ("names", "others")
  ]
  assert changes(*found) == ["2 of 4 examples compared have changed, such as number 0"] and not changes(*found[:1] * 2)


@pytest.mark.parametrize(
  ("boxes", "texts", "message"),
  [
    ([[0, 0, 640, 480]], ["a"], r"column 'boxes', box 0: 0, 0, 640, 480 lies outside the picture; .* divided by its w"),
    ([[0, 0, 1, 1], [-0.1, 0, 1, 1]], ["a", "b"], r"box 1: -0\.1, 0, 1, 1 lies outside"),
    ([[0, 0, 1]], ["a"], r"box 0: \[0, 0, 1\] is not four numbers, x0, y0, x1, y1"),
    ([[0, 0, "x", 1]], ["a"], r"is not four numbers"),
    ([[0, 0, float("nan"), 1]], ["a"], r"is not four numbers"),
    ([[0, 0, 1, 1]], ["a", "b"], r"columns 'boxes' and 'names' have 1 boxes and 2 texts"),
    ([[0, 0, 1, 1]], [7], r"column 'names' holds a int, not a text for each box"),
    (None, ["a"], r"have 0 boxes and 1 texts"),
  ],
)
def test_regions_that_are_none(boxes, texts, message):
  with pytest.raises(BadRecord, match=message):
    regions.of_columns(boxes, texts, COLUMNS)


def test_a_box_that_reaches_over_by_rounding_is_cut():
  (region,) = regions.of_columns([[-1e-6, 0, 1.0001, 1]], ["a"], COLUMNS)
  assert region.box == (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(regions=dict(box="boxes")), r"data\.source\.regions: .* write dict\(box='boxes', text='names'\)"),
    (
      dict(regions=dict(box="boxs", text="names")),
      r"no column 'boxs', which data\.source\.regions names; did you mean",
    ),
  ],
)
def test_columns_that_are_wrong(rows, options, message):
  with pytest.raises(UserError, match=message):
    source_of(rows, **options)


def test_settings_that_are_refused(rows):
  for settings, message in (
    (dict(regions=dict(views=2), views=dict(image=1)), r"data\.regions\.views: texts of regions need captions too"),
    (dict(regions=dict(views=2), trim=True), r"data\.trim: boxes of regions are of images as they are stored"),
  ):
    with pytest.raises(UserError, match=message):
      resolve(settings)
  config = dict(dataset=f"jsonl:{rows}", split="all", regions=dict(views=2), views=dict(image=1, text=1))
  with pytest.raises(UserError, match=r"data\.regions\.views: dataset jsonl:.* has no regions; name the columns"):
    pipeline.spec(config, 2)
