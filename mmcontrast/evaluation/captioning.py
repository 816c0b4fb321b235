"""What a run writes of the things of a set, beside their captions; and how well it expects these captions.

Two captions are compared by their words: small letters, without punctuation. The references of a thing are all captions
of its concept in the set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mmcontrast.data.things import taken_at
from mmcontrast.errors import UserError
from mmcontrast.evaluation.cider import cider_d
from mmcontrast.evaluation.embed import Words
from mmcontrast.evaluation.embedded_set import EmbeddedSet

METRICS = ("exact", "bleu4", "cider_d", "described")
PERPLEXITY = ("of_a_token", "tokens", "texts")


def evaluate(
  tests: Sequence[EmbeddedSet], bank: Sequence[EmbeddedSet], *, head: str = "", beams: int = 1, length: int = 0
) -> dict[str, dict[str, float]]:
  """Captions of all things of each set that has captions of them; `bank` is not used.

  Gives the share that is one of the references word for word ("captioning/exact"), BLEU-4 of the corpus (of sacrebleu,
  as a fraction), the mean CIDEr-D (0 to 10), and how many things were described.

  Args:
    head: the head that writes, where the run has several.
    beams: how many captions are followed at once; 1: the most probable word each time.
    length: the most tokens of a caption; 0: what the decoder writes.
  Raises UserError for a run without a decoder, and for a set without captions of what it describes.
  """
  del bank
  out = {}
  for test in tests:
    words, things, references = _described(test, head, "captioning")
    written = words.write(
      taken_at(test.data.things[words.modality(head)].values, things), head, beams=beams, length=length
    )
    out[test.name] = {f"captioning/{name}": value for name, value in scores(written, references).items()}
  return out


def perplexity(
  tests: Sequence[EmbeddedSet], bank: Sequence[EmbeddedSet], *, head: str = ""
) -> dict[str, dict[str, float]]:
  """The exponential of the mean loss of the tokens of each caption, given what it describes ("perplexity/of_a_token").

  Args:
    head: the head that writes, where the run has several.
  Raises UserError as `evaluate`.
  """
  del bank
  out = {}
  for test in tests:
    words, things, references = _described(test, head, "perplexity")
    places = np.repeat(things, [len(of_thing) for of_thing in references])
    texts = [text for of_thing in references for text in of_thing]
    summed, count = words.losses(taken_at(test.data.things[words.modality(head)].values, places), texts, head)
    found = (float(np.exp(summed.sum() / count.sum())), float(count.sum()), float(len(texts)))
    out[test.name] = {f"perplexity/{name}": value for name, value in zip(PERPLEXITY, found)}
  return out


def scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
  """METRICS of N captions and the references of each."""
  written = [words_of(text) for text in captions]
  wanted = [[words_of(text) for text in of_thing] for of_thing in references]
  exact = np.mean([one in of_thing for one, of_thing in zip(written, wanted)])
  found = (exact, bleu4(written, wanted), cider_d(written, wanted).mean(), len(written))
  return dict(zip(METRICS, map(float, found)))


def bleu4(captions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
  """BLEU-4 of the corpus, 0 to 1, without smoothing."""
  try:
    import sacrebleu
  except ImportError:
    raise UserError(
      "evaluation.evaluators.captioning: BLEU needs the package sacrebleu; pip install 'mmcontrast[captions]'"
    ) from None
  most = max(map(len, references))
  columns = [[" ".join(one[at]) if at < len(one) else None for one in references] for at in range(most)]
  written = [" ".join(words) for words in captions]
  return sacrebleu.corpus_bleu(written, columns, tokenize="none", smooth_method="none", force=True).score / 100


def words_of(text: str) -> list[str]:
  """The words of a caption, as they are compared."""
  return re.findall(r"\w+", text.lower())


def _described(test: EmbeddedSet, head: str, evaluator: str) -> tuple[Words, np.ndarray, list[list[str]]]:
  """How a run describes, the places of the things that have captions, and these."""
  where = f"evaluation.evaluators.{evaluator}"
  if test.words is None:
    raise UserError(
      f"{where}: there is no decoder to write captions, of this run (config coca trains one) or of a baseline; leave "
      "the evaluator out, or its baselines"
    )
  modality = test.words.modality(head)
  for one in (modality, "text"):
    test.check(one, where)
  texts, things = test.data.things["text"], test.data.things[modality]
  of_concept: dict[int, list[str]] = {}
  for text, concept in zip(texts.values, texts.concept):
    of_concept.setdefault(int(concept), []).append(text)
  places = np.array([at for at, concept in enumerate(things.concept) if int(concept) in of_concept], int)
  if not places.size:
    raise UserError(f"{where}: evaluation set {test.name!r} has no caption of any of its {modality}s; leave it out")
  return test.words, places, [of_concept[int(things.concept[at])] for at in places]
