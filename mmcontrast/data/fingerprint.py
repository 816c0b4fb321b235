"""What the data of a run were, in a few hundred bytes: enough to notice that a run goes on with others.

Class numbers, the columns of tags, the order of examples and token ids are all functions of the data. A fingerprint
holds their number and names and digests of a few examples, and nothing of where they lie.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.data.attempts import Attempts
from mmcontrast.data.sources import BadRecord, Record, Source
from mmcontrast.data.tokenizers import Tokenizer
from mmcontrast.modalities import MODALITIES

EXAMPLES = 16
"""How many examples are read, spread evenly over the data."""
_SHOWN = 5  # names that a message lists
_TEXTS = (
  "a photo of a dog",
  "Two people, 3 bicycles & 1 cat!",
  "unbelievably counterclockwise",
  "Ein kleiner Hund läuft",
  "一只狗在草地上",
  "собака",
  "😀",
)  # a tokenizer is told by their ids


def fingerprint(source: Source, tokenizer: Tokenizer | None, on_error: Mapping[str, float]) -> dict[str, Any]:
  """A JSON object that tells two sets of data apart.

  Args:
    on_error: the config's `data.on_error`: an example that cannot be read is left out of the comparison.
  """
  info, count = source.info, len(source)
  places = sorted({place * (count - 1) // max(EXAMPLES - 1, 1) for place in range(EXAMPLES)}) if count else []
  with contextlib.closing(Attempts(on_error)) as attempts:
    examples = {str(place): _of_example(attempts, source, place) for place in places}
  members = getattr(source, "members", {})
  return {
    "examples": count, "parts": {name: len(member) for name, member in members.items()},
    "tags": list(info.tag_names), "labels": {name: list(names) for name, names in info.label_names.items()},
    "vocabulary": tokenizer.vocab_size if tokenizer else None,
    "tokenizer": _digest(tokenizer.encode(_TEXTS, 64).tolist()) if tokenizer else None,
    "digests": {place: digest for place, digest in examples.items() if digest},
  }  # fmt: skip


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """What became different from one fingerprint to another, in words; empty when it is the same data."""
  found = []
  if old["examples"] != new["examples"]:
    found.append(f"{old['examples']:,} examples became {new['examples']:,}: each epoch has another order")
  if old["parts"] != new["parts"] and old["examples"] == new["examples"]:
    found.append(f"the parts of the mixture, {old['parts']}, became {new['parts']}")
  if words := _renamed(old["tags"], new["tags"]):
    found.append(f"tags: {words}: their columns moved")
  for name in sorted(old["labels"].keys() | new["labels"].keys()):
    if words := _renamed(old["labels"].get(name, ()), new["labels"].get(name, ())):
      found.append(f"classes of label {name!r}: {words}: their numbers moved")
  if old["vocabulary"] != new["vocabulary"]:
    found.append(f"a vocabulary of {old['vocabulary']} tokens became one of {new['vocabulary']}")
  elif old["tokenizer"] != new["tokenizer"]:
    found.append("the tokenizer gives other ids for the same texts")
  if not found:
    both = old["digests"].keys() & new["digests"].keys()
    other = sorted(int(place) for place in both if old["digests"][place] != new["digests"][place])
    if other:
      found.append(f"{len(other)} of {len(both)} examples compared have changed, such as number {other[0]}")
  return found


def _renamed(old: Sequence[str], new: Sequence[str]) -> str:
  """Words about a list of names that changed; none when it did not."""
  if list(old) == list(new):
    return ""
  added, gone = ([name for name in one if name not in set(other)] for one, other in ((new, old), (old, new)))
  parts = [f"{word} {_some(names)}" for word, names in (("new", added), ("gone", gone)) if names]
  return " and ".join(parts) or "in another order"


def _some(names: Sequence[str]) -> str:
  more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _of_example(attempts: Attempts, source: Source, place: int) -> str | None:
  try:
    return _digest(_described(attempts(lambda: source[place])))
  except BadRecord:
    return _digest("bad record")
  except OSError:
    return None


def _described(record: Record) -> list[Any]:
  """What an example is, without its name, which has the path of its file, and its id, which may be made of it."""
  images = {style: hashlib.blake2b(data).hexdigest() for style, data in record["images"].items()}
  described = [
    images,
    record["captions"],
    record.get("names", {}),
    record["tags"].tolist(),
    {name: int(number) for name, number in record["labels"].items()},
  ]
  further = {of.field: record[of.field] for of in MODALITIES.values() if of.field not in ("images", "captions")
             and record.get(of.field)}  # fmt: skip
  hashed = {field: {key: _hash(raw) for key, raw in things.items()} for field, things in further.items()}
  more = [hashed] if hashed else []
  return [*described, *more, record["regions"]] if record.get("regions") else [*described, *more]


def _hash(raw: Any) -> str:
  return hashlib.blake2b(raw if isinstance(raw, bytes) else np.ascontiguousarray(raw).tobytes()).hexdigest()


def _digest(value: Any) -> str:
  return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
