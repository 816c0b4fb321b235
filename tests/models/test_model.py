"""Where texts end, and what a text tower and the tokenizer must agree on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.real_tokens import real_tokens
from mmcontrast.models.model import build_model, complete_config


def test_a_text_reaches_to_its_first_eos():
  ids = jnp.array([[8, 0, 5, 9, 0, 0],  # pad 0 is a token before eos
                   [8, 9, 9, 9, 9, 9],  # eos pads
                   [8, 3, 4, 5, 6, 9],
                   [0, 0, 0, 0, 0, 0],  # an absent text
                   [8, 3, 0, 0, 0, 0]])  # fmt: skip
  lengths = [4, 2, 6, 0, 2]
  for jit in (jax.jit, lambda function, **_: function):
    mask = jit(real_tokens, static_argnums=(1, 2))(ids, 0, 9)
    np.testing.assert_array_equal(mask, np.arange(6) < np.array(lengths)[:, None])


def test_what_pads_changes_nothing_and_a_token_of_its_id_counts():
  """CLIP: "!" is id 0, which pads too."""
  config = tiny_config(heads={}, objective={})
  config["towers"]["text"] |= dict(pool="eos", causal=True)
  config["data"]["token_ids"] = dict(pad=0, bos=38, eos=39)
  model = build_model(config, 40)

  @jax.jit
  def pooled(ids):
    mask = MODALITIES["text"].inputs(ids, config).mask
    return model.towers["text"].init_with_output(jax.random.key(0), ids, mask, train=False)[0].pooled

  shouted, plain, other = pooled(jnp.array([[38, 7, 0, 39, 0, 0], [38, 7, 39, 0, 0, 0], [38, 7, 0, 39, 5, 6]]))
  assert np.abs(shouted - plain).max() > 1e-4
  np.testing.assert_allclose(other, shouted, atol=1e-6)


def test_the_text_tower_ends_where_the_tokenizer_does():
  config = tiny_config()
  config["towers"]["text"]["eos_id"] = 49407
  with pytest.raises(UserError, match=r"config.towers.text.eos_id is 49407, .*token_ids.eos=2; leave the key out"):
    build_model(config, 40)
  config["towers"]["text"]["eos_id"] = 2
  assert build_model(config, 40).towers["text"].eos_id == 2


def test_a_complete_config_is_the_same_model():
  """What a checkpoint says of its architecture; a text tower is as long as the config's texts."""
  config = tiny_config()
  whole = complete_config(config)
  assert whole["towers"]["text"]["max_length"] == config["data"]["text_length"]
  assert whole["towers"]["image"]["registers"] == 0 and whole["heads"]["image_joint"]["bias"] is False
  assert whole["optimizer"]["b2"] == 0.999
  assert build_model(whole, 40) == build_model(config, 40) and complete_config(whole) == whole
