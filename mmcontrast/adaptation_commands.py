"""`mmcontrast align`: what adapts trained models to each other."""

from __future__ import annotations

import argparse

from mmcontrast.command_line import add_command


def add(commands: argparse._SubParsersAction) -> None:
  """The commands of adaptation."""
  align = add_command(
    commands,
    "align",
    _align,
    "Fit a linear map from the space of one run into that of another, on embeddings of the same records, and measure "
    "it by retrieval among held-out records. `search` and `embed` apply it with --map.",
    reads_data=False,
  )
  align.add_argument("first", help="a folder of `mmcontrast embed`: the space that the map leads from")
  align.add_argument("second", help="another one: the space that it leads to")
  align.add_argument("--out", required=True, metavar="FILE.npz", help="the map")
  align.add_argument(
    "--kinds", metavar="KIND,KIND", help="of the first folder and of the second, such as image,text (default: the only)"
  )
  align.add_argument(
    "--method",
    default="ridge",
    help="which is written: least_squares, ridge (the default), procrustes or robust_procrustes; all are measured",
  )
  align.add_argument("--l2", type=float, default=1.0, help="of ridge (default: 1)")
  align.add_argument("--held_out", type=float, default=0.2, help="the share of ids that is measured (default: 0.2)")
  align.add_argument("--seed", type=int, default=0, help="of which ids are held out (default: 0)")


def _align(options: argparse.Namespace, _: list[str]) -> None:
  from mmcontrast.align import align

  made = align(
    options.first,
    options.second,
    options.out,
    kinds=options.kinds,
    method=options.method,
    l2=options.l2,
    held_out=options.held_out,
    seed=options.seed,
  )
  print(made.text)
