"""Views of texts with words taken away: how many, by whose seed, never what is no word; and what is said of them."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import tiny_batch, tiny_config, tiny_spec

from mmcontrast.data.settings import resolve
from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.masked_words import Masking
from mmcontrast.training.program import make_method

BERT = Masking(share=0.15, mask=0.8, random=0.1, at_least_one=False, mask_id=7, special=(0, 1, 2, 7), vocab_size=50)


def texts(count, length=12):
  draw = np.random.default_rng(0)
  ids = draw.integers(8, 50, (count, length)).astype(np.int32)
  ids[:, 0], ids[:, 8], ids[:, 9:] = 1, 2, 0
  return ids, ids != 0, draw.integers(0, 2**32, count, dtype=np.uint32)


def test_shares_and_what_is_never_chosen():
  ids, real, seeds = texts(4000)
  masked, chosen = jax.tree.map(np.asarray, jax.jit(BERT, static_argnums=3)(ids, real, seeds, 0))
  assert not chosen[:, [0, 8, 9, 10, 11]].any() and (masked[~chosen] == ids[~chosen]).all()
  count = chosen.sum()
  assert abs(chosen[:, 1:8].mean() - 0.15) < 5 * np.sqrt(0.15 * 0.85 / chosen[:, 1:8].size)
  random = (masked != 7) & (masked != ids) & chosen
  for share, wanted in (((masked[chosen] == 7).mean(), 0.8), (random.sum() / count, 0.1 * 45 / 46)):
    assert abs(share - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / count)
  drawn = np.unique(masked[random])
  assert set(drawn) <= set(range(50)) - {0, 1, 2, 7} and len(drawn) == 46


def test_a_text_is_masked_by_its_seed_whatever_stands_beside_it():
  ids, real, seeds = texts(6)
  masked, chosen = BERT(ids, real, seeds, 0)
  order = np.random.default_rng(1).permutation(6)
  again, _ = BERT(ids[order], real[order], seeds[order], 0)
  np.testing.assert_array_equal(again, masked[order])
  assert (BERT(ids, real, seeds, 1)[1] != chosen).any() and (
    BERT(ids, real, seeds + np.uint32(1), 0)[1] != chosen
  ).any()


def test_at_least_one():
  ids, real, seeds = texts(50)
  one = dataclasses.replace(BERT, share=0.0, at_least_one=True)
  ids[0, 1:8], real[0, 1:8] = 0, False  # no word at all
  chosen = np.asarray(one(ids, real, seeds, 0)[1])
  assert chosen[0].sum() == 0 and (chosen[1:].sum(1) == 1).all() and not chosen[:, [0, 8]].any()


def test_views_and_facts_are_of_one_draw():
  c = tiny_config()
  c["data"].update(facts=("ids", "masked"), masked_words=dict(views=1, share=0.5))
  config = c | {"data": resolve(c["data"])}
  made = MODALITIES["text"].preparation(config).of_words(40, 39)
  batch = tiny_batch()
  views, facts = made(batch, train=True), made.facts(batch, train=True)
  assert views["text_masked"].values.shape == (16, 1, 6) and views["text"].values.shape == (16, 2, 6)
  of_masked = jax.tree.map(lambda x: np.asarray(x[:, 0]), facts["text_masked"])
  np.testing.assert_array_equal(of_masked["ids"], np.where(batch["text"][:, 0] == 0, -1, batch["text"][:, 0]))
  changed = np.asarray(views["text_masked"].values[:, 0]) != batch["text"][:, 0]
  assert changed.any() and not (changed & ~of_masked["masked"]).any() and set(facts["text"]) == {"ids"}
  assert not made.facts(batch, train=False)["text_masked"]["masked"].any()
  without = MODALITIES["text"].preparation(config)(batch, train=False)
  assert set(without) == {"text"}  # as models in use take them


@pytest.mark.parametrize(
  ("masked", "message"),
  [
    (dict(views=3), r"data\.masked_words\.views: 3 of 2 text views; set data\.views\.text to 3"),
    (dict(views=1, share=1.5), r"masked_words\.share: 1\.5 is not a share from 0 to 1"),
    (dict(views=1, mask=0.8, random=0.3), r"mask=0\.8 and random=0\.3 are more than all; BERT: 0\.8, 0\.1"),
    (dict(views=1, share=0), r"masked_words\.share: 0 leaves nothing to guess"),
    (dict(view=1), r"masked_words\.view: unknown key; did you mean 'views'"),
  ],
)
def test_settings(masked, message):
  with pytest.raises(UserError, match=message) as error:
    resolve(dict(dataset="x", masked_words=masked))
  assert "\n" not in str(error.value)


def test_a_tokenizer_without_a_mask_token_is_one_line(data_dir):
  settings = resolve(dict(dataset="x", tokenizer="bytes", masked_words=dict(views=1)))
  with pytest.raises(UserError, match=r"masked_words\.views: tokenizer bytes has no mask token; take one") as error:
    MODALITIES["text"].open_tokenizer(settings, None)
  assert "\n" not in str(error.value)
  own = make_tokenizer(str(data_dir / "emoji_views" / "tokenizer.model"), lower=True)
  assert own.mask_id == own.unk_id == 3  # it falls back to bytes, and no text has the unknown piece
  assert not any(3 in row for row in own.tokens(["a cat", "\u4e5d \U0001f600 \x00 \ud800"]))


PATH = "fusion(text_masked[0], image[0])/words"


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (
      dict(embeddings=PATH.replace("_masked", "")),
      r"embeddings: .* is of text views, of which no word was taken; write",
    ),
    (dict(embeddings=f"{PATH}@momentum", share=0.4), r"teaches 'fusion\(.*/words', which is not named; add it"),
    (dict(embeddings=(PATH, f"{PATH}@momentum")), r"module\.share: 0 leaves .*@momentum' without use; ALBEF's is 0\.4"),
    (dict(embeddings=PATH, share=0.4), r"module\.share: 0\.4 is of a momentum branch; add 'fusion.*@momentum'"),
    (
      dict(embeddings=PATH.replace("[0], i", "[1], i")),
      r"data\.masked_words\.views is 1, so text_masked\[0\] to \[0\]",
    ),
    (dict(embeddings=PATH, facts=("ids",)), r"asks for the 'masked' of .*; add it to config\.data\.facts"),
  ],
)
def test_terms_that_guess_nothing(words, message):
  c = tiny_config()
  c["data"].update(facts=words.pop("facts", ("ids", "masked")), masked_words=dict(views=1))
  c["towers"]["fusion"] = dict(name="fusion_transformer", reads=("text", "image"), width=16, depth=1, heads=2)
  c["heads"] = dict(words=dict(tower="fusion", name="words"))
  embeddings = words.pop("embeddings")
  c["objective"] = dict(w=dict(module=dict(name="masked_words", **words), embeddings=embeddings))
  with pytest.raises(UserError, match=message) as error:
    make_method(c, dataclasses.replace(tiny_spec(), mask_id=3))
  assert "\n" not in str(error.value)
