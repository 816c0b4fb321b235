"""Captions word by word: a cache gives the logits of the whole text, and searches find what they say."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CAPTIONS, LENGTH, caption_config, tiny_inference

from mmcontrast.errors import UserError
from mmcontrast.inference import Inference
from mmcontrast.inference.generation import NEVER, Search, check, nucleus, write, write_by_beams
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.views import Inputs
from mmcontrast.models import decoding
from mmcontrast.models.model import build_model

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)


def tokenizer():
  """Ids as letters."""
  return types.SimpleNamespace(
    decode=lambda ids: ["".join(chr(94 + i) for i in row[1 : list(row).index(2) if 2 in row else None]) for row in ids],
    encode=lambda texts, length: np.array(
      [([1, *(ord(x) - 94 for x in text), 2] + [0] * length)[:length] for text in texts], np.int32
    ),
  )


def captioner(scan=False, **changes):
  c = caption_config(order="self_mlp_cross_mlp", depth=1 + scan, scan=scan)
  c["towers"]["text"] |= dict(depth=1 + scan, scan=scan, pool="end_token", norm_after_pool=True)
  c["evaluation"] |= dict(image="image_joint", text="text_joint", features="image", batch_size=4)
  for name, options in changes.items():
    c[name].update(options)
  model = build_model(c, CAPTIONS)
  views = {"image": Inputs(jnp.zeros((2, 16, 16, 3))), "text": Inputs(jnp.ones((2, LENGTH), int))}
  shapes = jax.eval_shape(model.init, jax.random.key(0), views)
  draw = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: draw.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)
  return Inference(c, model, variables, tokenizer(), 7)


@pytest.fixture(scope="module")
def model():
  return captioner()


def whole_logits(model, ids, images):
  """Logits [B, L, V] of whole texts, as in training."""
  path = "decoder(text[0], image[0])/words"
  views = {"text": Inputs(ids[:, None], jnp.ones(ids[:, None].shape, bool)), "image": Inputs(images[:, None])}
  return model.model.embed(model.variables, views, [path], train=False)[0][path].logits


def test_a_cache_gives_the_logits_of_the_whole_text():
  """Also where the blocks are a loop in training."""
  inference = captioner(scan=True)
  model, variables = inference.model, inference.variables
  decoder = decoding.decoder_of(model)
  assert decoder == ("words", "decoder", "text", ("image",), LENGTH)
  images = jax.random.normal(jax.random.key(1), (3, 16, 16, 3))
  ids = jax.random.randint(jax.random.key(2), (3, LENGTH), 3, CAPTIONS)

  @jax.jit
  def one_by_one(ids):
    read = model.encode(variables, "image", Inputs(images))[0]
    logits, cache = decoding.start(model, variables, decoder, [read], ids[:, 0])
    found = [logits]
    for at in range(1, LENGTH):
      logits, cache = decoding.step(model, variables, decoder, cache, ids[:, at])
      found.append(logits)
    return jnp.stack(found, 1)

  np.testing.assert_allclose(one_by_one(ids), whole_logits(inference, ids, images), atol=2e-5)


def table_step(table):
  """A decoder whose next word depends on the last one only: the cache is how many were written."""
  return lambda cache, ids: (table[ids], cache + 1)


TABLE = jnp.asarray(np.random.default_rng(3).normal(size=(6, 6)) * 2, jnp.float32)  # 0 pad, 1 start, 2 end, 3.. words


def exhaustive(length, penalty):
  """The best caption of those that end within `length`, or reach it, by trying all."""
  log_p = np.asarray(jax.nn.log_softmax(TABLE))
  best = (-np.inf, None)
  for count in range(1, length):
    for words in itertools.product((3, 4, 5), repeat=count):
      ended = count < length - 1
      line = [1, *words, 2] if ended else [1, *words]
      score = sum(log_p[a, b] for a, b in itertools.pairwise(line)) / (len(line) - 1) ** penalty
      best = max(best, (score, line + [0] * (length - len(line))))
  return best


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_enough_beams_find_the_best_caption(penalty):
  length, beams = 5, 243
  search = Search(beams=beams, length=length, length_penalty=penalty)
  rows_of = lambda cache, rows: cache  # noqa: E731
  run = jax.jit(lambda logits: write_by_beams(table_step(TABLE), rows_of, logits, 0, search, 1, 2, 0))
  ids, _ = run(jnp.tile(TABLE[1], (2 * beams, 1)))
  assert ids[0].tolist() == exhaustive(length, penalty)[1] and ids[1].tolist() == ids[0].tolist()


def test_greedy_and_draws():
  log_p = np.asarray(jax.nn.log_softmax(TABLE))
  run = jax.jit(
    lambda logits, keys, search: write(table_step(TABLE), logits, 0, search, 1, 2, 0, keys), static_argnums=2
  )
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(400))
  ids, score = run(jnp.tile(TABLE[1], (400, 1)), keys, Search(length=6))
  line, last = [1], 1
  while last != 2 and len(line) < 6:
    last = max((3, 4, 5) if len(line) == 1 else (2, 3, 4, 5), key=lambda word: log_p[last, word])
    line.append(last)
  assert ids[0].tolist() == line + [0] * (6 - len(line)) and (ids == ids[0]).all()
  np.testing.assert_allclose(score[0], sum(log_p[a, b] for a, b in itertools.pairwise(line)), rtol=1e-5)
  drawn, _ = run(jnp.tile(TABLE[1], (400, 1)), keys, Search(length=6, top_p=1.0))
  p = np.exp(log_p[1, 3:]) / np.exp(log_p[1, 3:]).sum()
  np.testing.assert_allclose(np.bincount(drawn[:, 1], minlength=6)[3:] / 400, p, atol=0.08)
  cold, _ = run(jnp.tile(TABLE[1], (400, 1)), keys, Search(length=6, top_p=1e-6))
  np.testing.assert_array_equal(cold, ids)
  fewer, _ = run(jnp.tile(TABLE[1], (100, 1)), keys[300:], Search(length=6, top_p=1.0))
  np.testing.assert_array_equal(fewer, drawn[300:])  # a draw depends on its key alone


def test_a_nucleus_is_the_smallest_set():
  logits = jnp.log(jnp.array([[0.1, 0.5, 0.15, 0.25]]))
  for top_p, kept in ((0.4, [1]), (0.5, [1]), (0.6, [1, 3]), (0.8, [1, 2, 3]), (1.0, [0, 1, 2, 3])):
    assert np.flatnonzero(nucleus(logits, top_p)[0] > NEVER / 2).tolist() == kept


def test_captions_of_a_model(model):
  """Greedy is what teacher forcing says is most probable, whatever the batch; beams are at least as probable."""
  greedy = model.caption(IMAGES)
  assert len(greedy) == 5 and all(greedy)
  assert model.caption(IMAGES[3]) == [greedy[3]] and model.caption(list(IMAGES[::-1]))[::-1] == greedy
  images = jnp.stack([_prepared(model, image) for image in IMAGES])
  ids = jnp.asarray(tokenizer().encode(greedy, LENGTH))
  logits = np.array(whole_logits(model, ids, images))
  logits[..., :2] = NEVER  # a start or padding is never written
  logits[:, 0, 2] = NEVER  # nor is a caption without a word
  for row, text in enumerate(greedy):
    count = min(len(text) + 1, LENGTH - 1)
    np.testing.assert_array_equal(logits[row].argmax(-1)[:count], ids[row, 1 : count + 1])
  words = model.words
  by_beams = model.caption(IMAGES, beams=4, length_penalty=0.0)
  losses = [words.losses(IMAGES, texts)[0] for texts in (greedy, by_beams)]
  assert (losses[1] <= losses[0] + 1e-3).all()
  drawn = model.caption(IMAGES, top_p=0.9, temperature=1.5, seed=1)
  assert (
    drawn
    == model.caption(IMAGES, top_p=0.9, temperature=1.5, seed=1)
    != model.caption(IMAGES, top_p=0.9, temperature=1.5, seed=2)
  )
  assert max(map(len, model.caption(IMAGES, length=3))) <= 2


def _prepared(model, image):
  return MODALITIES["image"].inputs(image[None], {**model.config, "data": model.data}).values[0]


def test_losses_are_those_of_the_term(model):
  texts = ["abc", "d", "", "ab", "a"]
  summed, count = model.words.losses(IMAGES, texts)
  ids = tokenizer().encode(texts, LENGTH)
  images = jnp.stack([_prepared(model, image) for image in IMAGES])
  log_p = np.asarray(jax.nn.log_softmax(whole_logits(model, jnp.asarray(ids), images)))
  for row, text in enumerate(texts):
    wanted = -sum(log_p[row, at, ids[row, at + 1]] for at in range(len(text) + 1))
    np.testing.assert_allclose(summed[row], wanted, rtol=1e-4)
    assert count[row] == len(text) + 1


@pytest.mark.parametrize(
  ("search", "message"),
  [
    (dict(beams=0), r"caption: beams=0 is no number of beams"),
    (dict(top_p=1.5), r"caption: top_p=1\.5 is no probability"),
    (dict(temperature=0.0, top_p=0.9), r"caption: temperature=0\.0 is not above 0"),
    (dict(temperature=0.5), r"caption: temperature=0\.5 is of words that are drawn; set top_p"),
    (dict(beams=2, top_p=0.9), r"caption: beams=2 and top_p=0\.9; a search has beams or draws"),
    (dict(length=7), r"caption: length=7 tokens, .*writes from 2 to 6"),
    (dict(least=5), r"caption: least=5 words do not fit"),
    (dict(beam=2), r"caption: no option 'beam'; did you mean 'beams'"),
    (dict(head="word"), r"caption: head: no such choice 'word'; did you mean 'words'"),
  ],
)
def test_a_search_that_cannot_be(model, search, message):
  with pytest.raises(UserError, match=message):
    model.caption(IMAGES, **search)


def without(change):
  c = caption_config()
  change(c)
  return build_model(c, CAPTIONS)


def test_a_decoder_that_reads_some_patches_in_training_reads_all_in_use():
  c = caption_config()
  c["towers"]["related"] = dict(name="attentive_mask", reads=("image", "text"))
  c["towers"]["decoder"]["reads"] = ("text", "related")
  decoder = decoding.decoder_of(build_model(c, CAPTIONS))
  assert decoder.reads == ("image",) and decoder.tower == "decoder"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c["heads"].pop("words"), r"no decoder of captions, a head 'words' on a causal tower .*coca"),
    (lambda c: c["towers"]["decoder"].update(causal=False), r"is none: its tower 'decoder' sees the words that "),
    (lambda c: c["towers"]["text"].update(causal=False), r"its text tower 'text' sees the words that come next"),
    (lambda c: c["towers"]["text"].update(name="bert", pool="mean") or c["towers"]["text"].pop("causal"),
     r"text tower 'text' cannot be continued; take name='text_transformer'"),
    (lambda c: c["heads"]["words"].update(tower="text"), r"it reads 'text' alone"),
    (lambda c: c["heads"].update(more=dict(tower="decoder", name="words")), r"the heads words, more write"),
  ],
)  # fmt: skip
def test_a_run_that_has_no_decoder(change, message):
  with pytest.raises(UserError, match=message) as error:
    decoding.decoder_of(without(change))
  assert "\n" not in str(error.value)


def test_texts_longer_than_the_decoder():
  settings = {"text_length": 20, "token_ids": {"pad": 0, "bos": 1, "eos": 2}}
  with pytest.raises(
    UserError, match=r"config\.towers\.text\.max_length is 12, and .*text_length=20 .* to 12 or fewer"
  ):
    MODALITIES["text"].check_tower({"max_length": 12}, settings, None, "config.towers.text")


def test_a_tokenizer_without_a_start(model):
  ids = {"token_ids": {"pad": 0, "bos": -1, "eos": 2}}
  with pytest.raises(UserError, match=r"token_ids\.bos is -1: the tokenizer of this run has no start token"):
    captioner(data=ids).caption(IMAGES)
  with pytest.raises(UserError, match=r"caption: this run has no decoder of captions"):
    tiny_inference().caption(IMAGES)
  assert tiny_inference().words is None
  with pytest.raises(UserError, match=r"nothing to describe"):
    model.caption([])
  assert check(Search(), 5).length == 5
