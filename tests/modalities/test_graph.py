"""Graphs: what is read of files and tables and refused, which part of one a view shows, what is hidden in training."""

import itertools
import json

import jax
import numpy as np
import pytest

from mmcontrast.data import noise
from mmcontrast.data.inspection import inspect
from mmcontrast.data.record import BadRecord
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import open_source
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.graph_sampling import Neighbours, induced, nearest_first, walked
from mmcontrast.modalities.hashed_words import hashed_words

GRAPH = MODALITIES["graph"]
KINDS = ("hypernym", "part_of")
TREE = {
  "nodes": {"dog": "a dog", "cat": "cats", "animal": "animals, all of them", "tail": "a tail", "far": "far away"},
  "edges": [["dog", "animal", "hypernym"], ["cat", "animal", "hypernym"], ["tail", "dog", "part_of"]],
  "centre": "dog",
}


def settings(**options):
  options = {"nodes": 4, "edges": 5, "features": 16, "kinds": KINDS, **options}
  return resolve({"views": {"graph": options.pop("views", 1)}, "graph": options})


def changed(**parts):
  return json.dumps(TREE | parts).encode()


@pytest.mark.parametrize(("raw", "message"), [
  (b"{", "not readable as JSON"), (b"[1]", r"not a graph, \{\"nodes\""), (changed(nodes={}), "a graph without nodes"),
  (changed(edges=[["dog", "dgo", "part_of"]]), "edge 0 names node 'dgo', which is not there; the graph has 5 nodes"),
  (changed(edges=[[0, 1, "part_of"]]), "edge 0 names node 0, which is not there"),
  (changed(centre="wolf"), "the centre is node 'wolf', which is not there"),
  (changed(edges=[["dog"]]), r"edge 0 is \['dog'\]; give \[from, to\]"), (changed(edges={}), "edges are {}, not"),
  (changed(edges=[["dog", "cat", "hyponym"]]), "kind 'hyponym', which is not in data.graph.kinds; did you mean 'hyper"),
  (changed(edges=[["dog", "cat"]]), "edge 0 is of kind None; give one of data.graph.kinds"),
  (changed(nodes={"dog": "a dog", "cat": 3}, edges=[]), "node 'cat' is 3; nodes are all texts, or all lists of num"),
  (b'{"nodes": [[0.5, 1], [2, NaN]]}', "node 1 has a feature that is not finite: number 1 is nan"),
  (b'{"nodes": [[0.5, 1], [1e300, 0]]}', "node 1 has a feature that no float32 holds: number 0 is 1e.300"),
  (b'{"nodes": [[0.5, 1], [1' + b"0" * 400 + b', 0]]}', "node 1 has a feature that no float32 holds: number 0 is 10"),
  (b'{"nodes": {"dog": "a dog", "cat": "a cat", "dog": "a hot dog"}}', "'dog' stands twice in one table"),
  (b'{"nodes": ["a", "b"], "links": [[0, 1]]}', "a graph has no 'links'; did you mean 'edges'"),
  (b'{"nodes": ["a", "b"], "center": 1}', "a graph has no 'center'; did you mean 'centre'"),
  (b'{"nodes": ["a", "b"], "edge": [[0, 1]]}', "a graph has no 'edge'; did you mean 'edges'"),
  (b'{"nodes": ' + b"[" * 99_999, "not readable as JSON"),
  (b'{"nodes": [[0.5, 1], [2]]}', "node 1 has 1 numbers, and node 0 has 2"),
  (b'{"nodes": [[0.5, 1]]}', "nodes of 2 numbers where data.graph.features is 16"),
  (b'{"nodes": ["a", "b"], "edges": [[0, true, "part_of"]]}', "edge 0 names node True"),
])  # fmt: skip
def test_what_is_no_graph_is_a_bad_record(raw, message):
  with pytest.raises(BadRecord, match=message):
    GRAPH.decode({"graph": {"part": raw}}, settings())
  with pytest.raises(UserError, match=message) as caught:
    GRAPH.accepts(raw, settings(), "graph 0")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [
  (dict(nodes=0), r"graph\.nodes"), (dict(restart=1), "restart: 1; give a number from 0 to below 1"),
  (dict(drop_edges=True), "drop_edges: True"), (dict(kinds="hypernym"), "is not a list of names"),
  (dict(kinds=("~a",)), "is not a list of names"), (dict(kinds=("a", "a")), "'a' is named twice"),
  (dict(paths=("hypernym",)), "is not a list of lists"), (dict(paths=(("hypernim",),)), "did you mean 'hypernym'"),
  (dict(paths=3), "is not a list of lists"), (dict(paths=(3,)), "is not a list of lists"),
  (dict(nodes=True), "nodes: True; give a whole number"), (dict(kinds=3), "is not a list of names"),
  (dict(node=3), "did you mean 'nodes'"),
])  # fmt: skip
def test_wrong_settings_are_one_line(options, message):
  with pytest.raises(UserError, match=message):
    settings(**options)


