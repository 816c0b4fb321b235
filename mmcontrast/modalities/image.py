"""Images: whole views and small crops (SwAV's multi-crop) of drawings or photographs, augmented on the device.

image         [V, S, S, 3]  config.data.views.image crops of config.data.image_size
image         [V, L, p * p * 3]  patches of images that keep their ratio, and image_grid [V, 2]: config.data.native
image_small   [K, s, s, 3]  config.data.multi_crop (Caron et al., arXiv:2006.09882)
image_masked  of M of the V views, on the device: config.data.masked (image_masks.py)
image_region  of the same, where data.masked.shape is "square": what lies there, enlarged
image_maps    of M of the V views, with maps computed of them, on the device: config.data.maps (image_maps.py)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.data import image_views, images, native, noise, transforms
from mmcontrast.data.checks import check_counts, check_range
from mmcontrast.data.images import decode
from mmcontrast.data.record import Record
from mmcontrast.errors import UserError, choose
from mmcontrast.modalities import boxes, image_augmentation, image_maps, image_masks
from mmcontrast.modalities.image_use import ImageInUse
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.views import Inputs, Preparation, Schema, Settings

_REGIONS = "text_region_box"  # the array of the boxes of regions, which their texts bring
_SEEN = 0.5  # of a region's area: the least that must be in a view, for towers that read regions


class Image(ImageInUse, Modality):
  """Decoded: pixels uint8 [H, W, 3] by style."""

  source_option, absent = "image", "no image"
  view_sets = ("image", "image_small", "image_masked", "image_region", "image_maps")
  versions: ClassVar = {"image_masked": "image", "image_region": "image", "image_maps": "image"}
  facts: ClassVar = {
    "box": "where it was cut from its image: x0, y0, x1, y1 in shares of the sides; x0 > x1: mirrored",
    "masked": "which of its patches are hidden from the tower",
    "pixels": "what the tower reads, normalised, nothing of it hidden",
  }
  usual_views, recipe = 2, "moco_v2"
  # Pixels of the shorter side; longer side / shorter side, 0: any.
  filters: ClassVar = {"min_side": 0, "max_aspect": 0.0}
  limits: ClassVar = images.LIMITS  # an image over them is bad
  sections: ClassVar = {"normalize": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}}
  defaults: ClassVar = {
    "image_size": 32,  # pixels
    # Image views of one example: distinct styles (more views: the same ones again, in order), the same, or any; or
    # "in_order": view k shows style k.
    "drawings": "distinct",
    "crop": transforms.CROP,
    # Images that keep their ratio, in training and evaluation: data/native.py.
    "native": native.DEFAULTS,
    # Further crops, small ones, of views `image_small`: how many, pixels, share of the area (SwAV's: 6, 96).
    "multi_crop": {"views": 0, "size": 96, "scale": (0.05, 0.14)},
    # Versions of views, `image_masked`, of which the tower does not see all patches: of how many views, the side of
    # a patch in pixels, how many on a side are hidden at once, whether they are one square, the share hidden, and the
    # probability that any is.
    "masked": image_masks.DEFAULTS,
    # Versions of views, `image_maps`, with maps that are computed of them: of how many views, the side of a patch in
    # pixels, which maps, the share of all patches that the tower sees, and how unevenly it is spread over the maps.
    "maps": image_maps.DEFAULTS,
    "trim": False,  # see transforms.trim; evaluation does the same
    # Share of the side that evaluation sees. A random crop shows things larger than they are, so the
    # whole image would show them smaller than in training (Touvron et al. 2019, arXiv:1906.06423).
    "centre_crop": 1.0,
    # How evaluation makes an image square. mode "crop": the middle is cut, then resized; "shortest": resized by the
    # shorter side, then cut (CLIP, timm, torchvision); "squash": resized to a square whatever its ratio (SigLIP).
    "resize": {"mode": "crop", "interpolation": "bilinear"},
  }

  # Settings.

  def check(self, settings: Settings) -> None:
    small = settings["multi_crop"]
    check_counts(settings, {"image_size": 1}, "data")
    check_counts(small, {"views": 0, "size": 1}, "data.multi_crop")
    if small["views"] and not settings["views"]["image"]:
      raise UserError("data.multi_crop.views: small crops need whole views too; set data.views.image to 1 or more")
    check_range(settings["crop"]["scale"], "data.crop.scale", most=1)
    check_range(small["scale"], "data.multi_crop.scale", most=1)
    if settings["crop"]["ratio"] is not None:
      check_range(settings["crop"]["ratio"], "data.crop.ratio")
    image_masks.check(settings)
    image_maps.check(settings)
    native.check(settings)
    if "box" in settings["facts"] and settings["crop"]["rotate"]:
      raise UserError("data.facts: a rotated view is cut from no box; set data.crop.rotate to 0, or leave 'box' out")
    if not 0 < settings["centre_crop"] <= 1:
      raise UserError(f"data.centre_crop: {settings['centre_crop']!r}; give a share of the side, over 0 and at most 1")
    choose(settings["resize"]["mode"], ("crop", "shortest", "squash"), "data.resize.mode")
    choose(settings["resize"]["interpolation"], images.FILTERS, "data.resize.interpolation")
    if 0 < settings["filter"]["max_aspect"] < 1:
      raise UserError(
        f"data.filter.max_aspect: {settings['filter']['max_aspect']!r}; give a number at least 1, or 0 for any"
      )
    choose(settings["drawings"], ("distinct", "same", "any", "in_order"), "data.drawings")

  def counts(self, settings: Settings) -> dict[str, int]:
    small, masked = settings["multi_crop"]["views"], settings["masked"]["views"]
    return {
      "image": settings["views"]["image"],
      "image_small": small,
      "image_masked": masked,
      "image_region": masked if settings["masked"]["shape"] == "square" else 0,
      "image_maps": settings["maps"]["views"],
    }

  def count_key(self, view_set: str) -> str:
    keys = {
      "image_small": "data.multi_crop.views", "image_masked": "data.masked.views",
      "image_region": "the number of squares that data.masked hides (shape='square')", "image_maps": "data.maps.views",
    }  # fmt: skip
    return keys.get(view_set) or super().count_key(view_set)

  def facts_of(self, view_set: str) -> tuple[str, ...]:
    if view_set == "image_region":
      return ("pixels",)
    return ("box", "masked", "pixels") if view_set in self.versions else ("box", "pixels")

  def tower_options(self, settings: Settings) -> dict[str, Any]:
    maps = {**image_maps.DEFAULTS, **settings.get("maps", {})}
    return {"maps": len(maps["kinds"]), "seen": maps["seen"]} if maps["views"] else {}

  def check_tower(self, options: dict[str, Any], settings: Settings, vocab_size: int | None, where: str) -> None:
    _check_native(options, settings.get("native", native.DEFAULTS), where)
    if settings.get("maps", {}).get("views") and options.get("name") != "map_vit":
      raise UserError(
        f"config.data.maps.views: {where} reads colours alone; use name='map_vit', or set data.maps.views to 0"
      )
    masked, left_out = settings.get("masked", {}), options.get("leave_out", 0.0)
    if not masked.get("views"):
      return
    if left_out and (tuple(masked["share"]) != (left_out, left_out) or masked["probability"] != 1):
      raise UserError(
        f"{where}.leave_out: leaves {left_out} of the patches out, and config.data.masked hides a share of "
        f"{tuple(masked['share'])} with probability {masked['probability']}; set its share=({left_out}, {left_out}) "
        "and probability=1"
      )
    if not options.get("mask_token") and not left_out:
      raise UserError(
        f"config.data.masked.views: {where} has no token for hidden patches; use a ViT with mask_token=True, or with "
        "leave_out, or set data.masked.views to 0"
      )

  def recipe_options(self, base: str) -> dict[str, Any]:
    start = image_augmentation.RECIPES.get(base, image_augmentation.Recipe())
    return {field.name: getattr(start, field.name) for field in dataclasses.fields(start)}

  def buckets(self, settings: Settings, batch_size: int) -> Sequence[tuple[int, Mapping[str, Any]]]:
    given = settings["native"]
    sizes = native.batch_sizes(settings, batch_size) if given["patches"] else ()
    return [(size, {"native": {**given, "patches": (most,)}}) for size, most in zip(sizes, given["patches"])]

  # On the host.

  def arrays(self, settings: Settings) -> Schema:
    return image_views.shapes(settings)

  def decode(self, record: Record, settings: Settings) -> dict[str, np.ndarray]:
    passing = images.passing(record["images"], settings["filter"])
    pixels = {style: decode(data, settings["limits"], exact=False) for style, data in passing.items()}
    return {style: transforms.trim(image) for style, image in pixels.items()} if settings["trim"] else pixels

  def nbytes(self, value: Mapping[str, np.ndarray]) -> int:
    return sum(pixels.nbytes for pixels in value.values())

  def numbers(self, settings: Settings) -> dict[int, int]:
    views = settings["views"]["image"] + settings["multi_crop"]["views"]
    return {noise.STYLE: views, noise.IMAGE: views * transforms.DRAWS}

  def view(self, value: Mapping[str, np.ndarray], numbers: Mapping, settings: Settings, into: Mapping) -> None:
    if value:
      draws = numbers[noise.IMAGE].reshape(-1, transforms.DRAWS)
      image_views.draw(value, settings, numbers[noise.STYLE], draws, into)

  # On the device.

  def preparation(self, config: Mapping[str, Any]) -> ImagePreparation:
    settings, recipes, normalize = config["data"], config["augment"], config["normalize"]
    counts = self.counts(settings)
    if counts["image_small"] and "image_small" not in recipes:
      raise UserError(
        f"config.augment.image_small: missing; name a recipe for the {counts['image_small']} views of "
        "config.data.multi_crop, such as 'swav'"
      )
    if not all(value > 0 for value in normalize["std"]):
      raise UserError(f"config.normalize.std: images are divided by {tuple(normalize['std'])}; give numbers above 0")
    augmentations = tuple(
      (name, image_augmentation.view_recipes(recipes.get(name, "none"), counts[name], f"config.augment.{name}"))
      for name in self.drawn_sets
    )
    for name, recipes_of_set in augmentations if settings["native"]["patches"] else ():
      if any(recipe != image_augmentation.Recipe() for recipe in recipes_of_set):
        raise UserError(
          f"config.augment.{name}: {recipes.get(name)!r} is of squares, and config.data.native.patches keeps the ratio "
          "of images; set it to 'none'"
        )
    with_regions = settings["regions"]["views"] and "box" in settings["facts"]
    return ImagePreparation(
      (*self.arrays(settings), "mirror_safe", *((_REGIONS,) if with_regions else ())),
      augmentations,
      tuple(normalize["mean"]),
      tuple(normalize["std"]),
      image_masks.masking(settings),
      "masked" in settings["facts"],
      "pixels" in settings["facts"],
      image_maps.maps_of(settings),
      bool(settings["native"]["patches"]),
    )

  def check_shapes(self, error: UserError, view_set: str, inputs: Inputs) -> UserError:
    if view_set in self.versions or inputs.grid is not None:
      return error
    key = "multi_crop.size" if view_set == "image_small" else "image_size"
    return UserError(f"config.data.{key}={inputs.values.shape[2]}: {error}")


@dataclasses.dataclass(frozen=True)
class ImagePreparation(Preparation):
  """Augmented by a recipe a view, and normalised; some views once more with hidden patches.

  Attributes:
    augmentations: (set of views, the recipe of each of its views).
    masks: how patches are hidden. tells_masks: whether `facts` say which. tells_pixels: whether they say the pixels.
    maps: which are computed of some views.
    native: whether images keep their ratio: patches [B, V, L, patch * patch * 3].
  """

  augmentations: tuple[tuple[str, tuple[image_augmentation.Recipe, ...]], ...]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  masks: image_masks.Masking = image_masks.NONE
  tells_masks: bool = False
  tells_pixels: bool = False
  maps: image_maps.Maps = image_maps.NONE
  native: bool = False

  @jax.named_scope("augmentation")
  def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
    """uint8 [B, V, H, W, 3] -> float32 of the same shape."""
    made, regions = {}, self._regions(batch, train)
    if self.native:
      return {"image": self._patches(batch)._replace(boxes=regions.get("image"))} if "image" in batch else made
    for name, first, recipes in self._sets(batch):
      made[name] = Inputs(self._prepared(batch, batch[name], first, recipes, train), boxes=regions.get(name))
    if self.masks.views and "image" in made:
      pixels = made["image"].values[:, : self.masks.views]
      known = None if made["image"].boxes is None else made["image"].boxes[:, : self.masks.views]
      made["image_masked"] = Inputs(pixels, ~self._hidden(batch, pixels.shape[1], train), boxes=known)
      if self.masks.shape == "square":
        regions = [self.masks.regions(pixels[:, v], batch["seed"], v) for v in range(pixels.shape[1])]
        made["image_region"] = Inputs(jnp.stack(regions, 1))
    if self.maps.views and "image" in made:
      pixels = made["image"].values[:, : self.maps.views]
      colours = image_augmentation.denormalize(pixels, self.mean, self.std)
      made["image_maps"] = Inputs(
        jnp.concatenate([pixels, self.maps.add_to(colours)], -1), self._shown(batch, pixels.shape[1], train)
      )
    return made

  def _patches(self, batch: Mapping[str, jax.Array]) -> Inputs:
    """uint8 [B, V, L, patch * patch * 3] -> float32, zero where there is no patch."""
    patches, grid = batch["image"], batch["image_grid"]
    real = jnp.arange(patches.shape[2]) < (grid[..., 0] * grid[..., 1])[..., None]
    colours = image_augmentation.to_float(patches).reshape(*patches.shape[:3], -1, 3)
    values = image_augmentation.normalize(colours, self.mean, self.std).reshape(patches.shape)
    return Inputs(jnp.where(real[..., None], values, 0), real, grid)

  def facts(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, dict[str, jax.Array]]:
    """ "box": [B, V, 4]; where the device mirrors a view, its left and right are exchanged. "masked": [B, V, L];
    "pixels": [B, V, H, W, channels]."""
    found = {name: {"box": box} for name, box in self._boxes(batch, train).items()}
    if self.masks.views and "image" in batch:
      masked = {"box": found["image"]["box"][:, : self.masks.views]} if "image" in found else {}
      if self.tells_masks:
        masked["masked"] = self._hidden(batch, min(self.masks.views, batch["image"].shape[1]), train)
      found["image_masked"] = masked
    if self.maps.views and "image" in batch:
      of_maps = {"box": found["image"]["box"][:, : self.maps.views]} if "image" in found else {}
      if self.tells_masks:
        of_maps["masked"] = ~self._shown(batch, min(self.maps.views, batch["image"].shape[1]), train)
      found["image_maps"] = of_maps
    for name, inputs in (self(batch, train) if self.tells_pixels else {}).items():
      found.setdefault(name, {})["pixels"] = inputs.values
    return found

  def _hidden(self, batch: Mapping[str, jax.Array], views: int, train: bool) -> jax.Array:
    """Bool [B, views, L]; where nothing trains, nothing is hidden."""
    size = batch["image"].shape[2]
    hidden = [self.masks.hidden(batch["seed"], view, size) & train for view in range(views)]
    return jnp.stack(hidden, axis=1)

  def _shown(self, batch: Mapping[str, jax.Array], views: int, train: bool) -> jax.Array:
    """Bool [B, views, maps * L]; where nothing trains, all is seen."""
    size = batch["image"].shape[2]
    shown = [self.maps.shown(batch["seed"], view, size) | (not train) for view in range(views)]
    return jnp.stack(shown, axis=1)

  def _boxes(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, jax.Array]:
    """Set of views -> [B, V, 4], where a batch says it."""
    return {
      name: jnp.stack([self._box(batch, name, first, v, recipe, train) for v, recipe in enumerate(recipes)], axis=1)
      for name, first, recipes in self._sets(batch)
      if f"{name}_box" in batch
    }

  def _regions(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, jax.Array]:
    """Set of views -> [B, V, R, 4], where the regions of an image are in its views, where a batch says it."""
    if _REGIONS not in batch:
      return {}
    of_one = lambda region, view: boxes.in_view(region, view, _SEEN)[0]  # noqa: E731
    over_both = jax.vmap(jax.vmap(of_one, (1, None), 1), (None, 1), 1)
    return {name: over_both(batch[_REGIONS], views) for name, views in self._boxes(batch, train).items()}

  def _box(
    self, batch, name: str, first: int, number: int, recipe: image_augmentation.Recipe, train: bool
  ) -> jax.Array:
    box = batch[f"{name}_box"][:, number]
    if not train:
      return box
    flip = image_augmentation.draw(recipe, batch["seed"], first + number, batch["mirror_safe"]).flip
    return jnp.where(flip[:, None], box[:, jnp.array([2, 1, 0, 3])], box)

  def _sets(self, batch: Mapping[str, jax.Array]):
    """(set of views, the number of its first view, its recipes); no two views of an example draw the same."""
    first = 0
    for name, recipes in self.augmentations:
      if name in batch:
        yield name, first, recipes
        first += len(recipes)

  def _prepared(self, batch, pixels: jax.Array, first: int, recipes: Sequence, train: bool) -> jax.Array:
    def one(recipe, images, number):  # images [B, H, W, 3]
      if train:
        images = image_augmentation.augment(recipe, images, batch["seed"], number, batch["mirror_safe"])
      else:
        images = image_augmentation.to_float(images)
      return image_augmentation.normalize(images, self.mean, self.std)

    numbers = first + jnp.arange(pixels.shape[1])
    if len(set(recipes)) == 1:  # compiled once for all views
      return jax.vmap(functools.partial(one, recipes[0]), in_axes=(1, 0), out_axes=1)(pixels, numbers)
    return jnp.stack([one(recipe, pixels[:, v], first + v) for v, recipe in enumerate(recipes)], axis=1)


def _check_native(options: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
  """Raises UserError for a tower that does not take images which keep their ratio as config.data.native makes them."""
  if not given["patches"]:
    return
  name, patch = str(options.get("name")), options.get("patch", 16)
  if name != "vit" and not name.startswith("vit_"):
    raise UserError(
      f"config.data.native.patches: {where} is a {name!r}, which takes squares; use name='vit', or set it to ()"
    )
  if patch != given["patch"]:
    raise UserError(
      f"{where}.patch: {patch}, and config.data.native.patch={given['patch']} cuts images into others; set one to the "
      "other"
    )
