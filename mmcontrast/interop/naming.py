"""Names and layouts of other packages' arrays and ours: tables of rules that are read both ways.

    Rule("resblocks.{i}.mlp.c_fc.weight", "blocks_{i}/mlp/fc1/kernel", LINEAR)
    Rule(("h.{i}.q.weight", "h.{i}.k.weight", "h.{i}.v.weight"), "blocks_{i}/attn/qkv/kernel", STACKED_LINEAR)
    Rule("attn.in_proj_weight", ("attn_pool/q/kernel", "attn_pool/kv/kernel"), STACKED_LINEAR)

A placeholder such as {i} stands for one word of letters, digits and underscores. A path of ours is
one in "params" unless it begins with another collection: "batch_stats/bn1/mean".
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast.errors import UserError, nearest
from mmcontrast.interop.wrappings import under_which
from mmcontrast.models.finite import check_weights

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
_COLLECTIONS = ("params/", "batch_stats/")


class Layout(NamedTuple):
  """How arrays of theirs lie in ours.

  Attributes:
    to_ours: (their arrays, the shapes that ours have) -> our arrays.
    to_theirs: (our arrays, how many they have) -> their arrays.
  """

  to_ours: Callable[[Sequence[np.ndarray], Sequence[tuple[int, ...]]], Sequence[np.ndarray]]
  to_theirs: Callable[[Sequence[np.ndarray], int], Sequence[np.ndarray]]


def unstacked(forward: Callable[[np.ndarray], np.ndarray], back: Callable[[np.ndarray], np.ndarray]) -> Layout:
  """The layout of one array that becomes one."""
  return Layout(lambda theirs, _: [forward(theirs[0])], lambda ours, _: [back(ours[0])])


def _cut(whole: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
  return np.split(whole, np.cumsum([shape[-1] for shape in shapes])[:-1], axis=-1)


def _square_patches(a: np.ndarray) -> np.ndarray:
  side = math.isqrt(a.shape[0] // 3)
  return a.reshape(side, side, 3, -1)


SAME = unstacked(lambda a: a, lambda a: a)
LINEAR = unstacked(np.transpose, np.transpose)  # [O, I] <-> [I, O]
CONV = unstacked(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))  # OIHW <-> HWIO
# [O, p * p * 3], the pixels of a patch row after row, <-> HWIO
PATCHES = unstacked(lambda a: _square_patches(a.T), lambda a: a.reshape(-1, a.shape[-1]).T)
LEADING = unstacked(lambda a: a[None], lambda a: a[0])  # [L, D] <-> [1, L, D]
LEADING2 = unstacked(lambda a: a[None, None], lambda a: a[0, 0])  # [D] <-> [1, 1, D]
# Laid side by side and cut anew: q, k, v <-> qkv, or in_proj <-> q, kv. Biases [O], and matrices [O, I] <-> [I, O].
STACKED = Layout(
  lambda a, shapes: _cut(np.concatenate(a, -1), shapes), lambda a, n: np.split(np.concatenate(a, -1), n, -1)
)
# The biases of queries and values, which have none of keys between them: no output depends on those, which add the same
# to all scores of a query.
WITHOUT_KEYS = Layout(
  lambda a, _: [np.concatenate([a[0], np.zeros_like(a[0]), a[1]], -1)],
  lambda a, _: np.split(np.concatenate(a, -1), 3, -1)[::2],
)
STACKED_LINEAR = Layout(
  lambda a, shapes: _cut(np.concatenate([x.T for x in a], -1), shapes),
  lambda a, n: [x.T for x in np.split(np.concatenate(a, -1), n, -1)],
)


@dataclasses.dataclass(frozen=True)
class Rule:
  """One line of a table: which of their arrays become which of ours.

  Attributes:
    theirs: template of their name, or several in the layout's order.
    ours: template of our path, or several in the layout's order.
    layout: SAME, LINEAR, CONV, ...
  """

  theirs: str | tuple[str, ...]
  ours: str | tuple[str, ...]
  layout: Layout = SAME

  @property
  def names(self) -> tuple[str, ...]:
    """The templates of their names."""
    return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

  @property
  def paths(self) -> tuple[str, ...]:
    """The templates of our paths, collection included."""
    ours = (self.ours,) if isinstance(self.ours, str) else self.ours
    return tuple(path if path.startswith(_COLLECTIONS) else f"params/{path}" for path in ours)


def under(rules: Iterable[Rule], theirs: str, ours: str) -> list[Rule]:
  """`rules` with their names after the prefix `theirs` ("visual.") and our paths in `ours` ("towers/image")."""
  inner = f"/{ours}/" if ours else "/"
  return [
    Rule(
      tuple(theirs + name for name in rule.names),
      tuple(path.replace("/", inner, 1) for path in rule.paths),
      rule.layout,
    )
    for rule in rules
  ]


def linear(theirs: str, ours: str) -> list[Rule]:
  """Rules of torch's Linear, ".weight" and ".bias", and Flax's Dense."""
  return [Rule(f"{theirs}.weight", f"{ours}/kernel", LINEAR), Rule(f"{theirs}.bias", f"{ours}/bias")]


def norm(theirs: str, ours: str) -> list[Rule]:
  """Rules of torch's LayerNorm, ".weight" and ".bias", and Flax's."""
  return [Rule(f"{theirs}.weight", f"{ours}/scale"), Rule(f"{theirs}.bias", f"{ours}/bias")]


class _Group(NamedTuple):
  """A rule with its placeholders filled in."""

  layout: Layout
  names: tuple[str, ...]
  paths: tuple[str, ...]


def to_ours(
  rules: Sequence[Rule], arrays: Mapping[str, np.ndarray], wanted: Shapes, where: str, ignored: Sequence[str] = ()
) -> Arrays:
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
  gives, one of another shape, and one with numbers that are not finite.
  """
  groups = [group for path in wanted if (group := _group(rules, path))]
  _check_names(groups, arrays, where, ignored)
  result = {}
  for group in dict.fromkeys(groups):
    result |= _converted(group, arrays, wanted, where)
  used = {name for group in groups for name in group.names}
  check_weights({name: arrays[name] for name in arrays if name in used}, where)
  if unnamed := sorted(wanted.keys() - result.keys()):
    raise UserError(f"{where}: the format has no name for {_short(unnamed[0])!r}")
  return result