def test_a_tower_knows_the_kinds_of_the_data():
  of = settings()
  assert GRAPH.tower_options(of) == {"kinds": 2} and GRAPH.tower_options(settings(kinds=())) == {"kinds": 1}
  with pytest.raises(UserError, match=r"towers\.graph\.kinds is 1, and config\.data\.graph\.kinds names 2"):
    GRAPH.check_tower({"kinds": 1}, of, None, "config.towers.graph")


def test_evaluation_sees_what_is_nearest_to_the_centre():
  seen = GRAPH.accepts(TREE, settings(), "")
  assert seen["graph_nodes"] == 4  # "far" is not joined to any
  np.testing.assert_array_equal(seen["graph_edges"], [(0, 1, 0), (2, 0, 1), (3, 1, 0), (-1,) * 3, (-1,) * 3])
  np.testing.assert_allclose(
    seen["graph"], hashed_words(["a dog", "animals, all of them", "a tail", "cats"], 16), atol=1e-6
  )
  two = GRAPH.accepts(changed(), settings(nodes=2, edges=1), "")
  assert two["graph_nodes"] == 2 and two["graph_edges"].tolist() == [[0, 1, 0]]
  numbers = GRAPH.accepts(b'{"nodes": [[1, 2], [3, 4]], "edges": [[1, 0]]}', settings(kinds=(), features=2), "")
  assert numbers["graph"][:3].tolist() == [[1, 2], [3, 4], [0, 0]] and numbers["graph_edges"][0].tolist() == [1, 0, 0]
  batch = GRAPH.batch([seen, seen], settings(), None)
  assert {name: array.shape for name, array in batch.items()} == {
    "graph": (2, 4, 16), "graph_edges": (2, 5, 3), "graph_nodes": (2,)
  }  # fmt: skip


def test_views_are_walks_by_their_numbers():
  of, into = settings(views=2, nodes=3), {}
  for name, (shape, dtype) in GRAPH.arrays(of).items():
    into[name] = np.zeros(shape, dtype)
  ring = {"nodes": [f"n{n}" for n in range(30)], "edges": [[n, (n + 1) % 30, "part_of"] for n in range(30)]}
  value = GRAPH.decode({"graph": {"part": json.dumps(ring).encode()}}, of)
  found = []
  for draws in ((0.1, 0.7), (0.1, 0.7), (0.3, 0.9)):
    GRAPH.view(value, {noise.stream("graph"): np.array([0, 0, *draws])}, of, into)
    found.append({name: array.copy() for name, array in into.items()})
  jax.tree.map(np.testing.assert_array_equal, found[0], found[1])
  assert any((found[0]["graph"] != found[2]["graph"]).ravel()) and (found[0]["graph_nodes"] == 3).all()
  np.testing.assert_allclose(found[0]["graph"][:, 0], hashed_words(["n0", "n0"], 16), atol=1e-6)
  assert (found[0]["graph_edges"][:, 1] >= 0).all()  # a walk is joined


def test_a_walk_follows_its_path_and_begins_again():
  edges = np.array([(0, 5, 0), (1, 5, 0), (2, 5, 0), (6, 0, 1), (5, 7, 0)])
  near = Neighbours(9, edges)
  siblings = [[(0, False)], [(0, True)]]
  walks = [walked(near, 0, 9, 0.3, draw, siblings) for draw in (0.1, 0.5, 0.9)]
  assert all(walk[0] == 0 and set(walk) <= {0, 1, 2, 5} for walk in walks) and {*itertools.chain(*walks)} == {
    0,
    1,
    2,
    5,
  }
  assert set(walked(near, 0, 9, 0.3, 0.4)) <= {0, 1, 2, 5, 6, 7} and walked(near, 8, 9, 0.3, 0.4) == [8]
  assert nearest_first(near, 0, 9) == [0, 5, 6, 1, 2, 7] and nearest_first(near, 0, 9, siblings) == [0, 5, 1, 2]
  assert induced(edges, [0, 5, 6], 9).tolist() == [[0, 1, 0], [2, 0, 1]]
  assert induced(edges, [0, 5, 6], 1).tolist() == [[0, 1, 0]] and induced(edges, [0, 5, 6], 9, [1]).tolist() == [
    [2, 0, 1]
  ]


