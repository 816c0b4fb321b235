"""Videos: frames chosen and decoded on the host, cropped alike over a clip, augmented alike on the device.

video         [V, T, S, S, 3]  uint8, config.data.views.video clips of config.data.video.frames frames
video_masked  of M of the V views, on the device: config.data.video.masked, tubes of patches hidden
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.data import noise, transforms
from mmcontrast.data.checks import check_counts
from mmcontrast.data.record import Info, Record
from mmcontrast.errors import UserError, choose
from mmcontrast.modalities import image_augmentation
from mmcontrast.modalities.image_masks import Masking
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.video_reading import Clip, check_installed, decode_frames
from mmcontrast.modalities.video_sampling import SAMPLING
from mmcontrast.modalities.video_use import VideoInUse, chosen_frames, evaluation_frames, opened
from mmcontrast.modalities.views import Inputs, Preparation, Schema, Settings

_DOMAIN = 4096  # views are numbered from here on, so that they draw apart from those of images
MASKED = {"views": 0, "tubelet": (2, 16, 16), "share": 0.9}


class Video(VideoInUse, Modality):
  """Decoded: opened clips by column; their frames are decoded where a view is drawn, so that only those wanted are."""

  source_option, absent = "video", "no video"
  view_sets = ("video", "video_masked")
  versions: ClassVar = {"video_masked": "video"}
  facts: ClassVar = {
    "masked": "which of its tubelets are hidden from the tower",
    "pixels": "what the tower reads, normalised, nothing of it hidden",
  }
  defaults: ClassVar = {
    "video": {
      "frames": 8,  # of a view
      "size": 32,  # pixels a side; crops are those of data.crop, in evaluation of data.resize and data.centre_crop
      # Which frames: evenly spaced, "tsn" (one anywhere in each of as many parts), "dense" (`stride` frames apart).
      "sampling": "uniform",
      "stride": 2,
      "columns": "distinct",  # which of an example's videos views are: distinct ones, or "in_order": view k column k
      "variable_rate": "bad",  # a bad record, or "time": frames by time instead of by number
      "rotated": "bad",  # a video that asks to be turned: a bad record, or "turn"
      # Versions of views, `video_masked`, of which the tower does not see all tubelets: of how many views, frames and
      # pixels of a tubelet, and the share hidden: the same patches in all frames (VideoMAE's tubes).
      "masked": MASKED,
    }
  }

  # Settings.

  def check(self, settings: Settings) -> None:
    video = settings["video"]
    check_counts(video, {"frames": 1, "size": 1, "stride": 1}, "data.video")
    choose(video["sampling"], SAMPLING, "data.video.sampling")
    choose(video["columns"], ("distinct", "in_order"), "data.video.columns")
    choose(video["variable_rate"], ("bad", "time"), "data.video.variable_rate")
    choose(video["rotated"], ("bad", "turn"), "data.video.rotated")
    self._check_masked(video, settings["views"]["video"])
    if settings["views"]["video"]:
      check_installed()

  def _check_masked(self, video: Mapping, views: int) -> None:
    masked = video["masked"]
    check_counts(masked, {"views": 0}, "data.video.masked")
    if masked["views"] > views:
      raise UserError(
        f"data.video.masked.views: {masked['views']} masked versions of {views} video views; set data.views.video to "
        f"{masked['views']}, or data.video.masked.views to {views} or fewer"
      )
    if not isinstance(masked["share"], int | float) or not 0 < masked["share"] < 1:
      raise UserError(f"data.video.masked.share: {masked['share']!r}; give a share over 0 and under 1")
    sides = (video["frames"], video["size"], video["size"])
    tubelet = masked["tubelet"]
    whole = isinstance(tubelet, list | tuple) and len(tubelet) == 3 and tubelet[1] == tubelet[2]
    if not whole or any(not isinstance(side, int) or side < 1 for side in tubelet):
      raise UserError(f"data.video.masked.tubelet: {tubelet!r}; give frames and twice the side in pixels: (2, 16, 16)")
    if masked["views"] and any(side % part for side, part in zip(sides, tubelet)):
      raise UserError(
        f"data.video.masked.tubelet: clips of {sides[0]} frames of {sides[1]} px do not split into tubelets of "
        f"{tubelet[0]} frames of {tubelet[1]} px; set it to the tower's, which divides both"
      )

  def counts(self, settings: Settings) -> dict[str, int]:
    return {"video": settings["views"]["video"], "video_masked": settings["video"]["masked"]["views"]}

  def count_key(self, view_set: str) -> str:
    return "data.video.masked.views" if view_set == "video_masked" else super().count_key(view_set)

  def facts_of(self, view_set: str) -> tuple[str, ...]:
    return ("masked", "pixels") if view_set == "video_masked" else ("pixels",)

  def check_tower(self, options: dict[str, Any], settings: Settings, vocab_size: int | None, where: str) -> None:
    masked = settings.get("video", {}).get("masked", MASKED)
    if masked["views"] and options.get("leave_out") != masked["share"]:
      raise UserError(
        f"{where}.leave_out: {options.get('leave_out')} of the tubelets are left out, and config.data.video.masked "
        f"hides {masked['share']}; use a tubelet_vit with leave_out={masked['share']}"
      )

  def recipe_options(self, base: str) -> dict[str, Any]:
    start = image_augmentation.RECIPES.get(base, image_augmentation.Recipe())
    return {field.name: getattr(start, field.name) for field in dataclasses.fields(start)}

  def of_class(self, info: Info) -> str:
    return ", or say which column has it: data.source.video=COLUMN" if ":" in info.name else ""

  # On the host.

  def arrays(self, settings: Settings) -> Schema:
    views, video = settings["views"]["video"], settings["video"]
    shape = (views, video["frames"], video["size"], video["size"], 3)
    return {"video": (shape, np.uint8)} if views else {}

  def decode(self, record: Record, settings: Settings) -> dict[str, Clip]:
    return {key: opened(raw, settings) for key, raw in record.get("video", {}).items()}

  def nbytes(self, value: Mapping[str, Clip]) -> int:
    return sum(len(clip.data) + clip.times.nbytes for clip in value.values())

  def numbers(self, settings: Settings) -> dict[int, int]:
    """Of each view: which column, its frames, and where they are cut."""
    each = 1 + settings["video"]["frames"] + transforms.DRAWS
    return {noise.stream("video"): settings["views"]["video"] * each}

  def view(self, value: Mapping[str, Clip], numbers: Mapping, settings: Settings, into: Mapping) -> None:
    """Raises BadRecord where a frame that is wanted cannot be decoded."""
    if not value:
      return
    video, clips = settings["video"], list(value.values())
    draws = numbers[noise.stream("video")].reshape(settings["views"]["video"], -1)
    chosen = (
      [clips[view % len(clips)] for view in range(len(draws))]
      if video["columns"] == "in_order"
      else transforms.choose_distinct(clips, draws[:, 0])
    )
    for view, (clip, of_view) in enumerate(zip(chosen, draws)):
      if settings.get("as_evaluated"):
        into["video"][view] = evaluation_frames(clip, settings)
        continue
      of_frames, of_crop = of_view[1 : 1 + video["frames"]], of_view[1 + video["frames"] :]
      frames = decode_frames(clip, chosen_frames(clip, of_frames, settings), _enough(settings))
      cut: dict[int, np.ndarray] = {}  # a frame that is shown again is cut once
      for place, frame in enumerate(frames):
        if id(frame) not in cut:
          cut[id(frame)] = transforms.random_crop(frame, video["size"], of_crop, settings["crop"])
        into["video"][view, place] = cut[id(frame)]

  # On the device.

  def preparation(self, config: Mapping[str, Any]) -> VideoPreparation:
    settings, recipe = config["data"], config["augment"].get("video", "none")
    masked = settings["video"]["masked"]
    return VideoPreparation(
      (*self.arrays(settings), "mirror_safe"),
      image_augmentation.view_recipes(recipe, settings["views"]["video"], "config.augment.video"),
      tuple(config["normalize"]["mean"]),
      tuple(config["normalize"]["std"]),
      masked["views"],
      tuple(masked["tubelet"]),
      masked["share"],
      "masked" in settings["facts"],
      "pixels" in settings["facts"],
    )

  def check_shapes(self, error: UserError, view_set: str, inputs: Inputs) -> UserError:
    if view_set == "video_masked":
      return error
    frames, size = inputs.values.shape[2:4]
    return UserError(f"config.data.video: clips of {frames} frames of {size} px: {error}")


def _enough(settings: Settings) -> int:
  """The shorter side of frames that the smallest crop is still not enlarged from, and half as much again."""
  return math.ceil(1.5 * settings["video"]["size"] / math.sqrt(settings["crop"]["scale"][0]))


@dataclasses.dataclass(frozen=True)
class VideoPreparation(Preparation):
  """Augmented by a recipe a view, each frame of a clip alike, and normalised; some views once more with hidden tubes.

  Attributes:
    masked: how many views have a masked version. tubelet: frames, pixels, pixels. share: of the patches, hidden.
  """

  recipes: tuple[image_augmentation.Recipe, ...]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  masked: int = 0
  tubelet: tuple[int, int, int] = MASKED["tubelet"]
  share: float = MASKED["share"]
  tells_masks: bool = False
  tells_pixels: bool = False

  @jax.named_scope("augmentation")
  def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
    """uint8 [B, V, T, H, W, 3] -> float32 of the same shape."""
    clips = batch["video"]
    values = jnp.stack([self._one(batch, clips[:, view], view, train) for view in range(clips.shape[1])], axis=1)
    made = {"video": Inputs(values)}
    if self.masked:
      pixels = values[:, : self.masked]
      made["video_masked"] = Inputs(pixels, ~self._hidden(batch, pixels.shape[1], train))
    return made

  def facts(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, dict[str, jax.Array]]:
    """ "masked": [B, V, L], time first, then rows; "pixels": [B, V, T, H, W, 3]."""
    found: dict[str, dict[str, jax.Array]] = {}
    if self.masked and self.tells_masks:
      views = min(self.masked, batch["video"].shape[1])
      found["video_masked"] = {"masked": self._hidden(batch, views, train)}
    for name, inputs in (self(batch, train) if self.tells_pixels else {}).items():
      found.setdefault(name, {})["pixels"] = inputs.values
    return found

  def _one(self, batch: Mapping[str, jax.Array], clip: jax.Array, view: int, train: bool) -> jax.Array:
    """[B, T, H, W, 3]; every frame with the same numbers."""
    recipe = self.recipes[view] if train else None

    @functools.partial(jax.vmap, in_axes=1, out_axes=1)
    def of_frame(frames):
      if recipe is None:
        return image_augmentation.to_float(frames)
      return image_augmentation.augment(recipe, frames, batch["seed"], _DOMAIN + view, batch["mirror_safe"])

    return image_augmentation.normalize(of_frame(clip), self.mean, self.std)

  def _hidden(self, batch: Mapping[str, jax.Array], views: int, train: bool) -> jax.Array:
    """Bool [B, views, L]; where nothing trains, nothing is hidden."""
    frames, size = batch["video"].shape[2:4]
    masks = Masking(views, self.tubelet[1], (self.share, self.share), 1.0)
    times = frames // self.tubelet[0]
    hidden = [jnp.tile(masks.hidden(batch["seed"], _DOMAIN + view, size), (1, times)) for view in range(views)]
    return jnp.stack(hidden, axis=1) & train
