"""Texts: captions, or names in languages, drawn and tokenised: text [V, L] ids.

text          config.data.views.text captions or names
text_masked   the first config.data.masked_words.views of them, with words taken away on the device (masked_words.py)
text_region       [R, L]  texts of config.data.regions.views regions of the image
text_region_box   [R, 4]  where they are, with "box" in data.facts; zeros where there is no such region
text_relation         [K, L]  relations of config.data.regions.relations pairs of these regions (data/relations.py)
text_relation_subject, text_relation_object  [K, 4]  where both are, with these in data.facts; zeros: no relation
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.data import captions, noise, regions, relations, tokenizers
from mmcontrast.data.checks import check_counts
from mmcontrast.data.cut_captions import line_of_source
from mmcontrast.data.record import Info, Record, Source
from mmcontrast.errors import UserError, choose
from mmcontrast.modalities.masked_words import Masking
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.real_tokens import real_tokens
from mmcontrast.modalities.text_use import TextInUse
from mmcontrast.modalities.views import Inputs, Preparation, Schema, Settings

_REGIONS = noise.stream("regions")
_RELATIONS = noise.stream("relations")
_SWAPS = noise.stream("word_swaps")
_BOXES = {"text_region": ("box",), "text_relation": ("subject", "object")}
"""Set of views -> its facts that are boxes of the image, arrays of a batch."""


class Text(TextInUse, Modality):
  """Decoded: what views may show, strings by field or language."""

  source_option, absent, light = "caption", captions.ABSENT, True
  view_sets, identity = ("text", "text_masked", "text_region", "text_relation"), "caption"
  versions: ClassVar = {"text_masked": "text"}
  facts: ClassVar = {
    "ids": "the ids of its tokens, before any is masked; -1 where there is padding",
    "masked": "which of its tokens were chosen to be guessed",
    "box": "where the region that it is of lies in the image: x0, y0, x1, y1 in shares of the sides",
    "subject": "where the first of two related regions lies, as a box",
    "object": "where the second of two related regions lies, as a box",
  }
  usual_views = 2
  filters: ClassVar = {"min_caption": 0, "max_caption": 0}  # characters; max_caption=0: any
  limits: ClassVar = {"caption_characters": 10_000}  # a longer caption is cut
  defaults: ClassVar = {
    # Text views are names in these languages instead of captions: as many views as languages, view k in
    # language k; fewer, and each example draws distinct ones. Evaluation reads captions all the same.
    "languages": (),
    # Which captions text views show. None: any. dict(alt=0.7, generated=0.3): a view draws its field by these
    # weights, among those the record has. ("alt", "generated"): view k shows field k.
    "captions": None,
    "added_captions": "",  # a file of further captions of the records, by field: data/sources/added_captions.py
    # Texts of regions of the image, views `text_region`: of how many regions, drawn anew each epoch. relations: of how
    # many pairs of them it is said how they lie, views `text_relation`.
    "regions": {"views": 0, "relations": 0},
    "texts": "distinct",  # text views of one example: distinct captions as far as they go, or all of them the "same"
    "word_swaps": (),  # so many times two words of view k change places, such as (0, 1); (): none
    "text_length": 16,  # tokens, bos and eos included
    "tokenizer": "sentencepiece",  # the dataset's own; KIND:PATH or PATH.model: data/tokenizers
    "lower": True,  # texts first made small; "canonicalize": without punctuation too (SigLIP)
    # "</s>" within a text of a huggingface: tokenizer: "text", as any other; or "read", as the package does.
    "special_tokens": "text",
    "token_ids": {"pad": 0, "bos": 1, "eos": 2},  # what the model was told; checked
    # Views `text_masked`: so many of the text views, a share of whose words is to be guessed; of these the share `mask`
    # becomes the mask token, `random` another word, and the rest stays (BERT). Never bos, eos or padding.
    "masked_words": {"views": 0, "share": 0.15, "mask": 0.8, "random": 0.1, "at_least_one": False},
  }

  # Settings.

  def check(self, settings: Settings) -> None:
    check_counts(settings, {"text_length": 3}, "data")
    languages, views = settings["languages"], settings["views"]["text"]
    if isinstance(languages, str) or len(set(languages)) < len(languages):
      raise UserError(f"data.languages: {languages!r} is not a list of different languages, such as ('en', 'de')")
    if languages and not 0 < views <= len(languages) and (views or not settings["views"]["written"]):
      raise UserError(
        f"data.views.text: {views} views of {len(languages)} languages; set it to {len(languages)}, "
        "or to fewer, drawn from them"
      )
    if settings["captions"] and languages:
      raise UserError("data.captions: data.languages shows names instead of captions; leave one of them empty")
    _check_masked(settings["masked_words"], views)
    check_counts(settings["regions"], {"views": 0, "relations": 0}, "data.regions")
    pairs = settings["regions"]["relations"]
    if pairs and not max(2, pairs) <= settings["regions"]["views"]:
      raise UserError(
        f"data.regions.relations: {pairs} of {settings['regions']['views']} regions, each with the next; set "
        f"data.regions.views to {max(2, pairs)} or more"
      )
    if settings["regions"]["views"] and not views:
      raise UserError("data.regions.views: texts of regions need captions too; set data.views.text to 1 or more")
    if settings["regions"]["views"] and settings["trim"]:
      raise UserError("data.trim: boxes of regions are of images as they are stored; set it to False")
    shortest, longest = (settings["filter"][key] for key in ("min_caption", "max_caption"))
    if 0 < longest < shortest:
      raise UserError(f"data.filter: min_caption={shortest} is above max_caption={longest}")
    choose(settings["texts"], ("distinct", "same"), "data.texts")
    if settings["texts"] == "same" and (languages or not isinstance(settings["captions"], Mapping | None)):
      raise UserError("data.texts: 'same' shows one caption in all views, and each has a field or language of its own; "
                      "use 'distinct'")  # fmt: skip
    swaps = settings["word_swaps"]
    whole = isinstance(swaps, list | tuple) and all(isinstance(one, int) and one >= 0 for one in swaps)
    if not whole or len(swaps) not in (0, views):
      raise UserError(f"data.word_swaps: {swaps!r} is not a list of {views} numbers of swaps, one for each text view")
    choose(settings["lower"], (True, False, "canonicalize"), "data.lower")
    choose(settings["special_tokens"], ("text", "read"), "data.special_tokens")

  def counts(self, settings: Settings) -> dict[str, int]:
    regions, masked = settings["regions"], settings["masked_words"]["views"]
    return {
      "text": settings["views"]["text"],
      "text_masked": masked,
      "text_region": regions["views"],
      "text_relation": regions["relations"],
    }

  def facts_of(self, view_set: str) -> tuple[str, ...]:
    return ("ids", *({"text_masked": ("masked",)} | _BOXES).get(view_set, ()))

  def count_key(self, view_set: str) -> str:
    keys = {
      "text_masked": "data.masked_words.views",
      "text_region": "data.regions.views",
      "text_relation": "data.regions.relations",
    }
    return keys.get(view_set) or super().count_key(view_set)

  def has_in(self, info: Info, settings: Settings) -> Sequence[str]:
    return info.languages if settings["languages"] else info.caption_fields

  def check_source(self, settings: Settings, source: Source, members: Mapping[str, Source]) -> None:
    skip = settings["missing"] != "mask"
    captions.check_fields(settings["captions"], settings["views"]["text"], source)
    for name, member in members.items() if settings["regions"]["views"] else ():
      if not member.info.regions and (skip or not source.info.regions):
        raise UserError(
          f"data.regions.views: dataset {name} has no regions; name the columns of their boxes and texts, such as "
          "data.source.regions=dict(box='boxes', text='names'), or set it to 0"
        )
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
    if settings["masked_words"]["views"] and tokenizer.mask_id < 0:
      raise UserError(
        f"data.masked_words.views: tokenizer {tokenizer.name} has no mask token; take one that has, such as "
        "'huggingface:PATH' of a BERT or a sentencepiece model with byte_fallback, or set the views to 0"
      )
    return tokenizer

  def tower_options(self, settings: Settings) -> dict[str, Any]:
    return {"max_length": settings["text_length"]}

  def check_tower(self, options: dict[str, Any], settings: Settings, vocab_size: int | None, where: str) -> None:
    if vocab_size is not None and options.setdefault("vocab_size", vocab_size) < vocab_size:
      raise UserError(
        f"{where}.vocab_size is {options['vocab_size']}, but the tokenizer has "
        f"{vocab_size} pieces; leave the key out to use the tokenizer's"
      )
    length, most = settings["text_length"], options.get("max_length")
    if most is not None and most < length:
      raise UserError(
        f"{where}.max_length is {most}, and texts have config.data.text_length={length} tokens; leave max_length out, "
        f"or set text_length to {most} or fewer"
      )
    end = settings["token_ids"]["eos"]
    if options.get("eos_id") not in (None, end):
      raise UserError(
        f"{where}.eos_id is {options['eos_id']}, but a text ends with "
        f"config.data.token_ids.eos={end}; leave the key out to pool there"
      )

  # On the host.

  def arrays(self, settings: Settings) -> Schema:
    found: Schema = {
      name: ((views, settings["text_length"]), np.int32)
      for name, views in self.counts(settings).items()
      if views and name in self.drawn_sets
    }
    for name, facts in _BOXES.items():
      for fact in facts if name in found else ():
        if fact in settings["facts"]:
          found[f"{name}_{fact}"] = ((self.counts(settings)[name], 4), np.float32)
    return found

  def has(self, record: Record, settings: Settings) -> bool:
    return True  # `decode` tells what is not there from what says nothing

  def decode(self, record: Record, settings: Settings) -> dict[str, list[str]]:
    found = captions.of_record(record, settings)
    if found and settings["regions"]["views"]:
      found = regions.Texts(found)
      found.regions = regions.usable(record, settings)
    return found

  def identity_of(self, value: Mapping[str, Sequence[str]]) -> int:
    return captions.identity(value)

  def numbers(self, settings: Settings) -> dict[int, int]:
    views = settings["views"]["text"]
    swaps = 2 * sum(settings["word_swaps"])
    regions, pairs = settings["regions"]["views"], settings["regions"]["relations"]
    numbers = {noise.FIELD: views, noise.TEXT: views, _REGIONS: 2 * regions}
    return numbers | ({_SWAPS: swaps} if swaps else {}) | ({_RELATIONS: pairs} if pairs else {})

  def view(self, value: Mapping[str, Sequence[str]], numbers: Mapping, settings: Settings, into: Mapping) -> list[str]:
    languages, views, parts = settings["languages"], settings["views"]["text"], settings["regions"]["views"]
    pairs = settings["regions"]["relations"]
    if not value:  # An empty text: no tower is made to read padding alone, of which a mean is not a number.
      return [""] * (views + parts + pairs)
    shown_regions = regions.draw(value.regions, parts, numbers[_REGIONS]) if parts else []
    regions.fill(into.get("text_region_box"), [region.box for region, _ in shown_regions])
    related = relations.draw(shown_regions, pairs, numbers[_RELATIONS]) if pairs else []
    for end in _BOXES["text_relation"]:
      regions.fill(into.get(f"text_relation_{end}"), [one and getattr(one, end) for one in related])
    of_regions = [text for _, text in shown_regions] + [""] * (parts - len(shown_regions))
    of_regions += [one.text if one else "" for one in related]
    fields = settings["captions"] or (languages if len(languages) == views else None)
    shown = 1 if settings["texts"] == "same" else views
    texts = captions.draw(value, fields, numbers[noise.FIELD][:shown], numbers[noise.TEXT][:shown]) * (views // shown)
    if settings["word_swaps"] and not settings.get("as_evaluated"):
      draws = np.split(numbers[_SWAPS], 2 * np.cumsum(settings["word_swaps"])[:-1])
      texts = [captions.swapped(text, own) for text, own in zip(texts, draws)]
    return texts + of_regions

  def finish(self, drawn: Sequence[list[str]], settings: Settings, tokenizer: Any, arrays: Mapping) -> None:
    first, length = 0, settings["text_length"]
    for name, views in self.counts(settings).items():
      if name not in self.drawn_sets:
        continue
      texts = [text for of_example in drawn for text in of_example[first : first + views]]
      if texts:
        arrays[name][:] = tokenizer.encode(texts, length).reshape(len(drawn), views, length)
      first += views

  def cut_line(self, source: Source, settings: Settings, tokenizer: Any) -> str:
    return line_of_source(source, settings, tokenizer) if tokenizer else ""

  # On the device.

  def preparation(self, config: Mapping[str, Any]) -> TextPreparation:
    settings, ids = config["data"], config["data"]["token_ids"]
    facts = tuple(fact for fact in self.facts if fact in settings.get("facts", ()))
    masked = tuple(settings["masked_words"].items())
    return TextPreparation(tuple(self.arrays(settings)), ids["pad"], ids["bos"], ids["eos"], facts, masked)


@dataclasses.dataclass(frozen=True)
class TextPreparation(Preparation):
  """Ids as they are, and which of them are of the text, by the tokenizer's ids; and the views of masked words.

  Attributes:
    told: the facts that are asked for.
    masked: config.data.masked_words, as pairs.
    masking: how they are masked, once the tokenizer is known.
  """

  pad_id: int
  bos_id: int
  eos_id: int
  told: tuple[str, ...] = ()
  masked: tuple[tuple[str, Any], ...] = ()
  masking: Masking | None = None

  def of_words(self, vocab_size: int | None, mask_id: int | None) -> TextPreparation:
    options = dict(self.masked)
    if not options.pop("views", 0) or vocab_size is None or mask_id is None:
      return self
    special = tuple(sorted({self.pad_id, self.eos_id, mask_id} | ({self.bos_id} - {-1})))
    return dataclasses.replace(
      self, masking=Masking(**options, mask_id=mask_id, special=special, vocab_size=vocab_size)
    )

  def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
    found = {name: self._plain(batch[name]) for name in self._sets(batch)}
    if self.masking:
      found["text_masked"] = Inputs(self._masked(batch, found["text"], train)[0], found["text"].mask[:, : self._count])
    return found

  def facts(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, dict[str, jax.Array]]:
    """ "ids": int32 [B, V, L]; "masked": bool [B, V, L]; "box", "subject", "object": [B, R, 4]."""
    found: dict[str, dict[str, jax.Array]] = {}
    for name in self._sets(batch) if self.told else ():
      plain = self._plain(batch[name])
      ids = jnp.where(plain.mask, plain.values, -1)
      found[name] = {"ids": ids} if "ids" in self.told else {}
      if self.masking and name == "text":
        every = {"ids": ids[:, : self._count], "masked": self._masked(batch, plain, train)[1]}
        found["text_masked"] = {fact: every[fact] for fact in self.told if fact in every}
    for name, facts in _BOXES.items():
      told = {fact: batch[f"{name}_{fact}"] for fact in facts if f"{name}_{fact}" in batch}
      if told:
        found.setdefault(name, {}).update(told)
    return found

  def _sets(self, batch: Mapping[str, jax.Array]) -> list[str]:
    """The sets of views whose ids a batch holds."""
    return [name for name in self.arrays if name in batch and name in Text.view_sets]

  @property
  def _count(self) -> int:
    return dict(self.masked)["views"]

  def _plain(self, ids: jax.Array) -> Inputs:
    masks = [real_tokens(ids[:, view], self.pad_id, self.eos_id) for view in range(ids.shape[1])]
    return Inputs(ids, jnp.stack(masks, axis=1))

  def _masked(self, batch: Mapping[str, jax.Array], plain: Inputs, train: bool) -> tuple[jax.Array, jax.Array]:
    """(ids, which were chosen), [B, V, L] each; where nothing trains, none is."""
    if not train:
      return plain.values[:, : self._count], jnp.zeros(plain.values[:, : self._count].shape, bool)
    views = [self.masking(*plain.view(number).arguments, batch["seed"], number) for number in range(self._count)]
    ids, chosen = zip(*views)
    return jnp.stack(ids, axis=1), jnp.stack(chosen, axis=1)


def _check_masked(masked: Mapping[str, Any], views: int) -> None:
  where = "data.masked_words"
  check_counts(masked, {"views": 0}, where)
  if masked["views"] > views:
    raise UserError(f"{where}.views: {masked['views']} of {views} text views; set data.views.text to {masked['views']}")
  for key in ("share", "mask", "random"):
    if isinstance(masked[key], bool) or not isinstance(masked[key], int | float) or not 0 <= masked[key] <= 1:
      raise UserError(f"{where}.{key}: {masked[key]!r} is not a share from 0 to 1")
  if masked["mask"] + masked["random"] > 1:
    raise UserError(f"{where}: mask={masked['mask']} and random={masked['random']} are more than all; BERT: 0.8, 0.1")
  if masked["views"] and not (masked["share"] or masked["at_least_one"]):
    raise UserError(f"{where}.share: 0 leaves nothing to guess; BERT's is 0.15")
