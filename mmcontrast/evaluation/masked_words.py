"""Words taken from captions, guessed by the head that a run trains for that, with the thing that they describe."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embedded_set import EmbeddedSet

METRICS = ("accuracy", "perplexity", "words", "texts")


def evaluate(
  tests: Sequence[EmbeddedSet], bank: Sequence[EmbeddedSet], *, head: str = ""
) -> dict[str, dict[str, float]]:
  """The share of words that are guessed right, and the exponential of their mean loss ("masked_words/perplexity").

  Of each caption 15 % of the words, at least one, are taken, the same in every evaluation; a head that reads things too
  sees each caption with each thing of its concept. `bank` is not used.

  Args:
    head: the head that guesses, where the run has several.
  Raises UserError for a run without such a head, and for a set without captions of what it reads.
  """
  del bank
  out = {}
  for test in tests:
    where = "evaluation.evaluators.masked_words"
    if test.guess is None:
      raise UserError(f"{where}: no model to guess words by; leave its baselines out, or the evaluator")
    head = head or next(iter(test.space.guesses))
    others = [kind for kind in test.space.guesses[head] if kind != "text"]
    for kind in ("text", *others):
      test.check(kind, where)
    things = test.data.things
    places = {"text": np.arange(len(things["text"].concept))}
    for kind in others:
      places = dict(zip(("text", kind), _pairs(things["text"].concept, things[kind].concept)))
    if not len(places["text"]):
      raise UserError(f"{where}: evaluation set {test.name!r} has no caption of any of its {others[0]}s; leave it out")
    values = {kind: things[kind].values for kind in places}
    loss, hits, words = test.guess(head, values, places)
    found = (hits.sum() / max(words.sum(), 1), np.exp(loss.sum() / max(words.sum(), 1)), words.sum(), len(loss))
    out[test.name] = {f"masked_words/{name}": float(value) for name, value in zip(METRICS, found)}
  return out


def _pairs(concepts: Sequence[int], others: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
  """(places in the first, places in the second), int [P] each, of all pairs of one concept."""
  of_concept: dict[int, list[int]] = {}
  for place, concept in enumerate(others):
    of_concept.setdefault(int(concept), []).append(place)
  pairs = [(place, other) for place, concept in enumerate(concepts) for other in of_concept.get(int(concept), ())]
  first, second = np.array(pairs, int).reshape(-1, 2).T
  return first, second
