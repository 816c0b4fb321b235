"""A run of the towers that transformers and open_clip have too, small, as it is after training."""

import pathlib

import jax
import numpy as np

from mmcontrast.config import base_config
from mmcontrast.data.tokenizers import keep_file, make_tokenizer, train
from mmcontrast.modalities import MODALITIES
from mmcontrast.models.model import build_model
from mmcontrast.runs.checkpoint import save_untrained

TEXTS = ["A red heart on the café's wall", "two dogs", "", "Straße 12, привет"]


def tokenizer_of(kind: str, folder: pathlib.Path) -> str:
  """`data.tokenizer`: "bytes", or a model of sentencepiece trained here."""
  if kind == "bytes":
    return kind
  captions = [
    f"a {colour} {thing} number {number}, café"
    for colour in ("red", "blue", "green")
    for thing in ("heart", "dog", "house")
    for number in range(9)
  ]
  (folder / "tokenizer.model").write_bytes(train(captions, 330))
  return f"sentencepiece:{folder / 'tokenizer.model'}"


def exportable_config(tokenizer: str, **changes) -> dict:
  """CLIP's towers, small. `changes`: of whole sections."""
  c = base_config()
  c.data.update(
    tokenizer=tokenizer, image_size=32, text_length=16, token_ids=dict(pad=0, bos=1, eos=2), views=dict(image=1, text=1)
  )
  c.data.centre_crop, c.data.trim = 1.0, False
  c.data.resize = dict(mode="shortest", interpolation="bicubic")
  c.towers = dict(
    image=dict(
      name="vit",
      width=32,
      depth=2,
      heads=2,
      patch=16,
      pool="cls",
      pre_norm=True,
      patch_bias=False,
      activation="gelu",
      norm_epsilon=1e-5,
    ),
    text=dict(name="text_transformer", width=32, depth=2, heads=2, causal=True, pool="eos", activation="gelu"),
  )
  c.heads = dict(
    image_joint=dict(tower="image", name="linear", dim=24), text_joint=dict(tower="text", name="linear", dim=24)
  )
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step"),
    )
  )
  c.evaluation.update(image="image_joint", text="text_joint")
  return {**c.to_dict(), **changes}


def save_run(folder: pathlib.Path, tokenizer: str) -> None:
  """Makes `folder` a run of that config, its weights drawn."""
  config = exportable_config(tokenizer)
  made = make_tokenizer(tokenizer, lower=config["data"]["lower"])
  model = build_model(config, made.vocab_size)
  views = {name: MODALITIES[name].zeros(1, config) for name in ("image", "text")}
  shapes, draw = jax.eval_shape(model.init, jax.random.key(0), views), np.random.default_rng(0)
  found = jax.tree.map(lambda leaf: draw.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
  found["params"] = {**found["params"], "terms": {"image_text": {"log_scale": np.float32(2.5)}}}
  save_untrained(folder, config, found)
  keep_file(made, folder)
