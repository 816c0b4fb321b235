"""Prompts that learn, beside a trained model: tuned on a few labelled things, and used to classify others.

    model = mmcontrast.load("runs/x")
    tuned = model.tune_prompts(images, labels, ["cat", "dog"], method="coop", words="a photo of a")
    tuned.logits(images, ["cat", "dog", "horse"])

The loss is the cross entropy of the logit scale times the cosines between images and classes (CoOp, arXiv:2109.01134;
MaPLe, arXiv:2210.03117). Only the prompts learn (models/prompts.py), by SGD with a cosine; the model is read only.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmcontrast import folders
from mmcontrast.data.settings import resolve
from mmcontrast.data.things import taken_at
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.zero_shot import PROMPTS
from mmcontrast.inference.kinds import run_node
from mmcontrast.modalities import MODALITIES, stacked
from mmcontrast.models import prompts
from mmcontrast.objectives.matryoshka import cut

if TYPE_CHECKING:
  from mmcontrast.inference.trained_model import Inference

_WHERE = "tune_prompts"


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How prompts are tuned. Defaults are CoOp's, but for the steps; its augmentation and warm-up are not here.

  Attributes:
    method: one of `prompts.METHODS`: "coop", "maple" or "ctp_tft".
    length: vectors; 0: as is usual of the method, or as many as `words` has tokens.
    depth: blocks that get vectors of their own, of "maple"; 0: 9, or all where there are fewer.
    words: what the vectors of the first block start as, such as "a photo of a"; "": they are drawn.
    template: what follows the vectors, "{}" for the name of a class.
    steps, batch_size, learning_rate, momentum, weight_decay: of SGD; the rate falls along a cosine.
    temperature: what cosines are divided by; 0: what the run learned.
    seed: of what is drawn.
  """

  method: str = "coop"
  length: int = 0
  depth: int = 0
  words: str = ""
  template: str = "{}"
  steps: int = 200
  batch_size: int = 32
  learning_rate: float = 2e-3
  momentum: float = 0.9
  weight_decay: float = 5e-4
  temperature: float = 0.0
  seed: int = 0

  def __post_init__(self):
    choose(self.method, prompts.METHODS, f"{_WHERE}: method")
    for name in ("steps", "batch_size"):
      if getattr(self, name) < 1:
        raise UserError(f"{_WHERE}: {name} {getattr(self, name)}; give 1 or more")
    if self.length < 0 or self.depth < 0 or self.temperature < 0 or self.learning_rate <= 0:
      raise UserError(f"{_WHERE}: length, depth and temperature are 0 or more, and learning_rate is above 0")
    if self.depth > 1 and self.method != "maple":
      raise UserError(f"{_WHERE}: depth {self.depth} is of method 'maple'; {self.method!r} has vectors at one depth")
    if self.template.count("{}") != 1:
      raise UserError(f"{_WHERE}: template {self.template!r} must hold '{{}}' once, for the class")


