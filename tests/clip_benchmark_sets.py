"""Small sets in CLIP_benchmark's layout: a folder of tar shards, as its own builder writes them."""

import io

import numpy as np
from own_data import picture
from shard_fixture import write_tar

from mmcontrast.cli import main

NAMES = ("cat", "goat", "red fox", "owl", "crane", "crane")


def npy(numbers) -> bytes:
  buffer = io.BytesIO()
  np.save(buffer, np.asarray(numbers))
  return buffer.getvalue()


def write_set(folder, samples, kind="", classes=(), templates=("a {c}", "{c}!"), shards=2, split="test"):
  """`samples`: members of each, by extension, beside its picture."""
  (folder / split).mkdir(parents=True)
  (folder / split / "nshards.txt").write_text(f"{shards}\n")
  if kind:
    (folder / "dataset_type.txt").write_text(f"{kind}\n")
  if classes:
    (folder / "classnames.txt").write_text("\n".join(classes) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
  numbered = list(enumerate(samples))
  for shard in range(shards):
    members = [
      (f"s{number:07d}.{extension}", content)
      for number, sample in numbered[shard::shards]
      for extension, content in {"png": picture(number), **sample}.items()
    ]
    write_tar(folder / split / f"{shard}.tar", members)
  return folder


def write_suite(root, pictures=24, classes=NAMES):
  """A set of classes, one of captions, one of several classes a picture, one of edits: in folders, or as DataComp."""
  used = len(classes) - 1  # the last class has no picture
  draw = np.random.default_rng(0)
  labels = draw.integers(0, used, pictures)
  write_set(root / "wds" / "vtab" / "caltech101", [{"cls": str(one).encode()} for one in labels], classes=classes)
  captions = [[f"{'x' * int(draw.integers(1, 12))}" for _ in range(1 + n % 3)] for n in range(pictures)]
  write_set(
    root / "wds_retrieval-flickr30k_test", [{"txt": "\n".join(of).encode()} for of in captions], kind="retrieval"
  )
  targets = draw.random((pictures, used)) < 0.4
  write_set(
    root / "voc2007_multilabel", [{"npy": npy(one.astype(int))} for one in targets], "multilabel", classes[:used]
  )
  pairs = [("x" * int(a), "x" * int(b)) for a, b in draw.integers(1, 9, (pictures, 2))]
  write_set(root / "sugar_crepe" / "swap_obj", [{"txt": "\n".join(of).encode()} for of in pairs], "retrieval")
  return root


def said(words, capsys):
  """The one line, an error, by which `mmcontrast benchmark` refuses these words."""
  assert main(["benchmark", *words]) == 2
  *notes, last = capsys.readouterr().err.splitlines()
  assert last.startswith("error: ") and not any("error" in line for line in notes), notes
  return last
