"""How many captions are cut, and how many become equal by that: said before a run and with its evaluation."""

import dataclasses

import numpy as np
from toy_source import Toy

from mmcontrast.data import cut_captions, pipeline
from mmcontrast.data.settings import resolve
from mmcontrast.data.tokenizers import make_tokenizer

BYTES = make_tokenizer("bytes", lower=True)
TEXTS = ["a dog", "A dog", "a dog here", "a dog there", "a dot", "a dog then"]


def test_numbers_of_captions_that_are_cut_and_alike():
  # bos, eos and five letters: what follows "a dog" is lost, and so it is "a dog" itself; upper case was never seen.
  assert cut_captions.cut_captions(TEXTS, BYTES, 7) == (6, 3, 5, 4)
  assert cut_captions.cut_captions(TEXTS, BYTES, 6) == (6, 6, 5, 5)  # all that is left of them is "a do"
  assert cut_captions.cut_captions(TEXTS, BYTES, 12) == (6, 1, 5, 0)  # cut, and still different
  assert cut_captions.cut_captions([], BYTES, 7) == (0, 0, 0, 0)
  ids = BYTES.encode(TEXTS, 7)
  assert len(np.unique(ids, axis=0)) == 5 - 4 + 1  # four of the five are one to a model


def test_the_line_of_a_set_and_of_a_large_one():
  line = cut_captions.line_of_set("mine", TEXTS, BYTES, 7)
  assert line == (
    "mine: 3 of 6 captions (50.0%) are longer than data.text_length=7 tokens and cut; 4 of 5 different "
    "ones are then equal to another"
  )
  assert cut_captions.line_of_set("mine", TEXTS, BYTES, 20) == "" == cut_captions.line_of_set("mine", [], BYTES, 20)
  many = [f"caption number {n}" for n in range(25_000)]
  line = cut_captions.line_of_set("mine", many, BYTES, 20)
  assert "of 8,334 captions" in line and line.endswith(", by every 3th of 25,000 captions")


def test_the_line_before_training_is_of_what_views_may_show(monkeypatch):
  monkeypatch.setattr(cut_captions, "RECORDS", 10)
  texts = {n: {"captions": {"caption": ["x"], "alt": [f"  long\nenough {n}"]}} for n in range(40)}
  source = Toy(40, texts)
  source.info = dataclasses.replace(source.info, caption_fields=("caption", "alt"))
  settings = dict(views=dict(text=1), tokenizer="bytes", text_length=8)
  batches = pipeline.train_batches(settings, seed=0, batch_size=4, source=source)
  line = batches.cut_line()
  batches.close()
  assert line == (
    "toy: 10 of 20 captions (50.0%) are longer than data.text_length=8 tokens and cut; 10 of 11 "
    "different ones are then equal to another, by a sample of 10 of 40 examples"
  )
  assert cut_captions.line_of_source(source, resolve({**settings, "captions": {"caption": 1.0}}), BYTES) == ""
