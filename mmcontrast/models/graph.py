"""What reads what: towers other towers, heads towers or other heads, as a config says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcontrast.encoders import ENCODERS
from mmcontrast.errors import UserError, choose
from mmcontrast.registry import unwrapped


def reads_of(config: Mapping) -> dict[str, tuple[str, ...]]:
  """Tower -> the towers whose tokens it reads, of the towers that encode no view.

  Raises UserError for a tower that is not there, for towers that read each other in a circle, for an encoder that
  reads views, and for one that reads towers and is given none, or too few.
  """
  towers, found = config["towers"], {}
  for name, options in towers.items():
    where, kind, reads = f"config.towers.{name}", options.get("name"), options.get("reads")
    least = getattr(unwrapped(ENCODERS[kind]), "READS", 0) if kind in ENCODERS else 0
    if not reads:
      if least:
        others = tuple(other for other in towers if other != name)[:least]
        raise UserError(
          f"{where}.reads: a {kind!r} reads the tokens of {least} or more other towers; name them"
          + (f", such as reads={others}" if len(others) == least else ": this config has too few")
        )
      continue
    reads = (reads,) if isinstance(reads, str) else tuple(reads)
    if not least:
      fitting = [other for other, builder in ENCODERS.items() if hasattr(unwrapped(builder), "READS")]
      raise UserError(
        f"{where}.reads: a {kind!r} encodes the views of a modality and reads no other tower; take name="
        f"{' or '.join(map(repr, fitting))}, or leave reads out"
      )
    if options.get("modality"):
      raise UserError(f"{where}: reads={reads} and modality={options['modality']!r}; a tower has one of the two")
    for read in reads:
      choose(read, [other for other in towers if other != name], f"{where}.reads")
    if len(reads) < least:
      raise UserError(f"{where}.reads: a {kind!r} reads {least} or more towers, and {list(reads)} are {len(reads)}")
    found[name] = reads
  for name in found:
    _check_no_circle(name, found, ())
  return found


def _check_no_circle(name: str, reads: Mapping[str, tuple[str, ...]], line: tuple[str, ...]) -> None:
  if name in line:
    circle = " reads ".join((*line[line.index(name) :], name))
    raise UserError(f"config.towers.{name}.reads: {circle}, which is a circle; let one of them encode a view")
  for read in reads.get(name, ()):
    _check_no_circle(read, reads, (*line, name))


def same_as_of(config: Mapping) -> dict[str, str]:
  """Tower -> the tower whose encoder and parameters it is, of those that say `same_as`: one tower for two modalities.

  Raises UserError for a tower that is not there, or reads no view, and for options beside `modality`.
  """
  towers, found = config["towers"], {}
  for name, options in towers.items():
    if (owner := options.get("same_as")) is None:
      continue
    where = f"config.towers.{name}"
    fitting = [one for one, of in towers.items() if not of.get("same_as") and not of.get("reads")]
    choose(owner, fitting, f"{where}.same_as")
    if more := [key for key in options if key not in ("same_as", "modality")]:
      raise UserError(f"{where}.{more[0]}: same_as={owner!r} has the options of that tower; leave this one out")
    found[name] = owner
  return found


def sources_of(config: Mapping) -> dict[str, tuple[str, str]]:
  """Head -> ("towers" or "heads", what it reads there); raises UserError for what is not there."""
  return {
    name: _source_of(name, options, config["towers"], config["heads"]) for name, options in config["heads"].items()
  }


def _source_of(name: str, options: Mapping[str, Any], towers: Mapping, heads: Mapping) -> tuple[str, str]:
  tower, source = options.get("tower"), options.get("of")
  where = f"config.heads.{name}"
  if source is None:
    return "towers", choose(tower or "", towers, f"{where}.tower")
  if tower is not None:
    raise UserError(f"{where}: tower={tower!r} and of={source!r}; a head reads one of the two, leave the other out")
  choose(source, [*towers, *(other for other in heads if other != name)], f"{where}.of")
  if source in towers and source in heads:
    raise UserError(f"{where}.of: {source!r} is a tower and a head; write tower={source!r}, or rename the head")
  return ("towers" if source in towers else "heads"), source


def root_of(head: str, sources: Mapping[str, tuple[str, str]]) -> str:
  """The tower at the end of what a head reads; raises UserError where heads read each other in a cycle."""
  line, kind, source = [head], *sources[head]
  while kind == "heads":
    if source in line:
      raise UserError(f"config.heads.{head}.of: {' of '.join([*line, source])} is a cycle; let one read a tower")
    line.append(source)
    kind, source = sources[source]
  return source


def first_read(tower: str, reads: Mapping[str, tuple[str, ...]]) -> str:
  """The tower of views at the first end of what a tower reads: that whose tokens go through it."""
  while tower in reads:
    tower = reads[tower][0]
  return tower
