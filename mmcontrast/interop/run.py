"""From a file of another package to the folder of a run, and back: `mmcontrast import` and `mmcontrast export`."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from mmcontrast.config import base_config
from mmcontrast.config.stages import run_folder
from mmcontrast.data.settings import resolve
from mmcontrast.data.tokenizers import FOLDER, keep_file, kept_name, make_tokenizer
from mmcontrast.encoders.layers import unstack_layers
from mmcontrast.errors import MissingData, UserError, choose
from mmcontrast.folders import at, check_empty, whole
from mmcontrast.inference import load
from mmcontrast.interop import formats, tokenizer_files
from mmcontrast.interop.hugging_face_xclip import PROMPTED
from mmcontrast.interop.pretrained import AudioInput, ImageInput, Pretrained, TextInput, variables
from mmcontrast.modalities.audio_log_mel import LogMel
from mmcontrast.models.finite import check_weights
from mmcontrast.models.graph import sources_of
from mmcontrast.models.model import build_model
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.module_term import MODULES
from mmcontrast.objectives.terms import logits_between
from mmcontrast.registry import options_of
from mmcontrast.runs.checkpoint import load_run, save_untrained

KINDS = ("image", "video", "text", "audio")
HEADS = ("image", "video", "audio", "text")  # of those, the ones whose joint space other packages have
_SEEN = ("image", "video")
PROGRAMS = ("stablehlo", "onnx")


def import_run(
  place: str, workdir: str | pathlib.Path, allow_unused: Sequence[str] = (), weights: str = ""
) -> pathlib.Path:
  """Makes `workdir` a run of what KIND:PATH holds: its checkpoint, resolved config and tokenizer.

  All that loads a run works on it; it has been trained for 0 steps, and is not trained further:
  a run that starts from its weights names them in config.init.

  Args:
    place: of `formats.read`; torch's own files are read too.
    allow_unused: regexes of arrays' names that may be left over.
    weights: which of several sets of weights in one file: see `wrappings.choose_table`.
  Raises UserError, before anything is written, for what cannot be read or has no tokenizer, and where
  `workdir` holds something.
  """
  check_empty(workdir, "--workdir")
  pretrained = formats.read(place, torch=True, allow_unused=allow_unused, weights=weights)
  if lacking := [
    name for name, tower in pretrained.towers.items() if set(tower.get("reads", ())) - {*pretrained.towers}
  ]:
    raise UserError(
      f"{place}: holds a {lacking[0]} of texts, and no image tower that it reads; start a run with one from it: "
      f"config.init={{'towers/{lacking[0]}': '{place}'}}"
    )
  config = config_of(pretrained)
  vocabulary = None
  if pretrained.text:
    if not pretrained.text.tokenizer:
      raise UserError(
        f"{place}: no tokenizer in the folder of the weights; put its tokenizer.json there, as "
        "AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers writes it"
      )
    try:
      tokenizer = make_tokenizer(pretrained.text.tokenizer, lower=pretrained.text.lower)
    except MissingData as error:
      raise MissingData(f"{place}: {error}; or put that file into the folder of the weights") from None
    vocabulary = tokenizer.vocab_size
  build_model(config, vocabulary)
  with whole(workdir, "--workdir") as folder:
    if pretrained.text:
      _keep(pretrained.text, tokenizer, folder)
    save_untrained(folder, config, _variables(pretrained))
  return at(workdir, "--workdir")


def export_run(workdir: str | pathlib.Path, to: str, out: str | pathlib.Path, step: int | None = None) -> pathlib.Path:
  """Writes the model of a run as the folder `out` of format `to`, one of `formats.FORMATS` or PROGRAMS.

  Raises UserError for a model that the format cannot express, naming the option, and where `out` holds something;
  then nothing is written.
  """
  writable = [name for name, one in formats.FORMATS.items() if one.writes]
  choose(to, (*writable, *PROGRAMS), "--to")
  check_empty(out, "--out")
  if to in PROGRAMS:
    importlib.import_module(f"mmcontrast.interop.{to}").write(load(workdir, step), out)
  else:
    formats.FORMATS[to].write(pretrained_of(workdir, step), out)
  return at(out, "--out")


def config_of(pretrained: Pretrained) -> dict[str, Any]:
  """The config of a run with these towers and heads: base_config with all that is known of them."""
  c = base_config()
  c.steps, c.towers, c.heads = 0, pretrained.towers, pretrained.heads
  c.data.views = {kind: int(kind in pretrained.towers) for kind in KINDS}
  if image := pretrained.image:
    c.data.update(
      image_size=image.size,
      centre_crop=image.centre_crop,
      resize=dict(mode="squash" if image.patches else image.resize, interpolation=image.interpolation),
    )
    if image.patches:
      c.data.native.update(patch=image.patch, patches=(image.patches,))
      c.augment.image = "none"  # those that there are are of squares
    c.normalize = dict(mean=image.mean, std=image.std)
  if pretrained.frames:
    c.data.video.update(frames=pretrained.frames, size=image.size)
  if audio := pretrained.audio:
    c.data.audio.update(rate=audio.rate, seconds=audio.seconds)
    with c.data.audio.ignore_type():
      c.data.audio.log_mel = dataclasses.asdict(audio.log_mel)
  if text := pretrained.text:
    c.data.update(
      text_length=text.length,
      tokenizer=text.tokenizer,
      token_ids=dict(text.token_ids),
      special_tokens="read" if text.tokenizer.startswith("huggingface:") else "text",
    )  # as it was trained
    with c.data.ignore_type():
      c.data.lower = text.lower
  for kind in HEADS:
    c.evaluation[kind] = f"{kind}_joint" if f"{kind}_joint" in pretrained.heads else ""
  c.evaluation.features = next((kind for kind in ("image", "video", "audio") if kind in pretrained.towers), "")
  if pretrained.modules:
    c.objective = {name: _prompted(options, pretrained.logit_scale) for name, options in pretrained.modules.items()}
  elif scales := _learned_scales(pretrained):
    c.objective = {f"{query}_{key}": _compared(pretrained, query, key, scale) for query, key, scale in scales}
  return c.to_dict()


def _learned_scales(pretrained: Pretrained) -> list[tuple[str, str, float]]:
  """(modality of the queries, that of the keys, logit scale) of what the logits of a file are of."""
  if pretrained.logit_scale is None or pretrained.modules:
    return []
  other = next(name for name in pretrained.towers if f"{name}_joint" in pretrained.heads and name != "text")
  found = [(other, "text", pretrained.logit_scale)]
  return found if pretrained.text_logit_scale is None else [*found, ("text", other, pretrained.text_logit_scale)]


def _compared(pretrained: Pretrained, query: str, key: str, scale: float) -> dict[str, Any]:
  """The term between two modalities of a file; with a scale for each of them it is of queries that choose keys."""
  term = dict(
    query=f"{query}[0]/{query}_joint", key=f"{key}[0]/{key}_joint", temperature=dict(init=1 / scale, learned=True)
  )
  if pretrained.logit_bias is not None:
    return term | dict(criterion="sigmoid", bias=dict(init=pretrained.logit_bias))
  return term | dict(direction="both" if pretrained.text_logit_scale is None else "rows")


def _prompted(options: Mapping[str, Any], logit_scale: float) -> dict[str, Any]:
  """The term of X-CLIP's prompts."""
  embeddings = ("video[0]/video_joint", "video[0]/video_patches", "text[0]/text_joint")
  return dict(module=dict(options, temperature=1 / logit_scale), embeddings=embeddings)


