"""The parts of a run's page: curves, the graph, the plane, the gap, tiles, hits and misses, confusions, tables."""

import dataclasses
import html.parser
import json

import numpy as np
import pyarrow.parquet
import pytest
from image_text_set import image_text_set
from tiny import tiny_config

from mmcontrast.config import load_config
from mmcontrast.evaluation import bootstrap
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.inference import Inference
from mmcontrast.models.model import build_model
from mmcontrast.objectives.tokens import make_tokens
from mmcontrast.report.page import mixture, projection, sections
from mmcontrast.report.page.curves import charts, thinned
from mmcontrast.report.page.embedding_atlas import nearest_of, write_atlas
from mmcontrast.report.page.outcomes import confusion, directions, of_retrieval, of_zero_shot
from mmcontrast.report.page.points import gaps, points_of
from mmcontrast.report.page.sprite import Sprite


def embedded(images=12, captions=16, **changes):
  """Captions along the axes; image i lies at caption i, but that the last three lie at the caption before."""
  axes = np.eye(captions, dtype=np.float32)
  at = np.arange(images)
  at[-3:] -= 1
  rng = np.random.default_rng(0)
  data = image_text_set(**({
    "name": "drawings", "seen": False,
    "images": rng.integers(0, 256, (images, 8, 8, 3)).astype(np.uint8), "image_id": np.arange(images),
    "captions": [f"caption {number}" for number in range(captions)], "caption_id": np.arange(captions),
    "labels": {"kind": np.arange(images) % 3 - 1}, "label_names": {"kind": ["caption 0", "caption 1"]},
  } | changes))  # fmt: skip
  rows = {"image": axes[at]}
  return EmbeddedSet(data, lambda kind, values: (
    rows[kind] if kind == "image" else axes[[int(text.split()[1]) for text in values]]
  ))  # fmt: skip


def test_each_loss_has_a_chart_and_other_metrics_share_one():
  records = [{"step": step, "loss": 2.0 / step, "a/loss": 1.0, "b/loss": None if step == 2 else 3.0,
              "a/temperature": 0.1, "b/temperature": 0.2, "data_wait": 0.5,
              "val/image_to_text/recall@1": 0.25, "odd": 7.0}
             for step in (1, 2, 3)]  # fmt: skip
  made = {chart.title: chart for chart in charts([records, records[:1]])}
  assert list(made)[:3] == ["loss", "a/loss", "b/loss"]
  assert [(line.run, line.steps) for line in made["loss"].lines] == [(0, [1, 2, 3]), (1, [1])]
  assert made["b/loss"].lines[0].steps == [1, 3] and made["b/loss"].lines[0].values == [3.0, 3.0]
  assert {line.name for line in made["temperatures"].lines} == {"a/temperature", "b/temperature"}
  assert made["image_to_text: recall@1".replace("_", " ")].group == "evaluation"
  assert made["odd"].group == "everything else"
  assert made["share of the time spent waiting for data"].group == "rates"
  assert charts([[]]) == []


def test_a_long_line_keeps_its_spikes():
  values = np.sin(np.arange(5000) / 100)
  values[[17, 4321]] = 50, -50
  kept = thinned(values, 100)
  assert len(kept) <= 102 and {0, 17, 4321, 4999} <= set(kept.tolist()) and (np.diff(kept) > 0).all()
  assert thinned(values[:100], 100).tolist() == list(range(100))


def test_the_graph_says_what_every_term_reads():
  config = tiny_config()
  graph = mixture.graph_of(config, build_model(config, 40))
  assert {name for name in graph.nodes if name.startswith("term")} == {f"term {name}" for name in config["objective"]}
  assert graph.edges["tower image", "head image_ssl"] == "" and ("view image[1]", "tower image") in graph.edges
  assert graph.edges["head text_joint", "term image_to_text"] == "momentum"
  assert ("head image_ssl", "term image_to_text") not in graph.edges
  assert (
    len({graph.nodes[name].column for name in ("view text[0]", "tower text", "head text_ssl", "term text_text")}) == 4
  )
  drawn = mixture.draw_graph(graph)
  assert drawn.count("<rect") == len(graph.nodes) and drawn.count("<path") == len(graph.edges)


def test_the_graph_of_towers_that_read_others():
  c = tiny_config(
    objective=dict(
      match=dict(
        module="matching", embeddings=("fusion(text[0], image[0])/match", "fusion(text[0]~uniform, image[0])/match")
      )
    )
  )
  c["towers"]["fusion"] = dict(reads=("text", "image"), name="fusion_transformer", width=16, depth=1, heads=2)
  c["heads"]["match"] = dict(tower="fusion", name="linear", dim=2)
  graph = mixture.graph_of(c, build_model(c, 40))
  assert graph.edges["tower text", "tower fusion"] == "" and graph.edges["tower fusion", "head match"] == ""
  assert graph.nodes["tower fusion"].column == 2 and graph.nodes["head match"].column == 3


