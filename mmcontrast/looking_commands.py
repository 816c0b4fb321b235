"""The commands that show a run to a person: `mmcontrast report` and `mmcontrast demo`."""

from __future__ import annotations

import argparse

from mmcontrast.command_line import add_command, late_source, source_options
from mmcontrast.errors import UserError


def add(commands: argparse._SubParsersAction) -> None:
  """Adds both."""
  _add_report(commands)
  _add_demo(commands)


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
  for name, value in (("--split", options.split), *zip(words, words)):
    if value is not None and options.source is None:
      if not name.startswith(("--split", "--source.")):
        raise UserError(f"unexpected argument {name!r}; options of a source look like --source.caption=alt")
      raise UserError(
        f"{name} is an option of a source; name one: mmcontrast report SOURCE --workdir {options.workdir}"
      )
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
