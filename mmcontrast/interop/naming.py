"""Names and layouts of other packages' arrays and ours: tables of rules that are read both ways.

    Rule("resblocks.{i}.mlp.c_fc.weight", "blocks_{i}/mlp/fc1/kernel", LINEAR)
    Rule(("h.{i}.q.weight", "h.{i}.k.weight", "h.{i}.v.weight"), "blocks_{i}/attn/qkv/kernel", STACKED_LINEAR)

A placeholder such as {i} stands for one word of letters, digits and underscores. A path of ours is
one in "params" unless it begins with another collection: "batch_stats/bn1/mean".
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast.errors import UserError, nearest

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
_COLLECTIONS = ("params/", "batch_stats/")


class Layout(NamedTuple):
  """How arrays of theirs lie in one of ours.

  Attributes:
    to_ours: list of their arrays -> ours.
    to_theirs: (ours, how many arrays they have) -> list of theirs.
  """

  to_ours: Callable[[Sequence[np.ndarray]], np.ndarray]
  to_theirs: Callable[[np.ndarray, int], Sequence[np.ndarray]]


def one(forward: Callable[[np.ndarray], np.ndarray], back: Callable[[np.ndarray], np.ndarray]) -> Layout:
  """The layout of a single array."""
  return Layout(lambda arrays: forward(arrays[0]), lambda array, _: [back(array)])


SAME = one(lambda a: a, lambda a: a)
LINEAR = one(np.transpose, np.transpose)  # [O, I] <-> [I, O]
CONV = one(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))  # OIHW <-> HWIO
LEADING = one(lambda a: a[None], lambda a: a[0])  # [L, D] <-> [1, L, D]
LEADING2 = one(lambda a: a[None, None], lambda a: a[0, 0])  # [D] <-> [1, 1, D]
STACKED = Layout(lambda a: np.concatenate(a, -1), lambda a, n: np.split(a, n, -1))  # biases [O], [O] <-> [O + O]
STACKED_LINEAR = Layout(lambda a: np.concatenate([x.T for x in a], 1), lambda a, n: [x.T for x in np.split(a, n, 1)])


@dataclasses.dataclass(frozen=True)
class Rule:
  """One line of a table: which of their arrays become which of ours.

  Attributes:
    theirs: template of their name, or several whose arrays make one of ours, in the layout's order.
    ours: template of our path.
    layout: SAME, LINEAR, CONV, ...
  """

  theirs: str | tuple[str, ...]
  ours: str
  layout: Layout = SAME

  @property
  def names(self) -> tuple[str, ...]:
    """The templates of their names."""
    return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

  @property
  def path(self) -> str:
    """The template of our path, collection included."""
    return self.ours if self.ours.startswith(_COLLECTIONS) else f"params/{self.ours}"


def under(rules: Iterable[Rule], theirs: str, ours: str) -> list[Rule]:
  """`rules` with their names after the prefix `theirs` ("visual.") and our paths in `ours` ("towers/image")."""
  moved = []
  for rule in rules:
    collection, _, rest = rule.path.partition("/")
    moved.append(Rule(tuple(theirs + name for name in rule.names), f"{collection}/{ours}/{rest}", rule.layout))
  return moved


def to_ours(rules: Sequence[Rule], arrays: Mapping[str, np.ndarray], wanted: Shapes, where: str,
            ignored: Sequence[str] = ()) -> Arrays:
  """Their arrays as ours, every one of both accounted for.

  Args:
    rules: the first that fits a name takes it.
    arrays: theirs, by name.
    wanted: path of ours, "params/towers/image/norm/bias" -> its shape.
    where: the file, for messages.
    ignored: regexes of their names that may be left over.
  Returns:
    path -> array, for every path of `wanted`.
  Raises UserError, naming the array, for one of theirs that nothing takes, one of ours that nothing
  gives, and one of another shape.
  """
  found: dict[str, dict[str, np.ndarray]] = {}  # path of ours -> {name of theirs: array}
  sources: dict[str, tuple[Rule, tuple[str, ...]]] = {}
  left = []
  for name, array in arrays.items():
    match = _match(rules, name, "theirs")
    path = match and match[0].path.format(**match[1])
    if path not in wanted:
      left.append(name)
      continue
    found.setdefault(path, {})[name] = array
    sources[path] = match[0], tuple(template.format(**match[1]) for template in match[0].names)
  _check_left(left, found, wanted, rules, where, ignored)
  result = {}
  for path, shape in wanted.items():
    names = sources[path][1] if path in sources else _their_names(rules, path)
    if missing := [name for name in names if name not in found.get(path, {})] or ([] if names else [path]):
      raise UserError(f"{where}: no array {missing[0]!r}, which {_short(path)!r} is read from; "
                      f"{nearest(missing[0], left or arrays)}")
    theirs = [found[path][name] for name in names]
    try:
      ours = sources[path][0].layout.to_ours(theirs)
    except ValueError:  # of a number of axes that the layout does not have
      ours = theirs[0]
    if ours.shape != tuple(shape):
      raise UserError(f"{where}: {names[0]!r} has the shape {list(theirs[0].shape)}, which makes {list(ours.shape)} of "
                      f"{_short(path)!r}, where {list(shape)} is needed; the file is of another architecture")
    result[path] = np.asarray(ours, order="C")
  return result


def to_theirs(rules: Sequence[Rule], arrays: Mapping[str, np.ndarray], where: str) -> Arrays:
  """The inverse of `to_ours`: path of ours -> array, as name of theirs -> array, C-contiguous.

  Raises UserError for an array that no rule names.
  """
  result = {}
  for path, array in arrays.items():
    match = _match(rules, path, "ours")
    if match is None:
      raise UserError(f"{where}: the format has no name for {_short(path)!r}; export a model without it")
    names = [template.format(**match[1]) for template in match[0].names]
    theirs = match[0].layout.to_theirs(np.asarray(array), len(names))
    result |= {name: np.asarray(part, order="C") for name, part in zip(names, theirs, strict=True)}
  return result


def _match(rules: Sequence[Rule], name: str, side: str) -> tuple[Rule, dict[str, str]] | None:
  """The first rule with a template of `side` that fits `name`, and what its placeholders stand for."""
  for rule in rules:
    for template in (rule.names if side == "theirs" else (rule.path,)):
      if match := _regex(template).fullmatch(name):
        return rule, match.groupdict()
  return None


@functools.cache
def _regex(template: str) -> re.Pattern[str]:
  words = re.split(r"\{(\w+)\}", template)  # text and names of placeholders in turn
  return re.compile("".join(f"(?P<{word}>\\w+)" if n % 2 else re.escape(word) for n, word in enumerate(words)))


def _their_names(rules: Sequence[Rule], path: str) -> list[str]:
  match = _match(rules, path, "ours")
  return [template.format(**match[1]) for template in match[0].names] if match else []


def _check_left(left: Sequence[str], found: Mapping, wanted: Shapes, rules: Sequence[Rule], where: str,
                ignored: Sequence[str]) -> None:
  unused = [name for name in left if not any(re.fullmatch(pattern, name) for pattern in ignored)]
  if unused:
    missing = [name for path in wanted if path not in found for name in _their_names(rules, path)]
    known = missing or [name for path in wanted for name in _their_names(rules, path)]
    raise UserError(f"{where}: {len(unused)} arrays are not used, the first is {unused[0]!r}; "
                    f"{nearest(unused[0], known)}; if you do not need them, say so by name: --allow_unused REGEX")


def _short(path: str) -> str:
  return path.removeprefix("params/")
