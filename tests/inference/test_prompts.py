"""Prompts that learn: beside the towers' own sums written out, nothing of the model changes, what cannot be is said."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_same, tiny_inference

from mmcontrast.encoders.transformer import Block
from mmcontrast.errors import UserError
from mmcontrast.inference.prompts import Prompted, Recipe, read_prompts, tune
from mmcontrast.modalities import MODALITIES
from mmcontrast.models import prompts

DEEP = dict(depth=3)
CLASSES = ("a", "bbb", "cc", "dddd")


def words(texts, length):
  """Texts of one token for each letter: start, letters, end."""
  rows = [[1, *(3 + ord(letter) % 20 for letter in text), 2][:length] for text in texts]
  return np.array([row + [0] * (length - len(row)) for row in rows], np.int32)


def model(image=None, text=None, length=12):
  made = tiny_inference(towers=dict(image=DEEP | (image or {}), text=DEEP | dict(max_length=length) | (text or {})))
  made.tokenizer = types.SimpleNamespace(encode=words)
  data = made.config["data"] | {"text_length": length}
  made = type(made)({**made.config, "data": data}, made.model, made.variables, made.tokenizer)
  return made


MODEL = model()


def pictures(count=6, seed=0):
  return np.random.default_rng(seed).integers(0, 255, (count, 16, 16, 3)).astype(np.uint8)


def recipe(**changes):
  return Recipe(**(dict(method="coop", length=2, temperature=0.1, steps=30, learning_rate=0.1) | changes))


def moved(tree, seed=1):
  """Parameters of prompts that are no small numbers, so that each has an effect."""
  draw = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(0, 0.5, leaf.shape), jnp.float32), tree)


def at_random(made, how, seed=1):
  start = Prompted(made, how)
  return start.with_parameters(moved(start.parameters, seed))


def test_vectors_of_coop_are_words_that_the_tower_never_had():
  """A tower with two more words in its table, whose rows are the vectors, reads "WORD WORD name"."""
  tuned = at_random(MODEL, recipe())
  vectors = np.asarray(tuned.parameters["text"][0])
  variables = jax.tree.map(np.asarray, MODEL.variables)
  table = variables["params"]["towers"]["text"]["token_embedding"]["embedding"].copy()
  table[[27, 28]] = vectors  # ids of no letter
  variables["params"]["towers"]["text"]["token_embedding"]["embedding"] = table

  def spelled(texts, length):
    ids = words(texts, length - 2)
    return np.concatenate([ids[:, :1], np.tile([27, 28], (len(texts), 1)), ids[:, 1:]], axis=1).astype(np.int32)

  other = type(MODEL)(MODEL.config, MODEL.model, variables, types.SimpleNamespace(encode=spelled))
  np.testing.assert_allclose(tuned.class_rows(CLASSES), other.encode_text(list(CLASSES)), atol=1e-6)


def test_maple_puts_vectors_into_both_towers_as_its_sums_say():
  """Block by block, by hand: what stood at the vectors' places is thrown away at the first `depth` blocks."""
  made = model(image=dict(registers=1))
  tuned = at_random(made, recipe(method="maple", depth=2))
  ids = words(CLASSES, 10)
  ids = np.concatenate([ids[:, :1], ids[:, 1:2], ids[:, 1:2], ids[:, 1:]], axis=1)
  values = MODALITIES["image"].inputs(made._batch("image", pictures()), tuned._data).values

  def block(tower, i, x, mask=None, eps=1e-6):
    return Block(2, 32, norm_epsilon=eps).apply({"params": tower[f"blocks_{i}"]}, x, mask, train=False)

  def norm(tower, x, eps):
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + eps)
    return x * tower["norm"]["scale"] + tower["norm"]["bias"]

  def texts(params, learned):
    tower, mask = params["towers"]["text"], jnp.asarray(np.arange(12) <= np.argmax(ids == 2, axis=1)[:, None])
    put = lambda x, i: x.at[:, 1:3].set(learned["text"][i])  # noqa: E731
    x = put(tower["token_embedding"]["embedding"][ids], 0) + tower["pos_embed"][:12]
    x = block(tower, 1, put(block(tower, 0, x, mask, 1e-5), 1), mask, 1e-5)
    x = norm(tower, block(tower, 2, x, mask, 1e-5), 1e-5)
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True) @ params["heads"]["words"]["fc1"]["kernel"]

  def images(params, learned):
    tower = params["towers"]["image"]
    x = values.reshape(6, 2, 8, 2, 8, 3).swapaxes(2, 3).reshape(6, 4, -1)  # patches of 8 x 8
    x = x @ tower["patch_embed"]["kernel"].reshape(-1, 8) + tower["patch_embed"]["bias"] + tower["pos_embed"]
    x = jnp.concatenate([jnp.broadcast_to(tower["reg_token"], (6, 1, 8)), x], 1)
    for i in range(3):
      if i < 2:
        vectors = learned["text"][i] @ learned["image"][i]["kernel"] + learned["image"][i]["bias"]
        x = jnp.concatenate([x[:, :5], jnp.broadcast_to(vectors, (6, 2, 8))], 1)
      x = block(tower, i, x)
    return norm(tower, x[:, 1:5], 1e-6).mean(1) @ params["heads"]["pictures"]["fc1"]["kernel"]

  for found, by_hand in ((tuned.class_rows(CLASSES), texts), (tuned.image_rows(pictures()), images)):
    rows = np.asarray(jax.jit(by_hand)(made.variables["params"], tuned.parameters))
    np.testing.assert_allclose(found, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-5)


