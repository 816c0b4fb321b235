"""BERT and ModernBERT of transformers: their outputs, both ways bit by bit, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from models import GOLDEN, assert_same_arrays, assert_same_file, encode_texts

import mmcontrast
from mmcontrast.cli import main
from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.errors import UserError
from mmcontrast.interop.formats import FORMATS, read
from mmcontrast.interop.weights import read_weights, write_weights

CASES = ["hf_bert", "hf_modern_bert"]


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
  mask = ids != text.token_ids["pad"]
  found = encode_texts(pretrained, ids, mask)
  np.testing.assert_allclose(found.pooled, given["mean"], atol=1e-4)
  np.testing.assert_allclose(np.asarray(found.tokens)[mask], given["tokens"][mask], atol=1e-4)


def test_without_modules_a_bert_has_its_pooler(tmp_path):
  folder = shutil.copytree(GOLDEN / "hf_bert", tmp_path / "plain")
  (folder / "modules.json").unlink()
  given, pretrained = np.load(folder / "outputs.npz"), read(f"hf:{folder}")
  assert pretrained.towers["text"]["pool"] == "pooler"
  found = encode_texts(pretrained, given["ids"], given["ids"] != 0)
  np.testing.assert_allclose(found.pooled, given["pooler"], atol=1e-4)
  FORMATS["hf"].write(pretrained, tmp_path / "out")
  assert not (tmp_path / "out" / "modules.json").exists()
  assert_same_file(folder / "model.safetensors", tmp_path / "out" / "model.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_in_out_in_is_bit_equal(case, tmp_path):
  first = read(f"hf:{GOLDEN / case}")
  FORMATS["hf"].write(first, tmp_path / "out")
  again = read(f"hf:{tmp_path / 'out'}")
  assert (again.towers, again.heads) == (first.towers, first.heads)
  assert again.text.length == first.text.length and again.text.token_ids == first.text.token_ids
  assert_same_arrays(again, first)
  theirs, ours = GOLDEN / case / "model.safetensors", tmp_path / "out" / "model.safetensors"
  assert_same_file(theirs, ours, without=r"pooler\..*")  # the mean of the tokens needs none


def test_a_run_made_of_it_embeds_sentences_and_gives_it_back(tmp_path):
  given = np.load(GOLDEN / "hf_bert" / "outputs.npz")
  assert main(["import", f"hf:{GOLDEN / 'hf_bert'}", "--workdir", str(tmp_path / "run")]) == 0
  expected = given["mean"] / np.linalg.norm(given["mean"], axis=1, keepdims=True)
  model = mmcontrast.load(tmp_path / "run")
  np.testing.assert_allclose(model.encode_text(list(given["texts"])), expected, atol=1e-5)
  short = given["texts"][0]  # without the padding to 16 tokens
  np.testing.assert_allclose(model.encode_text(short), expected[:1], atol=1e-5)
  assert model._views("text", [(0, short)]).shape == (1, 8) and model.seen("text", [short]).shape == (1, 16)
  assert main(["export", "--workdir", str(tmp_path / "run"), "--to", "hf", "--out", str(tmp_path / "out")]) == 0
  assert_same_arrays(read(f"hf:{tmp_path / 'out'}"), read(f"hf:{GOLDEN / 'hf_bert'}"))


def test_a_file_of_a_model_with_a_head_gives_its_encoder(tmp_path):
  folder = shutil.copytree(GOLDEN / "hf_bert", tmp_path / "masked")
  arrays = read_weights(folder / "model.safetensors")
  older = {
    f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
    for name, array in arrays.items()
  }
  older["cls.predictions.bias"] = np.zeros(26, np.float32)
  write_weights(folder / "model.safetensors", older)
  assert_same_arrays(read(f"hf:{folder}"), read(f"hf:{GOLDEN / 'hf_bert'}"))


def test_older_configs_of_modern_bert_say_the_same(tmp_path):
  folder = change(
    GOLDEN / "hf_modern_bert",
    tmp_path,
    layer_types=None,
    rope_parameters=None,
    global_attn_every_n_layers=3,
    global_rope_theta=160000.0,
    local_rope_theta=10000.0,
  )
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
