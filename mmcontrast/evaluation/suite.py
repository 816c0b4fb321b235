"""Runs the evaluators of a config on its evaluation sets; flat results, dataset first.

    evaluation = dict(
        sets=("emoji_views:twemoji", "emoji_views:openmoji", "emoji_noto"),
        train_sets=(),                # what probes train on; default: those of `sets` that the run trains on
        evaluators=dict(
            retrieval=dict(),         # of every two modalities; or directions=("text_to_audio", "audio_to_text")
            zero_shot=dict(label="group", templates=("{}", "a drawing of {}")),
            knn=dict(label=("concept", "subgroup"), k=20),  # of the tower `features`; or node=("audio", "image_ssl")
            linear_probe=dict(label="group"),
            similarity=dict(file="sts-test.tsv"),  # of pairs of texts; without a file by the tags of captions
            captioning=dict(beams=1),  # of a run with a decoder, as perplexity=dict()
            masked_words=dict(),      # of a run that guesses words
            base_to_new=dict(label="subgroup", method="coop"),  # prompts that learn, docs/adaptation.md
            text_transfer=dict(std=0.08),  # a head trained on texts, tried on images
            tagging=dict(sets=("emoji_noto",))))   # `sets` narrows any evaluator

`features` names the tower that probes look at, and with it the modality that is probed and classified: what is asked
of others says so in its name, as "knn_of_audio" and "zero_shot_of_audio". A node is a tower or a head, alone or with
what of it is wanted: "image_ssl", "image.tokens" (their mean), "image.map", "match.logits". Things of a tower that
reads those of several modalities, or of a head on it, are examples, by the first view of each of them. Any two nodes
are compared by their cosine, besides, by retrieval=dict(nodes=(("image_ssl", "fusion"),)).

Any evaluator takes `baselines` besides, to be run once more on each: "untrained", the same towers and heads with
initial weights; and, for those that look at features, "pixels" (baselines.py).

Retrieval, zero-shot and k-NN of "concept" use all of a set. k-NN of a label, the
linear probe and tagging train on the train-split concepts of the training sets and are
tested on the others (`test_splits`) of each set: new concepts for the probe, in a style that the
encoder has seen or not; never on what it trains on. Pretraining itself may have seen
those concepts and their captions and tags, in the training styles; it sees no other label.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation import (
  alignment,
  baselines,
  captioning,
  class_names,
  knn,
  linear_probe,
  masked_words,
  option_checks,
  protocols,
  retrieval,
  robustness,
  similarity,
  tagging,
  tags_by_text,
  zero_shot,
)
from mmcontrast.evaluation.adaptation import (
  attribute_insertion,
  base_to_new,
  counterfactual,
  cross_version,
  entity_linking,
  properties,
  text_transfer,
)
from mmcontrast.evaluation.embed import (
  ANYTHING,
  Compare,
  Embed,
  Guess,
  Layers,
  Match,
  Scale,
  Seen,
  Space,
  Tune,
  Words,
  cosines,
  way_of,
)
from mmcontrast.evaluation.embedded_set import EmbeddedSet, labels_of, nodes_of
from mmcontrast.evaluation.tasks import Task
from mmcontrast.registry import check_options, check_values

if TYPE_CHECKING:
  from mmcontrast.data.evaluation_set import EvaluationSet
  from mmcontrast.evaluation.joined import JoinedTerm

# evaluate(tests, bank, **options) -> {set name: {"task/metric": value}}
EVALUATORS: dict[str, Callable[..., dict[str, dict[str, float]]]] = {
  "retrieval": retrieval.evaluate,
  "zero_shot": zero_shot.evaluate,
  "knn": knn.evaluate,
  "linear_probe": linear_probe.evaluate,
  "tagging": tagging.evaluate,
  "similarity": similarity.evaluate,
  "captioning": captioning.evaluate,
  "perplexity": captioning.perplexity,
  "masked_words": masked_words.evaluate,
  "alignment": alignment.evaluate,
  "modality_gap": alignment.modality_gap,
  "tags_by_text": tags_by_text.evaluate,
  "robustness": robustness.evaluate,
  "base_to_new": base_to_new.evaluate,
  "text_transfer": text_transfer.evaluate,
  "cross_version": cross_version.evaluate,
  "counterfactual": counterfactual.evaluate,
  "properties": properties.evaluate,
  "entity_linking": entity_linking.evaluate,
  "attribute_insertion": attribute_insertion.evaluate,
}
_NAMES = ("node", "directions", "of", "protocol")  # options that are a name or several
CHECKS = {
  "zero_shot": class_names.check,
  "similarity": similarity.check,
  "base_to_new": base_to_new.check,
  "cross_version": cross_version.check,
  "counterfactual": counterfactual.check,
}  # of options, beside their names
_BY_PROTOCOL = {"retrieval": retrieval.PROTOCOLS, "zero_shot": zero_shot.PROTOCOLS}
_OF_PROMPTS = ("tags_by_text", "robustness")
_OF_LABELS = {"robustness": robustness, "zero_shot": zero_shot, "knn": knn, "linear_probe": linear_probe}
OF_WORDS = ("captioning", "perplexity")
PROBES = ("knn", "linear_probe", "tagging")  # they look at a tower or a node
NEED_A_BANK = (*PROBES, "base_to_new", "text_transfer", "entity_linking")


def options_of(name: str) -> dict[str, Any]:
  """The options of the evaluator `name` and their defaults; those that all share where there is none of that name."""
  own = list(inspect.signature(EVALUATORS[name]).parameters.values())[2:] if name in EVALUATORS else ()
  return {"sets": (), "baselines": ()} | {one.name: one.default for one in own}


def check(config: Mapping[str, Any]) -> None:
  """Checks `config.evaluation` without data or model, so that a typo stops before training.

  Raises:
    UserError: an unknown evaluator or option, or an evaluator's set that is not in `sets`.
  """
  sets = _names(config, "sets")
  if config["evaluators"] and not sets:
    raise UserError("evaluation.sets: is empty; name the sets to evaluate, or no evaluators")
  for name, options in config["evaluators"].items():
    choose(name, EVALUATORS, "evaluation.evaluators")
    options = _table(name, options)
    check_options(options, options_of(name), f"evaluation.evaluators.{name}")
    of_its_own = {key: value for key, value in options.items() if key not in ("sets", "baselines")}
    check_values(EVALUATORS[name], of_its_own, f"evaluation.evaluators.{name}")
    option_checks.check(of_its_own, f"evaluation.evaluators.{name}")
    for key in _NAMES:
      given = (options or {}).get(key, ())
      if not isinstance(given, str | list | tuple) or not all(isinstance(one, str) for one in given):
        raise UserError(f"evaluation.evaluators.{name}.{key}: {given!r} is no name; give one, or a list of names")
    for key in ("nodes", "layers"):
      if not _are_pairs(pairs := (options or {}).get(key, ())):
        raise UserError(
          f"evaluation.evaluators.{name}.{key}: {pairs!r}; give pairs of nodes, such as (('image', 'text'),)"
        )
    for one in baselines.names(options or {}):
      choose(one, baselines.ALL if name in PROBES else (baselines.UNTRAINED,),
             f"evaluation.evaluators.{name}.baselines")  # fmt: skip
    if name in _BY_PROTOCOL:
      for one in protocols.names_of((options or {}).get("protocol", protocols.OURS)) or [""]:
        choose(one, _BY_PROTOCOL[name], f"evaluation.evaluators.{name}.protocol")
    for one in (options or {}).get("sets", ()):
      choose(one, sets, f"evaluation.evaluators.{name}.sets")
    if name in CHECKS:
      CHECKS[name](dict(options or {}))


def _table(name: str, options: Any) -> Mapping[str, Any]:
  """The options of an evaluator; none where None is given. Raises UserError for what is no table."""
  if options is None or isinstance(options, Mapping) or hasattr(options, "to_dict"):
    return dict(options or {})
  raise UserError(
    f"evaluation.evaluators.{name}: {options!r:.60} is no table of options; give one, or {{}} for the usual"
  )


def _are_pairs(nodes: Any) -> bool:
  if not isinstance(nodes, list | tuple):
    return False
  pairs = retrieval.pairs_of(nodes) if all(isinstance(pair, str | list | tuple) for pair in nodes) else [()]
  return all(len(pair) == 2 and all(isinstance(one, str) for one in pair) for pair in pairs)


def check_set(config: Mapping[str, Any], name: str, label_names: Mapping[str, Sequence[str]]) -> None:
  """Checks the labels and class names that evaluators ask of the set `name`, by its schema, before any is computed.

  Raises UserError: the set has no such label, or a class of it has no name for zero-shot.
  """
  for evaluator, options in config["evaluators"].items():
    options = dict(options or {})
    if evaluator not in _OF_LABELS or name not in options.get("sets", _names(config, "sets")):
      continue
    for label in labels_of(options.get("label"), _OF_LABELS[evaluator].USUAL_LABEL, label_names):
      if label == "concept" and evaluator not in ("zero_shot", "robustness"):
        continue
      choose(label, label_names, f"evaluation.evaluators.{evaluator}.label: labels of {name!r}")
      if evaluator in ("zero_shot", "robustness"):
        class_names.choose(options.get("names"), label_names[label], label)


def check_space(config: Mapping[str, Any], space: Space) -> None:
  """Checks the nodes, directions and modalities that evaluators ask for against those of a model, before any data.

  Raises UserError: the model has none of that name, or compares no two modalities.
  """
  ways = {way_of(*way) for way in space.ways()}
  for name, given in config["evaluators"].items():
    options, where = dict(given or {}), f"evaluation.evaluators.{name}"
    if name in PROBES and not options.get("node") and not space.probed:
      choose(config["features"] or "", space.nodes, f"{where}: the tower that it looks at, evaluation.features")
    for node in nodes_of(options.get("node", ())):
      if node:
        space.kind_of(node, f"{where}.node")
    if name == "masked_words" and space.nodes:
      if not space.guesses:
        raise UserError(
          f"{where}: the run has no head that guesses words of a text, one of name='words' as methods/albef has; leave "
          "this evaluator out"
        )
      choose(options.get("head") or next(iter(space.guesses)), space.guesses, f"{where}.head")
    if name in OF_WORDS and space.describes is not None:
      if not space.describes:
        raise UserError(f"{where}: this run has no decoder of captions; leave it out, or train config coca or the like")
      choose(options.get("head") or next(iter(space.describes)), space.describes, f"{where}.head")
      if len(space.describes) > 1 and not options.get("head"):
        raise UserError(f"{where}.head: the heads {', '.join(space.describes)} write captions; name one")
    for pair in retrieval.pairs_of(options.get("nodes", ())):
      if name == "alignment":  # which compares neighbours, not numbers: of vectors of any lengths
        for node in pair:
          space.kind_of(node, f"{where}.nodes")
      else:
        space.check_comparable(pair, f"{where}.nodes")
    for pair in retrieval.pairs_of(options.get("layers", ())):
      for tower in pair:
        choose(tower, space.towers or space.nodes, f"{where}.layers: towers")
    if name in _OF_PROMPTS and space.joint is not None and zero_shot.PROMPTS not in space.joint:
      raise UserError(
        f"{where}: this run has no text tower with a head in the joint space (config.evaluation.text); leave it out"
      )
    for pair in cross_version.node_pairs(options) if name == cross_version.WHERE else ():
      space.check_comparable(pair, where)
    for head in (options["match"],) if options.get("match") else ():
      choose(head, space.matches, f"{where}.match: heads that give logits, of a tower that reads two modalities")
      choose(options.get("match_order", "head"), retrieval.MATCH_ORDERS, f"{where}.match_order")
    for key, known in (("directions", sorted(ways)), ("of", sorted(set(space.joint or ()) - {zero_shot.PROMPTS}))):
      for one in (options[key],) if isinstance(options.get(key), str) else options.get(key, ()):
        choose(one, known, f"{where}.{key}")


def embed_sets(
  embed: Embed,
  config: Mapping[str, Any],
  load_set: Callable[[str], EvaluationSet],
  compare: Compare = cosines,
  *,
  seen: Seen | None = None,
  joined: Sequence[JoinedTerm] = (),
  space: Space = ANYTHING,
  match: Match | None = None,
  scale: Scale | None = None,
  words: Words | None = None,
  guess: Guess | None = None,
  tune: Tune | None = None,
  layers: Layers | None = None,
) -> dict[str, EmbeddedSet]:
  """The sets of `config` (tests and training sets), loaded; embedded at first use, once.

  In that order, so that a set to report on comes before one that only trains a probe. `seen`, `joined`,
  `space`, `match`, `scale`, `words`, `guess`, `tune`, `layers`: see EmbeddedSet.
  """
  names = dict.fromkeys((*_names(config, "sets"), *_names(config, "train_sets")))
  return {
    name: EmbeddedSet(
      load_set(name),
      embed,
      name,
      compare,
      seen=seen,
      joined=joined,
      space=space,
      match=match,
      scale=scale,
      words=words,
      guess=guess,
      tune=tune,
      layers=layers,
    )
    for name in names
  }


def run_suite(
  embed: Embed,
  config: Mapping[str, Any],
  load_set: Callable[[str], EvaluationSet],
  *,
  sets: Mapping[str, EmbeddedSet] | None = None,
  untrained: Callable[[], Embed] | None = None,
) -> dict[str, float]:
  """Runs every evaluator of `config`.

  Args:
    embed: the model: embed(kind, values) -> [N, D].
    config: `config.evaluation`, see above.
    load_set: name -> EvaluationSet.
    sets: what `embed_sets` returned, to share embeddings with a picture or a search.
    untrained: makes the model with its initial weights, for evaluators that ask for that baseline.

  Returns:
    {"emoji_noto/image_to_text/recall@1": 0.31, ...}; fractions, but for ranks and counts.

  Raises:
    UserError: a config mistake, a set without what an evaluator needs, NaN embeddings.
  """
  return measured(embed, config, load_set, sets=sets, untrained=untrained)[0]


def measured(
  embed: Embed,
  config: Mapping[str, Any],
  load_set: Callable[[str], EvaluationSet],
  *,
  sets: Mapping[str, EmbeddedSet] | None = None,
  untrained: Callable[[], Embed] | None = None,
) -> tuple[dict[str, float], dict[str, Task]]:
  """As `run_suite`: (results, "set/task" -> what it is of; see tasks.described)."""
  check(config)
  embedded = embed_sets(embed, config, load_set) if sets is None else sets
  named = [embedded[name] for name in _names(config, "train_sets")]
  tests = [embedded[name] for name in _names(config, "sets")]
  bank = named or [one for one in tests if one.seen] or [one for one in tests if one.data.trains_probes]
  out: dict[str, float] = {}
  tasks: dict[str, Task] = {}

  @functools.cache
  def without_training(baseline: str) -> dict[str, EmbeddedSet]:
    return {name: baselines.set_of(one, baseline, untrained) for name, one in embedded.items()}

  for name, options in config["evaluators"].items():
    if name in NEED_A_BANK and not bank:
      raise UserError(
        f"evaluation.evaluators.{name}: the run trains on none of the sets; "
        "name what to train the probe on in evaluation.train_sets"
      )
    options = dict(options or {})
    names, wanted = options.pop("sets", _names(config, "sets")), baselines.names(options)
    options.pop("baselines", None)
    whole = {key: value for key, value in options_of(name).items() if key not in ("sets", "baselines")} | options
    test_splits = options.get("test_splits", ("validation", "test"))
    for baseline in (None, *wanted):
      seen = embedded if baseline is None else without_training(baseline)
      tests, trains = [seen[one] for one in names], [seen[one.name] for one in bank]
      if named:  # what trains a probe and what is tested is said by the config, whatever their splits are called
        tests = [one if one.name in _names(config, "train_sets") else one.for_splits(test_splits) for one in tests]
        trains = [one.for_splits(("train",)) for one in trains]
      for dataset, metrics in EVALUATORS[name](tests, trains, **options).items():
        found = {f"{dataset}/{baselines.named(metric, baseline)}": value for metric, value in metrics.items()}
        out |= found
        tasks |= {key.rpartition("/")[0]: Task(name, whole, seen[dataset]) for key in found}
  return out, tasks


def _names(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
  """The set names at `key`; a lone string is one name, a missing key none."""
  value = config.get(key) or ()
  return (value,) if isinstance(value, str) else tuple(value)
