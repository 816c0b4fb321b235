"""What zero-shot classification calls the classes of a label: the names that the data have, or names of one's choosing.

    names=None                                   # the data's: folder names, class names of a column
    names=("tench", ("crane", "construction crane"))   # in the order of the classes; one name each or several
    names={"n01440764": ("tench", "Tinca tinca")}      # by the data's names, such as those of folders
    names="classes.txt"                          # a line a class, in order; or "n01440764 tench, Tinca tinca"
    names="imagenet_class_index.json"            # a list, a table, or {"0": ["n01440764", "tench"], ...}

Two classes may have the same name: no model can tell their images apart, and both count as missed at top-1.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmcontrast.errors import UserError, nearest, note, one_line

WHERE = "zero_shot.names"
_WORDNET = re.compile(r"n\d{8}")
Names = Sequence[Any] | Mapping[str, Any]
"""In the order of the classes, or by class: a name or a list of names each."""


def check(options: Mapping[str, Any]) -> None:
  """UserError where the option `names` is no names, or a file that cannot be read."""
  names = read(options.get("names"))
  for key, value in names.items() if isinstance(names, Mapping) else enumerate(names or ()):
    _several(value, key)


def read(names: str | Names | None) -> Names | None:
  """The names in a file, or as they are given."""
  names = names.to_dict() if hasattr(names, "to_dict") else names
  if not isinstance(names, str):
    if names is not None and not isinstance(names, Mapping | list | tuple):
      raise UserError(f"{WHERE}: {names!r} is neither a file, nor a list, nor a table such as {{'n01440764': 'tench'}}")
    return names
  path = pathlib.Path(names).expanduser()
  try:
    text = path.read_text(encoding="utf-8-sig")
    content = json.loads(text) if path.suffix == ".json" else _of_lines(text)
  except (OSError, ValueError) as error:
    raise UserError(f"{WHERE}: {names}: cannot be read ({getattr(error, 'strerror', None) or one_line(error)}); give "
                    "a text file with one line for each class, or JSON") from None  # fmt: skip
  if not isinstance(content, Mapping | list) or not content:
    raise UserError(f"{WHERE}: {names}: holds no names; give one line for each class, or a JSON list or table")
  return content


def choose(names: str | Names | None, classes: Sequence[str], label: str) -> list[tuple[str, ...]]:
  """The names of each of `classes`, those of `label` in the data.

  Raises UserError where a class has none, or a list is of another length.
  """
  chosen = read(names)
  if chosen is None:
    if sum(bool(_WORDNET.fullmatch(name)) for name in classes) > len(classes) / 2:
      note(f"zero_shot: classes of {label!r} are called {classes[0]!r} and the like, which says nothing to a model; "
           "give their names with the evaluator's option names")  # fmt: skip
    return [(name,) for name in classes]
  if isinstance(chosen, Mapping):
    chosen = _by_class(chosen, classes)
  if isinstance(chosen, Mapping):
    if missing := [name for name in classes if name not in chosen]:
      raise UserError(f"{WHERE}: nothing for {len(missing)} of {len(classes)} classes of {label!r}, such as "
                      f"{missing[0]!r}; {nearest(missing[0], chosen)}")  # fmt: skip
    return [_several(chosen[name], name) for name in classes]
  if len(chosen) != len(classes):
    raise UserError(f"{WHERE}: {len(chosen)} names for the {len(classes)} classes of {label!r}, which are in this "
                    f"order: {', '.join(classes[:3])}, ...; give one for each, or a table by class")  # fmt: skip
  return [_several(value, number) for number, value in enumerate(chosen)]


def _of_lines(text: str) -> list[str] | dict[str, list[str]]:
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if all(_WORDNET.fullmatch(line.split()[0]) for line in lines):
    return {line.split()[0]: [name.strip() for name in line.split(maxsplit=1)[-1].split(",")] for line in lines}
  if all("\t" in line for line in lines):
    return {key: [name.strip() for name in names.split(",")] for key, names in (line.split("\t", 1) for line in lines)}
  return lines


def _by_class(table: Mapping[str, Any], classes: Sequence[str]) -> Names:
  """A table by class; {"0": [class, name], ...} and {"0": name, ...} are by number."""
  if any(name in table for name in classes) or not all(str(key).isdecimal() for key in table):
    return table
  values = [table[key] for key in sorted(table, key=int)]
  if all(isinstance(value, list | tuple) and len(value) > 1 for value in values):
    by_first = {str(first): names for first, *names in values}
    if any(name in by_first for name in classes):
      return by_first
  return values


def _several(value: Any, key: Any) -> tuple[str, ...]:
  names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
  if not names or not all(isinstance(name, str) and name.strip() for name in names):
    raise UserError(f"{WHERE}: {value!r} for {key!r} is not a name; give a text, or a list of them")
  return tuple(dict.fromkeys(name.strip() for name in names))
