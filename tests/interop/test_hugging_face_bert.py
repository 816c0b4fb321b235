"""BERT and ModernBERT of transformers: their outputs, both ways bit by bit, and what is refused."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.encoders import build_encoder
from mmcontrast.errors import UserError
from mmcontrast.interop.formats import FORMATS, read
from mmcontrast.interop.weights import read_weights, write_weights

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "interop"
CASES = ["hf_bert", "hf_modern_bert"]


def encode(pretrained, ids, length):
  """(pooled, tokens) of ids [B, L] whose texts end after `length` [B] tokens."""
  module, tree = build_encoder(pretrained.towers["text"]), {}
  for path, array in pretrained.arrays.items():
    *holders, leaf = path.removeprefix("params/towers/text/").split("/")
    branch = tree
    for name in holders:
      branch = branch.setdefault(name, {})
    branch[leaf] = array
  mask = np.arange(ids.shape[1]) < length[:, None]
  out = jax.jit(lambda tree: module.apply({"params": tree}, ids, mask, train=False))(tree)
  return np.asarray(out.pooled), np.asarray(out.tokens)


def change(folder, tmp_path, file="config.json", **fields):
  """A copy of `folder` in which the fields of one file are others; None takes a field away."""
  copy = shutil.copytree(folder, tmp_path / "copy")
  content = json.loads((copy / file).read_text()) | fields
  (copy / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
  return copy


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_transformers(case):
  given, pretrained = np.load(GOLDEN / case / "outputs.npz"), read(f"hf:{GOLDEN / case}")
  text = pretrained.text
  ids = make_tokenizer(text.tokenizer, lower=text.lower).encode(list(given["texts"]), text.length)
  np.testing.assert_array_equal(ids, given["ids"])
  length = (ids != text.token_ids["pad"]).sum(1)
  pooled, tokens = encode(pretrained, ids, length)
  np.testing.assert_allclose(pooled, given["mean"], atol=1e-4)
  for row, expected, end in zip(tokens, given["tokens"], length):
    np.testing.assert_allclose(row[:end], expected[:end], atol=1e-4)


def test_without_modules_a_bert_has_its_pooler(tmp_path):
  folder = shutil.copytree(GOLDEN / "hf_bert", tmp_path / "plain")
  (folder / "modules.json").unlink()
  given, pretrained = np.load(folder / "outputs.npz"), read(f"hf:{folder}")
  assert pretrained.towers["text"]["pool"] == "pooler"
  pooled, _ = encode(pretrained, given["ids"], (given["ids"] != 0).sum(1))
  np.testing.assert_allclose(pooled, given["pooler"], atol=1e-4)
  FORMATS["hf"].write(pretrained, tmp_path / "out")
  assert not (tmp_path / "out" / "modules.json").exists()
  theirs, ours = (read_weights(one / "model.safetensors") for one in (folder, tmp_path / "out"))
  assert theirs.keys() == ours.keys()


@pytest.mark.parametrize("case", CASES)
def test_in_out_in_is_bit_equal(case, tmp_path):
  first = read(f"hf:{GOLDEN / case}")
  FORMATS["hf"].write(first, tmp_path / "out")
  again = read(f"hf:{tmp_path / 'out'}")
  assert (again.towers, again.heads) == (first.towers, first.heads)
  assert again.text.length == first.text.length and again.text.token_ids == first.text.token_ids
  assert again.arrays.keys() == first.arrays.keys()
  for path, array in first.arrays.items():
    np.testing.assert_array_equal(again.arrays[path], array, err_msg=path)
  theirs, ours = (read_weights(folder / "model.safetensors") for folder in (GOLDEN / case, tmp_path / "out"))
  for name, array in ours.items():
    np.testing.assert_array_equal(theirs[name], array, err_msg=name)
  assert {name for name in theirs.keys() - ours.keys() if not name.startswith("pooler.")} == set()


def test_a_file_of_a_model_with_a_head_gives_its_encoder(tmp_path):
  folder = shutil.copytree(GOLDEN / "hf_bert", tmp_path / "masked")
  arrays = read_weights(folder / "model.safetensors")
  older = {f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"):
           array for name, array in arrays.items()}
  older["cls.predictions.bias"] = np.zeros(26, np.float32)
  write_weights(folder / "model.safetensors", older)
  found, plain = read(f"hf:{folder}"), read(f"hf:{GOLDEN / 'hf_bert'}")
  assert all(np.array_equal(found.arrays[path], array) for path, array in plain.arrays.items())


def test_older_configs_of_modern_bert_say_the_same(tmp_path):
  folder = change(GOLDEN / "hf_modern_bert", tmp_path, layer_types=None, rope_parameters=None,
                  global_attn_every_n_layers=3, global_rope_theta=160000.0, local_rope_theta=10000.0)
  assert read(f"hf:{folder}").towers == read(f"hf:{GOLDEN / 'hf_modern_bert'}").towers


@pytest.mark.parametrize("case, fields, message", [
  ("hf_bert", {"hidden_act": "gelu_fast"}, r"config.json: hidden_act: no such choice 'gelu_fast'; did you mean"),
  ("hf_bert", {"is_decoder": True}, r"is_decoder is True, .* has to be False"),
  ("hf_bert", {"position_embedding_type": "relative_key"}, r"position_embedding_type is 'relative_key'"),
  ("hf_bert", {"hidden_size": None}, r"config.json: has no 'hidden_size'"),
  ("hf_bert", {"num_hidden_layers": 3}, r"no array 'encoder.layer.2"),
  ("hf_bert", {"num_hidden_layers": 1}, r"the first is 'encoder.layer.1.*--allow_unused"),
  ("hf_bert", {"model_type": "bort"}, r"model_type: no such choice 'bort'; did you mean 'bert'"),
  ("hf_modern_bert", {"layer_types": ["sliding_attention"] * 4}, r"layer_types is not full_attention every so many"),
  ("hf_modern_bert", {"norm_bias": True}, r"norm_bias is True"),
  ("hf_modern_bert", {"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 1.0}}},
   r"rope_parameters.full_attention: rope_type is 'yarn'"),
], ids=str)  # fmt: skip
def test_what_we_do_not_compute_is_refused(case, fields, message, tmp_path):
  with pytest.raises(UserError, match=message):
    read(f"hf:{change(GOLDEN / case, tmp_path, **fields)}")


@pytest.mark.parametrize("file, fields, message", [
  ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True},
   r"1_Pooling/config.json: pooling_mode: no such choice 'max_tokens'"),
  ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, r"no such choice 'cls_token\+mean_tokens'"),
], ids=str)  # fmt: skip
def test_another_pooling_is_refused(file, fields, message, tmp_path):
  with pytest.raises(UserError, match=message):
    read(f"hf:{change(GOLDEN / 'hf_bert', tmp_path, file, **fields)}")


def test_another_module_is_refused(tmp_path):
  folder = shutil.copytree(GOLDEN / "hf_bert", tmp_path / "copy")
  dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
  (folder / "modules.json").write_text(json.dumps([*json.loads((folder / "modules.json").read_text()), dense]))
  with pytest.raises(UserError, match="a module 'Dense'"):
    read(f"hf:{folder}")


def test_a_head_that_transformers_lacks_is_refused(tmp_path):
  pretrained = read(f"hf:{GOLDEN / 'hf_bert'}")
  pretrained.heads["text_joint"]["name"] = "linear"
  with pytest.raises(UserError, match=r"config.heads.text_joint: 'linear' has no place"):
    FORMATS["hf"].write(pretrained, tmp_path / "out")
  assert not (tmp_path / "out").exists()
