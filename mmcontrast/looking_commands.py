"""The commands that look into a run: `mmcontrast report`, `mmcontrast demo` and `mmcontrast layers`."""

from __future__ import annotations

import argparse

from mmcontrast.command_line import add_command, late_source, source_options
from mmcontrast.errors import UserError


def add(commands: argparse._SubParsersAction) -> None:
  """Adds them."""
  _add_report(commands)
  _add_demo(commands)
  _add_layers(commands)


def _add_report(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast report`."""
  report = add_command(
    commands,
    "report",
    _report,
    "Write a run as one HTML page that opens without a server or a network: curves, the mixture as a graph, results "
    "with intervals, hits and misses, confusions, a map of the embeddings, the config. Options of a source follow as "
    "--source.key=value.",
    takes_more=True,
  )
  report.add_argument(
    "source", nargs="?", help="NAME or KIND:PATH, as data.dataset of a config (default: the sets of config.evaluation)"
  )
  report.add_argument("--workdir", required=True, help="the folder of the run")
  report.add_argument("--out", metavar="FILE.html", help="the page (default: report.html in the folder of the run)")
  report.add_argument(
    "--compare", nargs="+", action="extend", default=[], metavar="RUN", help="other runs, shown beside this one"
  )
  report.add_argument("--split", help="the split of the source (default: all of it)")
  report.add_argument(
    "--dataset",
    metavar="SET",
    help="which set retrieval, confusions and the map are of (default: the last of the run's)",
  )
  report.add_argument(
    "--examples", type=int, default=2000, help="how many things of a modality the map shows at most (default: 2000)"
  )
  report.add_argument(
    "--projection", default="pca", metavar="NAME", help="pca, or umap for both, which takes longer (default: pca)"
  )
  report.add_argument(
    "--embedding_atlas", metavar="FILE.parquet", help="write the map besides as a table that embedding-atlas opens"
  )
  report.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")


def _add_demo(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast demo`."""
  demo = add_command(
    commands,
    "demo",
    _demo,
    "Open a page on this machine (127.0.0.1) that searches by words, pictures and sounds, mixes words and a picture, "
    "and classifies by names of your choice. Options of a source follow as --source.key=value.",
    takes_more=True,
  )
  demo.add_argument("source", nargs="?", help="what is searched, as of mmcontrast search (default: an evaluation set)")
  demo.add_argument("--workdir", required=True, help="the folder of the run")
  demo.add_argument("--embeddings", metavar="DIR", help="search what `mmcontrast embed` made with this run")
  demo.add_argument("--split", help="the split of the source (default: train)")
  demo.add_argument("--dataset", metavar="SET", help="an evaluation set of the run (default: the last of the config's)")
  demo.add_argument("--port", type=int, default=7860, help="default: 7860; 0: any that is free")
  demo.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")


def _add_layers(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast layers`."""
  layers = add_command(
    commands,
    "layers",
    _layers,
    "Compare all layers of two towers, of one run or of several, by mutual k-NN and CKA: a table of layers x layers as "
    "JSON and CSV, and the best pair. Options of a source follow as --source.key=value.",
    takes_more=True,
  )
  layers.add_argument("source", nargs="?", help="NAME or KIND:PATH (default: an evaluation set of the run)")
  layers.add_argument("--workdir", required=True, help="the folder of the run")
  layers.add_argument(
    "--compare", nargs="+", action="extend", default=[], metavar="RUN", help="other runs, whose second tower it is"
  )
  layers.add_argument(
    "--towers", metavar="ONE,OTHER", help="which two (default: the first two of a run; of several the same of each)"
  )
  layers.add_argument("--split", help="the split of the source (default: all of it)")
  layers.add_argument("--dataset", metavar="SET", help="an evaluation set of the run (default: the last)")
  layers.add_argument("--examples", type=int, default=1000, help="how many at most, the first (default: 1000)")
  layers.add_argument("--k", type=int, default=10, help="of the nearest neighbours (default: 10)")
  layers.add_argument(
    "--pool",
    default="mean",
    help="mean of a layer's positions, or first, of towers with a learned token (default: mean)",
  )
  layers.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")
  layers.add_argument("--out", metavar="FILE.json", help="default: layers.json in the folder of the run")


def _layers(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.layers import layers, said

  words = late_source(options, words)
  _check_source(options, words, "layers")
  made = layers(
    options.workdir,
    options.source,
    compare=options.compare,
    towers=options.towers,
    options=source_options(words),
    split=options.split,
    dataset=options.dataset,
    examples=options.examples,
    k=options.k,
    pool=options.pool,
    step=options.step,
    out=options.out,
    data_dir=options.data_dir,
  )
  print(said(made))


def _check_source(options: argparse.Namespace, words: list[str], command: str) -> None:
  """Raises UserError for a word that is no option of a source, and for options of a source that is not named."""
  for name, value in (("--split", options.split), *zip(words, words)):
    if value is not None and options.source is None:
      if not name.startswith(("--split", "--source.")):
        raise UserError(f"unexpected argument {name!r}; options of a source look like --source.caption=alt")
      raise UserError(
        f"{name} is an option of a source; name one: mmcontrast {command} SOURCE --workdir {options.workdir}"
      )


def _demo(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.demo import demo

  words = late_source(options, words)
  demo(
    options.workdir,
    options.source,
    options=source_options(words),
    split=options.split,
    dataset=options.dataset,
    embeddings=options.embeddings,
    port=options.port,
    step=options.step,
    data_dir=options.data_dir,
  )


def _report(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.run_report import report

  words = late_source(options, words)
  _check_source(options, words, "report")
  print(
    report(
      options.workdir,
      options.out,
      compare=options.compare,
      source=options.source,
      options=source_options(words),
      split=options.split,
      dataset=options.dataset,
      examples=options.examples,
      projection=options.projection,
      embedding_atlas=options.embedding_atlas,
      step=options.step,
      data_dir=options.data_dir,
    )
  )
  if options.embedding_atlas:
    print(options.embedding_atlas)