def test_the_graph_of_two_towers_of_one_modality_and_of_one_tower_for_two():
  config = load_config("methods/gram")
  graph = mixture.graph_of(config, build_model(config, 40))
  assert {edge for edge in graph.edges if edge[0].startswith("view text")} == {
    ("view text[0]", "tower text"),
    ("view text[1]", "tower german"),
  }
  config = load_config("methods/clippo")
  model = build_model(config, 40)
  graph = mixture.graph_of(config, model)
  assert graph.nodes["tower written"].said == "same as image" and ("view written[1]", "tower written") in graph.edges
  frozen = mixture.graph_of(config, dataclasses.replace(model, frozen=frozenset({"towers/image"})))
  assert frozen.nodes["tower image"].said == "vit, frozen"
  learned = {"params": {"terms": {"image_written": {"log_scale": np.float32(1)}}}}
  assert "by vit, head written_joint" in repr(Inference(config, model, learned, None))


def test_principal_components_are_those_of_the_covariance():
  rng = np.random.default_rng(1)
  rows = rng.normal(size=(50, 6)) * [5, 3, 1, 0.5, 0.2, 0.1]
  found = projection.pca(rows)
  values = np.sort(np.linalg.eigvalsh(np.cov(rows.T)))[::-1]
  np.testing.assert_allclose(found.var(axis=0, ddof=1), values[:2], rtol=1e-9)
  assert abs(np.corrcoef(found.T)[0, 1]) < 1e-9 and np.allclose(found, projection.pca(rows.copy()))
  assert projection.pca(np.ones((4, 3))).shape == (4, 2) and projection.pca(rows[:, :1])[:, 1].tolist() == [0] * 50


def test_the_gap_and_the_mean_cosines_by_all_pairs():
  rng = np.random.default_rng(2)
  one, other = (unit(rng.normal(size=(n, 5)) + shift) for n, shift in ((7, 0.0), (9, 0.5)))
  a, b = np.arange(7), np.arange(9) // 2
  found, cosines, same = projection.gap(one, other, a, b), one @ other.T, a[:, None] == b
  assert found.distance == pytest.approx(np.linalg.norm(one.mean(0) - other.mean(0)), abs=1e-6)
  assert found.matched == pytest.approx(cosines[same].mean(), abs=1e-6)
  assert found.others == pytest.approx(cosines[~same].mean(), abs=1e-6)
  nothing = projection.gap(one, other, a, b + 100)
  assert np.isnan(nothing.matched) and "–" in sections.gap_table({("image", "text"): nothing})


def test_an_interval_covers_the_mean_as_often_as_it_says():
  rng, inside = np.random.default_rng(3), 0
  for trial in range(200):
    low, high = bootstrap.of_mean(bootstrap.Outcomes((rng.random(150) < 0.3).astype(float), np.arange(150)), trial)
    inside += low <= 0.3 <= high
  assert 180 <= inside <= 199  # 95 % of 200, within three deviations
  values, once = (rng.random(100) < 0.5).astype(float), np.arange(100)
  low, high = bootstrap.of_mean(bootstrap.Outcomes(values, once))
  # Ten captions of one image say no more than one.
  wide = bootstrap.of_mean(bootstrap.Outcomes(np.repeat(values, 10), np.repeat(once, 10)))
  assert wide == pytest.approx((low, high))


def test_a_difference_is_drawn_pair_by_pair():
  rng = np.random.default_rng(4)
  one = bootstrap.Outcomes((rng.random(400) < 0.5).astype(float), np.arange(400))
  better = bootstrap.Outcomes(np.maximum(one.values, rng.random(400) < 0.05), one.concept)
  low, high = bootstrap.of_difference(better, one)
  assert 0 < low < better.values.mean() - one.values.mean() < high < 0.06
  assert bootstrap.of_difference(one, one) == (0, 0)
  assert bootstrap.of_difference(one, bootstrap.Outcomes(one.values[:9], one.concept[:9])) is None


def test_a_picture_is_taken_once_and_kept_whole():
  sprite = Sprite(8)
  wide = np.zeros((4, 8, 3), np.uint8)
  assert [sprite.add(key, lambda: wide) for key in ("a", "b", "a")] == [0, 1, 0]
  assert sprite.add("c", lambda: np.full((30, 30, 3), 200, np.uint8)) == 2 and len(sprite) == 3 and sprite.columns == 2
  assert sprite.address().startswith("data:image/webp;base64,")


def test_hits_and_misses_with_the_rank_of_the_right_one():
  test = embedded()
  found = {(one.query, one.gallery): one for one in directions(test, shown=20)}
  way = found["image", "text"]
  assert sorted(one.place for one in way.hits) == list(range(9)) and sorted(one.place for one in way.misses) == [
    9,
    10,
    11,
  ]
  missed = way.misses[0]
  assert missed.found[0].place == missed.place - 1 and not missed.found[0].right and missed.found[0].score == 1
  # Every other caption has a cosine of 0 too: ties count against the model, and the right one is shown last.
  assert missed.rank == 16 and [one.rank for one in missed.found] == [1, 2, 3, 4, 5, 16] and missed.found[-1].right
  outcomes = of_retrieval(test, list(found.values()))
  assert outcomes["drawings/image_to_text/recall@1"].values.mean() == 9 / 12
  assert len(outcomes["drawings/text_to_image/recall@1"].values) == 12  # four captions have no image
  shown = sections.gallery(way, lambda modality, place: f"<b>{modality}{place}</b>")
  assert shown.count("data-rank") == 12 and "9 of 12 queries" in shown and "<b>image11</b>" in shown


