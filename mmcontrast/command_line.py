"""What the commands of the command line share: how one is added, its source, and options of that source."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mmcontrast.errors import UserError

DATA_DIR = "where datasets live (default: $MMCONTRAST_DATA or ~/.cache/mmcontrast/data)"


def add_command(
  commands: argparse._SubParsersAction,
  name: str,
  function: Callable[[argparse.Namespace, list[str]], None],
  text: str,
  reads_data: bool = True,
  epilog: str | None = None,
  takes_more: bool = False,
) -> argparse.ArgumentParser:
  """A command, which runs `function` with the options and, where it `takes_more`, the words that are none of them."""
  command = commands.add_parser(
    name,
    help=text,
    description=text,
    allow_abbrev=False,
    epilog=epilog,
    formatter_class=argparse.RawDescriptionHelpFormatter if epilog else argparse.HelpFormatter,
  )
  command.set_defaults(command=function, takes_more=takes_more)
  if reads_data:
    command.add_argument("--data_dir", help=DATA_DIR)
  return command


def add_source(command: argparse.ArgumentParser) -> None:
  command.add_argument("source", help="NAME or KIND:PATH, as data.dataset of a config")
  command.add_argument("--split", default="train", help="the split (default: train)")


def add_bulk(command: argparse.ArgumentParser, on_ray: bool = True) -> None:
  """How machines share the work of a command."""
  command.add_argument(
    "--part", metavar="I/N", help="only part I of N, counted from 0, such as $SLURM_ARRAY_TASK_ID/8 (default: all)"
  )
  if on_ray:
    command.add_argument(
      "--ray", metavar="ADDRESS", help="let the machines of a Ray cluster do the work: auto, or HOST:PORT"
    )


def add_kept(command: argparse.ArgumentParser) -> None:
  command.add_argument(
    "--kept", default="", metavar="DIR", help="only what `data filter`, `dedup` or `balance` kept, as data.kept"
  )


def add_width(command: argparse.ArgumentParser) -> None:
  command.add_argument(
    "--width",
    type=int,
    metavar="NUMBERS",
    help="how many of the first numbers of an embedding are used, a width that `matryoshka` of a term trained; "
    "0: all (default: config.evaluation.width)",
  )


def source_options(words: list[str]) -> dict[str, object]:
  """The `data.source` that words such as "--source.caption=alt" write."""
  from mmcontrast.config.overrides import literal

  given = {}
  for word in words:
    name, equals, text = word.partition("=")
    if not name.startswith("--source.") or not equals:
      raise UserError(f"unexpected argument {word!r}; options of the source look like --source.caption=alt")
    given[name.removeprefix("--source.")] = literal(text)
  return given


def late_source(options: argparse.Namespace, words: list[str]) -> list[str]:
  """`words` without a SOURCE that follows options, which argparse takes for one word too many."""
  if words and options.source is None and not words[0].startswith("-"):
    options.source, *words = words
  return words
