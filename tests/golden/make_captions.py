"""Writes tests/golden/captions.json: captions, references, and what pycocoevalcap's scorers say of them.

pip install --no-deps pycocoevalcap==1.2 && python tests/golden/make_captions.py

Only its scorers, which are Python: its tokenizer is Java. Captions and references are words with one space between.
"""

import json
import pathlib

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer

WORDS = ["a", "red", "heart", "on", "the", "green", "hill", "two", "dogs", "run", "after", "one", "cat"]


def main() -> None:
  draw = np.random.default_rng(0)
  captions, references = [], []
  for _ in range(12):
    base = list(draw.choice(WORDS, draw.integers(4, 9)))
    variants = [" ".join(word if draw.random() < 0.75 else draw.choice(WORDS) for word in base) for _ in range(4)]
    captions.append(variants[0])
    references.append(variants[1 : 2 + draw.integers(0, 3)])
  captions[3], captions[4], captions[5] = references[3][0], "cat", "a a a a a a"
  cider, bleu = CiderScorer(), BleuScorer(n=4)
  for caption, of_thing in zip(captions, references):
    cider += (caption, of_thing)
    bleu += (caption, of_thing)
  _, each = cider.compute_score()
  corpus, _ = bleu.compute_score(option="closest", verbose=0)
  file = pathlib.Path(__file__).parent / "captions.json"
  found = dict(captions=captions, references=references, cider_d=list(map(float, each)), bleu4=corpus[3])
  file.write_text(json.dumps(found, indent=1) + "\n")
  print(file, float(np.mean(each)), corpus[3])


if __name__ == "__main__":
  main()