def test_what_classes_are_taken_for():
  outcomes, (found,) = of_zero_shot(embedded(), {"label": "kind"})
  assert found.counts.sum() == 8  # those of label -1 are left out
  assert outcomes["drawings/zero_shot/kind_top1"].values.shape == (8,)
  names = [f"<class {number}>" for number in range(40)]
  labels = np.repeat(np.arange(40), np.arange(40) + 1)
  many = confusion("zero_shot", "kind", labels, (labels + 1) % 40, names)
  assert many.names[-1] == "others" and many.names[0] == names[16] and many.counts.sum() == len(labels)
  assert many.counts[0, 1] == 17 and many.counts[-2, -1] == 40  # the last class is taken for the first, which is small
  assert "&lt;class 39&gt;" in sections.confusion_table(many) and "<class" not in sections.confusion_table(many)


def test_tokens_are_compared_as_the_run_does_and_mapped_by_their_means():
  rows = embedded()

  def tokens(kind, values):
    found = np.asarray(rows.embed(kind, values))
    mask = np.array([[True, True, False]] * len(found))
    return make_tokens(np.stack([found, found, np.full_like(found, 9)], axis=1), mask)

  def first(way, queries, gallery):
    return np.asarray(queries.vectors[:, 0]) @ np.asarray(gallery.vectors[:, 0]).T

  test = EmbeddedSet(rows.data, tokens, "drawings", first)
  assert [(one.query, len(one.hits), len(one.misses)) for one in directions(test)] == [("image", 8, 3), ("text", 8, 4)]
  assert of_zero_shot(test, {}) == ({}, [])
  np.testing.assert_allclose(points_of(test, 100).rows, points_of(rows, 100).rows, atol=1e-6)


def test_points_are_of_the_same_concepts_in_both_modalities():
  test = embedded()
  points = points_of(test, most=5)
  images, texts = (
    {one for one, of in zip(points.concept.tolist(), points.modality) if of == name} for name in ("image", "text")
  )
  assert images == texts and len(images) == 5
  assert all(words == f"caption {concept}" for words, concept in zip(points.words, points.concept))
  by_concept = {}
  for concept, label in zip(points.concept.tolist(), points.label.tolist()):
    assert by_concept.setdefault(concept, label) == label  # a caption has the label of its image
  everything = points_of(test, most=100)
  assert len(everything.place) == 28 and set(gaps(test)) == {("image", "text")}


def test_the_table_of_embedding_atlas(tmp_path):
  test = embedded()
  points = points_of(test, most=100)
  write_atlas(tmp_path / "new" / "map.parquet", test, points, projection.pca(points.rows))
  rows = pyarrow.parquet.read_table(tmp_path / "new" / "map.parquet").to_pylist()
  assert len(rows) == 28 and {"x", "y", "neighbors", "image", "text", "modality", "label"} <= set(rows[0])
  ids, far = rows[0]["neighbors"]["ids"], rows[0]["neighbors"]["distances"]
  assert len(ids) == len(far) == 15 and far == sorted(far) and rows[ids[0]]["text"] == "caption 0" and far[0] == 0
  assert rows[0]["image"]["bytes"][:4] == b"\x89PNG" and rows[-1]["image"] is None
  assert nearest_of(np.eye(3, dtype=np.float32))[0].tolist() == [[1, 2], [0, 2], [0, 1]]


class Reader(html.parser.HTMLParser):
  """Collects the tags, ids and texts of a page."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.open = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.attributes.append((tag, dict(attributes)))


def test_tables_of_results_and_of_configs():
  one = {"a/image_to_text/recall@1": sections.Result(0.5, (0.4, 0.6)), "a/image_to_text/queries": sections.Result(9)}
  other = {
    "a/image_to_text/recall@1": sections.Result(0.7, (0.6, 0.8), (0.1, 0.3)),
    "a/knn/l_accuracy": sections.Result(1),
  }
  table = sections.results_table(["x", "<y>"], [one, other])
  assert "50.0" in table and "40.0 to 60.0" in table and "+10.0 to +30.0" in table and "better" in table
  assert "queries" not in table and "&lt;y&gt;" in table and Reader(table).tags.count("tr") == 4
  assert "No results yet" in sections.results_table(["x"], [{"loss": sections.Result(1.0)}])
  made = sections.config_difference(["x", "y"], [{"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}, "d": {}}])
  assert "a.b" in made and "a.c" not in made and ">d<" in made and "–" in made
  assert "are the same" in sections.config_difference(["x", "y"], [{"a": 1}, {"a": 1}])
  assert json.loads(sections.flat({"a": {"b": (1, 2)}})["a.b"]) == [1, 2]
