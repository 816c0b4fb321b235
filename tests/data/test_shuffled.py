"""Captions with wrong images: as many as asked, the same for a seed, said, and only where a run is trained."""

import types

import numpy as np
import pytest

from mmcontrast.data import inspection
from mmcontrast.data.evaluation_set import open_configured_set
from mmcontrast.data.record import Info
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import SOURCES, open_source
from mmcontrast.errors import UserError

COUNT = 50


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  class Toy:
    info = Info("toy", (), (), {"kind": ("a", "b")})

    def __init__(self, *_):
      pass

    def __len__(self):
      return COUNT

    def __getitem__(self, index):
      return dict(images={}, captions={"caption": [f"thing {index}"]}, names={}, tags=np.zeros(0, np.uint8),
                  labels={"kind": index % 2}, id=index, name=str(index), mirror_safe=True)  # fmt: skip

  monkeypatch.setitem(SOURCES, "toy", Toy)
  return Toy


def captions(**shuffled):
  source = open_source(dict(dataset="toy", shuffled_captions=shuffled), "train")
  return [(source[i]["captions"]["caption"][0], source[i]["labels"], source[i]["id"]) for i in range(COUNT)]


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 1.0])
def test_so_many_have_anothers_captions(share):
  found = captions(share=share, seed=3)
  others = [i for i, (text, _, _) in enumerate(found) if text != f"thing {i}"]
  assert len(others) == round(share * COUNT)
  assert sorted(text for text, _, _ in found) == sorted(f"thing {i}" for i in range(COUNT))  # none is lost
  assert [i for i, (_, labels, _) in enumerate(found) if labels["caption_of"]] == others
  assert [(labels["kind"], its) for _, labels, its in found] == [(i % 2, i) for i in range(COUNT)]
  assert found == captions(share=share, seed=3) != captions(share=share, seed=4)


def test_nothing_is_shuffled_unless_asked_nor_in_evaluation():
  assert captions() == captions(share=0.0) and "caption_of" not in captions()[0][1]
  data = resolve(dict(dataset="toy", shuffled_captions=dict(share=0.6)))
  assert open_source(data, "train")[0]["labels"].keys() == {"kind", "caption_of"}
  assert open_configured_set("mine", dict(split="test"), data)[0]["labels"].keys() == {"kind"}


def test_it_is_said():
  source = open_source(dict(dataset="toy", shuffled_captions=dict(share=0.4, seed=7)), "train")
  text = inspection.describe(source)
  assert "20 of 50 examples have another's captions (data.shuffled_captions, seed 7)" in text
  assert "labels: caption_of" in text and "itself 30, another 20" in text


def test_each_source_of_a_mixture_is_shuffled_by_itself():
  mixture = dict(one=dict(dataset="toy"), two=dict(dataset="toy"))
  source = open_source(dict(mixture=mixture, shuffled_captions=dict(share=0.4)), "train")
  marks = [source[i]["labels"]["caption_of"] for i in range(2 * COUNT)]
  assert sum(marks[:COUNT]) == sum(marks[COUNT:]) == 20


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (dict(share=1.2), r"data\.shuffled_captions\.share: 1\.2 is not in \[0, 1\]"),
    (dict(share=0.4, seed=-1), r"data\.shuffled_captions\.seed: -1 is not a whole number"),
    (dict(part=0.4), r"data\.shuffled_captions\.part: unknown key"),
  ],
)
def test_what_is_refused(given, message):
  with pytest.raises(UserError, match=message):
    resolve(dict(dataset="toy", shuffled_captions=given))


def test_what_cannot_be_shuffled(toy, monkeypatch):
  with pytest.raises(UserError, match=r"share: 0\.02 of 50 examples is 1, and captions change places between two"):
    captions(share=0.02)
  monkeypatch.setattr(toy, "info", types.SimpleNamespace(**{**vars(toy.info), "label_names": {"caption_of": ("x",)}}))
  with pytest.raises(UserError, match=r"dataset toy has a label 'caption_of'; rename it"):
    captions(share=0.4)
