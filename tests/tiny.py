"""A run small enough to compile in seconds: its config and made-up batches."""

import types

import jax
import numpy as np

from mmcontrast.config import base_config
from mmcontrast.modalities import MODALITIES

CAPTIONS, TAGS, SIZE, LENGTH = 40, 12, 16, 6


def tiny_config(**changes) -> dict:
  """All five MCT terms on two-layer towers; `changes` replace whole sections."""
  c = base_config()
  c.steps, c.batch.size = 6, 16
  c.data.update(split="all", image_size=SIZE, text_length=LENGTH)
  c.towers = dict(
    image=dict(name="vit", patch=8, width=16, depth=1, heads=2),
    text=dict(name="text_transformer", width=16, depth=1, heads=2),
  )
  c.heads = dict(
    image_ssl=dict(tower="image", name="mlp", dim=8, batch_norm=True),
    image_joint=dict(tower="image", name="linear", dim=8),
    text_ssl=dict(tower="text", name="mlp", dim=8),
    text_joint=dict(tower="text", name="linear", dim=8),
  )
  c.objective = five_terms()
  c.optimizer = dict(name="adamw", learning_rate=1e-3, weight_decay=0.01)
  c.checkpoint.every_steps = 3
  c.log.every_steps = 1
  return {**c.to_dict(), **changes}


def caption_config(words=None, facts=("ids",), module="caption", embeddings="", **decoder) -> dict:
  """A captioner: a causal text tower, a decoder that reads it and the images, and a head "words"."""
  path = embeddings or "decoder(text[0], image[0])/words"
  c = tiny_config(objective=dict(caption=dict(module=module, embeddings=path)))
  c["data"]["facts"] = facts
  c["towers"]["text"] |= dict(causal=True, pool="eos")
  options = dict(reads=("text", "image"), width=16, depth=1, heads=2, causal=True, pool="last") | decoder
  c["towers"]["decoder"] = dict(name="fusion_transformer", **options)
  c["heads"]["words"] = dict(tower="decoder", name="words") | (words or {})
  return c


def five_terms() -> dict:
  """MCT's terms, queue and batch negatives and a learned temperature among them."""
  return dict(
    image_image=dict(
      query="image[0]/image_ssl", key="image[1]/image_ssl@momentum", negatives="queue:32", temperature=0.1
    ),
    image_tags=dict(
      query="image[0]/image_ssl",
      key="image[1]/image_ssl@momentum",
      temperature=0.1,
      negatives="queue:32",
      target=dict(name="shared_tags", overlap="jaccard", threshold=0.2),
    ),
    text_text=dict(query="text[0]/text_ssl", key="text[1]/text_ssl@momentum", negatives="queue:32"),
    image_to_text=dict(
      query="image[0]/image_joint",
      key="text[1]/text_joint@momentum",
      negatives="batch+queue:32",
      temperature=dict(init=0.07, learned=True, min=0.01),
    ),
    text_to_image=dict(
      query="text[0]/text_joint",
      key="image[1]/image_joint@momentum",
      negatives="batch+queue:32",
      temperature="image_to_text",
    ),
  )


def tiny_batch(size: int = 16, seed: int = 0) -> dict:
  """A batch of the pipeline's form, of noise."""
  draw = np.random.default_rng(seed)
  text = draw.integers(3, CAPTIONS, (size, 2, LENGTH)).astype(np.int32)
  text[:, :, -2:] = 0  # padding
  return {
    "image": draw.integers(0, 255, (size, 2, SIZE, SIZE, 3)).astype(np.uint8),
    "text": text,
    "tags": (draw.random((size, TAGS)) < 0.3).astype(np.uint8),
    "labels": {"group": draw.integers(0, 4, size).astype(np.int32)},
    "id": np.arange(size, dtype=np.int32),
    "index": np.arange(size, dtype=np.int32),
    "seed": draw.integers(0, 2**32, size, dtype=np.uint32),
    "mirror_safe": draw.random(size) < 0.5,
    "valid": np.ones(size, bool),
  }


def tiny_spec(size: int = 16):
  """What the pipeline would say of `tiny_batch`."""
  from mmcontrast.data.pipeline import Spec

  shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in tiny_batch(size).items() if name != "labels"}
  return Spec(
    examples=64,
    steps_per_epoch=4,
    tag_names=tuple("abcdefghijkl"),
    label_names={"group": ("p", "q", "r", "s")},
    styles=("one",),
    vocab_size=CAPTIONS,
    batch={**shapes, "labels/group": ((size,), np.dtype(np.int32))},
  )


def tiny_inference(step=None, seed=0, towers=None, **evaluation):
  """A model of two towers, of noise, as functions; a text is told by its length. It takes batches of 6."""
  from mmcontrast.inference import Inference
  from mmcontrast.models.model import build_model

  c = base_config()
  c.data.image_size, c.data.text_length = 16, 5
  c.towers = dict(
    image=dict(name="vit", patch=8, width=8, depth=1, heads=2),
    text=dict(name="text_transformer", width=8, depth=1, heads=2),
  )
  for name, options in (towers or {}).items():
    c.towers[name].update(options)
  c.heads = dict(pictures=dict(tower="image", name="linear", dim=4), words=dict(tower="text", name="linear", dim=4))
  c.evaluation.update(dict(image="pictures", text="words", batch_size=6) | evaluation)
  config = c.to_dict()
  model = build_model(config, 30)
  zeros = {name: modality.zeros(2, config) for name, modality in MODALITIES.items() if name in config["towers"]}
  shapes = jax.eval_shape(model.init, jax.random.key(0), zeros)
  draw = np.random.default_rng(seed)
  variables = jax.tree.map(lambda leaf: draw.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
  tokenizer = types.SimpleNamespace(
    tokens=lambda texts: [[1, 3 + len(text), 2] for text in texts],
    encode=lambda texts, length: np.array([[1, 3 + len(text), 2, 0, 0] for text in texts], np.int32),
  )
  return Inference(config, model, variables, tokenizer, step)


def assert_same(a, b):
  """Two trees of arrays are the same bit by bit, and not empty."""
  pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
  assert pairs and all(np.array_equal(x, y) for x, y in pairs)
