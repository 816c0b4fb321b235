"""The command line: `mmcontrast <command>`. A user's mistake is one line and exit code 2."""

from __future__ import annotations

import argparse
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence

from absl import logging

from mmcontrast.errors import Preempted, UserError

DATA_DIR = "where datasets live (default: $MMCONTRAST_DATA or ~/.cache/mmcontrast/data)"


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit code."""
  parser = _parser()
  words = sys.argv[1:] if arguments is None else list(arguments)
  options, rest = parser.parse_known_args(words)
  if rest and options.command is not _train:
    parser.error(f"unexpected argument {rest[0]!r}")
  # Orbax and grain talk a lot through absl; what they report there as an error they also raise.
  logging.set_verbosity(logging.FATAL)
  # A resumed run, or the next evaluation, need not compile again.
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/mmcontrast/compiled"))
  try:
    options.command(options, rest)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except Preempted as stop:
    from mmcontrast import distributed
    if distributed.is_first():
      print(f"{stop}; to continue: {shlex.join(['mmcontrast', *words])}")
    return 0
  except KeyboardInterrupt:
    print("interrupted; run the same command again to resume from the last checkpoint", file=sys.stderr)
    return 130
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser("mmcontrast", description=__doc__, allow_abbrev=False)
  commands = parser.add_subparsers(required=True, metavar="command")

  def add(name, function, text):
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.set_defaults(command=function)
    command.add_argument("--data_dir", help=DATA_DIR)
    return command

  train = add("train", _train, "Train a config; running it again resumes. "
              "Overrides follow as --config.key=value.")
  train.add_argument("--config", required=True, metavar="FILE[:ARG]", help="such as configs/quickstart.py")
  train.add_argument("--workdir", help="where checkpoints and metrics go")
  train.add_argument("--dry_run", action="store_true",
                     help="compile only: print parameters, shardings, FLOPs, memory and collectives; needs no data")
  train.add_argument("--devices", type=int, help="with --dry_run: how many devices to simulate (default: those here)")

  evaluate = add("evaluate", _evaluate, "Evaluate a run: evaluation.json, retrieval.png, a table.")
  evaluate.add_argument("--workdir", required=True)
  evaluate.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")

  search = add("search", _search, "Find the images nearest to a text, or to an image file.")
  search.add_argument("query", help="words, or the path of an image")
  search.add_argument("--workdir", required=True)
  search.add_argument("--dataset", help="which evaluation set to search (default: the last of the config's)")
  search.add_argument("--out", required=True, help="the picture to write")
  search.add_argument("--count", type=int, default=10, help="how many images")

  data = commands.add_parser("data", help="Build datasets.").add_subparsers(required=True, metavar="command")
  build = data.add_parser("build", help="Build a dataset from its packages.", allow_abbrev=False)
  build.set_defaults(command=_build)
  build.add_argument("name", help="emoji_views or emoji_noto")
  build.add_argument("--data_dir", help=DATA_DIR)
  build.add_argument("--force", action="store_true", help="build it again")
  return parser


def _train(options: argparse.Namespace, overrides: list[str]) -> None:
  if options.devices is not None and not options.dry_run:
    raise UserError("--devices simulates devices, for --dry_run only; to train on some of those here, set config.mesh")
  if not (options.workdir or options.dry_run):
    raise UserError("--workdir is missing: where checkpoints and metrics go, such as --workdir runs/mine")
  from mmcontrast.config import load_config
  config = load_config(options.config, overrides)
  if options.dry_run:
    from mmcontrast.dry_run import dry_run
    print(dry_run(config, options.devices, options.data_dir))
    return
  from mmcontrast import distributed
  from mmcontrast.train import train
  with distributed.session(config["distributed"]):
    train(config, options.workdir, options.data_dir)


def _evaluate(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.evaluate import evaluate_workdir
  evaluate_workdir(options.workdir, options.step, options.data_dir)


def _search(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.evaluate import search_workdir
  search_workdir(options.workdir, options.query, options.out, options.dataset, options.count, options.data_dir)


def _build(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.data.build import build_dataset
  print(build_dataset(options.name, options.data_dir, force=options.force))


if __name__ == "__main__":
  sys.exit(main())
