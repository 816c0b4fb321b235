"""Texts: captions, or names in languages, drawn and tokenised: text [V, L] ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.data import captions, filters, noise, tokenizers
from mmcontrast.data.checks import check_counts
from mmcontrast.data.cut_captions import line_of_source
from mmcontrast.data.record import Info, Record, Source
from mmcontrast.errors import UserError, choose
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.real_tokens import real_tokens
from mmcontrast.modalities.text_use import TextInUse
from mmcontrast.modalities.views import Inputs, Preparation, Schema, Settings


class Text(TextInUse, Modality):
  """Decoded: what views may show, strings by field or language."""

  source_option, absent, view_sets, identity, light = "caption", filters.NO_CAPTION, ("text",), "caption", True
  facts: ClassVar = {"ids": "the ids of its tokens, -1 where there is padding"}
  defaults: ClassVar = {
    # Text views are names in these languages instead of captions: as many views as languages, view k in
    # language k; fewer, and each example draws distinct ones. Evaluation reads captions all the same.
    "languages": (),
    # Which captions text views show. None: any. dict(alt=0.7, generated=0.3): a view draws its field by these
    # weights, among those the record has. ("alt", "generated"): view k shows field k.
    "captions": None,
    "text_length": 16,  # tokens, bos and eos included
    "tokenizer": "sentencepiece",  # the dataset's own; KIND:PATH or PATH.model: data/tokenizers
    "lower": True,  # texts first made small; "canonicalize": without punctuation too (SigLIP)
    # "</s>" within a text of a huggingface: tokenizer: "text", as any other; or "read", as the package does.
    "special_tokens": "text",
    "token_ids": {"pad": 0, "bos": 1, "eos": 2},  # what the model was told; checked
  }

  # Settings.

  def check(self, settings: Settings) -> None:
    check_counts(settings, {"text_length": 3}, "data")
    languages, views = settings["languages"], settings["views"]["text"]
    if isinstance(languages, str) or len(set(languages)) < len(languages):
      raise UserError(f"data.languages: {languages!r} is not a list of different languages, such as ('en', 'de')")
    if languages and not 0 < views <= len(languages):
      raise UserError(
        f"data.views.text: {views} views of {len(languages)} languages; set it to {len(languages)}, "
        "or to fewer, drawn from them"
      )
    if settings["captions"] and languages:
      raise UserError("data.captions: data.languages shows names instead of captions; leave one of them empty")
    choose(settings["lower"], (True, False, "canonicalize"), "data.lower")
    choose(settings["special_tokens"], ("text", "read"), "data.special_tokens")

  def has_in(self, info: Info, settings: Settings) -> Sequence[str]:
    return info.languages if settings["languages"] else info.caption_fields

  def check_source(self, settings: Settings, source: Source, members: Mapping[str, Source]) -> None:
    skip = settings["missing"] != "mask"
    captions.check_fields(settings["captions"], settings["views"]["text"], source)
    for name, member in members.items() if settings["languages"] else ():
      if not member.info.languages and (skip or not source.info.languages):
        raise UserError(f"data.languages: dataset {name} has no names in any language; leave it empty")
      for language in settings["languages"] if member.info.languages else ():
        choose(language, member.info.languages, "data.languages")

  def of_class(self, info: Info) -> str:
    labelled = "class" in info.label_names
    return ", or make them of the class: data.source.caption='a photo of a {class}'" if labelled else ""

  def open_tokenizer(self, settings: Settings, source: Source | None) -> tokenizers.Tokenizer | None:
    if not settings["views"]["text"]:
      return None
    of_dataset = {"own": source.info.tokenizer, "dataset": source.info.name} if source else {}
    tokenizer = tokenizers.make_tokenizer(
      settings["tokenizer"], lower=settings["lower"], **of_dataset, special_tokens=settings["special_tokens"]
    )
    tokenizer.check(**{f"{name}_id": value for name, value in settings["token_ids"].items()})
    return tokenizer

  def tower_options(self, settings: Settings) -> dict[str, Any]:
    return {"max_length": settings["text_length"]}

  def check_tower(self, options: dict[str, Any], settings: Settings, vocab_size: int | None, where: str) -> None:
    if vocab_size is not None and options.setdefault("vocab_size", vocab_size) < vocab_size:
      raise UserError(
        f"{where}.vocab_size is {options['vocab_size']}, but the tokenizer has "
        f"{vocab_size} pieces; leave the key out to use the tokenizer's"
      )
    end = settings["token_ids"]["eos"]
    if options.get("eos_id") not in (None, end):
      raise UserError(
        f"{where}.eos_id is {options['eos_id']}, but a text ends with "
        f"config.data.token_ids.eos={end}; leave the key out to pool there"
      )

  # On the host.

  def arrays(self, settings: Settings) -> Schema:
    views = settings["views"]["text"]
    return {"text": ((views, settings["text_length"]), np.int32)} if views else {}

  def has(self, record: Record, settings: Settings) -> bool:
    return True  # `decode` tells what is not there from what says nothing

  def decode(self, record: Record, settings: Settings) -> dict[str, list[str]]:
    return captions.of_record(record, settings)

  def identity_of(self, value: Mapping[str, Sequence[str]]) -> int:
    return captions.identity(value)

  def numbers(self, settings: Settings) -> dict[int, int]:
    views = settings["views"]["text"]
    return {noise.FIELD: views, noise.TEXT: views}

  def view(self, value: Mapping[str, Sequence[str]], numbers: Mapping, settings: Settings, into: Mapping) -> list[str]:
    languages, views = settings["languages"], settings["views"]["text"]
    if not value:  # An empty text: no tower is made to read padding alone, of which a mean is not a number.
      return [""] * views
    fields = settings["captions"] or (languages if len(languages) == views else None)
    return captions.draw(value, fields, numbers[noise.FIELD], numbers[noise.TEXT])

  def finish(self, drawn: Sequence[list[str]], settings: Settings, tokenizer: Any, arrays: Mapping) -> None:
    views, length = settings["views"]["text"], settings["text_length"]
    texts = [text for of_example in drawn for text in of_example]
    arrays["text"][:] = tokenizer.encode(texts, length).reshape(len(drawn), views, length)

  def cut_line(self, source: Source, settings: Settings, tokenizer: Any) -> str:
    return line_of_source(source, settings, tokenizer) if tokenizer else ""

  # On the device.

  def preparation(self, config: Mapping[str, Any]) -> TextPreparation:
    ids = config["data"]["token_ids"]
    return TextPreparation(
      tuple(self.arrays(config["data"])), ids["pad"], ids["eos"], "ids" in config["data"].get("facts", ())
    )


@dataclasses.dataclass(frozen=True)
class TextPreparation(Preparation):
  """Ids as they are, and which of them are of the text, by the tokenizer's ids."""

  pad_id: int
  eos_id: int
  tells_ids: bool = False

  def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
    found = {}
    for name in self.arrays:
      ids = batch[name]
      masks = [real_tokens(ids[:, view], self.pad_id, self.eos_id) for view in range(ids.shape[1])]
      found[name] = Inputs(ids, jnp.stack(masks, axis=1))
    return found

  def facts(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, dict[str, jax.Array]]:
    """ "ids": int32 [B, V, L]."""
    if not self.tells_ids:
      return {}
    return {name: {"ids": jnp.where(x.mask, x.values, -1)} for name, x in self(batch, train).items()}
