"""Zero-shot classification: a class is the mean of its prompts (CLIP, arXiv 2103.00020).

The name of each class is put into every template, the embeddings are normalised, averaged
and normalised again; an image belongs to the class of the highest cosine. Ties count
against the model, as in retrieval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.embed import Embed, cosines, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.retrieval import ranks, relevance


def class_embeddings(embed: Embed, names: Sequence[str], templates: Sequence[str]) -> np.ndarray:
  """float32 [K, D], a unit row for each of K class names.

  Raises:
    UserError: for a template without "{}", or when there is no class or no template.
  """
  if not len(names) or not len(templates):
    raise UserError("zero_shot: needs one class name and one template at least, e.g. '{}'")
  for template in templates:
    if template.count("{}") != 1:
      raise UserError(f"zero_shot.templates: {template!r} must hold '{{}}' once, for the class")
  prompts = [t.replace("{}", name) for name in names for t in templates]
  embedded = unit(embed("text", prompts)).reshape(len(names), len(templates), -1)
  return unit(embedded.mean(axis=1))


def zero_shot(images: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> dict[str, float]:
  """Top-1 and top-5 accuracy (fractions); top-5 only where there are more than five classes.

  Args:
    images: float [N, D]; classes: float [K, D]; labels: int [N] in 0..K-1.
  """
  rank = ranks(images, classes, relevance(labels, np.arange(len(classes))))
  return {f"top{k}": float(np.mean(rank <= k)) for k in (1, 5) if k == 1 or len(classes) > k}


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  label: str | Sequence[str] = "group",
  templates: Sequence[str] = ("{}",),
) -> dict[str, dict[str, float]]:
  """Zero-shot accuracy over all labelled images of each set; `bank` is not used."""
  del bank
  out: dict[str, dict[str, float]] = {test.name: {} for test in tests}
  for test in tests:
    if test.compare is not cosines:
      raise UserError("zero_shot: the mean of several prompts needs single vectors, and config.evaluation.text is a "
                      "head of tokens; leave zero_shot out of config.evaluation.evaluators")
    for name in [label] if isinstance(label, str) else label:
      choose(name, test.data.label_names, f"zero_shot.label: labels of {test.name!r}")
      labels = test.labels(name, "zero_shot.label")
      known = labels >= 0
      if not known.any():
        raise UserError(f"zero_shot.label: no image of {test.name!r} has a {name!r}")
      classes = class_embeddings(test.embed, test.data.label_names[name], templates)
      found = zero_shot(test.image[known], classes, labels[known])
      out[test.name] |= {f"zero_shot/{name}_{k}": v for k, v in found.items()}
  return out
