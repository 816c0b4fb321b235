"""`mmcontrast segment SOURCE --workdir RUN`: how well a run tells by names what each place of an image shows.

Of a source whose records have masks of named regions, as emoji_scenes has. Nothing of the run is trained; beside its
own patches and names stand means of look-alike patches, prototypes of a few images with masks, class vectors that
attend to the image, and a decoder of score maps. See segmentation.py and score_maps.py in evaluation/adaptation; and
grounding.py, of names one by one.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from mmcontrast import folders
from mmcontrast.called import call_as
from mmcontrast.data.sources import BadRecord, Source, open_source
from mmcontrast.data.transforms import evaluation_parts
from mmcontrast.errors import UserError, note, one_line
from mmcontrast.evaluation.adaptation import grounding as grounding_of_phrases
from mmcontrast.evaluation.adaptation import score_maps, segmentation
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.protocols import described, digest
from mmcontrast.evaluation.zero_shot import class_embeddings
from mmcontrast.inference import Inference, load
from mmcontrast.inference.maps import image_maps, tower_maps
from mmcontrast.modalities import MODALITIES

PROTOCOL, PROTOCOL_OF = "segmentation-v1", {"grounding": "grounding-v1"}  # of results; of some of them another
PROTOCOLS = "protocols"  # the key of a file of results that is none: result -> by what it was measured


class Scenes(NamedTuple):
  """Images with masks: what a model sees of N images, which class each pixel is of, int [N, S, S] (NOTHING: none), and
  the names of the classes."""

  images: np.ndarray
  maps: np.ndarray
  names: list[str]

  def take(self, places: slice) -> Scenes:
    """Some of the images."""
    return self._replace(images=self.images[places], maps=self.maps[places])


def segment(
  workdir: str | os.PathLike,
  dataset: str,
  *,
  options: Mapping | None = None,
  split: str = "validation",
  head: str = "",
  templates: Sequence[str] = ("{}",),
  support: int = 0,
  train_split: str | None = None,
  train_images: int = 500,
  steps: int = 300,
  decoder: bool = False,
  most: int = 400,
  step: int | None = None,
  seed: int = 0,
  grounding: bool = False,
  out: str | os.PathLike | None = None,
  data_dir: str | None = None,
) -> dict[str, dict[str, float]]:
  """mIoU of a source, {"names": {"miou": ..., ...}, "names, in the image": ..., ...}.

  Args:
    workdir: the run.
    dataset, options, split: a source whose records have masks.
    head: what gives vectors of places; "": that of config.evaluation.image.
    templates: prompts, with "{}" for the name of a class.
    support: so many of the first images are not tested, and are what prototypes are made of; 0: no prototypes.
    decoder: whether DenseCLIP's decoder of score maps is trained on the images of `support`, by names and in context.
    train_split: of what DenseCLIP's class vectors are trained on; None: they are left out.
    train_images, steps, seed: how many images of it; of Adam, of both trainings.
    most: how many images are tested.
    grounding: whether "grounding" is measured besides: of each name in its image by itself whether the most similar
      place lies in its box (evaluation/adaptation/grounding.py).
    step: the checkpoint of this step instead of the newest.
    out: a .json file of the results, and by what each was measured.
  Raises UserError: no such run, source or head; a run without texts; records without masks; nothing to test.
  """
  for name, value, least in (("--support", support, 0), ("--images", most, 1), ("--steps", steps, 1)):
    if value < least:
      raise UserError(f"{name} {value}: give {least} or more")
  if decoder and not support:
    raise UserError("--decoder: it learns from the masks of the images of --support; give --support 100")
  for template in templates:
    if template.count("{}") != 1:
      raise UserError(f"--template: {template!r} must hold '{{}}' once, for the name of the class")
  if out is not None and folders.at(out, "--out").suffix != ".json":
    raise UserError(f"--out {out}: the results are a .json file; give {folders.at(out, '--out').name}.json")
  model = load(workdir, step, data_dir)
  if "text" not in model.heads or model.compares_tokens:
    raise UserError(
      f"--workdir {workdir}: segmentation by names needs a run with one vector a text (config.evaluation.text)"
    )
  named = {"dataset": dataset, "source": options or {}}
  scenes = read_scenes(open_source(named, split, data_dir), model, support + most)
  if len(scenes.images) <= support:
    raise UserError(
      f"--support {support}: the source has {len(scenes.images)} images with masks, and none is left to test"
    )
  names = class_embeddings(model.encode, scenes.names, templates)
  helpers, tested = scenes.take(slice(support)), scenes.take(slice(support, None))
  patches = image_maps(model, tested.images, head)
  if patches.shape[-1] != names.shape[-1]:
    raise UserError(f"--head: vectors of {patches.shape[-1]} numbers are not compared with texts of {names.shape[-1]}")
  found = _measured({"names": (patches, names), "names, spliced": (_spliced(patches), names)}, tested)
  if grounding:
    found["grounding"] = grounding_of_phrases.measure(patches, names, tested.maps, segmentation.NOTHING)
  if support:
    visual, has = _prototypes(image_maps(model, helpers.images, head), helpers)
    if missing := int((~has).sum()):
      note(f"{missing} of {len(has)} classes are not shown by the {support} images of --support; their names stand in")
    known = {"prototypes": segmentation.fused(names, visual, has, 1.0)}
    known["names and prototypes"] = segmentation.fused(names, visual, has)
    found |= _measured({name: (patches, rows) for name, rows in known.items()}, tested)
  if decoder:
    found |= _decoded(model, helpers, tested, patches, names, head, steps, seed)
  if train_split is not None:
    training = read_scenes(open_source(named, train_split, data_dir), model, train_images)
    trained = _trained(model, training, head, templates, steps, seed)
    found |= _measured({"names in context": (patches, names)}, tested, trained)
  if out is not None:
    facts = {"split": split, "templates": len(templates), "prompts": digest(templates, scenes.names)}
    if support:
      facts["support"] = support
    if train_split is not None:
      facts |= {"train_split": train_split, "train_images": train_images}
    if train_split is not None or decoder:
      facts |= {"steps": steps, "seed": seed}
    by = {name: described(PROTOCOL_OF.get(name, PROTOCOL), model.config, **facts) for name in found}
    path = folders.at(out, "--out")
    with folders.written(path) as scratch:
      scratch.write_text(json.dumps({**found, PROTOCOLS: by}, indent=1) + "\n")
  return found


def table(found: Mapping[str, Mapping[str, float]]) -> str:
  """The results in lines, and by which protocols they are."""
  lines = [f"{'class vectors':<34}{'mIoU':>8}{'pixels':>9}{'classes':>9}"]
  found = dict(found)
  grounding = found.pop("grounding", None)
  for name, of in found.items():
    lines.append(f"{name:<34}{100 * of['miou']:>7.1f}%{100 * of['pixel_accuracy']:>8.1f}%{of['classes']:>9g}")
  if grounding:
    lines.append(
      f"grounding of {grounding['phrases']:g} names: {100 * grounding['pointing']:.1f}% point into their box (by "
      f"chance {100 * grounding['pointing_by_chance']:.1f}%), contrast to noise {grounding['contrast_to_noise']:.2f}"
    )
  protocols = dict.fromkeys([PROTOCOL, *([PROTOCOL_OF["grounding"]] if grounding else [])])
  return "\n".join([*lines, f"by {', '.join(protocols)}; --out FILE.json says what they fix"])


def read_scenes(source: Source, model: Inference, most: int) -> Scenes:
  """The first `most` images with masks of a source. Raises UserError where there is none."""
  image, images, maps, place, bad = MODALITIES["image"], [], [], {}, ""
  for index in range(min(len(source), most)):
    try:
      record = source[index]
      if "parts" not in record or not record.get("regions"):
        continue
      parts = evaluation_parts(np.asarray(Image.open(io.BytesIO(record["parts"]))), model.data)
      ((_, raw), *_) = image.values(record, model.data)
      images.append(image.evaluation_view(raw, model.data))
    except (BadRecord, OSError, ValueError) as error:
      bad = one_line(error)
      continue
    numbers = [place.setdefault(region.texts[0], len(place)) for region in record["regions"]]
    of_parts = np.array([segmentation.NOTHING, *numbers])
    maps.append(np.where(parts < len(of_parts), of_parts[np.minimum(parts, len(numbers))], segmentation.NOTHING))
  if not images:
    why = f" ({bad})" if bad else ": give one whose records have them, as emoji_scenes has"
    raise UserError(f"{source.info.name}: no image with masks of named regions can be used{why}")
  return Scenes(np.stack(images), np.stack(maps), list(place))


def _spliced(patches: np.ndarray) -> np.ndarray:
  count, rows, columns, dim = patches.shape
  return segmentation.spliced(patches.reshape(count, -1, dim)).reshape(count, rows, columns, dim)


def _prototypes(patches: np.ndarray, scenes: Scenes) -> tuple[np.ndarray, np.ndarray]:
  grid = patches.shape[1:3]
  share = segmentation.shares(scenes.maps, grid, len(scenes.names))
  return segmentation.prototypes(patches.reshape(len(patches), -1, patches.shape[-1]), share)


def _measured(
  ways: Mapping[str, tuple[np.ndarray, np.ndarray]], scenes: Scenes, head: segmentation.Head | None = None
) -> dict[str, dict[str, float]]:
  """mIoU of patches [N, rows, columns, D] and class vectors [K, D], among all classes and among those in the image."""
  out = {}
  for name, (patches, rows) in ways.items():

    def scores(one: np.ndarray, rows: np.ndarray = rows) -> np.ndarray:
      if head is not None:
        rows = np.asarray(_in_context(head, rows, one.reshape(-1, one.shape[-1])))
      return segmentation.score_maps(one, rows)

    out |= _counted(name, map(scores, patches), scenes)
  return out


def _counted(name: str, scores: Iterable[np.ndarray], scenes: Scenes) -> dict[str, dict[str, float]]:
  """mIoU of scores [rows, columns, K] of each image, among all classes and among those in the image."""
  size, classes = scenes.maps.shape[-1], len(scenes.names)
  counts = {among: np.zeros((classes, classes), np.int64) for among in ("", ", in the image")}
  for truth, one in zip(scenes.maps, scores, strict=True):
    for among, which in (("", None), (", in the image", np.isin(np.arange(classes), truth))):
      counts[among] += segmentation.confusion(truth, segmentation.guesses(one, size, which), classes)
  return {f"{name}{among}": segmentation.mean_iou(of) for among, of in counts.items()}


def _decoded(
  model: Inference,
  helpers: Scenes,
  tested: Scenes,
  patches: np.ndarray,
  names: np.ndarray,
  head: str,
  steps: int,
  seed: int,
) -> dict[str, dict[str, float]]:
  """mIoU of DenseCLIP's decoder, trained on the masks of some images; patches and names: of those that are tested."""
  own, names = image_maps(model, helpers.images, head), unit(names)
  features, tower = (tower_maps(model, of.images, head) for of in (tested, helpers))
  if tower.shape[:3] != own.shape[:3]:
    rows, columns = own.shape[1:3]
    raise UserError(
      f"--decoder: the head's {rows} x {columns} places are not the {tower.shape[1]} x {tower.shape[2]} of its tower; "
      "give a --head that keeps them"
    )
  found = {}
  for name, context in (("score maps, decoded", False), ("score maps in context, decoded", True)):
    trained = score_maps.train(tower, own, names, helpers.maps, jax.random.key(seed), context=context, steps=steps)
    logits = (np.asarray(_logits(trained, *(x[None] for x in one), names)) for one in zip(features, patches))
    found |= _counted(name, logits, tested)
  return found


@jax.jit
def _logits(trained: score_maps.Trained, features: jax.Array, patches: jax.Array, names: jax.Array) -> jax.Array:
  return score_maps.decoded(trained, features, patches, names)[0][0]


_in_context = jax.jit(segmentation.in_context)


def _trained(
  model: Inference, scenes: Scenes, head: str, templates: Sequence[str], steps: int, seed: int
) -> segmentation.Head:
  """DenseCLIP's class vectors, each image's among its own classes."""
  patches = image_maps(model, scenes.images, head)
  names = class_embeddings(model.encode, scenes.names, templates)
  share = segmentation.shares(scenes.maps, patches.shape[1:3], len(scenes.names))
  shown = [np.flatnonzero(one.sum(0)) for one in share]
  most = max(map(len, shown))
  rows = np.zeros((len(shown), most, names.shape[1]), np.float32)
  of = np.zeros((*share.shape[:2], most), np.float32)
  for number, classes in enumerate(shown):
    rows[number, : len(classes)] = unit(names[classes])
    of[number, :, : len(classes)] = share[number][:, classes]
  flat = patches.reshape(len(patches), -1, patches.shape[-1])
  return segmentation.train_head(rows, flat, of, jax.random.key(seed), steps=steps)


call_as(__name__, segment)
