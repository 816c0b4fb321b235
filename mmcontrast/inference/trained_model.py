"""A trained model as functions: images and captions in, unit rows out.

model = mmcontrast.load("runs/x")
model.encode_image(["cat.jpg", "dog.jpg"]) @ model.encode_text(["a cat", "a dog"]).T
"""

from __future__ import annotations

import copy
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np

from mmcontrast.config.stages import run_folder
from mmcontrast.data.captions import clean
from mmcontrast.data.cut_captions import line_of_set
from mmcontrast.data.loader import open_tokenizer
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import open_source
from mmcontrast.data.tokenizers import kept_name
from mmcontrast.data.transforms import evaluation_view
from mmcontrast.errors import UserError, choose, one_line
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.joined import joined_terms
from mmcontrast.evaluation.zero_shot import class_embeddings
from mmcontrast.inference.encoder_inputs import ImageLike, images_of, read_pixels, texts_of
from mmcontrast.modalities import image_augmentation
from mmcontrast.models.finite import check_rows
from mmcontrast.models.model import Model, build_model, real_tokens
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.score import Score
from mmcontrast.objectives.terms import comparisons, logits_between, parse_terms
from mmcontrast.objectives.tokens import pack, unpack
from mmcontrast.parallel.compilation import FEW, compiler_options
from mmcontrast.parameter_paths import path_name
from mmcontrast.runs.checkpoint import load_run

KINDS = ("image", "text", "image_features")
_LENGTHS = 8  # Texts are cut to a multiple of it: one program each.


