"""`mmcontrast data` and its commands: build, list, index, inspect, filter, dedup, balance, retrieve,
convert, tokenizer."""

from __future__ import annotations

import argparse
import dataclasses
import typing

from mmcontrast.command_line import add_bulk, add_command, add_kept, add_source, source_options
from mmcontrast.errors import UserError, choose

if typing.TYPE_CHECKING:
  from mmcontrast.curate import Asked


def add(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast data` and its commands."""
  data = commands.add_parser("data", help="List, build, index, inspect and convert datasets; train tokenizers.")
  commands = data.add_subparsers(required=True, metavar="command")
  build = add_command(commands, "build", _build, "Build a dataset from its packages.")
  build.add_argument("name", help="emoji_views, emoji_noto, emoji_scenes, ...: `mmcontrast data list` names all")
  build.add_argument("--force", action="store_true", help="build it again")

  add_command(
    commands, "list", _list, "List the datasets that are built or can be, and the kinds of data that are read."
  )

  index = add_command(
    commands,
    "index",
    _index,
    "Write an index next to each tar or TFRecord shard. Shards that have one are skipped.",
    reads_data=False,
  )
  index.add_argument("pattern", help="such as '/data/{000..099}.tar' or 'tfrecord:gs://bucket/*.tfrecord'")

  inspect = add_command(
    commands,
    "inspect",
    _inspect,
    "Print what a dataset holds: counts, schema, five examples. Options of the source follow as --source.key=value.",
    takes_more=True,
  )
  inspect.add_argument("--out", help="a contact sheet to write, such as sheet.png")
  inspect.add_argument(
    "--shuffled_captions", type=float, default=0.0, metavar="SHARE", help="as data.shuffled_captions.share of a run"
  )
  inspect.add_argument("--shuffle_seed", type=int, default=0, metavar="SEED", help="as data.shuffled_captions.seed")

  _add_curation(commands)
  retrieve = add_command(
    commands,
    "retrieve",
    _retrieve,
    "Write the texts that a run finds nearest to each record of a dataset, as further captions of it "
    "(config.data.added_captions). Options of the source follow as --source.key=value.",
    takes_more=True,
  )
  add_source(retrieve)
  retrieve.add_argument("--workdir", required=True, help="the folder of the run that compares")
  retrieve.add_argument("--field", required=True, help="what the captions are called, such as concept")
  retrieve.add_argument("--out", required=True, metavar="FILE", help="the file; one that is there gets one field more")
  retrieve.add_argument(
    "--texts", metavar="FILE", help="what is searched, a text a line (default: the data's captions)"
  )
  retrieve.add_argument(
    "--by", metavar="MODALITY", help="what of a record searches (default: its images, else captions)"
  )
  retrieve.add_argument("--count", type=int, default=3, help="how many for each record (default: 3)")

  convert = add_command(
    commands,
    "convert",
    _convert,
    "Convert a dataset; running it again resumes. Options of the source follow as --source.key=value.",
    takes_more=True,
  )
  convert.add_argument("--to", required=True, choices=["array_record"])
  convert.add_argument("--out", required=True, help="the folder of the files")
  convert.add_argument("--shards", type=int, help="how many files (default: one for each 10,000 records)")

  tokenizer = add_command(
    commands,
    "tokenizer",
    _tokenizer,
    "Train a sentencepiece model on the texts of a dataset. "
    "Options of the source follow as --source.key=value; --source.image=None reads no images.",
    takes_more=True,
  )
  tokenizer.add_argument("--out", required=True, help="the file to write, such as tokenizer.model")
  tokenizer.add_argument("--vocab_size", type=int, default=8000, help="how many tokens (default: 8000)")
  for command in (inspect, convert, tokenizer):
    add_source(command)
  for command in (index, convert):
    command.add_argument("--workers", type=int, help="processes (default: one for each core)")
    add_bulk(command, on_ray=False)


def _add_curation(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast data filter`, `dedup` and `balance`."""
  kept = "Writes an index of the records that are kept (config.data.kept), never a copy; running it again resumes. "
  options = "Options of the source follow as --source.key=value."
  filtered = add_command(
    commands,
    "filter",
    _filter,
    f"Keep the records whose captions and images pass bounds, or that a run scores high. {kept}{options}",
    takes_more=True,
  )
  filtered.add_argument("--rules", metavar="NAME", help="bounds by name: datacomp; those that are given go first")
  for name, kind, text in (
    ("min_words", int, "of a caption"),
    ("min_characters", int, "of a caption"),
    ("min_side", int, "of an image, its shorter side in pixels"),
    ("max_aspect", float, "of an image, the longer side by the shorter"),
  ):
    filtered.add_argument(f"--{name}", type=kind, help=text)
  filtered.add_argument("--workdir", help="the folder of a run, which scores images with their captions")
  filtered.add_argument("--min_score", type=float, metavar="COSINE", help="the lowest score that is kept")
  filtered.add_argument("--top", type=float, metavar="SHARE", help="instead, the share of records that score highest")

  dedup = add_command(
    commands, "dedup", _dedup, f"Keep of records that are alike the first. {kept}{options}", takes_more=True
  )
  dedup.add_argument(
    "--exact", default="", metavar="MODALITY", help="compare it as it is stored, such as image or text"
  )
  dedup.add_argument(
    "--perceptual", type=int, metavar="BITS", help="pictures whose 64-bit prints differ at most so much"
  )
  dedup.add_argument("--embeddings", metavar="DIR", help="what mmcontrast embed made of the same records")
  dedup.add_argument("--near", type=float, metavar="COSINE", help="rows of them that are so near are alike")
  dedup.add_argument("--kind", default="image", metavar="MODALITY", help="of those rows (default: image)")

  balance = add_command(
    commands,
    "balance",
    _balance,
    "Keep a number of captions of each entry of a list, as MetaCLIP does (of classes of labels an epoch is balanced by "
    f"config.data.balance instead). {kept}{options}",
    takes_more=True,
  )
  balance.add_argument("--entries", required=True, metavar="FILE", help="words and phrases: one a line, or a JSON list")
  balance.add_argument("--most", type=int, default=20_000, help="about so many captions of an entry (default: 20000)")
  balance.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
  for command in (filtered, dedup, balance):
    command.add_argument("--out", required=True, metavar="DIR", help="the folder of the index")
    add_source(command)
    add_kept(command)
    add_bulk(command)


def _asked(options: argparse.Namespace, words: list[str]) -> Asked:
  from mmcontrast.curate import Asked

  names = ("out", "split", "kept", "part", "ray", "data_dir")
  return Asked(options.source, options=source_options(words), **{name: getattr(options, name) for name in names})


def _filter(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.curate import filter_records
  from mmcontrast.data.curation.rules import RULES, Rules

  bounds = RULES[choose(options.rules, RULES, "--rules")] if options.rules is not None else Rules()
  names = [field.name for field in dataclasses.fields(Rules)]
  given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
  scored = {name: getattr(options, name) for name in ("workdir", "min_score", "top")}
  print(filter_records(_asked(options, words), bounds=dataclasses.replace(bounds, **given), **scored))


def _dedup(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.curate import dedup

  names = ("exact", "perceptual", "embeddings", "kind")
  print(dedup(_asked(options, words), near_from=options.near, **{name: getattr(options, name) for name in names}))


def _balance(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.curate import balance

  print(balance(_asked(options, words), entries=options.entries, most=options.most, seed=options.seed))


def _build(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.data.build import build_dataset

  print(build_dataset(options.name, options.data_dir, force=options.force))


def _list(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.data.catalogue import catalogue

  print(catalogue(options.data_dir))


def _index(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.data.index_shards import index_shards

  print(index_shards(options.pattern, options.workers, options.part))


def _inspect(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.data import inspection, shuffled, sources
  from mmcontrast.report.picture_path import png_path

  out = png_path(options.out, "--out") if options.out else None
  named = {"dataset": options.source, "source": source_options(words)}
  named["shuffled_captions"] = {"share": options.shuffled_captions, "seed": options.shuffle_seed}
  shuffled.check(named["shuffled_captions"])
  source = sources.open_source(named, options.split, options.data_dir)
  found = inspection.inspect(source)
  print(found.text)
  if found.fault:
    raise UserError(found.fault)
  if out:
    from mmcontrast.report.contact_sheet import draw_contact_sheet
    from mmcontrast.report.picture_path import keep_files

    shown, words = inspection.pictures(source)
    print(draw_contact_sheet(out, [one.picture for one in shown], words, f"{options.source}, {options.split}"))
    if files := keep_files(out, [one.file for one in shown]):
      print(f"{files[0]} to {files[-1].name}")


def _retrieve(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.retrieve import retrieve

  print(
    retrieve(
      options.workdir,
      options.source,
      options.field,
      options.out,
      options=source_options(words),
      split=options.split,
      texts=options.texts,
      by=options.by,
      count=options.count,
      data_dir=options.data_dir,
    )
  )


def _convert(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.data.convert import convert

  print(
    convert(
      options.source,
      source_options(words),
      options.split,
      options.out,
      options.shards,
      options.workers,
      options.data_dir,
      options.part,
    )
  )


def _tokenizer(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.data import sources
  from mmcontrast.data.train_tokenizer import train_tokenizer

  named = {"dataset": options.source, "source": source_options(words)}
  print(train_tokenizer(sources.open_source(named, options.split, options.data_dir), options.out, options.vocab_size))
