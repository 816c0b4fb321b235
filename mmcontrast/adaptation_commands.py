"""`mmcontrast align` and `segment`: what is fitted beside trained models, and what they are tried on."""

from __future__ import annotations

import argparse

from mmcontrast.command_line import add_command, source_options


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

  segment = add_command(
    commands,
    "segment",
    _segment,
    "Measure how well a run tells by names what each place of an image shows (mIoU), on a source with masks of named "
    "regions. Options of the source follow as --source.key=value.",
    takes_more=True,
  )
  segment.add_argument("source", help="NAME or KIND:PATH, as data.dataset of a config, such as emoji_scenes")
  segment.add_argument("--workdir", required=True, help="the folder of the run")
  segment.add_argument("--split", default="validation", help="what is tested (default: validation)")
  segment.add_argument("--images", type=int, default=400, help="how many are tested at most (default: 400)")
  segment.add_argument(
    "--head", default="", help="the head that gives vectors of places (default: that of config.evaluation.image)"
  )
  segment.add_argument(
    "--template",
    action="append",
    metavar="TEXT",
    help="a prompt with {} for the name; may be given again (default: {})",
  )
  segment.add_argument(
    "--support",
    type=int,
    default=0,
    metavar="IMAGES",
    help="make prototypes of so many of the first images, which are not tested then (default: 0, none)",
  )
  segment.add_argument(
    "--train_split", metavar="SPLIT", help="train class vectors that attend to the image, on this split (DenseCLIP)"
  )
  segment.add_argument(
    "--decoder",
    action="store_true",
    help="train a small decoder of score maps on the images of --support, by names and in context (DenseCLIP)",
  )
  segment.add_argument("--steps", type=int, default=300, help="of these trainings (default: 300)")
  segment.add_argument(
    "--grounding",
    action="store_true",
    help="measure besides of each name in its image whether the most similar place lies in its box, and the contrast "
    "of the box to the noise (BioViL)",
  )
  segment.add_argument("--step", type=int, help="the checkpoint of this step instead of the newest")
  segment.add_argument("--out", metavar="FILE.json", help="where to write the results too")


def _segment(options: argparse.Namespace, words: list[str]) -> None:
  from mmcontrast.segment import segment, table

  found = segment(
    options.workdir,
    options.source,
    options=source_options(words),
    split=options.split,
    head=options.head,
    templates=options.template or ("{}",),
    support=options.support,
    train_split=options.train_split,
    steps=options.steps,
    decoder=options.decoder,
    most=options.images,
    grounding=options.grounding,
    step=options.step,
    out=options.out,
    data_dir=options.data_dir,
  )
  print(table(found))


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
