"""Regions of images: from columns of a table to the arrays of a batch, and boxes that are none."""

import json

import numpy as np
import pytest
from PIL import Image

from mmcontrast.data import pipeline, regions, relations
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
  shown = [regions.draw(every, 3, row) for row in draws]
  texts = [tuple(text for _, text in row) for row in shown]
  assert all(len(set(row)) == 3 for row in texts) and len(set(texts)) > 40
  assert all(region is every[int(text)] for row in shown for region, text in row)
  assert regions.draw((), 2, draws[0, :4]) == []


@pytest.mark.parametrize(
  ("subject", "other", "wanted"),
  [
    ([0.0, 0.0, 0.2, 0.2], [0.2, 0.1, 0.4, 0.3], ["left of"]),
    ([0.3, 0.0, 0.5, 0.2], [0.0, 0.1, 0.2, 0.3], ["right of"]),
    ([0.0, 0.0, 0.2, 0.2], [0.1, 0.2, 0.3, 0.4], ["above"]),
    ([0.0, 0.0, 0.3, 0.2], [0.1, 0.1, 0.3, 0.3], ["larger than"]),
    ([0.1, 0.1, 0.3, 0.3], [0.0, 0.0, 0.4, 0.4], ["smaller than"]),
    ([0.5, 0.5, 0.9, 0.9], [0.0, 0.0, 0.2, 0.2], ["right of", "below", "larger than"]),
    ([0.0, 0.0, 0.2, 0.2], [0.1, 0.1, 0.3, 0.3], []),
  ],
)
def test_relations_follow_from_boxes(subject, other, wanted):
  assert relations.holding(subject, other) == wanted
  reverse = {"left of": "right of", "above": "below", "larger than": "smaller than"}
  reverse |= {value: key for key, value in reverse.items()}
  assert sorted(relations.holding(other, subject)) == sorted(reverse[word] for word in wanted)


def test_a_pair_says_one_of_its_relations():
  boxes = ((0.0, 0.0, 0.2, 0.2), (0.5, 0.0, 0.9, 0.4), (0.55, 0.05, 0.95, 0.4))
  shown = [(Region(box, (name,)), name) for box, name in zip(boxes, ("fox", "hat", "cup"))]
  found = relations.draw(shown, 3, np.array([0.0, 0.0, 0.9]))
  assert found[0] == ("fox left of hat", boxes[0], boxes[1]) and found[1] is None  # hat and cup overlap
  assert found[2] == ("cup larger than fox", boxes[2], boxes[0])
  assert relations.draw(shown[:1], 2, np.zeros(2)) == relations.draw([], 2, np.zeros(2)) == [None, None]
  assert [one and one.text for one in relations.draw(shown[:2], 3, np.array([0.9, 0.9, 0.9]))] == [
    "fox smaller than hat", "hat larger than fox", None]  # fmt: skip


def test_a_batch_says_how_regions_are_related(rows):
  config = dict(dataset=f"jsonl:{rows}", source=dict(regions=COLUMNS), split="all", views=dict(image=1, text=1),
                image_size=8, text_length=32, tokenizer="bytes", facts=("subject", "object"),
                regions=dict(views=2, relations=1), token_ids=dict(pad=0, bos=1, eos=2),
                on_error=dict(max_share=0.5))  # fmt: skip
  batches = pipeline.train_batches(config, seed=0, batch_size=4)
  try:
    batch, text = next(batches), batches.tokenizer
  finally:
    batches.close()
  assert "text_region_box" not in batch
  for row, index in enumerate(batch["index"]):
    ends = [tuple(batch[f"text_relation_{end}"][row, 0]) for end in ("subject", "object")]
    said = tuple(batch["text_relation"][row, 0])
    if index == 1:
      assert said == tuple(text.encode([""], 32)[0]) and ends == [(0.0,) * 4] * 2
    else:
      names = {tuple(BOXES[0]): ("a red ball",), tuple(BOXES[1]): ("a dog", "an animal")}
      true = relations.holding(*ends)
      phrases = [f"{a} {word} {b}" for a in names[ends[0]] for word in true for b in names[ends[1]]]
      assert ends[0] != ends[1] and said in {tuple(ids) for ids in text.encode(phrases, 32)}


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
    (
      dict(regions=dict(views=1, relations=1)),
      r"data\.regions\.relations: 1 of 1 regions, .* data\.regions\.views to 2 or more",
    ),
    (
      dict(regions=dict(views=2, relations=3)),
      r"data\.regions\.relations: 3 of 2 regions, .* data\.regions\.views to 3 or more",
    ),
    (dict(regions=dict(views=2), trim=True), r"data\.trim: boxes of regions are of images as they are stored"),
  ):
    with pytest.raises(UserError, match=message):
      resolve(settings)
  config = dict(dataset=f"jsonl:{rows}", split="all", regions=dict(views=2), views=dict(image=1, text=1))
  with pytest.raises(UserError, match=r"data\.regions\.views: dataset jsonl:.* has no regions; name the columns"):
    pipeline.spec(config, 2)
