"""A model of sentencepiece, and bytes as tokens, as a tokenizer.json of Hugging Face's, which is compared with ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any

from mmcontrast.data.tokenizers.sentencepiece import SentencePieceTokenizer
from mmcontrast.data.tokenizers.tokenizer import Tokenizer, package
from mmcontrast.errors import UserError, one_line

_UNIGRAM, _BPE = 1, 2  # of sentencepiece's trainer_spec.model_type
_NORMAL, _UNKNOWN, _USER_DEFINED = 1, 2, 4  # of a piece's type
_SPACE = "\u2581"  # what sentencepiece writes for one
_MOST = 2000  # pieces of the vocabulary that are compared
_TEXTS = (
  "", " ", "a", "A dog runs.", "  two  spaces ", "Line\nbreak\tand tab", "na\u00efve caf\u00e9, Stra\u00dfe", "1,234.5",
  "re-use it's 50%!", "\u00bd \ufb01ne \uff26\uff35", "\u043f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
  "\u03b3\u03b5\u03b9\u03ac", "\u3053\u3093\u306b\u3061\u306f \u4e16\u754c", "\uc548\ub155", "\u05e9\u05dc\u05d5\u05dd",
  "\u0928\u092e\u0938\u094d\u0924\u0947", "\u2764\ufe0f \U0001f1e9\U0001f1ea \U0001f469\u200d\U0001f467", "http://e.org/a_b?c=d&e",
  "don\u2019t \u201cquote\u201d \u2014 dash\u2026", "x" * 70)  # fmt: skip


def convert(own: SentencePieceTokenizer) -> dict[str, Any]:
  """The content of a tokenizer.json that gives the ids of `own`.

  Raises UserError for a kind of model that the format does not have.
  """
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto()
  model.ParseFromString(own.file.read_bytes())
  trained, normal = model.trainer_spec, model.normalizer_spec
  if trained.model_type not in (_UNIGRAM, _BPE) or trained.treat_whitespace_as_suffix or not normal.escape_whitespaces:
    raise UserError(
      f"{own.file}: only models of unigrams and of BPE, with white space before words, can be written as "
      "a tokenizer.json; export --to stablehlo, which takes the file along"
    )
  library, pieces = _library(), [(piece.piece, piece.score) for piece in model.pieces]
  unknown = next(number for number, piece in enumerate(model.pieces) if piece.type == _UNKNOWN)
  if trained.model_type == _UNIGRAM:
    rules = library.models.Unigram(pieces, unknown, trained.byte_fallback)
  else:
    usable = {piece.piece: piece.score for piece in model.pieces if piece.type in (_NORMAL, _USER_DEFINED)}
    rules = library.models.BPE(
      {piece: number for number, (piece, _) in enumerate(pieces)},
      _merges(usable),
      unk_token=pieces[unknown][0],
      fuse_unk=True,
      byte_fallback=trained.byte_fallback,
    )
  found = library.Tokenizer(rules)
  steps = []
  if normal.precompiled_charsmap:
    steps.append(library.normalizers.Precompiled(normal.precompiled_charsmap))
  if normal.remove_extra_whitespaces:
    steps += [library.normalizers.Strip(), library.normalizers.Replace(library.Regex(" {2,}"), " ")]
  found.normalizer = library.normalizers.Sequence(steps)
  found.pre_tokenizer = library.pre_tokenizers.Metaspace(
    _SPACE, prepend_scheme="always" if normal.add_dummy_prefix else "never"
  )
  found.decoder = library.decoders.Sequence(
    [
      library.decoders.Replace(_SPACE, " "),
      library.decoders.ByteFallback(),
      library.decoders.Fuse(),
      library.decoders.Strip(" ", int(normal.add_dummy_prefix), 0),
    ]
  )
  special = {number: pieces[number][0] for number in (own.pad_id, own.bos_id, own.eos_id) if number >= 0}
  return _ended(found, own, special)


def bytes_json(own: Tokenizer) -> dict[str, Any]:
  """The content of a tokenizer.json whose tokens are the bytes of a text, as `ByteTokenizer` has them."""
  library = _library()
  names = {own.pad_id: "<pad>", own.bos_id: "<s>", own.eos_id: "</s>"}
  vocabulary = {name: number for number, name in names.items()}
  vocabulary |= {f"<0x{byte:02X}>": byte + len(names) for byte in range(256)}
  found = library.Tokenizer(library.models.BPE(vocabulary, [], byte_fallback=True))
  found.decoder = library.decoders.Sequence([library.decoders.ByteFallback(), library.decoders.Fuse()])
  return _ended(found, own, names)


def check_alike(own: Tokenizer, file: dict[str, Any], moved: Mapping[int, int] = MappingProxyType({})) -> None:
  """Raises UserError when the tokenizer.json gives some text other ids than `own`.

  Compared are texts of many scripts and kinds, and the pieces of the vocabulary. `moved`: id of `own` -> id there,
  where they are not the same.
  """
  theirs = _library().Tokenizer.from_str(json.dumps(file))
  step = max(1, own.vocab_size // _MOST)
  pieces = [theirs.id_to_token(number).replace(_SPACE, " ") for number in range(0, own.vocab_size, step)]
  ids = (own.pad_id, own.bos_id, own.eos_id, getattr(own, "unk_id", -1))
  special = {theirs.id_to_token(moved.get(number, number)) for number in ids if number >= 0}  # theirs are so in a text
  texts = [text for text in (*_TEXTS, *pieces) if text not in special]
  length = max(map(len, (text.encode() for text in texts))) + 3
  for text, ids in zip(texts, own.encode(texts, length)):
    found = [moved.get(number, number) for number in theirs.encode(text).ids]
    if found != ids[: len(found)].tolist() or ids[len(found) - 1] != own.eos_id:
      raise UserError(
        f"config.data.tokenizer {own.name}: as a tokenizer.json it would give {one_line(repr(text), 40)} "
        "other ids than the model was trained with; export --to stablehlo, which takes the file along"
      )


def _merges(scores: dict[str, float]) -> list[tuple[str, str]]:
  """The pairs that make a piece of two others, those of the best piece first."""
  pairs = [
    (-score, place, piece[:cut], piece[cut:])
    for place, (piece, score) in enumerate(scores.items())
    for cut in range(1, len(piece))
    if piece[:cut] in scores and piece[cut:] in scores
  ]
  return [(left, right) for _, _, left, right in sorted(pairs, key=lambda pair: pair[:2])]


def _ended(found: Any, own: Tokenizer, special: dict[int, str]) -> dict[str, Any]:
  """The content of a tokenizer that puts bos and eos around a text."""
  library = _library()
  found.add_special_tokens(list(special.values()))
  start, end = special.get(own.bos_id), special[own.eos_id]
  found.post_processor = library.processors.TemplateProcessing(
    single=" ".join(word for word in (start, "$A", end) if word),
    special_tokens=[(name, number) for number, name in special.items()],
  )
  return json.loads(found.to_str())


def _library() -> ModuleType:
  return package("tokenizers", "huggingface")
