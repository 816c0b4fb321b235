"""The command line: `mmcontrast <command>`. A user's mistake is one line and exit code 2."""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

from absl import logging

from mmcontrast import __version__, adaptation_commands, data_commands, embedding_commands, folders, looking_commands
from mmcontrast.command_line import add_command, add_width, late_source, source_options
from mmcontrast.errors import Preempted, UserError

_PIPE_CLOSED = 141  # as of other programs that SIGPIPE ends


OVERRIDES = """Overrides, as --config.KEY=VALUE, of any option (docs/config.md lists all); the most used:

  --config.steps=5000                          optimizer steps, or --config.epochs=30 with --config.steps=0
  --config.batch.size=256                      examples a step, over all devices
  --config.batch.microbatches=4                encode the batch in this many parts, to save memory
  --config.seed=1
  --config.optimizer.learning_rate.peak=1e-3   of a schedule; .warmup_steps=100
  --config.optimizer.weight_decay=0.1
  --config.data.dataset=jsonl:/data/mine.jsonl NAME or KIND:PATH (docs/data.md)
  --config.data.source.caption=title           an option of the dataset
  --config.data.image_size=224                 pixels
  --config.data.text_length=77                 tokens of a caption
  --config.towers.image.width=384              an option of a tower, named by the config; heads likewise
  --config.objective.TERM.weight=0.5           an option of a term, named by the config
  --config.checkpoint.every_steps=1000
  --config.evaluation.every_steps=1000         evaluate while training; 0: only by mmcontrast evaluate
  --config.log.every_steps=10
  --config.mesh.fsdp=8 --config.sharding=fsdp  parameters sharded over devices (docs/scaling.md)
  --config.stages.STAGE.steps=500              in one stage only
"""


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit code."""
  parser = _parser()
  words = sys.argv[1:] if arguments is None else list(arguments)
  # argparse takes a word with a space in it for a positional argument, also `--config.x={"a": 1}`.
  dotted = [word for word in words if re.match(r"--\w+\.[^=\s]*=", word)]
  options, rest = parser.parse_known_args([word for word in words if word not in dotted])
  rest += dotted
  if rest and not options.takes_more:
    parser.error(f"unexpected argument {rest[0]!r}")
  # Orbax and grain talk a lot through absl; what they report there as an error they also raise.
  logging.set_verbosity(logging.FATAL)
  # A resumed run, or the next evaluation, need not compile again.
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/mmcontrast/compiled"))
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):
      stream.reconfigure(errors="backslashreplace")  # a terminal or pipe that is not UTF-8 is no reason to fail
  try:
    _expand_home(options)
    for name in ("workdir", "out"):
      if given := getattr(options, name, None):
        folders.at(given, f"--{name}")
    if getattr(options, "data_dir", None):
      folders.local(options.data_dir, "--data_dir", "TFDS and ArrayRecord read from a disk")
    options.command(options, rest)
    sys.stdout.flush()
  except BrokenPipeError:  # of `mmcontrast ... | head`: nobody reads on
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _PIPE_CLOSED
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except OSError as error:
    if (line := folders.of_the_system(error)) is None:
      raise
    print(f"error: {line}", file=sys.stderr)
    return 2
  except Preempted as stop:
    from mmcontrast.parallel import distributed

    if distributed.is_first():
      print(f"{stop}; to continue: {shlex.join(['mmcontrast', *words])}")
    from mmcontrast.training.preemption import exit_code

    return exit_code()
  except KeyboardInterrupt:
    print("interrupted; run the same command again to resume from what is saved", file=sys.stderr)
    return 130
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    "mmcontrast",
    allow_abbrev=False,
    description=(
      "Multimodal contrastive pretraining in JAX. A mistake in a command, a config or the data is one line, "
      "exit code 2. "
      "mmcontrast COMMAND --help describes a command."
    ),
  )
  parser.add_argument("--version", action="version", version=f"mmcontrast {__version__}")
  commands = parser.add_subparsers(required=True, metavar="command")

  _add_train(commands)
  add_command(commands, "configs", _configs, "List the configs that come with the package.", reads_data=False)
  _add_evaluate(commands)
  _add_benchmark(commands)
  embedding_commands.add(commands)
  adaptation_commands.add(commands)
  _add_caption(commands)
  _add_match(commands)
  _add_weights(commands)
  looking_commands.add(commands)
  data_commands.add(commands)
  return parser


def _add_train(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast train`."""
  train = add_command(
    commands, "train", _train, "Train a config; running it again resumes.", epilog=OVERRIDES, takes_more=True
  )
  train.add_argument(
    "--config",
    required=True,
    metavar="NAME[:ARG]",
    help="a config of the package, such as quickstart or clip:smoke (mmcontrast configs lists them), "
    "or a file, such as mine.py",
  )
  train.add_argument("--workdir", help="where checkpoints and metrics go")
  train.add_argument(
    "--dry_run",
    action="store_true",
    help="compile only: print parameters, shardings, FLOPs, memory and collectives; needs no data",
  )
  train.add_argument(
    "--topology",
    metavar="SLICE",
    help="with --dry_run: compile for a slice of TPUs that need not "
    "be attached, such as v5e:4x4 (needs the extra tpu_compile)",
  )
  train.add_argument(
    "--devices", type=int, help="with --dry_run: how many devices to simulate (default: those of this machine)"
  )


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast evaluate`."""
  evaluate = add_command(
    commands,
    "evaluate",
    _evaluate,
    "Evaluate a run, on its own sets or on a source: evaluation.json, "
    "retrieval.png, a table. Options of the source follow as --source.key=value, those of the evaluation "
    "as --config.evaluation.key=value.",
    takes_more=True,
  )
  evaluate.add_argument(
    "source", nargs="?", help="NAME or KIND:PATH, as data.dataset of a config (default: the sets of config.evaluation)"
  )
  evaluate.add_argument("--workdir", required=True, help="the folder of the run")
  evaluate.add_argument("--split", help="the split of the source (default: all of it)")
  evaluate.add_argument(
    "--train_split", metavar="SPLIT", help="the split of the source that k-NN and linear probes train on"
  )
  evaluate.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")
  add_width(evaluate)


def _add_benchmark(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast benchmark`."""
  benchmark = add_command(
    commands,
    "benchmark",
    _benchmark,
    "Measure a run on every set of a folder in CLIP_benchmark's layout, by its rules: one table as JSON, CSV and "
    "Markdown. Running it again does what is missing.",
    reads_data=False,
  )
  benchmark.add_argument("--workdir", required=True, help="the folder of the run")
  benchmark.add_argument(
    "--suite", required=True, metavar="KIND:FOLDER", help="such as clip_benchmark:/data/wds, of one set or many"
  )
  benchmark.add_argument("--compare", metavar="RUN", help="another run: both, and their difference with intervals")
  benchmark.add_argument("--split", default="", help="of the sets (default: test)")
  benchmark.add_argument("--sets", metavar="SET,SET", help="some of them (default: all)")
  benchmark.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")
  add_width(benchmark)


def _add_caption(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast caption`."""
  caption = add_command(
    commands,
    "caption",
    _caption,
    "Write a caption of each image, or of what else the decoder of the run reads: a line each, its path and the "
    "caption. By default the most probable word follows each time.",
  )
  caption.add_argument("things", nargs="+", metavar="IMAGE", help="the path of an image")
  caption.add_argument("--workdir", required=True, help="the folder of the run")
  caption.add_argument("--beams", type=int, default=1, help="captions that are followed at once (default: 1, greedy)")
  caption.add_argument(
    "--top_p",
    type=float,
    default=0.0,
    metavar="P",
    help="draw each word among the most probable that reach this together, such as 0.9 (default: 0, nothing is drawn)",
  )
  caption.add_argument(
    "--temperature",
    type=float,
    default=1.0,
    help="of what is drawn: below 1 the probable comes more often (default: 1)",
  )
  caption.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
  caption.add_argument(
    "--length",
    type=int,
    default=0,
    metavar="TOKENS",
    help="the most, start and end among them (default: the decoder's)",
  )
  caption.add_argument("--head", default="", help="the head that writes, where the run has several")
  caption.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")


