"""Overrides: what `--config.KEY=VALUE` says, carried out on a config.

Any option that exists can be given, also one that the config does not mention (options.py). Names of the user's,
of towers, heads, terms and sets, are those of the config; a new one is given whole, as a mapping. A value is read as
Python (`64`, `('en', 'de')`, `None`, `{'name': 'cosine', 'init': 0.1}`), or is text where text can stand.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections

from mmcontrast.config.options import Section, section
from mmcontrast.errors import UserError, nearest
from mmcontrast.registry import REQUIRED

PREFIX = "--config."


def literal(text: str) -> Any:
  """The Python value that `text` writes, dict(a=1) among them as configs have it, or `text` itself."""
  try:
    written = ast.parse({"true": "True", "false": "False"}.get(text, text).strip(), mode="eval")
    return ast.literal_eval(_AsBraces().visit(written))
  except (ValueError, SyntaxError):
    return text


class _AsBraces(ast.NodeTransformer):
  """dict(a=1) written as {"a": 1}."""

  def visit_Call(self, node: ast.Call) -> ast.AST:
    self.generic_visit(node)
    if (
      not isinstance(node.func, ast.Name)
      or node.func.id != "dict"
      or node.args
      or not all(one.arg for one in node.keywords)
    ):
      return node
    keys = [ast.Constant(one.arg) for one in node.keywords]
    return ast.Dict(keys=keys, values=[one.value for one in node.keywords])


def parse(words: Sequence[str], known: Iterable[str]) -> list[tuple[str, str]]:
  """(key, text) of words such as "--config.batch.size=64", in the order in which they are to be carried out.

  A whole section comes before what is in it, and a name before its options. Raises UserError for another word, with
  the key of `known` that was probably meant.
  """
  pairs = []
  for place, word in enumerate(words):
    name, equals, text = word.partition("=")
    if not name.startswith(PREFIX) or not equals or not keys_of(name.removeprefix(PREFIX)):
      raise UserError(_not_an_override(words, place, list(known)))
    pairs.append((name.removeprefix(PREFIX), text))
  return sorted(pairs, key=lambda pair: (len(keys_of(pair[0])), not pair[0].endswith((".name", ".base"))))


def _not_an_override(words: Sequence[str], place: int, known: list[str]) -> str:
  name, equals, text = words[place].partition("=")
  key = name.removeprefix("--").removeprefix("config.").strip(".")
  value = (
    text if equals else next((word for word in words[place + 1 : place + 2] if not word.startswith("--")), "VALUE")
  )
  meant = [one for one in known if one == key] or [one for one in known if one.rpartition(".")[2] == key]
  if name.startswith(PREFIX) and key:
    return f"unexpected argument {words[place]!r}: the = is missing; write {PREFIX}{meant[0] if meant else key}={value}"
  if name.startswith("--") and meant:
    return f"unexpected argument {words[place]!r}; did you mean {PREFIX}{meant[0]}={value}?"
  return f"unexpected argument {words[place]!r}; overrides look like --config.batch.size=64"


def keys_of(key: str) -> tuple[str, ...]:
  """The parts of a dotted key; places in lists are parts too: "image[0].blur" is ("image", "[0]", "blur")."""
  return tuple(part for part in key.replace("[", ".[").split(".") if part)


def override(
  config: ml_collections.ConfigDict,
  key: str,
  text: str,
  base: Mapping[str, Any],
  *,
  prefix: str = PREFIX,
  where: str = "the config",
) -> None:
  """Sets `key`, a dotted path, of `config` in place to what `text` writes.

  Args:
    base: the config of all defaults.
    prefix: what stands before the key in messages, such as "--config.stages.NAME.".
    where: whose config it is, for messages.
  Raises UserError when no room knows the key, or it cannot have such a value.
  """
  with config.ignore_type(), config.unlocked():
    _Walk(base, prefix, where).set(config, (), keys_of(key), text)


class _Walk:
  """The way from the top of a config to one key, with the words for what can go wrong on it."""

  def __init__(self, base: Mapping[str, Any], prefix: str, where: str):
    self.base, self.prefix, self.where = base, prefix, where

  def name(self, path: Sequence[str]) -> str:
    return self.prefix + ".".join(path).replace(".[", "[")

  def set(self, holder: Any, path: tuple[str, ...], rest: tuple[str, ...], text: str) -> Any:
    """Sets `rest` of `holder`, which stands at `path`; returns what stands there now."""
    if not rest:
      return holder
    if isinstance(holder, list | tuple):
      return self._set_in_list(holder, path, rest, text)
    known = section(path, holder, self.base)
    holder = self._mapping(holder, known, path, rest)
    key, *more = rest
    here = (*path, key)
    is_known = known.options is None or key in known.options or key in holder
    if not is_known and not (known.names and not more and isinstance(literal(text), Mapping)):
      raise UserError(f"{self.name(here)}: {self.where} has no such key; {self._near(path, key, known, holder)}")
    default = (known.options or {}).get(key, REQUIRED)
    if more:
      inside = holder[key] if key in holder and holder[key] is not None else default
      inside = {} if inside is REQUIRED else dict(inside) if isinstance(inside, Mapping) else inside
      holder[key] = self.set(inside, here, tuple(more), text)
    else:
      now = holder.get(key, REQUIRED)
      holder[key] = self._value(text, now, default, section(here, None if now is REQUIRED else now, self.base), here)
    return holder

  def _set_in_list(self, holder: Sequence, path: tuple[str, ...], rest: tuple[str, ...], text: str) -> tuple:
    place = rest[0].strip("[]")
    if not rest[0].startswith("[") or not place.isdigit() or int(place) >= len(holder):
      inside = [part for part in rest if not part.startswith("[")]
      raise UserError(
        f"{self.name((*path, rest[0]))}: {self.name(path)} is a list of {len(holder)}; choose one of "
        f"them, such as {self.name((*path, '[0]', *inside))}=..."
      )
    items, here = list(holder), (*path, rest[0])
    if rest[1:]:
      items[int(place)] = _plain(self.set(items[int(place)], here, rest[1:], text))
    else:
      items[int(place)] = self._value(
        text, items[int(place)], REQUIRED, section(here, items[int(place)], self.base), here
      )
    return tuple(items)

  def _mapping(self, holder: Any, known: Section | None, path: tuple[str, ...], rest: tuple[str, ...]) -> Any:
    """`holder` as a mapping: itself, or what it is short for."""
    if known is None:
      raise UserError(
        f"{self.name((*path, *rest))}: {self.name(path)} is one value, {holder!r}, and has no {rest[0]!r}"
      )
    if isinstance(holder, Mapping | ml_collections.ConfigDict):
      return holder
    if known.short and (isinstance(holder, str) if known.short in ("name", "base") else _is_number(holder)):
      return {known.short: holder}
    if holder is None or rest[0] == "name":
      return {}
    raise UserError(
      f"{self.name((*path, *rest))}: {self.name(path)} is {holder!r}, not {known.kind} with options; "
      f'give it whole, such as {self.name(path)}="{_example(known)}"'
    )

  def _near(self, path: tuple[str, ...], key: str, known: Section, holder: Mapping) -> str:
    """The key that was probably meant: one of the same section, or one of this name elsewhere."""
    names = sorted({*known.options, *holder})
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    if not close and not path:
      elsewhere = [one for one in _leaves(self.base) if one.rpartition(".")[2] == key]
      if elsewhere:
        return f"did you mean {self.prefix + elsewhere[0]!r}?"
    if close:
      return f"did you mean {self.name((*path, close[0]))!r}?" + (f" ({_listed(names)})" if len(names) <= 12 else "")
    name = holder.get("name")
    if isinstance(name, str) and known.kind != "a mapping":
      return f"{known.kind} {name!r} has {', '.join(names)}"
    more = [_listed(names)] if names else []
    more += [f'a new name is given whole, {self.name((*path, key))}="{{...}}"'] if known.names else []
    return "; ".join(more)

  def _value(self, text: str, now: Any, default: Any, known: Section | None, path: tuple[str, ...]) -> Any:
    """The value that `text` means where `now` stands and `default` would; REQUIRED: there is none."""
    value, name = literal(text), self.name(path)
    if isinstance(value, Mapping):
      if known is None:
        raise UserError(f"{name}: takes one value, not {shown(value)}")
      return value
    if isinstance(now, Mapping | ml_collections.ConfigDict):
      known = known or Section(None)
      if isinstance(value, str) and known.short in ("name", "base"):
        return value
      first = next((key for key in ("peak", "init", "value", "size") if key in now), next(iter(now), "KEY"))
      alone = known.short or known.kind == "a schedule"  # not a whole section of the config
      whole = f'; or give it whole, such as {name}="{_example(known, value)}"' if alone else ""
      raise UserError(
        f"{name}: is {known.kind}, {shown(_plain(now))}; to change a part of it, {name}.{first}={text}{whole}"
      )
    examples = [one for one in (now, default) if one is not REQUIRED]
    holder = section(path[:-1], {}, self.base)
    if value is None and holder is not None and holder.options is None and isinstance(now, str):
      return None  # an option of a source: what else it takes is not known here
    return _typed(text, value, examples, holder is not None and holder.fixed, known, f"{name}={text}", path)


def _typed(
  text: str, value: Any, examples: list[Any], fixed: bool, known: Section | None, said: str, path: tuple[str, ...]
) -> Any:
  """`value`, or `text`, in the type that one of `examples` has; raises UserError when none has it."""
  kinds, key = {type(one) for one in examples if one is not None}, ".".join(path)
  takes_none = None in examples
  if not kinds or (value is None and takes_none):
    return value
  if isinstance(value, bool):
    if bool in kinds:
      return value
  elif _is_number(value):
    if kinds & {int, float} or takes_none or (known is not None and known.short == "init"):
      whole = int in kinds and float not in kinds and not takes_none and known is None
      return _number(value, whole, float in kinds and int not in kinds, examples, said)
  elif isinstance(value, list | tuple) and (kinds & {list, tuple} or takes_none or not fixed or key in _LISTS):
    return tuple(value)
  another_term = isinstance(value, str) and known is not None and known.kind == "a temperature"
  if str in kinds or text in _TEXTS.get(key, ()) or another_term:
    return text
  if kinds & {list, tuple}:
    return (value,)
  wanted = [
    word
    for kind, word in ((bool, "True or False"), (int, "a whole number"), (float, "a number"), (tuple, "a list"))
    if kind in kinds
  ]
  raise UserError(
    f"{said}: {' or '.join(wanted) or 'another value'} is needed, such as "
    f"{next(one for one in examples if one is not None)!r}"
  )


def fits(key: str, value: Any, default: Any) -> bool:
  """Whether `value` can stand at the dotted `key` of a config, where the default of the program is `default`."""
  if default is None or value == default:
    return True
  if isinstance(default, bool):
    return isinstance(value, bool) or value in _TEXTS.get(key, ())
  if isinstance(default, str):
    return isinstance(value, str) or (key in _LISTS and isinstance(value, list | tuple))
  if isinstance(default, list | tuple):
    return isinstance(value, list | tuple | str)
  if isinstance(value, Mapping):
    return key in _SCHEDULES
  if key in _LEAST and _is_number(value) and value < _LEAST[key]:
    return False
  return _is_number(value) and (isinstance(default, float) or isinstance(value, int))


def at_least(key: str) -> str:
  """What a message adds about the least number that can stand at `key`."""
  return f", at least {_LEAST[key]}" if key in _LEAST else ""


def _number(value: float, whole: bool, as_float: bool, examples: list[Any], said: str) -> int | float:
  if whole:
    if not math.isfinite(value) or value != int(value):
      raise UserError(f"{said}: a whole number is needed, such as {next((one for one in examples if one), 1)!r}")
    return int(value)
  return float(value) if as_float else value


_TEXTS = {"data.lower": ("canonicalize",)}
"""Texts that may stand where the default is none."""
_LISTS = ("sharding",)
"""Keys that may be lists, though their default is none."""
_LEAST = {
  "steps": 0,
  "epochs": 0,
  "batch.size": 1,
  "batch.microbatches": 1,
  "log.every_steps": 1,
  "matrix.tile": 0,
  "checkpoint.every_steps": 0,
  "evaluation.every_steps": 0,
  "evaluation.batch_size": 1,
}
"""The least that numbers can be."""
_SCHEDULES = ("momentum.decay", "ema.decay")
"""Keys of the program that may follow a schedule."""


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[str]:
  found = []
  for key, value in config.items():
    found += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [f"{prefix}{key}"]
  return found


def _plain(value: Any) -> Any:
  return value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value


def _listed(names: Sequence[str]) -> str:
  return nearest("", names).strip("()")


def shown(value: Any, most: int = 100) -> str:
  """A value as Python writes it, cut where it is long."""
  text = repr(value)
  return text if len(text) <= most else f"{text[:most]}..."


def _example(known: Section, value: Any = 0.001) -> str:
  """A mapping of the kind, as a user would write it."""
  value = value if _is_number(value) else 0.001
  if known.kind == "a schedule":
    return f"{{'name': 'constant', 'value': {value}}}"
  if known.kind == "a temperature":
    return f"{{'init': {value}, 'learned': False}}"
  return f"{{'{known.short or 'name'}': ...}}"