def _variables(pretrained: Pretrained) -> dict[str, Any]:
  """The arrays of a file, and what its logits have learned, as the variables of a run."""
  learned = {}
  for query, key, scale in _learned_scales(pretrained):
    learned[f"params/terms/{query}_{key}/log_scale"] = np.float32(math.log(scale))
    if pretrained.logit_bias is not None:
      learned[f"params/terms/{query}_{key}/bias"] = np.float32(pretrained.logit_bias)
  return {"params": {"terms": {}}, **variables({**pretrained.arrays, **learned})}


def pretrained_of(workdir: str | pathlib.Path, step: int | None = None) -> Pretrained:
  """The model of a run in the terms of a file: the heads that config.evaluation names, and their towers.

  A run without them gives only the tower of config.evaluation.features.
  Raises UserError when there is no checkpoint, a head shares parameters with another, or a weight is not finite.
  """
  config, found, _ = load_run(workdir, step)
  pretrained = describe_run(config, found, str(workdir), kept_name(config["data"]["tokenizer"], run_folder(workdir)))
  check_weights(pretrained.arrays, str(workdir))
  return pretrained


def describe_run(config: Mapping[str, Any], found: Mapping[str, Any], where: str, tokenizer: str) -> Pretrained:
  """A model of ours in the terms of a file.

  Args:
    config: with every option of towers and heads.
    found: {"params", "batch_stats"}; of towers and heads their shapes (jax.ShapeDtypeStruct) will do.
    where: the run, for messages.
    tokenizer: as config.data.tokenizer, where its file is.
  Raises UserError for a run without a head or a tower to export, and where a head shares parameters with another.
  """
  options, data = config["evaluation"], resolve(config["data"])
  own_heads = {f"{kind}_joint": options[kind] for kind in HEADS if options[kind]}
  if any(f"{kind}_joint" in own_heads for kind in _SEEN):  # of which no package has a model with sounds too
    own_heads.pop("audio_joint", None)
  sources = sources_of(config)
  for own in own_heads.values():
    if sources[own][0] == "heads":
      raise UserError(
        f"{where}: config.heads.{own} reads the head {sources[own][1]!r}, which no other package has; "
        "export a run that is evaluated by a head of a tower"
      )
  own_towers = {name.removesuffix("_joint"): sources[own][1] for name, own in own_heads.items()}
  pair = tuple(own_heads.values())
  prompts = _prompts_of(config["objective"], own_heads)
  if prompts:
    patches = parse_embedding(config["objective"][prompts]["embeddings"][1]).head
    own_heads["video_patches"], own_towers["video"] = patches, sources[patches][1]
  if words := _decoding_head(config, own_towers):
    own_heads["words"], own_towers["decoder"] = words, sources[words][1]
  if not own_towers and not options["features"]:
    raise UserError(
      f"{where}: config.evaluation names no head (image, text) and no tower (features) to export; train "
      "with one of them set"
    )
  if not own_towers:
    tower = choose(options["features"], config["towers"], f"{where}: config.evaluation.features")
    own_towers = {config["towers"][tower].get("modality", tower): tower}
    if other := set(own_towers) - set(KINDS):
      raise UserError(
        f"{where}: other packages have images, videos, texts and sounds, and this run is evaluated by a tower of "
        f"{' and '.join(other)}; export a run whose config.evaluation names a head or a tower of these"
      )
  arrays = unstack_layers(_renamed(found, {"towers": own_towers, "heads": own_heads}))
  heads, towers = {}, {}
  for name, own in own_heads.items():
    heads[name] = {**config["heads"][own], "tower": "decoder" if name == "words" else name.partition("_")[0]}
    heads[name].pop("of", None)
    if heads[name].pop("shared", None):
      raise UserError(
        f"{where}: config.heads.{own} shares parameters with another head, which no other package has; "
        "export a run whose heads have their own"
      )
  for name, own in own_towers.items():
    towers[name] = {**config["towers"][own], **({"scan": False} if "scan" in config["towers"][own] else {})}
    towers[name].pop("modality", None)
    if name == "decoder":
      towers[name]["reads"] = ("text", "image")
  image = text = audio = frames = None
  if {"image", "video"} & set(towers):
    mode, most = "squash" if data["resize"]["mode"] == "squash" else "shortest", 0
    size = data["image_size"] if "image" in towers else data["video"]["size"]
    if "image" in towers and (native := data["native"])["patches"]:
      most = native["patches"][-1]
      mode, size = "native", native["patch"] * math.isqrt(most)
    image = ImageInput(
      size,
      tuple(config["normalize"]["mean"]),
      tuple(config["normalize"]["std"]),
      mode,
      data["resize"]["interpolation"],
      data["centre_crop"],
      most,
    )
  if "video" in towers:
    frames = data["video"]["frames"]
  if "audio" in towers:
    sounds = data["audio"]
    audio = AudioInput(sounds["rate"], sounds["seconds"], LogMel(**sounds["log_mel"]))
  if "text" in towers:
    vocabulary = arrays["params/towers/text/token_embedding/embedding"].shape[0]
    towers["text"] = {"vocab_size": vocabulary, **towers["text"]}
    text = TextInput(data["text_length"], tokenizer, data["token_ids"], data["lower"])
  terms = found["params"].get("terms", {})
  check_weights(traverse_util.flatten_dict(terms, sep="/"), "config.objective")
  sounds = set(own_heads) == {"audio_joint", "text_joint"}
  scale, bias = logits_between(config["objective"], terms, pair, query=own_heads["audio_joint"] if sounds else "")
  text_scale = logits_between(config["objective"], terms, pair, query=own_heads["text_joint"])[0] if sounds else None
  modules = {}
  if prompts:
    module = {**options_of(MODULES["video_prompts"]), **config["objective"][prompts]["module"]}
    modules = {PROMPTED: {key: value for key, value in module.items() if key != "temperature"}}
    scale = 1 / temperature if isinstance(temperature := module["temperature"], int | float) else None
    arrays |= {
      f"params/terms/{PROMPTED}/{path}": leaf if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf)
      for path, leaf in traverse_util.flatten_dict(terms[prompts], sep="/").items()
    }
  names = {
    f"{kind}/{name}": f"{kind}/{own}"
    for kind, parts in (("towers", own_towers), ("heads", own_heads))
    for name, own in parts.items()
  }
  return Pretrained(towers, heads, arrays, image, text, scale, bias, where, names, audio, frames, modules, text_scale)