class Prompted:
  """A model that classifies things with prompts: parameters, and the model they stand beside."""

  def __init__(self, model: Inference, recipe: Recipe, modality: str = "image"):
    """The prompts are as they start.

    Raises UserError for a model without two single-vector heads, or towers in which prompts cannot stand.
    """
    for one in (modality, PROMPTS):
      if one not in model.heads:
        raise UserError(f"{_WHERE}: config.evaluation.{one} names no head of this run")
      model.check_one_vector(one, _WHERE)
    self.model, self.modality = model, modality
    self._data = {**model.config, "data": resolve(model.config["data"])}
    self._start = int(self._data["data"]["token_ids"]["bos"] >= 0)
    self._of = {one: model.parsed(one) for one in (modality, PROMPTS)}
    self._towers = {one: model.model.towers[of.tower] for one, of in self._of.items()}
    self._method = prompts.METHODS[recipe.method]
    first = self._first(recipe.words) if recipe.words else None
    length = recipe.length or (len(first) if recipe.words else self._method.length)
    if first is not None and len(first) != length:
      raise UserError(
        f"{_WHERE}: length {length}, and words {recipe.words!r} are {len(first)} tokens; leave length out"
      )
    self._sees_images = self._method.image is not None
    depth = recipe.depth or self._usual_depth()
    prompts.check_tower(self._towers[PROMPTS], depth, "text", _WHERE)
    if self._sees_images:
      prompts.check_tower(self._towers[modality], depth, "image", _WHERE)
    self.recipe = dataclasses.replace(recipe, length=length, depth=depth)
    self.scale = 1 / recipe.temperature if recipe.temperature else model.logits(modality, PROMPTS)[0]
    if not self.scale:
      raise UserError(
        f"{_WHERE}: no temperature was learned between the heads of this run; give one, such as temperature=0.01"
      )
    widths = [getattr(self._towers[one], "width", 0) for one in (PROMPTS, modality)]
    joint = model.width or model.model.head_dims[self._of[PROMPTS].head]
    sizes = prompts.Sizes(length, depth, *widths, joint)
    parameters = self._method.init(jax.random.key(recipe.seed), sizes, first)
    self.parameters = jax.tree.map(jnp.asarray, parameters)
    self._text, self._image = jax.jit(self._text_rows), jax.jit(self._image_rows)

  def cosines(self, values: Any, classes: Sequence[str]) -> np.ndarray:
    """float32 [N, K]: of things and classes.

    Args:
      values: an array, of things as evaluation shows them, uint8 [N, H, W, 3] of images; or a list of what `view` of
        the model takes, such as paths.
    """
    classes = self.class_rows(classes)
    return unit(self._moved(self.parameters, self.image_rows(values), classes)) @ classes.T

  def logits(self, values: Any, classes: Sequence[str]) -> np.ndarray:
    """`cosines` times the logit scale."""
    return self.scale * self.cosines(values, classes)

  def class_rows(self, classes: Sequence[str]) -> np.ndarray:
    """float32 [K, D]: a unit row of each class."""
    ids, names = self._classes(classes)
    return np.asarray(self._text(self.parameters, self.model.variables, ids, names))

  def image_rows(self, values: Any) -> np.ndarray:
    """float32 [N, D]: a unit row of each thing, before classes are seen; `values` as of `cosines`."""
    values = _shown(self.model, values, self.modality)
    if not self._sees_images:
      return unit(self.model.embed(self.modality, values))
    prepare = functools.partial(self.model._batch, self.modality)
    found = [
      np.asarray(self._image(self.parameters, self.model.variables, batch))[:count]
      for batch, count in self.model._batches(values, prepare)
    ]
    return np.concatenate(found)

  def tuned(self, values: Any, labels: np.ndarray, classes: Sequence[str]) -> Prompted:
    """The same with prompts that have learned to tell N things apart, of labels int [N] among K classes."""
    ids, names = self._classes(classes)
    labels, recipe = jnp.asarray(labels), self.recipe
    batch = values if self._sees_images else unit(self.model.embed(self.modality, values))
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
    optimizer = optax.chain(
      optax.add_decayed_weights(recipe.weight_decay), optax.sgd(schedule, recipe.momentum or None)
    )

    def loss(parameters, variables, ids, names, seen, label):
      rows = self._image_rows(parameters, variables, seen) if self._sees_images else seen
      classes = self._text_rows(parameters, variables, ids, names)
      logits = self.scale * _unit(self._moved(parameters, rows, classes)) @ classes.T
      return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    @jax.jit
    def step(parameters, state, *inputs):
      gradient = jax.grad(loss)(parameters, *inputs)
      updates, state = optimizer.update(gradient, state, parameters)
      return optax.apply_updates(parameters, updates), state

    parameters, state = self.parameters, optimizer.init(self.parameters)
    for places in _places(len(labels), recipe):
      seen = self.model._batch(self.modality, taken_at(values, places)) if self._sees_images else batch[places]
      parameters, state = step(parameters, state, self.model.variables, ids, names, seen, labels[places])
    if bad := [leaf for leaf in jax.tree.leaves(parameters) if not np.isfinite(leaf).all()]:
      raise UserError(f"{_WHERE}: {len(bad)} arrays of prompts are not finite; try a smaller learning_rate")
    return self.with_parameters(parameters)

  def with_parameters(self, parameters: Any) -> Prompted:
    """The same with other prompts; what is compiled is shared."""
    out = copy.copy(self)
    out.parameters = jax.tree.map(jnp.asarray, parameters)
    return out

  def save(self, path: str | os.PathLike) -> folders.Folder:
    """Writes the prompts, without the model, into a .npz file."""
    path = folders.at(path, _WHERE)
    leaves = {f"p{number}": np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(self.parameters))}
    notes = {"recipe": dataclasses.asdict(self.recipe), "modality": self.modality, "model": self.model.digest}
    with folders.written(path) as scratch, scratch.open("wb") as file:
      np.savez(file, notes=np.array(json.dumps(notes)), **leaves)
    return path

  def _usual_depth(self) -> int:
    blocks = [getattr(self._towers[one], "depth", 0) for one in (PROMPTS, self.modality)]
    return max(1, min(self._method.depth, *blocks)) if self._method.depth > 1 else 1

  def _ids(self, texts: Sequence[str], length: int) -> np.ndarray:
    return np.asarray(
      MODALITIES[PROMPTS].batch(texts, {**self._data["data"], "text_length": length}, self.model.tokenizer)
    )

  def _first(self, words: str) -> jax.Array:
    """float32 [n, D]: what the text tower begins with of each token of `words`."""
    of = self._data["data"]["token_ids"]
    ids = self._ids([words], self._data["data"]["text_length"])[0]
    ids = ids[~np.isin(ids, list(of.values()))]
    return self.model.variables["params"]["towers"][self._of[PROMPTS].tower]["token_embedding"]["embedding"][ids]

  def _classes(self, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [K, L], with a token more for each vector, which takes its place; and unit rows of the names [K, D]."""
    room = self._data["data"]["text_length"] - self.recipe.length
    if room < 3:
      raise UserError(
        f"{_WHERE}: length {self.recipe.length} leaves {room} of data.text_length="
        f"{self._data['data']['text_length']} tokens for the names of classes; give fewer"
      )
    ids = self._ids([self.recipe.template.replace("{}", name) for name in classes], room)
    start = self._start
    place = np.repeat(ids[:, start : start + 1], self.recipe.length, axis=1)  # of a real token
    return np.concatenate([ids[:, :start], place, ids[:, start:]], axis=1), self.model.encode_text(list(classes))

  def _moved(self, parameters: Any, rows: Any, classes: Any) -> Any:
    return self._method.rows(parameters, rows, classes) if self._method.rows else rows

  def _text_rows(self, parameters: Any, variables: Any, ids: jax.Array, names: jax.Array) -> jax.Array:
    with prompts.among_texts(self._method.text(parameters, names), self._start):
      return self._rows(PROMPTS, variables, ids)

  def _image_rows(self, parameters: Any, variables: Any, values: jax.Array) -> jax.Array:
    with prompts.behind_patches(self._method.image(parameters), self._towers[self.modality].depth):
      return self._rows(self.modality, variables, values)

  def _rows(self, modality: str, variables: Any, values: jax.Array) -> jax.Array:
    inputs = {modality: MODALITIES[modality].inputs(values, self._data)}
    made = run_node(self.model.model, variables, self._of[modality], inputs)
    return _unit((cut(made, self.model.width) if self.model.width else made).pooled)


def tune(
  model: Inference, values: Any, labels: np.ndarray, classes: Sequence[str], modality: str = "image", **recipe: Any
) -> Prompted:
  """Prompts that have learned to tell N things apart.

  Args:
    model: it is not changed.
    values: things, as of `Prompted.cosines`.
    labels: int [N], of `classes`, K names.
    recipe: fields of `Recipe`.
  Raises UserError for labels of no class, a wrong recipe, and as `Prompted`.
  """
  fields = [field.name for field in dataclasses.fields(Recipe)]
  for name in recipe:
    choose(name, fields, f"{_WHERE}: option")
  labels, values = np.asarray(labels), _shown(model, values, modality)
  if len(labels) != len(values) or not len(labels) or labels.min() < 0 or labels.max() >= len(classes):
    raise UserError(
      f"{_WHERE}: {len(values)} things and {len(labels)} labels among {len(classes)} classes; give one label, from 0 "
      f"to {len(classes) - 1}, for each thing"
    )
  return Prompted(model, Recipe(**recipe), modality).tuned(values, labels, classes)


def read_prompts(model: Inference, path: str | os.PathLike) -> Prompted:
  """What `Prompted.save` wrote, beside the same model. Raises UserError for another model or another file."""
  file = folders.at(path, _WHERE)
  try:
    with folders.fetched(file) as local, np.load(local) as arrays:
      notes = json.loads(str(arrays["notes"]))
      leaves = [arrays[f"p{number}"] for number in range(len(arrays.files) - 1)]
      recipe = Recipe(**notes["recipe"])
  except (OSError, ValueError, KeyError, TypeError):
    raise UserError(f"{path}: holds no prompts, which tune_prompts(...).save writes") from None
  if notes["model"] != model.digest:
    raise UserError(f"{path}: its prompts were tuned beside another model; give that run, or tune again")
  start = Prompted(model, recipe, notes["modality"])
  tree = jax.tree.unflatten(jax.tree.structure(start.parameters), leaves)
  return start.with_parameters(tree)


def _shown(model: Inference, values: Any, modality: str) -> np.ndarray:
  """Things as evaluation shows them."""
  if isinstance(values, np.ndarray):
    return values
  return stacked([model.view(value, modality) for value in values])


def _places(count: int, recipe: Recipe) -> np.ndarray:
  """int [steps, B]: which things each step sees; all of them before any again."""
  draw, size = np.random.default_rng(recipe.seed), min(recipe.batch_size, count)
  rounds = -(-recipe.steps * size // count)
  order = np.concatenate([draw.permutation(count) for _ in range(rounds)])
  return order[: recipe.steps * size].reshape(recipe.steps, size)


def _unit(rows: jax.Array) -> jax.Array:
  rows = rows.astype(jnp.float32)
  return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