class Inference:
  """Embeds images and captions with fixed variables; any number of them.

  They go through the model in batches of config.evaluation.batch_size. Fewer than that are padded to the next
  power of two, so that one image does not cost a batch, and few shapes are compiled.
  """

  def __init__(
    self, config: Mapping, model: Model, variables: Mapping[str, Any], tokenizer: Any, step: int | None = None
  ):
    """`config.evaluation` says which heads make the joint space and which tower the features; `step`: of what."""
    options = config["evaluation"]
    self.config, self.model, self.tokenizer, self.step = config, model, tokenizer, step
    self.data = resolve(config["data"])
    self._batch_size = options["batch_size"]
    mean, std = config["normalize"]["mean"], config["normalize"]["std"]
    heads = {kind: options[kind] for kind in ("image", "text") if options[kind]}
    for kind, head in heads.items():
      choose(head, model.heads, f"config.evaluation.{kind}")
    self._scores = _token_scores(config, model, heads)
    self.joined = joined_terms(config["objective"])
    """The terms that join the keys of an example; `embed` takes what they read as kinds such as "text/text_joint"."""
    own = {path.kind: path.head for term in self.joined for path in (term.query, *term.keys)}
    if options["features"]:
      choose(options["features"], model.towers, "config.evaluation.features")

    def encode(kind, variables, values):
      if kind.partition("/")[0] != "text":
        values = image_augmentation.normalize(image_augmentation.to_float(values), mean, std)
      head = heads.get(kind) or own.get(kind)
      tower = model.tower_of_head[head] if head else options["features"]
      alone = not head or not model.needs_tokens(head)
      encoded = model.encode(variables, tower, values, pooled_only=alone)[0]
      found = model.embed_through(variables, head, encoded) if head else encoded
      if kind in self._scores:
        score = self._scores[kind][0]
        return pack(score.prepare(score.read(found)))
      return _unit_rows(found.pooled) if head else found.pooled.astype("float32")

    self.kinds = (*heads, *(("image_features",) if options["features"] else ()))
    self._own = tuple(own)
    self.image_kind = "image" if "image" in heads else "image_features"
    self.encode = encode
    """(kind, variables, uint8 [B, H, W, 3] or token ids [B, L]) -> rows [B, D], in JAX."""
    few, many = (
      jax.jit(encode, static_argnums=0, compiler_options=compiler_options(jax.default_backend(), examples))
      for examples in (FEW, None)
    )
    self._encode = lambda kind, variables, values: (few if len(values) <= FEW else many)(kind, variables, values)
    self.variables = jax.tree.map(jax.numpy.asarray, variables)

  def encode_image(self, images: ImageLike | Iterable[ImageLike]) -> np.ndarray:
    """L2-normalised rows of one image or many, float32 [N, D]: in the joint space, or without one the tower's features.

    Args:
      images: paths, Pillow images, bytes of files or uint8 [H, W, 3], of any sizes; or uint8 [N, H, W, 3]. They
        are resized and cropped as in evaluation.
    Raises UserError for what is not an image, and for a model without images or one that compares tokens.
    """
    many = list(enumerate(images_of(images, "encode_image")))
    rows = self._rows(self.image_kind, many, self._views, "encode_image")
    return rows if self.image_kind == "image" else unit(rows)

  def encode_text(self, texts: str | Iterable[str]) -> np.ndarray:
    """L2-normalised rows of one text or many in the joint space, float32 [N, D].

    Raises UserError for what is not a text, and for a model without a text head or one that compares tokens.
    """
    return self._rows("text", texts_of(texts, "encode_text"), self._short_ids, "encode_text")

  def classify(
    self,
    images: ImageLike | Iterable[ImageLike],
    classes: Sequence[str | Sequence[str]],
    templates: Sequence[str] = ("{}",),
    temperature: float | None = None,
  ) -> np.ndarray:
    """Zero-shot: how probable each class is for each image, float32 [N, K], rows of sum 1.

    A class is the mean of its prompts (CLIP, arXiv:2103.00020); the probabilities are the softmax over classes of the
    cosines divided by the temperature.

    Args:
      images: as of `encode_image`.
      classes: K names, or several names of one class each.
      templates: prompts with "{}" for the name, such as "a photo of a {}."
      temperature: None: what the run learned.
    Raises UserError as `encode_image` and `encode_text`, for a template without "{}", and where the run learned no
    temperature and none is given.
    """
    temperature = self.temperature if temperature is None else temperature
    if not temperature or temperature < 0:
      raise UserError(
        "classify: no temperature was learned between the heads of this run; give one above 0, such as temperature=0.01"
      )
    classes, templates = ([one] if isinstance(one, str) else list(one) for one in (classes, templates))
    rows = class_embeddings(lambda _, texts: self.encode_text(texts), classes, templates)
    return np.asarray(jax.nn.softmax(self.encode_image(images) @ rows.T / temperature, axis=-1))

  @property
  def logit_scale(self) -> float | None:
    """The factor of cosines that training learned, one over the temperature; None where no term compares the heads."""
    return self._logits()[0]

  @property
  def logit_bias(self) -> float | None:
    """What was added to logits after the scale (SigLIP); None without one."""
    return self._logits()[1]

  @property
  def temperature(self) -> float | None:
    """One over `logit_scale`."""
    return None if self.logit_scale is None else 1 / self.logit_scale

  def _logits(self) -> tuple[float | None, float | None]:
    heads = [self.config["evaluation"][kind] for kind in ("image", "text")]
    return logits_between(self.config["objective"], self.variables["params"].get("terms", {}), heads)

  def __repr__(self) -> str:
    heads, config = self.config["evaluation"], self.config
    parts = [] if self.step is None else [f"step {self.step}"]
    for kind, what in (("image", f"{self.data['image_size']} px"), ("text", f"{self.data['text_length']} tokens")):
      head = heads[kind] if kind in self.kinds else ""
      tower = self.model.tower_of_head[head] if head else heads["features"] if kind == "image" else ""
      if tower:
        parts.append(f"{kind}s of {what} by {config['towers'][tower]['name']}" + (f", head {head}" if head else ""))
    if self.temperature is not None:
      parts.append(f"temperature {self.temperature:.4g}")
    parts.append(f"{sum(leaf.size for leaf in jax.tree.leaves(self.variables['params'])):,} parameters")
    return f"<mmcontrast model: {'; '.join(parts)}>"

  def view(self, image: ImageLike) -> np.ndarray:
    """What the model sees of an image: uint8 [S, S, 3]. Raises UserError for what is not an image."""
    return self._view(image, "image")

  def _view(self, image: ImageLike, name: str) -> np.ndarray:
    return evaluation_view(read_pixels(image, self.data["limits"], name), self.data)

  def embed(self, kind: str, values: Sequence, name: Callable[[int], str] | None = None) -> np.ndarray:
    """Rows for images or captions: the evaluators' only view of a model.

    Args:
      kind: "image" or "text" (unit rows in the joint space), "image_features"
        (the tower's pooled output, for probes), or what a term of `joined` reads ("text/text_joint").
      values: uint8 images [N, H, W, 3], or N strings, or their token ids [N, L].
      name: what the value of an index is called in messages.
    Returns:
      [N, D] float32; of a head of tokens [N, L, D], for `compare` only.
    Raises UserError for a kind this model has no head for, and for embeddings that are not finite.
    """
    choose(kind, [*self.kinds, *self._own], "embed")
    rows = self._embed(kind, values, self._ids if kind.partition("/")[0] == "text" else np.asarray)
    return self._finite(rows, "embed", name or f"{kind} {{}}".format)

  def _rows(self, kind: str, values: Sequence, prepare: Callable[[Sequence], np.ndarray], where: str) -> np.ndarray:
    if kind not in self.kinds:
      raise UserError(f"{where}: config.evaluation.{kind} names no head of this run; it has {', '.join(self.kinds)}")
    if self.compares_tokens:
      raise UserError(f"{where}: this model compares tokens and has no single vector; use embed and compare")
    if not values:
      raise UserError(f"{where}: nothing to encode; give one or more")
    rows = self._embed(kind, values, prepare)
    return self._finite(rows, where, lambda index: _called(values[index], index))

  def _finite(self, rows: np.ndarray, where: str, name: Callable[[int], str]) -> np.ndarray:
    if not np.isfinite(rows).all():
      weights = jax.tree_util.tree_flatten_with_path(self.variables)[0]
      check_rows(rows, where, name, {path_name(path): np.asarray(leaf) for path, leaf in weights})
    return rows

  def _embed(self, kind: str, values: Sequence, prepare: Callable[[Sequence], np.ndarray]) -> np.ndarray:
    # The last of several batches is padded to a whole one: that shape is compiled already.
    size = min(self._batch_size, 1 << (len(values) - 1).bit_length())
    rows, waiting = [], None
    for start in range(0, len(values), size):
      chunk = prepare(values[start : start + size])
      count = len(chunk)
      if count < size:
        chunk = np.pad(chunk, [(0, size - count)] + [(0, 0)] * (chunk.ndim - 1))
      found = self._encode(kind, self.variables, chunk)
      if waiting is not None:  # one batch is prepared while the device is busy with the one before
        rows.append(np.asarray(waiting))
      waiting = found
    return np.concatenate([*rows, np.asarray(waiting)[:count]])

  def token_ids(self, texts: Sequence[str]) -> np.ndarray:
    """int [N, L]: what the model sees of texts."""
    return self._ids(texts)

  def cut_line(self, name: str, texts: Sequence[str]) -> str:
    """What cutting the captions of a set does, in a line; "" where none is cut."""
    return line_of_set(name, texts, self.tokenizer, self.data["text_length"])

  def _ids(self, texts: Sequence[str] | np.ndarray) -> np.ndarray:
    if isinstance(texts, np.ndarray):
      return texts
    most = self.data["limits"]["caption_characters"]
    return self.tokenizer.encode([clean(text, most) for text in texts], self.data["text_length"])

  def _short_ids(self, texts: Sequence[str]) -> np.ndarray:
    """Ids without padding that all these texts have and the tower does not see, but of few different lengths."""
    ids, tokens = self._ids(texts), self.data["token_ids"]
    if getattr(self.model.towers[self.model.tower_of_head[self.config["evaluation"]["text"]]], "sees_padding", True):
      return ids
    longest = int(real_tokens(ids, tokens["pad"], tokens["eos"]).sum(1).max())
    return ids[:, : max(1, -(-longest // _LENGTHS)) * _LENGTHS]

  def _views(self, numbered: Sequence[tuple[int, ImageLike]]) -> np.ndarray:
    if len(numbered) == 1:
      return self._view(numbered[0][1], f"image {numbered[0][0]}")[None]
    with futures.ThreadPoolExecutor(self.data["read"]["threads"]) as pool:
      return np.stack(list(pool.map(lambda pair: self._view(pair[1], f"image {pair[0]}"), numbered)))

  def untrained(self, seed: int = 0) -> Inference:
    """The same towers and heads with initial weights: what they give before any training."""
    size, length = self.data["image_size"], self.data["text_length"]
    views = {"image": np.zeros((2, size, size, 3), np.float32), "text": np.ones((2, length), np.int32)}
    views = {kind: views[kind] for kind in set(self.model.modality_of_tower.values())}
    out = copy.copy(self)
    out.__dict__.pop("digest", None)
    out.variables = jax.jit(self.model.init)(jax.random.key(seed), views)
    return out

  @functools.cached_property
  def digest(self) -> str:
    """16 hexadecimal digits that another model does not have."""
    digest = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(self.variables):
      digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8))
    return digest.hexdigest()

  @property
  def compares_tokens(self) -> bool:
    """Whether "image" and "text" are embedded as tokens."""
    return bool(self._scores)

  def compare(self, kind: str, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """How well each of a gallery matches each query, as the terms compare tokens.

    Args:
      kind: of the queries, "image" or "text"; the gallery is of the other.
      queries: [Q, ...], and gallery: [G, ...], as `embed` gives them.
    Returns:
      [Q, G] float32.
    """
    score, exchanged = self._scores[kind]
    return np.asarray(_tile(score, gallery, queries)).T if exchanged else np.asarray(_tile(score, queries, gallery))


def load(workdir: str | pathlib.Path, step: int | None = None, data_dir: str | None = None) -> Inference:
  """The model of a run, from its newest checkpoint (or that of `step`).

  Raises UserError when there is no such checkpoint or its tokenizer is missing.
  """
  config, variables, step = load_run(workdir, step)
  tokenizer = load_tokenizer(config, run_folder(workdir), data_dir)
  model = build_model(config, tokenizer.vocab_size if tokenizer else None)
  return Inference(config, model, variables, tokenizer, step)


def load_tokenizer(config: Mapping, workdir: str | pathlib.Path | None = None, data_dir: str | None = None) -> Any:
  """The tokenizer kept in the folder of a run, else the one its config names; None where there are no text views."""
  settings = resolve(config["data"])
  if workdir is not None:
    settings["tokenizer"] = kept_name(settings["tokenizer"], workdir)
  own = settings["views"]["text"] and settings["tokenizer"] == "sentencepiece"  # else the data need not be there
  return open_tokenizer(settings, open_source(settings, settings["split"], data_dir) if own else None)


@functools.partial(jax.jit, static_argnums=0)
def _tile(score: Score, rows: jax.Array, columns: jax.Array) -> jax.Array:
  return score.tile(*(unpack(jax.numpy.asarray(x), score.weighted) for x in (rows, columns)))


def _token_scores(config: Mapping, model: Model, heads: Mapping[str, str]) -> dict[str, tuple[Score, bool]]:
  """Kind of a query -> the score of tokens it is compared by, and whether it is that score's column.

  It is that of the term whose query has the kind's head and whose key has the other's, or the other way
  round. Empty when the heads give vectors.
  """
  if not set(heads.values()) & model.token_heads:
    return {}
  compared, found = comparisons(parse_terms(config["objective"])), {}
  for kind, other in (("image", "text"), ("text", "image")):
    wanted = heads.get(kind), heads.get(other)
    sides = {
      (parse_embedding(one.query[0]).head, parse_embedding(one.key[0]).head): one.score
      for one in reversed(compared)
      if one.score.tokens
    }
    if wanted not in sides and wanted[::-1] not in sides:
      raise UserError(
        f"config.evaluation.{kind}: no term compares the tokens of {wanted[0]!r} and {wanted[1]!r}; "
        "name two heads that one does, or heads that give one vector"
      )
    found[kind] = (sides[wanted], False) if wanted in sides else (sides[wanted[::-1]], True)
  return found


def _called(value: Any, index: int) -> str:
  """What a text, or an image with its number, is called in messages: by itself if it is a str or a path."""
  value = value[1] if isinstance(value, tuple) else value
  return one_line(repr(os.fspath(value)), 60) if isinstance(value, str | os.PathLike) else f"image {index}"


def _unit_rows(rows: jax.Array) -> jax.Array:
  rows = rows.astype("float32")
  return rows / jax.numpy.maximum(jax.numpy.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