def _add_match(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast match`."""
  match = add_command(
    commands,
    "match",
    _match,
    "Say how probable it is that an image belongs with each of some texts, by the matching head of a run; "
    "or a text with images, or other things that the head reads.",
  )
  match.add_argument("first", help="the path of an image, or words")
  match.add_argument("others", nargs="+", help="words, each text in quotes, or the paths of images")
  match.add_argument("--workdir", required=True, help="the folder of the run")
  match.add_argument("--head", help="the head that matches (default: that of the run)")
  match.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")


def _add_weights(commands: argparse._SubParsersAction) -> None:
  """`mmcontrast import`, `export` and `interpolate`."""
  take = add_command(
    commands,
    "import",
    _import,
    "Turn another package's weights into a run, to evaluate, search, embed and export.",
    reads_data=False,
  )
  take.add_argument("place", metavar="KIND:PATH", help="such as open_clip:DIR, hf:DIR or timm:resnet50@FILE")
  take.add_argument("--workdir", required=True, help="the folder of the run, which must be empty")
  take.add_argument(
    "--allow_unused",
    metavar="REGEX",
    action="append",
    default=[],
    help="names of arrays that may be left out; may be given again",
  )
  take.add_argument(
    "--weights",
    default="",
    metavar="NAME",
    help="which of several in one file, such as "
    "state_dict_ema or teacher (default: the usual one, and a line says which)",
  )

  export = add_command(commands, "export", _export, "Write the model of a run for another package.", reads_data=False)
  export.add_argument("--workdir", required=True)
  export.add_argument(
    "--to", required=True, metavar="FORMAT", help="open_clip, hf, timm, torchvision, detectron2, stablehlo or onnx"
  )
  export.add_argument("--out", required=True, help="the folder to write, which must be empty")
  export.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")

  between = add_command(
    commands,
    "interpolate",
    _interpolate,
    "Interpolate the weights of two runs, as a new run (WiSE-FT).",
    reads_data=False,
  )
  between.add_argument("first", help="the folder of a run")
  between.add_argument("second", help="the folder of one that was fine-tuned from it")
  between.add_argument("--alpha", type=float, default=0.5, help="0: the first, 1: the second (default: 0.5)")
  between.add_argument("--workdir", required=True, help="the folder of the new run, which must be empty")


def _train(options: argparse.Namespace, overrides: list[str]) -> None:
  if options.devices is not None and not options.dry_run:
    raise UserError(
      "--devices simulates devices, for --dry_run only; to train on some of this machine's, set config.mesh"
    )
  if options.topology and (options.devices is not None or not options.dry_run):
    raise UserError("--topology compiles for a slice of TPUs, with --dry_run and without --devices")
  if not (options.workdir or options.dry_run):
    raise UserError("--workdir is missing: where checkpoints and metrics go, such as --workdir runs/mine")
  from mmcontrast.config import load_config

  config = load_config(options.config, overrides)
  if options.dry_run:
    from mmcontrast.cost.dry_run import dry_run

    print(dry_run(config, options.devices, options.data_dir, options.topology))
    return
  from mmcontrast.parallel import distributed
  from mmcontrast.train import train
  from mmcontrast.training.preemption import exit_code

  exit_code()  # one that is no number is said before the run, not after
  with distributed.session(config["distributed"]):
    train(config, options.workdir, options.data_dir)


def _configs(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.config import config_files

  lines = config_files.shipped()
  print("\n".join(f"{name:<{max(map(len, lines))}}  {line}" for name, line in lines.items()))
  print("\nto train one: mmcontrast train --config NAME --workdir DIR; NAME:smoke is a version that takes seconds")


def _evaluate(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.evaluate import evaluate_workdir

  words = late_source(options, words)
  of_source = [word for word in words if word.startswith("--source.")]
  for name, value in (("--split", options.split), ("--train_split", options.train_split), *zip(of_source, of_source)):
    if value is not None and options.source is None:
      raise UserError(
        f"{name} is an option of a source; name one: mmcontrast evaluate SOURCE --workdir {options.workdir}"
      )
  evaluate_workdir(
    options.workdir,
    options.step,
    options.data_dir,
    source=options.source,
    options=source_options(of_source),
    split=options.split,
    train_split=options.train_split,
    width=options.width,
    overrides=[word for word in words if word not in of_source],
  )


def _benchmark(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.benchmark import benchmark

  sets = [one.strip() for one in (options.sets or "").split(",") if one.strip()]
  if options.sets is not None and not sets:
    raise UserError(f"--sets {options.sets!r}: names no set; leave it out for all, or name some, such as --sets a,b")
  benchmark(
    options.workdir,
    options.suite,
    compare=options.compare,
    split=options.split,
    sets=sets,
    step=options.step,
    width=options.width,
  )


def _expand_home(options: argparse.Namespace) -> None:
  """Puts the home folder in place of ~ in every path: a shell does not in --workdir=~/runs, nor behind quotes."""
  for name, value in vars(options).items():
    if isinstance(value, str) and value.startswith("~/"):
      setattr(options, name, os.path.expanduser(value))
    if name == "things":
      options.things = [os.path.expanduser(one) if one.startswith("~/") else one for one in value]


def _caption(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.caption import caption

  search = {name: getattr(options, name) for name in ("beams", "top_p", "temperature", "seed", "length", "head")}
  written = caption(options.workdir, options.things, step=options.step, data_dir=options.data_dir, **search)
  for path, text in written:
    print(f"{path}\t{text}")


def _match(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.match import match

  for one in match(
    options.workdir, options.first, options.others, head=options.head, step=options.step, data_dir=options.data_dir
  ):
    print(one.line)


def _import(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.interop.run import import_run

  print(import_run(options.place, options.workdir, options.allow_unused, options.weights))


def _export(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.interop.run import export_run

  print(export_run(options.workdir, options.to, options.out, options.step))


def _interpolate(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.training.interpolation import interpolate

  print(interpolate(options.first, options.second, options.alpha, options.workdir))


if __name__ == "__main__":
  sys.exit(main())
