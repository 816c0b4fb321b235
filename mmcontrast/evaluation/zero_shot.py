"""Zero-shot classification: a class is the mean of its prompts (CLIP, arXiv 2103.00020).

The names of each class (class_names.py) are put into every template, the embeddings are
normalised, averaged and normalised again; an image, or a sound, belongs to the class of the highest cosine.
Ties count against the model, as in retrieval: of two classes that have the same name, what is
of either is missed at top-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast.errors import UserError, choose, note
from mmcontrast.evaluation import class_names
from mmcontrast.evaluation.embed import Embed, Space, cosines, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet, labels_of, task_of
from mmcontrast.evaluation.matches import groups, matches_of
from mmcontrast.evaluation.protocols import CLIP_BENCHMARK, OURS, clip_benchmark, names_of
from mmcontrast.evaluation.retrieval import ranks

PROMPTS = "text"  # the modality that classes are named in
PROTOCOLS = (OURS, CLIP_BENCHMARK)
USUAL_TEMPLATES = ("{}",)
USUAL_LABEL = "group"  # the emoji's; without it every label of the data


def class_embeddings(embed: Embed, names: Sequence[str | Sequence[str]], templates: Sequence[str]) -> np.ndarray:
  """float32 [K, D], a unit row for each of K classes, of one name or several.

  Raises:
    UserError: for a template without "{}", or when there is no class or no template.
  """
  if not len(names) or not len(templates):
    raise UserError("zero_shot: needs one class name and one template at least, e.g. '{}'")
  for template in templates:
    if template.count("{}") != 1:
      raise UserError(f"zero_shot.templates: {template!r} must hold '{{}}' once, for the class")
  several = [[name] if isinstance(name, str) else list(name) for name in names]
  return class_rows(embed, [[t.replace("{}", name) for name in own for t in templates] for own in several])


def class_rows(embed: Embed, prompts: Sequence[Sequence[str]]) -> np.ndarray:
  """float32 [K, D], a unit row for each of K classes: the mean of the unit rows of its prompts, to unit length."""
  embedded = unit(embed(PROMPTS, [prompt for own in prompts for prompt in own]))
  of = np.repeat(np.arange(len(prompts)), [len(own) for own in prompts])
  total = np.zeros((len(prompts), embedded.shape[1]), np.float32)
  np.add.at(total, of, embedded)
  return unit(total / np.bincount(of)[:, None])


def _prompts(names: Sequence[str | Sequence[str]], templates: Sequence[str]) -> tuple[list[str], np.ndarray]:
  """All prompts, and the class of each."""
  several = [[name] if isinstance(name, str) else list(name) for name in names]
  prompts = [template.replace("{}", name) for own in several for name in own for template in templates]
  return prompts, np.repeat(np.arange(len(names)), [len(own) * len(templates) for own in several])


def zero_shot(images: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> dict[str, float]:
  """Top-1 and top-5 accuracy (fractions); top-5 only where there are more than five classes.

  Args:
    images: float [N, D]; classes: float [K, D]; labels: int [N] in 0..K-1.
  """
  rank = ranks(images, classes, matches_of(labels, np.arange(len(classes))))
  return {f"top{k}": float(np.mean(rank <= k)) for k in (1, 5) if k == 1 or len(classes) > k}


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  label: str | Sequence[str] | None = None,
  templates: Sequence[str] = USUAL_TEMPLATES,
  names: str | class_names.Names | None = None,
  of: str | Sequence[str] = (),
  protocol: str | Sequence[str] = OURS,
) -> dict[str, dict[str, float]]:
  """Zero-shot accuracy over all labelled things of each set; `bank` is not used. `names`: see class_names.py.

  Args:
    of: modalities whose things are classified, such as ("image", "audio"); by default that of the tower of
      evaluation.features.
    protocol: of PROTOCOLS, one or several: "zero_shot_by_clip_benchmark-1.6" has that package's acc1, acc5 and
      mean_per_class_recall of the same embeddings.
  """
  del bank
  out: dict[str, dict[str, float]] = {test.name: {} for test in tests}
  for test in tests:
    if test.compare is not cosines:
      raise UserError(
        f"zero_shot: the mean of several prompts needs single vectors, and config.evaluation.{PROMPTS} is a "
        "head of tokens; leave zero_shot out of config.evaluation.evaluators"
      )
    if not (usual := classified(test.space, list(test.data.things))) or PROMPTS not in (test.space.joint or [PROMPTS]):
      raise UserError(
        "zero_shot: this run has no two heads that compare prompts with anything (config.evaluation.image, "
        f".{PROMPTS}); leave it out of config.evaluation.evaluators"
      )
    for modality in [of] if isinstance(of, str) else list(of) or [usual]:
      if test.space.joint is not None:
        choose(modality, [one for one in test.space.joint if one != PROMPTS], "zero_shot.of")
      task = task_of("zero_shot", "" if modality == usual else modality)
      for name in labels_of(label, USUAL_LABEL, test.data.label_names):
        asked = things_of_label(test, modality, name, templates, names)
        for by in names_of(protocol):
          measure = zero_shot if by == OURS else clip_benchmark.classification
          found = measure(asked.rows, asked.classes, asked.labels)
          out[test.name] |= {f"{task}{'' if by == OURS else f'_by_{by}'}/{name}_{k}": v for k, v in found.items()}
  return out


def classified(space: Space, modalities: Sequence[str] = ()) -> str:
  """The modality that is classified where nobody says which: what probes look at, else the first that there is.

  `modalities`: those that count where nothing is known of the model. "" where there is none.
  """
  able = [one for one in (modalities if space.joint is None else space.joint) if one != PROMPTS]
  return space.probed if space.probed in able else next(iter(able), "")


class Classified(NamedTuple):
  """Things to classify: unit rows float32 [N, D] of those that have the label, their classes int [N], unit rows [K, D]
  of the classes, the names of these, and int [N], which of the set's things they are."""

  rows: np.ndarray
  labels: np.ndarray
  classes: np.ndarray
  names: list[str]
  places: np.ndarray


