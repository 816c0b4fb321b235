"""Writes tests/golden/interop/hf_bert_decoder, hf_blip_decoder and hf_blip_fusion: tiny text models of transformers
that attend to an image, by its own saving, and what they make of texts and made-up image tokens.

    HF_HUB_OFFLINE=1 PYTHONPATH=tests/oracles .venv-oracles/bin/python tests/golden/make_interop_decoders.py

The tokenizer is that of make_interop_bert.py.
"""

import numpy as np
import torch
import transformers
from make_interop_bert import HERE, TEXTS, WORDS, randomise, tokenizer
from transformers.models.blip.configuration_blip import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel, BlipTextModel

SHARED = dict(
  vocab_size=len(WORDS), hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=24,
  max_position_embeddings=20, pad_token_id=0, bos_token_id=2, eos_token_id=3,
)  # fmt: skip
CELLS, LENGTH = 5, 16


def models():
  bert = transformers.BertConfig(**SHARED, is_decoder=True, add_cross_attention=True)
  yield "hf_bert_decoder", 12, transformers.BertLMHeadModel(bert)
  blip = BlipTextConfig(**SHARED, encoder_hidden_size=8, sep_token_id=3)
  yield "hf_blip_decoder", 8, BlipTextLMHeadModel(blip)
  yield "hf_blip_fusion", 8, BlipTextModel(blip, add_pooling_layer=False)


def main() -> None:
  words = tokenizer()
  made = words(TEXTS, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
  ids, mask = made["input_ids"], made["attention_mask"]
  for name, width, model in models():
    randomise(model)
    model.tie_weights()
    model.eval()
    read = torch.from_numpy(np.random.default_rng(0).normal(size=(len(TEXTS), CELLS, width)).astype(np.float32))
    inputs = dict(input_ids=ids, attention_mask=mask, encoder_hidden_states=read)
    with torch.no_grad():
      if name == "hf_blip_fusion":
        found = dict(tokens=model(**inputs, is_decoder=False).last_hidden_state.numpy())
      else:
        found = dict(logits=model(**inputs, use_cache=False).logits.numpy())
    folder = HERE / name
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    np.savez_compressed(folder / "outputs.npz", ids=ids.numpy().astype(np.int32), read=read.numpy(), **found)
    for file in ("special_tokens_map.json", "vocab.txt", "generation_config.json"):
      (folder / file).unlink(missing_ok=True)
    print(folder, {key: value.shape for key, value in found.items()})


if __name__ == "__main__":
  main()
