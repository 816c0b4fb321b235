"""The page of runs that differ in their structure: what stands for a sound, a clip or a graph, and what is left out."""

import html.parser
import json

import numpy as np
import pytest
from shape_things import COUNT, RUNS, changes, write_things

from mmcontrast.config import load_config
from mmcontrast.data.evaluation_set import load_configured_set
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.inference.kinds import space_of
from mmcontrast.modalities import MODALITIES
from mmcontrast.models.model import build_model
from mmcontrast.report.page import mixture, projection
from mmcontrast.report.page.document import Looked, Page, document
from mmcontrast.report.page.outcomes import directions, of_zero_shot
from mmcontrast.report.page.points import gaps, points_of

WRONG = 5  # of each modality so many lie where another thing is


class Read(html.parser.HTMLParser):
  """The elements of a page, and the data in it."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.found, self._in = [], "", False
    self.feed(text)
    self.data = json.loads(self.found)

  def handle_starttag(self, tag, attributes):
    self.elements.append((tag, dict(attributes)))
    self._in = dict(attributes).get("id") == "data"

  def handle_data(self, data):
    self.found += data if self._in else ""
    self._in = False


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("things")
  write_things(folder)
  return folder


def page_of(name, folder):
  """The page of a run that was never trained: whatever is embedded lies at its concept, but for some."""
  config = load_config(f"{RUNS[name][0]}:smoke", changes(name, folder))
  model = build_model(config, 300)
  space = space_of(config, model, variables=None)  # no output of a node is asked for
  data = load_configured_set("things", config["evaluation"]["data"]["things"], config["data"], None)

  def embed(kind, values):
    rows = np.eye(COUNT, dtype=np.float32)[np.arange(len(values)) % COUNT]
    rows[:WRONG] = rows[1 : WRONG + 1].copy()
    return rows * (1.0 if kind.startswith("text") else 0.9) + 0.01

  test = EmbeddedSet(data, embed, "things", space=space)
  points = points_of(test, 100)
  found = directions(test)
  views = {"PCA": projection.pca(points.rows)}
  confusions = of_zero_shot(test, {"label": "shape"})[1]
  looked = Looked(test, found, confusions, points, views, gaps(test))
  graph = mixture.draw_graph(mixture.graph_of(config, model))
  return Read(document(Page(name, {}, [name], [], [{}], [config], graph, looked))), found


def test_what_can_be_heard_is_told(folder):
  files = {"image": "0.png", "audio": "0.wav", "video": "0.zip", "points": "0.npy"}
  shown = {one: MODALITIES[one].show((folder / file).read_bytes()) for one, file in files.items()}
  assert {one for one in shown if shown[one].file} == {one for one in MODALITIES if MODALITIES[one].heard} == {"audio"}
  assert all(one.picture is not None and one.picture.std() > 5 for one in shown.values())


@pytest.mark.parametrize(
  ("name", "modalities", "ways"),
  [
    ("sounds", ["image", "text", "audio"], 6),
    ("clips", ["text", "video"], 2),
    ("points", ["image", "text", "points"], 6),
    ("graphs", ["text", "graph"], 2),
    ("graphs alone", ["graph"], 0),
    ("simclr", ["image"], 0),
    ("clippo", ["image", "written"], 2),
  ],
)
def test_a_page_of_every_structure(name, modalities, ways, folder):
  page, found = page_of(name, folder)
  points = page.data["map"]
  assert sorted(points["modalities"]) == sorted(modalities) and len(points["modality"]) == COUNT * len(modalities)
  shown = {points["modalities"].index(one) for one in modalities if MODALITIES[one].pictured}
  assert all(tile >= 0 for tile, of in zip(points["tile"], points["modality"]) if of in shown)
  assert all(points["words"]) or name == "simclr"  # of whose set no caption is read
  assert len(found) == ways and all(one.hits and one.misses for one in found)
  tiles = [attributes for tag, attributes in page.elements if "data-tile" in attributes]
  assert bool(tiles) == bool(ways)
  assert all(one["title"] == one["aria-label"] and ": a " in one["title"] for one in tiles)
