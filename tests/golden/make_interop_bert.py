"""Writes tests/golden/interop/hf_bert and hf_modern_bert: tiny models by transformers' own saving, and their outputs.

    HF_HUB_OFFLINE=1 PYTHONPATH=tests/oracles .venv-oracles/bin/python tests/golden/make_interop_bert.py

Each folder has the model, a WordPiece tokenizer of a few words, what sentence-transformers adds to them for the mean of
the tokens (written here by hand: that package is not needed for anything else), and outputs.npz.
"""

import json
import pathlib

import numpy as np
import tokenizers
import torch
import torchvision_ops  # noqa: F401
import transformers

HERE = pathlib.Path(__file__).parent / "interop"
WORDS = [
  "[PAD]",
  "[UNK]",
  "[CLS]",
  "[SEP]",
  "[MASK]",
  "a",
  "red",
  "heart",
  "smiling",
  "cat",
  "dog",
  "with",
  "two",
  "##s",
  "of",
  "hearts",
  "and",
  "blue",
  "flag",
  "face",
  ",",
  "train",
  "##ing",
  "small",
  "sun",
  "rain",
]
TEXTS = ["A red heart", "two smiling cats with a blue flag, and a dog with hearts", "sun", "rain of small hearts"]
SHARED = dict(vocab_size=len(WORDS), hidden_size=24, num_attention_heads=3, intermediate_size=40, pad_token_id=0)


def randomise(model: torch.nn.Module) -> None:
  """Gives every number a value of its own: no norm's scale is left 1, no bias 0."""
  torch.manual_seed(0)
  for name, parameter in model.named_parameters():
    torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name.lower() and "weight" in name else 0.0, std=0.2)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
  numbers = {word: i for i, word in enumerate(WORDS)}
  model = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]"))
  model.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
  model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  model.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
  names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
  return transformers.PreTrainedTokenizerFast(tokenizer_object=model, model_max_length=24, **names)


def save(case: str, model: transformers.PreTrainedModel) -> None:
  folder = HERE / case
  randomise(model.eval())
  model.save_pretrained(folder)
  tokenizer().save_pretrained(folder)
  modules = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
  (folder / "1_Pooling").mkdir(exist_ok=True)
  (folder / "modules.json").write_text(json.dumps([
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for i, (kind, path) in enumerate(modules.items())]))  # fmt: skip
  (folder / "1_Pooling" / "config.json").write_text(
    json.dumps({"word_embedding_dimension": 24, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True})
  )
  (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
  given = tokenizer()(TEXTS, padding="max_length", max_length=16, return_tensors="pt")
  with torch.no_grad():
    out = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
  real = given["attention_mask"][..., None]
  arrays = {
    "ids": given["input_ids"].int(),
    "tokens": out.last_hidden_state,
    "mean": (out.last_hidden_state * real).sum(1) / real.sum(1),
  }
  if "pooler_output" in out:
    arrays["pooler"] = out.pooler_output
  np.savez(folder / "outputs.npz", texts=TEXTS, **{name: array.numpy() for name, array in arrays.items()})
  print(case, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), "bytes")


def main() -> None:
  print("torch", torch.__version__, "transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
  save(
    "hf_bert",
    transformers.BertModel(
      transformers.BertConfig(num_hidden_layers=2, max_position_embeddings=20, attn_implementation="eager", **SHARED)
    ),
  )
  ids = dict(bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3)
  save(
    "hf_modern_bert",
    transformers.ModernBertModel(
      transformers.ModernBertConfig(
        num_hidden_layers=4, max_position_embeddings=20, local_attention=4, attn_implementation="eager", **SHARED, **ids
      )
    ),
  )


if __name__ == "__main__":
  main()
