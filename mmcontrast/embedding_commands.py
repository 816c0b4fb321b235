"""`mmcontrast embed`, `index` and `search`: embeddings of a set, an index of them, what is nearest."""

from __future__ import annotations

import argparse

from mmcontrast.command_line import add_bulk, add_command, add_kept, add_source, add_width, late_source, source_options
from mmcontrast.errors import UserError


def add(commands: argparse._SubParsersAction) -> None:
  """The commands of embeddings."""
  _add_embed(commands)
  _add_index(commands)
  _add_search(commands)


def _add_embed(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast embed`."""
  embed = add_command(
    commands,
    "embed",
    _embed,
    "Embed all images and captions of a source, in shards; running it again resumes. "
    "Options of the source follow as --source.key=value.",
    takes_more=True,
  )
  embed.add_argument("--workdir", required=True, help="the folder of the run")
  embed.add_argument("--out", required=True, help="the folder of the embeddings")
  embed.add_argument(
    "--kind",
    metavar="MODALITY",
    help="such as image, text, audio, several as image,audio, or both (images and captions); default: what both the "
    "source and the run have",
  )
  embed.add_argument("--format", choices=["npy", "parquet"], default="npy", help="of the files (default: npy)")
  embed.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")
  add_width(embed)
  embed.add_argument(
    "--map", metavar="FILE.npz", help="a map of `mmcontrast align`, which puts the vectors into another run's space"
  )
  add_source(embed)
  add_kept(embed)
  add_bulk(embed)


def _add_index(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast index`."""
  index = add_command(
    commands,
    "index",
    _index,
    "Index what `mmcontrast embed` made, in files that `mmcontrast search --index` looks into without loading them; "
    "running it again resumes.",
    reads_data=False,
  )
  index.add_argument("embeddings", metavar="EMBEDDINGS", help="a folder of `mmcontrast embed`, all of it made")
  index.add_argument("--out", required=True, help="the folder of the index, on a disk")
  index.add_argument("--kind", metavar="MODALITY", help="such as image, text (default: images, if there are any)")
  index.add_argument(
    "--width", type=int, default=0, metavar="NUMBERS", help="so many of the first numbers are compared (default: all)"
  )
  add_bulk(index)


def _add_search(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast search`."""
  search = add_command(
    commands,
    "search",
    _search,
    "Find the images, captions or sounds nearest to words, to an image or to a sound: in a source, in an "
    "evaluation set of the run, or in what `mmcontrast embed` made. "
    "Options of the source follow as --source.key=value.",
    takes_more=True,
  )
  search.add_argument("query", help="words, or the path of an image or a sound")
  search.add_argument(
    "source", nargs="?", help="NAME or KIND:PATH, as data.dataset of a config (default: an evaluation set)"
  )
  search.add_argument("--workdir", required=True, help="the folder of the run")
  search.add_argument("--split", help="the split of the source (default: train)")
  search.add_argument(
    "--dataset", metavar="SET", help="an evaluation set of the run (default: the last of the config's)"
  )
  search.add_argument("--embeddings", metavar="DIR", help="search what `mmcontrast embed` made with this run")
  search.add_argument(
    "--index", metavar="DIR", help="what `mmcontrast index` made of them; with --embeddings, where those are now"
  )
  search.add_argument(
    "--probes", type=int, default=0, help="lists of the index to look into (default: a sixteenth of them, at most 256)"
  )
  search.add_argument(
    "--kind", metavar="MODALITY", help="what to find, such as image, text, audio (default: images, if there are any)"
  )
  search.add_argument(
    "--query_kind", metavar="MODALITY", help="what the query is, where the name of its file does not say it"
  )
  search.add_argument("--out", metavar="FILE.png", help="a picture of the results")
  search.add_argument("--count", type=int, default=10, help="how many (default: 10)")
  search.add_argument(
    "--rerank",
    type=int,
    default=0,
    metavar="FIRST",
    help="put so many of the nearest in order by the run's matching head, such as 64 (default: 0, none)",
  )
  add_width(search)
  search.add_argument(
    "--map",
    metavar="FILE.npz",
    help="with --embeddings of another run: a map of `mmcontrast align` from the space of this run into theirs",
  )


def _embed(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.embed import embed

  print(
    embed(
      options.workdir,
      options.source,
      options.out,
      options=source_options(words),
      split=options.split,
      kind=options.kind,
      format=options.format,
      step=options.step,
      width=options.width,
      to_space=options.map,
      kept=options.kept,
      part=options.part,
      ray=options.ray,
      data_dir=options.data_dir,
    )
  )


def _index(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.index import index

  print(
    index(options.embeddings, options.out, kind=options.kind, width=options.width, part=options.part, ray=options.ray)
  )


def _search(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.search import search

  words = late_source(options, words)
  if words and not words[0].startswith("-"):
    raise UserError(
      f"unexpected argument {words[0]!r}; a query of several words goes in quotes: mmcontrast search "
      f'"{options.query} {options.source} {words[0]}"'
    )
  found = search(
    options.workdir,
    options.query,
    options.source,
    options=source_options(words),
    split=options.split,
    dataset=options.dataset,
    embeddings=options.embeddings,
    index=options.index,
    probes=options.probes,
    kind=options.kind,
    query_kind=options.query_kind,
    count=options.count,
    width=options.width,
    rerank=options.rerank,
    to_space=options.map,
    out=options.out,
    data_dir=options.data_dir,
  )
  for one in found:
    print(one.line)
  if options.out:
    from mmcontrast.report.picture_path import png_path

    print(png_path(options.out, "--out"))
