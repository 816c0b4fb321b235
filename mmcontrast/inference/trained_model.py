"""A trained model as functions: images, captions and sounds in, unit rows out.

model = mmcontrast.load("runs/x")
model.encode_image(["cat.jpg", "dog.jpg"]) @ model.encode_text(["a cat", "a dog"]).T
"""

from __future__ import annotations

import copy
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from mmcontrast.config.stages import run_folder
from mmcontrast.data.loader import open_tokenizer
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import open_source
from mmcontrast.data.things import taken_at
from mmcontrast.data.tokenizers import OF_DATASET, kept_name
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose, one_line
from mmcontrast.evaluation.embed import Space, Words, cosines, features_of, unit
from mmcontrast.evaluation.joined import joined_terms
from mmcontrast.evaluation.zero_shot import PROMPTS, class_embeddings, classified
from mmcontrast.inference.captions import Captioner
from mmcontrast.inference.generation import Search
from mmcontrast.inference.guessing import make_guess
from mmcontrast.inference.kinds import (
  Kind,
  check_made,
  heads_of,
  parse_kind,
  run_node,
  space_of,
  token_scores,
  width_of,
)
from mmcontrast.modalities import MODALITIES
from mmcontrast.models.decoding import decoders_of
from mmcontrast.models.finite import check_rows
from mmcontrast.models.model import Model, build_model
from mmcontrast.objectives.matryoshka import cut
from mmcontrast.objectives.score import Score
from mmcontrast.objectives.terms import logits_between
from mmcontrast.objectives.tokens import Tokens
from mmcontrast.parallel.compilation import FEW, compiler_options
from mmcontrast.parameter_paths import path_name
from mmcontrast.registry import check_options
from mmcontrast.runs.checkpoint import load_run

if TYPE_CHECKING:
  from mmcontrast.inference.prompts import Prompted


