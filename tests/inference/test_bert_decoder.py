"""A decoder beside BertLMHeadModel with cross-attention (golden/make_bert_decoder.py): logits, and words written."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from mmcontrast.encoders import Encoded
from mmcontrast.inference.generation import Search, write
from mmcontrast.modalities.views import Inputs
from mmcontrast.models import decoding
from mmcontrast.models.model import build_model

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "bert_decoder.npz"


def test_logits_and_words_are_those_of_transformers():
  golden = dict(np.load(GOLDEN))
  words, length = golden["logits"].shape[-1], golden["ids"].shape[1]
  small = dict(width=12, heads=3, mlp_ratio=2.0)
  model = build_model(
    dict(
      data=dict(views=dict(image=1, text=1), text_length=length, token_ids=dict(pad=0, bos=1, eos=2)),
      towers=dict(
        image=dict(name="vit", depth=1, **small),
        text=dict(name="bert", depth=0, vocab_size=words, max_length=length, **small),
        decoder=dict(
          name="fusion_transformer", reads=("text", "image"), depth=2, causal=True, pool="last", norm="post",
          activation="gelu", norm_epsilon=1e-12, **small,
        ),
      ),
      heads=dict(words=dict(tower="decoder", name="words", tied=True, bias=True, transform=True)),
    )
  )  # fmt: skip
  params = traverse_util.unflatten_dict({name: x for name, x in golden.items() if "/" in name}, sep="/")
  variables = {"params": params, "batch_stats": {"towers": {}, "heads": {}}}
  read, decoder = Encoded(None, golden["read"]), decoding.decoder_of(model)

  @jax.jit
  def whole(ids):
    text = model.encode(variables, "text", Inputs(ids))[0]
    return model.project(variables, "words", model.fuse(variables, "decoder", [text, read])[0])[0].logits

  @jax.jit
  def written():
    logits, cache = decoding.start(model, variables, decoder, [read], jnp.ones(3, jnp.int32))
    step = functools.partial(decoding.step, model, variables, decoder)
    nothing = (words, words + 1, words + 2)  # no word ends or is left out, as with their min_length
    return write(step, logits, cache, Search(length=length), *nothing, None)[0]

  np.testing.assert_allclose(whole(golden["ids"]), golden["logits"], atol=1e-4)
  np.testing.assert_array_equal(written()[:, 1:], golden["written"][:, 1:])
  assert golden["logits"].std(0).min() > 0  # of other images and texts others