def test_rope_and_a_norm_before_the_blocks_take_vectors_too():
  made = model(image=dict(positions="rope", pre_norm=True, pool="map"))
  one = at_random(made, recipe(method="maple", depth=2))
  rows = one.image_rows(pictures())
  other = one.with_parameters(moved(one.parameters, 2)).image_rows(pictures())
  assert rows.shape == (6, 4) and np.abs(rows - other).max() > 1e-3


def test_ctp_tft_gives_each_class_vectors_of_its_own_and_begins_with_images_as_they_are():
  start = Prompted(MODEL, recipe(method="ctp_tft"))
  names = MODEL.encode_text(list(CLASSES))
  made = start._method.text(start.parameters, names)[0]
  assert made.shape == (4, 2, 8) and np.abs(made[0] - made[1]).max() > 1e-6
  np.testing.assert_allclose(
    start.cosines(pictures(), CLASSES), MODEL.encode_image(pictures()) @ start.class_rows(CLASSES).T, atol=1e-6
  )
  after = start.with_parameters(moved(start.parameters))
  assert np.abs(after.cosines(pictures(), CLASSES) - start.cosines(pictures(), CLASSES)).max() > 1e-2


@pytest.mark.parametrize("method", list(prompts.METHODS))
def test_tuning_lowers_the_loss_and_leaves_the_model_bit_identical(method, tmp_path):
  values, labels = pictures(8), np.arange(8) % 4
  before, digest = jax.tree.map(np.array, MODEL.variables), MODEL.digest
  depth = 2 if method == "maple" else 0
  tuned = tune(MODEL, values, labels, CLASSES, **vars(recipe(method=method, depth=depth)))
  start = tuned.with_parameters(Prompted(MODEL, recipe(method=method, depth=depth)).parameters)

  def loss(one):
    logits = one.logits(values, CLASSES)
    return -np.mean(np.asarray(jax.nn.log_softmax(logits))[np.arange(8), labels])

  assert loss(tuned) < loss(start) - 0.01
  assert_same(before, MODEL.variables)
  del MODEL.__dict__["digest"]
  assert MODEL.digest == digest
  read = read_prompts(MODEL, tuned.save(tmp_path / "prompts.npz"))
  assert_same(read.parameters, tuned.parameters)
  assert read.recipe == tuned.recipe and read.modality == "image"
  with pytest.raises(UserError, match="were tuned beside another model"):
    read_prompts(tiny_inference(seed=3), tmp_path / "prompts.npz")


def test_images_of_any_size_are_seen_as_evaluation_shows_them():
  large = [np.full((40, 30, 3), shade, np.uint8) for shade in (10, 200)]
  seen = np.stack([MODEL.view(one) for one in large])
  start = Prompted(MODEL, recipe())
  np.testing.assert_array_equal(start.cosines(large, CLASSES), start.cosines(seen, CLASSES))


def test_words_are_what_vectors_start_as():
  tuned = Prompted(MODEL, recipe(length=0, words="xyz"))
  table = MODEL.variables["params"]["towers"]["text"]["token_embedding"]["embedding"]
  np.testing.assert_array_equal(tuned.parameters["text"][0], table[words(["xyz"], 12)[0, 1:4]])
  assert tuned.recipe.length == 3
  np.testing.assert_allclose(  # and without training they are these words
    tuned.class_rows(["a"]), MODEL.encode_text(["xyza"]), atol=1e-6
  )


@pytest.mark.parametrize(
  "made, changes, message",
  [
    (MODEL, dict(method="maple", depth=4), "depth 4, and the text tower has 3 blocks; give 3 or less"),
    (MODEL, dict(method="cop"), "method: no such choice 'cop'"),
    (MODEL, dict(depth=2), "depth 2 is of method 'maple'; 'coop' has vectors at one depth"),
    (MODEL, dict(words="xyz", length=2), "length 2, and words 'xyz' are 3 tokens; leave length out"),
    (MODEL, dict(length=10), "length 10 leaves 2 of data.text_length=12 tokens"),
    (MODEL, dict(temperature=0.0), "no temperature was learned between the heads of this run; give one"),
    (MODEL, dict(template="a photo"), "template 'a photo' must hold '{}' once"),
    (MODEL, dict(stepz=3), "option: no such choice 'stepz'"),
    (MODEL, dict(steps=0), "steps 0; give 1 or more"),
    (model(text=dict(scan=True)), {}, "the text tower has scan=True, one loop for all blocks"),
  ],
)
def test_what_cannot_be_tuned_is_one_line(made, changes, message):
  options = dict(method="coop", length=2, temperature=0.1, steps=1) | changes
  with pytest.raises(UserError, match=f"tune_prompts: {message}"):
    tune(made, pictures(4), np.arange(4), CLASSES, **options)


def test_labels_of_no_class_are_said():
  with pytest.raises(UserError, match="4 things and 4 labels among 3 classes; give one label, from 0 to 2"):
    tune(MODEL, pictures(4), np.arange(4), CLASSES[:3])
