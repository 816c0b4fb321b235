"""WordNet's nouns: what lines of its file say, subtrees that are held out, neighbourhoods without them."""

import json

import pytest

from mmcontrast.data.datasets import wordnet_synsets
from mmcontrast.data.datasets.wordnet import subtree_names
from mmcontrast.data.datasets.wordnet_synsets import KINDS, read_wordnet
from mmcontrast.data.sources import open_source
from mmcontrast.data.sources.wordnet import Neighbourhoods, WholeGraph
from mmcontrast.errors import UserError

LINES = """  1 This software and database is being provided to you, the LICENSEE
00000010 03 n 01 entity 0 002 ~ 00000020 n 0000 ~ 00000030 n 0000 | that which is  
00000020 05 n 02 dog 0 domestic_dog 1 004 @ 00000010 n 0000 ~ 00000040 n 0000 %p 00000060 n 0000 + 00000070 v 0101 | a canine; "he barked"; "it ran"  
00000030 06 n 01 dog 2 002 @ 00000010 n 0000 ~i 00000050 n 0000 | a metal support for logs  
00000040 05 n 01 puppy 0 002 @ 00000020 n 0000 ! 00000050 n 0101 | a young dog  
00000050 06 n 01 Rex 0 002 @i 00000030 n 0000 ! 00000040 n 0101 | a support called so  
00000060 08 n 01 tail 0 002 #p 00000020 n 0000 @ 00000099 n 0000 | what wags  
00000061 08 n 01 broken 0 002 #p
"""  # noqa: E501, W291


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
  monkeypatch.setattr(wordnet_synsets, "LEAST", 2)
  monkeypatch.setattr(wordnet_synsets, "SUBTREE", 2)
  monkeypatch.setattr(wordnet_synsets, "split_of", lambda key: "test" if key == "00000030" else "train")
  (tmp_path / "data.noun").write_text(LINES)
  return read_wordnet(tmp_path)


def test_lines_are_synsets_and_relations(wordnet):
  assert [synset.words for synset in wordnet.synsets][:3] == [("entity",), ("dog", "domestic dog"), ("dog",)]
  assert (wordnet.synsets[1].gloss, wordnet.synsets[1].group) == ("a canine", "animal")
  assert {(a, b, KINDS[kind]) for a, b, kind in wordnet.edges} == {
    (1, 0, "hypernym"), (2, 0, "hypernym"), (3, 1, "hypernym"), (4, 2, "instance_of"), (5, 1, "part_of"),
    (3, 4, "antonym"),
  }  # fmt: skip
  assert wordnet.left_out == ("data.noun:8: a line without a gloss",
                              "synset 00000060: hypernym of 00000099, which is not there")  # fmt: skip


def test_whole_subtrees_are_held_out(wordnet):
  assert wordnet.subtree == (-1, 1, 2, 1, 2, -1)
  assert wordnet.split == ("train", "train", "test", "train", "test", "train")
  assert subtree_names(wordnet) == {1: "dog, domestic dog", 2: "dog (artifact)"}


class Base:
  """Synsets by place, as they lie in a built data set."""

  def __init__(self):
    from mmcontrast.data.record import Info

    self.info = Info("wordnet", (), (), {})

  def __len__(self):
    return 6

  def __getitem__(self, index):
    return {"id": index, "captions": {"caption": []}}


def test_a_neighbourhood_to_train_on_has_nothing_that_is_held_out(wordnet):
  names = [", ".join(synset.words) for synset in wordnet.synsets]
  table = dict(kinds=KINDS, names=names, glosses=names, split=wordnet.split, edges=wordnet.edges)
  graph = WholeGraph(json.loads(json.dumps(table)))

  def nodes(split, index, nodes=10, fan=8):
    source = Neighbourhoods(Base(), graph, split, nodes, fan, "names")
    assert source.info.modalities == ("text", "graph")
    return json.loads(source[index]["graph"]["neighbourhood"])

  trained = nodes("train", 3)
  assert trained["nodes"] == ["puppy", "dog, domestic dog", "entity", "tail"] and trained["centre"] == 0
  assert sorted(trained["edges"]) == [[0, 1, "hypernym"], [1, 2, "hypernym"], [3, 1, "part_of"]]
  assert set(nodes("test", 3)["nodes"]) == set(names) and nodes("test", 3) == nodes("test", 3)
  assert nodes("test", 3, nodes=2)["nodes"][0] == "puppy" and len(nodes("test", 3, nodes=2)["nodes"]) == 2
  star = WholeGraph(dict(kinds=KINDS, names=["x"] * 13, glosses=["x"] * 13, split=["train"] * 13,
                         edges=[(leaf, 0, 0) for leaf in range(1, 13)]))  # fmt: skip
  few = star.around(0, 10, 3, ("train",))
  assert len(few) == 4 and few == star.around(0, 10, 3, ("train",)) and len(star.around(0, 10, 20, ("train",))) == 10


def test_texts_say_what_a_synset_is_a_kind_of_some_steps_up(wordnet):
  names = [", ".join(synset.words) for synset in wordnet.synsets]
  graph = WholeGraph(dict(kinds=KINDS, names=names, glosses=names, split=wordnet.split, edges=wordnet.edges))

  class Said(Base):
    def __getitem__(self, index):
      return {"id": index, "captions": {"caption": ["a gloss", "its own kind"]}}

  def texts(index, steps):
    return Neighbourhoods(Said(), graph, "test", 10, 8, "names", steps)[index]["captions"]["caption"]

  own = ["a gloss", "its own kind"]
  assert texts(3, 0) == texts(0, 3) == own  # "entity" is a kind of nothing
  assert texts(3, 1) == [*own, "a kind of dog"]
  assert texts(3, 2) == texts(3, 4) == [*own, "a kind of dog", "a kind of entity"]
  assert texts(4, 2) == [*own, "a kind of dog", "a kind of entity"]  # an instance, of the other dog
  diamond = WholeGraph(dict(kinds=KINDS, names=list("abcde"), glosses=list("abcde"), split=["train"] * 5,
                            edges=[(0, 1, 0), (0, 2, 0), (1, 3, 0), (2, 3, 0), (3, 4, 0), (0, 4, 3)]))  # fmt: skip
  assert diamond.above(0, 2) == [1, 2, 3] and diamond.above(0, 9) == [1, 2, 3, 4] and diamond.above(0, 0) == []


@pytest.mark.parametrize(("options", "message"), [
  (dict(steps_up=-1), r"data\.source\.steps_up: -1; give a whole number, at least 0"),
  (dict(nodes=0), r"data\.source\.nodes: 0; give a whole number"), (dict(text="gloss"), "did you mean 'glosses'"),
  (dict(node=2), "wordnet: data.source: no option 'node'; did you mean 'nodes'"),
  (dict(), "dataset wordnet is not in .*; run: mmcontrast data build wordnet"),
])  # fmt: skip
def test_what_is_refused(options, message, tmp_path):
  with pytest.raises(UserError, match=message):
    open_source(dict(dataset="wordnet", source=options), "train", tmp_path)


def test_files_that_are_not_there(tmp_path):
  with pytest.raises(UserError, match=r"data\.noun: No such file or directory; wordnet-base 1:3\.0-37 has it"):
    read_wordnet(tmp_path)