def _prompts_of(objective: Mapping[str, Any], own_heads: Mapping[str, str]) -> str | None:
  """The term of X-CLIP's prompts between the heads of videos and of texts; None without one."""
  for name, term in objective.items():
    if term.get("module", {}).get("name") == "video_prompts" and set(own_heads) == {"video_joint", "text_joint"}:
      video, _, text = (parse_embedding(one).head for one in term["embeddings"])
      if (video, text) == (own_heads["video_joint"], own_heads["text_joint"]):
        return name
  return None


def _decoding_head(config: Mapping[str, Any], own_towers: Mapping[str, str]) -> str | None:
  """The head of words that writes captions of the images, by a decoder of these two towers; None without one."""
  pair = [own_towers.get("text"), own_towers.get("image")]
  for name, (kind, tower) in sources_of(config).items():
    options = config["towers"].get(tower, {}) if kind == "towers" else {}
    if config["heads"][name]["name"] == "words" and options.get("causal") and list(options.get("reads", ())) == pair:
      return name
  return None


def _renamed(trees: Mapping[str, Any], names: Mapping[str, Mapping[str, str]]) -> dict[str, np.ndarray]:
  """Path -> array of the towers and heads in `names`: kind -> name there -> name in the run."""
  kept = {
    collection: {
      kind: {name: trees[collection][kind].get(own, {}) for name, own in named.items()} for kind, named in names.items()
    }
    for collection in ("params", "batch_stats")
  }
  return {
    path: leaf if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf)
    for path, leaf in traverse_util.flatten_dict(kept, sep="/").items()
  }


def _keep(text: TextInput, tokenizer: Any, workdir: pathlib.Path) -> None:
  if text.tokenizer.startswith("huggingface:"):
    (workdir / FOLDER).mkdir()
    (workdir / FOLDER / "tokenizer.json").write_bytes(tokenizer_files.with_padding(text))
  else:
    keep_file(tokenizer, workdir)