def _check_names(
  groups: Sequence[_Group], arrays: Mapping[str, np.ndarray], where: str, ignored: Sequence[str]
) -> None:
  """Checks that every array of theirs is taken, and that those that are missing do not stand under another name."""
  used = {name for group in groups for name in group.names}
  left = [name for name in arrays if name not in used and not any(re.fullmatch(regex, name) for regex in ignored)]
  missing = [name for group in groups for name in group.names if name not in arrays]
  if missing and (prefixes := under_which(arrays, missing)):
    raise UserError(
      f"{where}: no array {missing[0]!r}, but one under {' and '.join(map(repr, prefixes))}, as all "
      f"that are missing; to choose: mmcontrast import ... --weights {prefixes[0]}"
    )
  if left:
    raise UserError(
      f"{where}: {len(left)} of {len(arrays)} arrays are not used, the first is {left[0]!r}; "
      f"{nearest(left[0], missing or used)}; if you do not need them, say so: --allow_unused REGEX"
    )


def _converted(group: _Group, arrays: Mapping[str, np.ndarray], wanted: Shapes, where: str) -> Arrays:
  """The arrays of ours that one group of theirs makes."""
  for name in group.names:
    if name not in arrays:
      raise UserError(
        f"{where}: no array {name!r}, which {_short(group.paths[0])!r} is read from; {nearest(name, arrays)}"
      )
  theirs, shapes = [arrays[name] for name in group.names], [tuple(wanted[path]) for path in group.paths]
  if whole := [name for name in group.names if arrays[name].dtype.kind in "iubc"]:
    raise UserError(
      f"{where}: {whole[0]!r} is of {arrays[whole[0]].dtype}, and weights are floats; save it in full "
      "or half precision, not quantised"
    )
  try:
    ours = group.layout.to_ours(theirs, shapes)
  except (ValueError, IndexError):  # of a number of axes that the layout does not have
    ours = theirs
  if (made := [array.shape for array in ours]) != shapes:
    raise UserError(
      f"{where}: {group.names[0]!r} has the shape {list(theirs[0].shape)}, which makes {made} of "
      f"{_short(group.paths[0])!r}, where {shapes} is needed; the file is of another architecture"
    )
  return {path: np.asarray(array, order="C") for path, array in zip(group.paths, ours)}


def to_theirs(rules: Sequence[Rule], arrays: Mapping[str, np.ndarray], where: str) -> Arrays:
  """The inverse of `to_ours`: path of ours -> array, as name of theirs -> array, C-contiguous.

  Raises UserError as `check_named`.
  """
  result = {}
  for group in dict.fromkeys(check_named(rules, arrays, where)):
    theirs = group.layout.to_theirs([np.asarray(arrays[path]) for path in group.paths], len(group.names))
    result |= {name: np.asarray(array, order="C") for name, array in zip(group.names, theirs, strict=True)}
  return result


def check_named(rules: Sequence[Rule], paths: Collection[str], where: str) -> list[_Group]:
  """What `to_theirs` makes of each of our paths. Raises UserError for one that no rule names."""
  groups = []
  for path in paths:
    group = _group(rules, path)
    if group is None or not all(one in paths for one in group.paths):
      raise UserError(f"{where}: the format has no name for {_short(path)!r}; export a model without it")
    groups.append(group)
  return groups


def _group(rules: Sequence[Rule], path: str) -> _Group | None:
  """The first rule with a template that fits our `path`, filled in with what its placeholders stand for."""
  for rule in rules:
    for template in rule.paths:
      if match := _regex(template).fullmatch(path):
        names, paths = (tuple(one.format(**match.groupdict()) for one in side) for side in (rule.names, rule.paths))
        return _Group(rule.layout, names, paths)
  return None


@functools.cache
def _regex(template: str) -> re.Pattern[str]:
  words = re.split(r"\{(\w+)\}", template)  # text and names of placeholders in turn
  return re.compile("".join(f"(?P<{word}>\\w+)" if n % 2 else re.escape(word) for n, word in enumerate(words)))


def _short(path: str) -> str:
  return path.removeprefix("params/")
