"""What of the protocols can be measured here: a run on real pictures, in the layouts that the protocols read.

    mmcontrast train --config clip --workdir runs/clip_300 --config.steps=300
    mmcontrast train --config clip --workdir runs/clip_60 --config.steps=60 \\
      --config.optimizer.learning_rate.warmup_steps=20
    python benchmarks/protocols.py --workdir runs/clip_300 --compare runs/clip_60 \\
      --out docs/results/protocols

Pictures of emoji_noto, a style that the runs do not train on, are written as sets of CLIP_benchmark (classes,
captions), as VOC 2007 (classes that are tags) and as ImageNet (class folders): the numbers say that the protocols run
on real pictures, and nothing of COCO, VOC or ImageNet, whose pictures are not here. Writes OUT.json and OUT.md.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import pathlib
import tarfile
import tempfile

import numpy as np
from absl import flags
from record import device, versions

import mmcontrast
from mmcontrast.data.sources.emoji import open_built

TEMPLATES = ("{c}", "a drawing of {c}", "an emoji of {c}")
_MOST = 3  # classes of VOC's form, which takes 44 fits a class


def pictures():
  """(PNG, name, group, tags, split) of each concept that emoji_noto draws."""
  source = open_built("emoji_noto", "all", None)
  concepts, tags = source.info.concepts, source.info.tag_names
  groups = source.info.label_names["group"]
  for index in range(len(source)):
    record = source[index]
    image = next(iter(record["images"].values()), None)
    if image is not None:
      of = [tags[one] for one in np.flatnonzero(record["tags"])]
      concept = concepts[record["id"]]
      yield image, concept["name"], groups[record["labels"]["group"]], of, concept["split"]


def write_tar(folder: pathlib.Path, samples: list[dict[str, bytes]]) -> None:
  (folder / "test").mkdir(parents=True)
  (folder / "test" / "nshards.txt").write_text("1\n")
  with tarfile.open(folder / "test" / "0.tar", "w") as tar:
    for number, sample in enumerate(samples):
      for extension, content in sample.items():
        member = tarfile.TarInfo(f"s{number:07d}.{extension}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def write_sets(root: pathlib.Path) -> dict[str, str]:
  """The pictures as suites: what they are of -> KIND:FOLDER."""
  found = list(pictures())
  groups = sorted({group for _, _, group, _, _ in found})
  wds = root / "wds"
  write_tar(wds / "emoji_group", [{"png": image, "cls": str(groups.index(g)).encode()} for image, _, g, _, _ in found])
  (wds / "emoji_group" / "classnames.txt").write_text("\n".join(groups) + "\n")
  (wds / "emoji_group" / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
  write_tar(wds / "emoji_names", [{"png": image, "txt": name.encode()} for image, name, *_ in found])
  (wds / "emoji_names" / "dataset_type.txt").write_text("retrieval\n")
  for number, (image, _, group, _, split) in enumerate(found):
    folder = root / "classes" / ("train" if split == "train" else "val") / group.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number}.png").write_bytes(image)
  (root / "classes" / "classnames.txt").write_text("\n".join(groups) + "\n")
  (root / "classes" / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
  write_voc(root / "VOC2007", found)
  return {"classes and captions": f"clip_benchmark:{wds}", "linear SVM": f"voc07:{root / 'VOC2007'}",
          "class folders": f"imagenet:{root / 'classes'}"}  # fmt: skip


def write_voc(root: pathlib.Path, found: list) -> None:
  """The tags that most pictures have, as VOC's classes; trainval are the concepts of split train."""
  (root / "JPEGImages").mkdir(parents=True)
  (root / "ImageSets" / "Main").mkdir(parents=True)
  counts = collections.Counter(tag for *_, tags, _ in found for tag in tags)
  for number, (image, *_) in enumerate(found):
    (root / "JPEGImages" / f"{number:06d}.jpg").write_bytes(image)  # content decides, not the name
  for tag, _ in counts.most_common(_MOST):
    for split in ("trainval", "test"):
      lines = [f"{number:06d} {1 if tag in tags else -1}" for number, (*_, tags, of) in enumerate(found)
               if (of == "train") == (split == "trainval")]  # fmt: skip
      name = "".join(one if one.isalnum() else "-" for one in tag)
      (root / "ImageSets" / "Main" / f"{name}_{split}.txt").write_text("\n".join(lines) + "\n")


NOTE = (
  "COCO, Flickr30k, VOC 2007, ImageNet, DataComp's sets, SugarCrepe, ARO and Winoground were not at hand. These are "
  "pictures of emoji in the layouts that their protocols read, and small runs of minutes: the numbers say that the "
  "code runs whole on real pictures, and are no figures of those benchmarks. That the rules are those of the originals "
  "is tested beside their own code on the same embeddings: [protocols](../protocols.md)."
)
SETS = (
  *("emoji_group", "emoji_names", "voc07_virtex", "voc07_vissl"),
  *("zero_shot", "low_shot_1", "low_shot_10", "moco_lincls_cached"),
)


def as_markdown(tables: dict, about: dict) -> str:
  lines = ["# Protocols on what is here", "", NOTE, "", f"Made by `{about['command']}` on {about['device']};",
           ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + ".", ""]  # fmt: skip
  for of, table in tables.items():
    two = len(table["runs"]) > 1
    more = " compared | difference, 95 % |" if two else ""
    lines += [f"## {of[0].upper()}{of[1:]}", "", f"| set | protocol | pictures | metric | value |{more}"]
    lines += ["|---|---|---|---|---|" + ("---|---|" if two else "")]
    for name, row in table["sets"].items():
      protocol = f"`{row['protocol']['protocol']}-{row['protocol']['version']}`"
      shown = [one for one in row["metrics"] if not one.startswith(("ap_", "cost_"))]
      for number, metric in enumerate(shown):
        first = [name, protocol, f"{row['examples']:,}"] if not number else ["", "", ""]
        cells = [*first, metric, f"{100 * row['metrics'][metric]:.2f}"]
        if two:
          cells.append(f"{100 * row['compared']['metrics'][metric]:.2f}")
          interval = row.get("difference", {}).get(metric)
          cells.append("{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * x for x in interval)) if interval else "")
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--compare")
  parser.add_argument("--sets", nargs="+", default=SETS, help="of all suites")
  parser.add_argument("--out", help="a path without its ending")
  options = parser.parse_args()
  flags.FLAGS.mark_as_parsed()
  from mmcontrast.benchmark import open_suite

  tables: dict[str, dict] = {}
  with tempfile.TemporaryDirectory() as scratch:
    for of, suite in write_sets(pathlib.Path(scratch)).items():
      if sets := [name for name in open_suite(suite).sets if name in options.sets]:
        tables[of] = mmcontrast.benchmark(options.workdir, suite, compare=options.compare, sets=sets)
        tables[of]["suite"] = suite.replace(scratch, "SCRATCH")
        show(tables, options.out)  # after each, what is done is kept


def show(tables: dict, out: str | None) -> None:
  """Prints the tables and writes them."""
  about = {"command": "python benchmarks/protocols.py --workdir runs/clip_300 --compare runs/clip_60",
           "device": device(), "versions": versions()}  # fmt: skip
  for table in tables.values():
    for run in table["runs"]:
      run["workdir"] = pathlib.Path(run["workdir"]).name
  text = as_markdown(tables, about)
  print(text)
  if out:
    path = pathlib.Path(out)
    path.with_suffix(".json").write_text(json.dumps({"note": NOTE, **about, "tables": tables}, indent=1) + "\n")
    path.with_suffix(".md").write_text(text)


if __name__ == "__main__":
  main()