def test_each_view_has_its_path():
  of = settings(views=2, nodes=4, paths=(("hypernym", "~hypernym"), ("~part_of",)))
  into = {name: np.zeros(shape, dtype) for name, (shape, dtype) in GRAPH.arrays(of).items()}
  value = GRAPH.decode({"graph": {"part": changed()}}, of)
  GRAPH.view(value, {noise.stream("graph"): np.array([0, 0, 0.2, 0.6])}, of, into)
  np.testing.assert_array_equal(into["graph_edges"][1, :2], [(1, 0, 1), (-1,) * 3])
  assert set(into["graph_edges"][0, :, 2]) == {0, -1} and into["graph_nodes"][1] == 2
  assert GRAPH.accepts(TREE, of, "")["graph_nodes"] == 4  # of all paths


def test_words_that_share_letters_are_alike():
  dog, dogs, piano, none = hashed_words(["dog", "dogs", "piano", "?!"], 256)
  assert dog @ dogs > 0.3 > abs(dog @ piano) and not none.any()
  np.testing.assert_allclose(np.linalg.norm([dog, dogs, piano], axis=1), 1, atol=1e-6)
  np.testing.assert_allclose(hashed_words(["a dog"], 64), hashed_words(["Dog, a"], 64), atol=1e-6)


def test_training_hides_edges_and_features_by_the_examples_seed():
  of = settings(drop_edges=0.5, drop_features=0.5, edges=60, nodes=40, features=64)
  ring = {"nodes": ["word"] * 40, "edges": [[n, (n + 1) % 40, "part_of"] for n in range(40)]}
  rows = GRAPH.batch([GRAPH.accepts(ring, of, "")] * 2, of, None)
  batch = {name: array[:, None] for name, array in rows.items()}

  def prepared(seeds, train=True):
    return GRAPH.preparation({"data": of, "augment": {}})({**batch, "seed": np.array(seeds, np.uint32)}, train)["graph"]

  made, again, as_it_is = prepared([1, 2]), prepared([7, 2]), prepared([1, 2], train=False)
  for part in ("values", "edges"):
    np.testing.assert_array_equal(getattr(made, part)[1], getattr(again, part)[1])
    assert (getattr(made, part)[0] != getattr(made, part)[1]).any()
  kept = np.asarray(made.edges[..., 0] >= 0).sum()
  assert 20 < kept < 60 and (as_it_is.edges[..., 0] >= 0).sum() == 80
  columns = np.asarray((made.values[0, 0] != 0).any(0))  # the same of all nodes
  assert 0 < columns.sum() < np.asarray((as_it_is.values[0, 0] != 0).any(0)).sum()
  assert np.asarray(made.values[0, 0] != 0).all(0).sum() == columns.sum()


def test_nodes_may_be_called_by_numbers():
  of = settings(kinds=())
  given = {"nodes": {7: "a dog", 9: "a cat"}, "edges": [[7, 9]], "centre": 9}
  one = GRAPH.accepts(given, of, "x")
  assert one["graph_nodes"] == 2 and one["graph_edges"][0].tolist() == [1, 0, 0]
  with pytest.raises(UserError, match="two nodes are called alike"):
    GRAPH.accepts({"nodes": {7: "a", "7": "b"}}, of, "x")
  with pytest.raises(BadRecord, match=r"node 7, which is not there; .* called by texts, '7'"):
    GRAPH.decode({"graph": {"part": b'{"nodes": {"7": "a"}, "edges": [[7, 7]]}'}}, of)


def test_tables_and_files_are_read_and_told(tmp_path):
  lines = [dict(graph=TREE, caption="a dog"), dict(graph=changed().decode(), caption="as JSON")]
  bad = TREE | {"edges": [["dog", "wolf", "part_of"]]}
  path = tmp_path / "rows.jsonl"
  path.write_text("\n".join(map(json.dumps, [*lines, dict(graph=bad, caption="no wolf")])))
  source = open_source({"dataset": f"jsonl:{path}", "source": {"graph": "graph"}}, "all")
  assert GRAPH.decode(source[0], settings())["graph"].nodes == GRAPH.decode(source[1], settings())["graph"].nodes
  text = inspect(source).text
  assert "graphs: graph" in text and "5 / 5 / 5 nodes; 3 / 3 / 3 edges" in text and "kinds hypernym, part_of" in text
  assert "bad graphs" in text and "rows.jsonl:3: edge 0 names node 'wolf', which is not there" in text
  assert "graph: 5 nodes, 3 edges, about 'a dog'" in text
  (tmp_path / "one.graph").write_bytes(changed())
  assert GRAPH.accepts(str(tmp_path / "one.graph"), settings(), "")["graph_nodes"] == 4
  for thing in (changed(), GRAPH.accepts(TREE, settings(), "")):
    picture = GRAPH.show(thing).picture
    assert picture.shape == (192, 192, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