def things_of_label(
  test: EmbeddedSet,
  modality: str,
  name: str,
  templates: Sequence[str] = USUAL_TEMPLATES,
  names: str | class_names.Names | None = None,
) -> Classified:
  """What zero-shot compares of the label `name` of a set. Raises UserError: no such label, nothing of a modality, a
  class without a name."""
  choose(name, test.data.label_names, f"zero_shot.label: labels of {test.name!r}")
  test.check(modality, "zero_shot")
  labels = test.labels(name, "zero_shot.label", test.data.things[modality])
  places = np.flatnonzero(labels >= 0)
  if not len(places):
    raise UserError(f"zero_shot.label: no {modality} of {test.name!r} has a {name!r}")
  called = class_names.choose(names, test.data.label_names[name], name)
  _say_equal(test, name, called, templates)
  classes = class_embeddings(test.embed, called, templates)
  return Classified(test.joint(modality)[places], labels[places], classes, list(test.data.label_names[name]), places)


def _say_equal(test: EmbeddedSet, label: str, called: Sequence[Sequence[str]], templates: Sequence[str]) -> None:
  """Says in a line which classes the model sees under the same names."""
  prompts, of = _prompts(called, templates)
  seen = groups(test.seen_of(PROMPTS, prompts) if test.seen_of else prompts)
  first: dict[frozenset, int] = {}
  equal = []
  for number in range(len(called)):
    one = first.setdefault(frozenset(seen[of == number].tolist()), number)
    equal += [(one, number)] if one != number else []
  if equal:
    one, other = equal[0]
    classes = test.data.label_names[label]
    note(
      f"zero_shot: {len(equal)} of {len(called)} classes of {label!r} have the names of another one, such as "
      f"{classes[one]!r} and {classes[other]!r}, both {called[other][0]!r}; what is of them counts as wrong at top-1"
    )
