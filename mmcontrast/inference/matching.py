"""Whether two things belong together, by a matching head: one that gives logits, of a tower that reads both."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from mmcontrast.errors import UserError, choose
from mmcontrast.inference.trained_model import Inference
from mmcontrast.modalities import MODALITIES, stacked


def matching_head(model: Inference, modalities: Collection[str], where: str, head: str | None = None) -> str:
  """The head of a run that matches things of two modalities: `head`, or the one that retrieval is evaluated by, or the
  first.

  Raises UserError, which begins with `where`, where there is none, or `head` is of others.
  """
  if not model.space.matches:
    raise UserError(
      f"{where}: this run has no head that says whether two things belong together, one of name='match' on a tower "
      "that reads those of both, as methods/albef trains"
    )
  fitting = [name for name, of in model.space.matches.items() if set(of) == set(modalities)]
  if not fitting:
    pairs = " or ".join(
      sorted({" with ".join(MODALITIES[one].nouns for one in of) for of in model.space.matches.values()})
    )
    asked = " with ".join(MODALITIES[one].nouns for one in modalities)
    raise UserError(f"{where}: this run matches {pairs}, not {asked}")
  if head is not None:
    return choose(head, fitting, f"{where}: head")
  usual = (model.config["evaluation"]["evaluators"].get("retrieval") or {}).get("match")
  return usual if usual in fitting else fitting[0]


def match_probabilities(
  model: Inference, head: str, one: tuple[str, Any], others: tuple[str, Sequence[Any]]
) -> np.ndarray:
  """float32 [N]: how probable it is that a thing belongs with each of N others (`match_log_probabilities`)."""
  return np.exp(match_log_probabilities(model, head, one, others))


def match_log_probabilities(
  model: Inference, head: str, one: tuple[str, Any], others: tuple[str, Sequence[Any]]
) -> np.ndarray:
  """[N], the logarithm of how probable it is that a thing belongs with each of N others.

  Args:
    one: modality and value of the thing; others: modality and values of the others, all as evaluation shows things.
  """
  values = {one[0]: stacked([one[1]]), others[0]: stacked(list(others[1]))}
  first = model.space.matches[head][0]
  pairs = np.zeros((len(others[1]), 2), int)
  pairs[:, 0 if others[0] == first else 1] = np.arange(len(pairs))
  return model.match(head, values, pairs)