class Inference:
  """Embeds images, captions and what else a run has a tower for with fixed variables; any number of them.

  They go through the model in batches of config.evaluation.batch_size. Fewer than that are padded to the next
  power of two, so that one image does not cost a batch, and few shapes are compiled.
  """

  def __init__(
    self, config: Mapping, model: Model, variables: Mapping[str, Any], tokenizer: Any, step: int | None = None
  ):
    """`config.evaluation` says which heads make the joint space and which tower the features; `step`: of what."""
    self.config, self.model, self.tokenizer, self.step = config, model, tokenizer, step
    self.data = resolve(config["data"])
    self._batch_size = config["evaluation"]["batch_size"]
    self.heads = heads_of(config, model)
    """Modality -> the head of the joint space."""
    self.width = width_of(config, model)
    """How many of the first numbers of its vectors are compared; 0: all."""
    self.space: Space = space_of(config, model, variables)
    self._scores = token_scores(config, model)
    self.joined = joined_terms(config["objective"])
    """The terms that join the keys of an example; `embed` takes what they read as kinds such as "text/text_joint"."""
    probed = self.space.probed
    self.kinds = (*self.heads, *((features_of(probed),) if probed else ()))

    prepared = {**config, "data": self.data}

    def encode(kind, variables, values):
      of = self.parsed(kind)
      parts = {of.modality: values} if of.modality else values
      inputs = {modality: MODALITIES[modality].inputs(part, prepared) for modality, part in parts.items()}
      made = run_node(model, variables, of, inputs)
      if self.width and not of.field and of.head in self.heads.values():
        made = cut(made, self.width)
      score = next((score for (query, _), (score, _) in self._scores.items() if query == kind), None)
      return score.prepare(score.read(made)) if score else _rows_of(made, of)

    self._guess = functools.cache(lambda: make_guess(prepared, model, tokenizer))
    self._captioner = functools.cache(lambda head, where: Captioner(prepared, model, tokenizer, head, where))
    self.function = encode
    """(kind, variables, values as `batch` gives them) -> rows [B, D], or `Tokens` of B, in JAX."""
    self.variables = jax.tree.map(jnp.asarray, variables)
    leaves = jax.tree.leaves(self.variables)  # none where the model is made to be asked for its untrained form
    platform = next(iter(leaves[0].devices())).platform if leaves else jax.default_backend()
    few, many = (
      jax.jit(encode, static_argnums=0, compiler_options=compiler_options(platform, examples))
      for examples in (FEW, None)
    )
    self._encode = lambda kind, variables, values: (few if _count(values) <= FEW else many)(kind, variables, values)
    self.parsed = functools.cache(lambda kind: parse_kind(kind, config, model))
    """A kind of `embed` taken apart."""

  def encode(self, modality: str, things: Any) -> np.ndarray:
    """L2-normalised rows of one thing of a modality or of many, float32 [N, D]: in the joint space, or of a modality
    without a head there the features of its tower.

    Args:
      modality: "image", "text", "audio", ...
      things: what the modality accepts: of images and sounds paths, bytes of files or arrays, of any sizes; strings.
        They are prepared as in evaluation.
    Raises UserError for what is no such thing, and for a model without that modality or one that compares tokens.
    """
    where = f"encode_{modality}"
    of = MODALITIES[choose(modality, MODALITIES, "encode: modality")]
    many = list(enumerate(of.many(things, where)))
    kind = self.kind_of(modality)
    rows = self._rows(kind, many, functools.partial(self._views, modality), where)
    return rows if kind == modality else unit(rows)

  def encode_image(self, images: Any) -> np.ndarray:
    """`encode` of images: paths, Pillow images, bytes of files or uint8 [H, W, 3], of any sizes; or uint8
    [N, H, W, 3]."""
    return self.encode("image", images)

  def encode_text(self, texts: Any) -> np.ndarray:
    """`encode` of one text or many."""
    return self.encode("text", texts)

  def __getattr__(self, name: str) -> Any:
    """`encode_audio` and the like, of every other modality."""
    modality = name.removeprefix("encode_")
    if modality != name and modality in MODALITIES:
      return functools.partial(self.encode, modality)
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

  def kind_of(self, modality: str) -> str:
    """What embeds a modality: itself, where a head of the joint space does, else the features of its tower."""
    return modality if modality in self.heads or self.space.probed != modality else features_of(modality)

  def classify(
    self,
    images: Any,
    classes: Sequence[str | Sequence[str]],
    templates: Sequence[str] = ("{}",),
    temperature: float | None = None,
    modality: str = "",
  ) -> np.ndarray:
    """Zero-shot: how probable each class is for each image, float32 [N, K], rows of sum 1.

    A class is the mean of its prompts (CLIP, arXiv:2103.00020); the probabilities are the softmax over classes of the
    cosines divided by the temperature.

    Args:
      images: as of `encode_image`; or things of another modality.
      classes: K names, or several names of one class each.
      templates: prompts with "{}" for the name, such as "a photo of a {}."
      temperature: None: what the run learned.
      modality: of `images`; "": the one that the run's evaluation classifies.
    Raises UserError as `encode_image` and `encode_text`, for a template without "{}", and where the run learned no
    temperature and none is given.
    """
    modality = modality or classified(self.space) or "image"
    if temperature is None:
      scale, _ = self.logits(modality, PROMPTS)
      temperature = 1 / scale if scale else None
    if not temperature or temperature < 0:
      raise UserError(
        "classify: no temperature was learned between the heads of this run; give one above 0, such as temperature=0.01"
      )
    classes, templates = ([one] if isinstance(one, str) else list(one) for one in (classes, templates))
    rows = class_embeddings(self.encode, classes, templates)
    return np.asarray(jax.nn.softmax(self.encode(modality, images) @ rows.T / temperature, axis=-1))

  def caption(self, things: Any, *, head: str = "", seed: int = 0, **search: Any) -> list[str]:
    """A caption of one thing or of many, by the decoder of the run (config coca has one).

    Args:
      things: images, as of `encode_image`, or what else the decoder reads.
      head: which head writes, where the run has several.
      seed: of what is drawn.
      search: fields of `generation.Search`: beams=5; or top_p=0.9 and temperature; length, in tokens.
    Raises UserError for a run without a decoder, a tokenizer without start or end, a caption longer than the decoder,
    and as `encode_image`.
    """
    captioner = self._captioner(head, "caption")
    many = list(enumerate(MODALITIES[captioner.modality].many(things, "caption")))
    if not many:
      raise UserError("caption: nothing to describe; give one or more")
    batches = functools.partial(self._batches, prepare=functools.partial(self._views, captioner.modality))
    return captioner.write(self.variables, many, batches, _search_of(search), seed)

  def guess(
    self, head: str, values: Mapping[str, Any], places: Mapping[str, np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How well a head guesses words that are taken from texts, always the same ones: (loss, hits, words), sums over the
    words of each text, float64 [P].

    Args:
      head: one of `space.guesses`.
      values: modality -> as of `embed`.
      places: modality -> int [P], which thing belongs with which text.
    Raises UserError for another head, and for a tokenizer without a mask token.
    """
    choose(head, self.space.guesses, "guess: head")
    function, found, seeds = self._guess(), [], np.arange(len(places["text"]), dtype=np.uint32)

    def prepare(rows: Sequence[int]) -> dict[str, Any]:
      parts = {kind: self._batch(kind, taken_at(values[kind], of[rows])) for kind, of in places.items()}
      return {"parts": parts, "seeds": seeds[rows]}

    for batch, count in self._batches(np.arange(len(seeds)), prepare):
      made = function(head, self.variables, batch["parts"], batch["seeds"])
      found.append([np.asarray(x, np.float64)[:count] for x in made])
    return tuple(np.concatenate(x) for x in zip(*found))

  @property
  def words(self) -> Words | None:
    """What evaluators ask of the decoder of the run; None without one."""
    if not any(hindrance == "" for hindrance in decoders_of(self.model).values()):
      return None

    def write(values, head="", **search):
      captioner = self._captioner(head, "captioning")
      batches = functools.partial(self._batches, prepare=functools.partial(self._batch, captioner.modality))
      return captioner.write(self.variables, values, batches, _search_of(search))

    def losses(values, texts, head=""):
      captioner, found = self._captioner(head, "perplexity"), []
      prepared = self._batches(range(len(texts)), lambda places: {
        "things": self._batch(captioner.modality, taken_at(values, places)),
        "text": self._batch("text", taken_at(texts, places)),
      })  # fmt: skip
      for part, count in prepared:
        found.append([x[:count] for x in captioner.losses(self.variables, part["things"], part["text"])])
      return tuple(np.concatenate(x) for x in zip(*found))

    return Words(lambda head: self._captioner(head, "evaluation").modality, write, losses)

  def tune_prompts(
    self, values: Any, labels: np.ndarray, classes: Sequence[str], modality: str = "image", **recipe: Any
  ) -> Prompted:
    """Prompts that learn to tell a few labelled things apart, beside this model, which is not changed: see `tune` of
    prompts.py, and docs/adaptation.md."""
    from mmcontrast.inference import prompts  # which reads this module

    return prompts.tune(self, values, labels, classes, modality, **recipe)

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

  def logits(self, one: str, other: str) -> tuple[float | None, float | None]:
    """(scale, bias) that training learned between the heads of two modalities; None where there is none."""
    heads = [self.heads.get(modality, "") for modality in (one, other)]
    return logits_between(self.config["objective"], self.variables["params"].get("terms", {}), heads)

  def cosine_scale(self, one: str, other: str) -> float | None:
    """What training learned to multiply the cosine of things of two modalities by; None where it learned nothing."""
    return self.logits(one, other)[0]

  def _logits(self) -> tuple[float | None, float | None]:
    pairs = [self.logits(*way) for way in self.space.ways()[::2]]
    return next((pair for pair in pairs if pair[0] is not None), (None, None))

  def __repr__(self) -> str:
    config, parts = self.config, [] if self.step is None else [f"step {self.step}"]
    for modality in dict.fromkeys((*self.heads, *filter(None, [self.space.probed]))):
      head, of = self.heads.get(modality), MODALITIES[modality]
      tower = self.model.tower_of_head[head] if head else config["evaluation"]["features"]
      tower = self.model.same_as.get(tower, tower)
      said = f"{of.size(self.data)} by {config['towers'][tower]['name']}"
      parts.append(said + (f", head {head}" if head else ""))
    if self.width:
      parts.append(f"width {self.width}")
    if self.temperature is not None:
      parts.append(f"temperature {self.temperature:.4g}")
    parts.append(f"{sum(leaf.size for leaf in jax.tree.leaves(self.variables['params'])):,} parameters")
    return f"<mmcontrast model: {'; '.join(parts)}>"

  def view(self, thing: Any, modality: str = "image") -> Any:
    """What the model sees of a thing, such as uint8 [S, S, 3] of an image. Raises UserError for what is none."""
    return MODALITIES[modality].accepts(thing, self.data, modality)

  def embed(self, kind: str, values: Any, name: Callable[[int], str] | None = None) -> np.ndarray | Tokens:
    """Rows for things of one modality: the evaluators' only view of a model.

    Args:
      kind: a modality such as "image" or "text" (unit rows in the joint space), "image_features" (the tower's pooled
        output, for probes), or a node of the model ("text/text_joint", "audio/audio.tokens", "fusion/match.logits"):
        see kinds.py.
      values: as evaluation shows things: uint8 images [N, H, W, 3], N strings, or their token ids [N, L], ...; of a
        fusion modality -> such values, of N each.
      name: what the value of an index is called in messages.
    Returns:
      [N, D] float32; of a head of tokens `Tokens` of N, for `compare` only.
    Raises UserError for a kind this model has no head for, and for embeddings that are not finite.
    """
    if self.parsed(kind).modality:
      rows = self._embed(kind, values, lambda part: self._batch(self.parsed(kind).modality, part))
    else:
      rows = self._fused(kind, values, np.arange(len(next(iter(values.values()))))[:, None])
    return self._finite(rows, "embed", name or f"{kind} {{}}".format)

  def _fused(self, kind: str, values: Mapping[str, Any], places: np.ndarray) -> np.ndarray:
    """Rows of a fusion, of the things at `places`, int [N, M] of M modalities in its order, or [N, 1] of all."""
    of = self.parsed(kind).modalities
    places = np.broadcast_to(places, (len(places), len(of)))

    def prepare(rows: np.ndarray) -> dict[str, Any]:
      taken = {one: taken_at(values[one], rows[:, at]) for at, one in enumerate(of)}
      return {one: self._batch(one, part) for one, part in taken.items()}

    return self._embed(kind, places, prepare)

  def _batch(self, modality: str, values: Any) -> Any:
    return MODALITIES[modality].batch(values, self.data, self.tokenizer)

  def _rows(self, kind: str, values: Sequence, prepare: Callable[[Sequence], Any], where: str) -> np.ndarray:
    """Rows of numbered things from outside."""
    if kind not in self.kinds:
      raise UserError(f"{where}: config.evaluation.{kind} names no head of this run; it has {', '.join(self.kinds)}")
    self.check_one_vector(kind, where, "; use embed and compare")
    if not values:
      raise UserError(f"{where}: nothing to encode; give one or more")
    modality = self.parsed(kind).modality
    rows = self._embed(kind, values, prepare)
    return self._finite(rows, where, lambda index: _called(values[index][1], index, modality))

  def _finite(self, rows: Any, where: str, name: Callable[[int], str]) -> Any:
    for part in jax.tree.leaves(rows):
      if not np.isfinite(part).all():
        weights = jax.tree_util.tree_flatten_with_path(self.variables)[0]
        check_rows(part, where, name, {path_name(path): np.asarray(leaf) for path, leaf in weights})
    return rows

  def _batches(self, values: Sequence, prepare: Callable[[Sequence], Any]) -> Iterator[tuple[Any, int]]:
    """Batches of values, each with how many of it are values.

    The last of several is padded to a whole one: that shape is compiled already.
    """
    size = min(self._batch_size, 1 << (len(values) - 1).bit_length())
    for start in range(0, len(values), size):
      chunk = prepare(values[start : start + size])
      count = _count(chunk)
      if count < size:
        chunk = jax.tree.map(lambda x: np.pad(x, [(0, size - count)] + [(0, 0)] * (x.ndim - 1)), chunk)  # noqa: B023
      yield chunk, count

  def _embed(self, kind: str, values: Sequence, prepare: Callable[[Sequence], Any]) -> Any:
    rows, waiting = [], None
    for chunk, count in self._batches(values, prepare):
      found = self._encode(kind, self.variables, chunk)
      if waiting is not None:  # one batch is prepared while the device is busy with the one before
        rows.append(_part(*waiting))
      waiting = found, count
    rows.append(_part(*waiting))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *rows)

  def seen(self, modality: str, values: Any) -> Any:
    """What the model sees of things, [N, ...]: the token ids of texts; equal ones are one to it."""
    return MODALITIES[modality].seen(values, self.data, self.tokenizer)

  def cut_line(self, name: str, modality: str, values: Any) -> str:
    """What the limits of the run cut from the things of a set, in a line; "" where nothing is cut."""
    return MODALITIES[modality].cut_line_of(name, values, self.data, self.tokenizer)

  def _views(self, modality: str, numbered: Sequence[tuple[int, Any]]) -> Any:
    """The batch of things from outside."""
    of = MODALITIES[modality]
    view = lambda pair: of.accepts(pair[1], self.data, f"{modality} {pair[0]}")  # noqa: E731
    if len(numbered) == 1 or of.words:
      values = list(map(view, numbered))
    else:
      with futures.ThreadPoolExecutor(self.data["read"]["threads"]) as pool:
        values = list(pool.map(view, numbered))
    batch = of.batch(values, self.data, self.tokenizer)
    tower = self.model.towers[self.parsed(self.kind_of(modality)).tower]
    return batch if getattr(tower, "sees_padding", True) else of.without_padding(batch, self.data)

  def _zeros(self, modality: str) -> Any:
    return MODALITIES[modality].zeros(2, {**self.config, "data": self.data})

  def at_width(self, width: int | None) -> Inference:
    """The same model, of whose joint space the first `width` numbers are compared; 0: all; None: those that are now.

    Raises UserError for a width that was not trained (`matryoshka` of a term).
    """
    if width is None or width == self.width:
      return self
    config = {**self.config, "evaluation": {**self.config["evaluation"], "width": width}}
    width_of(config, self.model, f"width {width}")
    return Inference(config, self.model, self.variables, self.tokenizer, self.step)

  def untrained(self, seed: int = 0) -> Inference:
    """The same towers and heads with initial weights: what they give before any training."""
    views = {modality: self._zeros(modality) for modality in set(self.model.modality_of_tower.values())}
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
    """Whether things of the joint space are embedded as tokens."""
    return bool(self._scores)

  def match(self, head: str, values: Mapping[str, Any], pairs: np.ndarray) -> np.ndarray:
    """float32 [P]: how well things of two modalities belong together: the log probability of "matched" by the logits of
    a head whose tower reads the towers of both.

    Args:
      head: one of `space.matches`, which says the modalities.
      values: modality -> as of `embed`.
      pairs: int [P, 2], the places of things of the first and of the second modality.
    Raises UserError for another head.
    """
    choose(head, self.space.matches, "match: head")
    if not len(pairs):
      return np.zeros(0, np.float32)
    logits = self._fused(f"{self.space.room(head)}/{head}.logits", values, np.asarray(pairs))
    return special.log_softmax(logits, axis=-1)[:, -1]

  def check_one_vector(self, kind: str, where: str, instead: str = "") -> None:
    """Raises UserError, which begins with `where`, for a kind whose things are embedded as tokens."""
    if any(query == kind for query, _ in self._scores):
      raise UserError(f"{where}: this model compares tokens and has no single vector{instead}")

  def compare(self, way: str, queries: np.ndarray | Tokens, gallery: np.ndarray | Tokens) -> np.ndarray:
    """How well each of a gallery matches each query, as the terms compare tokens.

    Args:
      way: "image_to_text"; or of the queries alone, "image", where it can be compared with one other modality.
      queries: of Q things, and gallery: of G, as `embed` gives them.
    Returns:
      [Q, G] float32.
    """
    query, _, other = way.partition("_to_")
    if not other:
      query, other = next(pair for pair in self._scores if pair[0] == way)
    if (query, other) not in self._scores:
      return cosines(way, unit(queries), unit(gallery))
    score, exchanged = self._scores[query, other]
    return np.asarray(_tile(score, gallery, queries)).T if exchanged else np.asarray(_tile(score, queries, gallery))


def load(
  workdir: str | pathlib.Path, step: int | None = None, data_dir: str | None = None, *, width: int | None = None
) -> Inference:
  """The model of a run, from its newest checkpoint (or that of `step`).

  Args:
    width: how many of the first numbers of the joint space's vectors are compared, a width that `matryoshka` trained;
      0: all; None: what config.evaluation.width says.
  Raises UserError when there is no such checkpoint, its tokenizer is missing, or the width was not trained.
  """
  config, variables, step = load_run(workdir, step)
  tokenizer = load_tokenizer(config, run_folder(workdir), data_dir)
  model = build_model(config, tokenizer.vocab_size if tokenizer else None)
  return Inference(config, model, variables, tokenizer, step).at_width(width)


def load_tokenizer(config: Mapping, workdir: str | pathlib.Path | None = None, data_dir: str | None = None) -> Any:
  """The tokenizer kept in the folder of a run, else the one its config names; None where there are no text views."""
  settings = resolve(config["data"])
  if workdir is not None:
    settings["tokenizer"] = kept_name(settings["tokenizer"], workdir)
  words = any(settings["views"][name] for name, modality in MODALITIES.items() if modality.words)
  own = words and settings["tokenizer"] == OF_DATASET  # else the data need not be there
  return open_tokenizer(
    settings, open_source({**settings, "added_captions": "", "kept": ""}, settings["split"], data_dir) if own else None
  )


@functools.partial(jax.jit, static_argnums=0)
def _tile(score: Score, rows: Tokens, columns: Tokens) -> jax.Array:
  return score.tile(rows, columns)


def _rows_of(made: Encoded, of: Kind) -> jax.Array:
  """float32 [B, D]: unit rows, or the field that is asked for; of tokens and maps their mean."""
  if not of.field:
    return _unit_rows(made.pooled)
  check_made(made, of.head or of.tower, of.field, "embed")
  found = getattr(made, of.field).astype("float32")
  if of.field == "tokens" and made.mask is not None:
    real = made.mask[..., None].astype("float32")
    return jnp.sum(jnp.where(real > 0, found, 0), 1) / jnp.maximum(jnp.sum(real, 1), 1)
  return jnp.mean(found, tuple(range(1, found.ndim - 1))) if of.field in ("tokens", "map") else found


def _search_of(options: Mapping[str, Any]) -> Search:
  check_options(options, Search._fields, "caption")
  return Search(**options)


def _count(values: Any) -> int:
  """How many examples a batch has."""
  return len(jax.tree.leaves(values)[0])


def _part(rows: Any, count: int) -> Any:
  """The first `count` of a batch of rows or tokens, on the host."""
  return jax.tree.map(lambda array: np.asarray(array)[:count], rows)


def _called(value: Any, index: int, modality: str) -> str:
  """What a thing is called in messages: by itself if it is a str or a path."""
  return one_line(repr(os.fspath(value)), 60) if isinstance(value, str | os.PathLike) else f"{modality} {index}"


def _unit_rows(rows: jax.Array) -> jax.Array:
  rows = rows.astype("float32")
  return rows / jax.numpy.maximum(jax.numpy.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
