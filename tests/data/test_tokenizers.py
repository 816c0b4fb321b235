"""The sentencepiece tokenizer: ids, length, determinism, checks."""

import numpy as np
import pytest

from mmcontrast.data import tokenizers
from mmcontrast.data.datasets import emoji_concepts, emoji_views
from mmcontrast.errors import UserError


@pytest.fixture(scope="module")
def tokenizer(data_dir):
  return tokenizers.SentencePieceTokenizer(data_dir / "emoji_views" / "tokenizer.model")


def test_ids_and_padding(tokenizer):
  assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2, 3)
  assert tokenizer.vocab_size == 2000
  ids = tokenizer.encode(["red heart", "x", ""], 16)
  assert ids.dtype == np.int32 and ids.shape == (3, 16)
  assert (ids[:, 0] == 1).all() and ((ids == 2).sum(axis=1) == 1).all()
  for row in ids:
    assert (row[np.flatnonzero(row == 2)[0] + 1 :] == 0).all()
  assert list(ids[2, :3]) == [1, 2, 0]


def test_truncation_keeps_eos(tokenizer):
  ids = tokenizer.encode(["one two three four five six seven eight nine ten"], 5)[0]
  assert ids[0] == 1 and ids[-1] == 2 and (ids[1:-1] > 3).all()


def test_round_trip_case_and_unknown_characters(tokenizer):
  texts = ["red heart", "smiling face with sunglasses", "高電圧 ⚡"]
  assert tokenizer.decode(tokenizer.encode(texts, 48)) == texts
  assert (tokenizer.encode(["Red HEART"], 8) == tokenizer.encode(["red heart"], 8)).all()
  assert not (tokenizer.encode(texts, 48) == tokenizer.unk_id).any()


def test_training_is_deterministic_and_sees_training_captions_only(data_dir, monkeypatch):
  saved = (data_dir / "emoji_views" / "tokenizer.model").read_bytes()
  assert emoji_views.train_tokenizer() == saved
  seen = []
  monkeypatch.setattr(tokenizers, "train", lambda captions, size: seen.extend(captions))
  emoji_views.train_tokenizer()
  held_out = {t for c in emoji_concepts.concepts() if c.split != "train" for t in c.captions}
  training = {t for c in emoji_concepts.concepts() if c.split == "train" for t in c.captions}
  assert set(seen) == training and not set(seen) & (held_out - training)


def test_checks(tokenizer, tmp_path):
  tokenizer.check(pad_id=0, bos_id=1, eos_id=2, vocab_size=2000)
  with pytest.raises(UserError, match="eos_id is 2, the config says 7"):
    tokenizer.check(eos_id=7)
  with pytest.raises(UserError, match="no such file"):
    tokenizers.SentencePieceTokenizer(tmp_path / "absent.model")
  (tmp_path / "bad.model").write_bytes(b"not a model")
  with pytest.raises(UserError, match="not a sentencepiece model"):
    tokenizers.SentencePieceTokenizer(tmp_path / "bad.model")
