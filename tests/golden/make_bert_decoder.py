"""Golden numbers of a decoder of captions, from BertLMHeadModel with cross-attention: tests/golden/bert_decoder.npz.

pip install torch transformers && python tests/golden/make_bert_decoder.py

Logits of whole texts, and what `generate` writes greedily.
"""

import pathlib

import numpy as np
import torch
import transformers

WIDTH, DEPTH, HEADS, WORDS, LENGTH, CELLS, IMAGES = 12, 2, 3, 17, 8, 5, 3


def renamed(x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Their arrays under the paths of mmcontrast: towers text (bert, depth=0) and decoder, head words."""
  out: dict[str, np.ndarray] = {}

  def dense(path, *names):
    out[f"{path}/kernel"] = np.concatenate([x[f"{name}.weight"].T for name in names], 1)
    out[f"{path}/bias"] = np.concatenate([x[f"{name}.bias"] for name in names])

  def norm(path, name):
    out[f"{path}/scale"], out[f"{path}/bias"] = x[f"{name}.weight"], x[f"{name}.bias"]

  text, head = "towers/text", "cls.predictions"
  out[f"{text}/token_embedding/embedding"] = x["bert.embeddings.word_embeddings.weight"]
  out[f"{text}/pos_embed"] = x["bert.embeddings.position_embeddings.weight"]
  out[f"{text}/type_embed"] = x["bert.embeddings.token_type_embeddings.weight"]
  norm(f"{text}/norm_pre", "bert.embeddings.LayerNorm")
  for i in range(DEPTH):
    block, layer = f"towers/decoder/blocks_{i}", f"bert.encoder.layer.{i}"
    dense(f"{block}/attn/qkv", *(f"{layer}.attention.self.{part}" for part in ("query", "key", "value")))
    dense(f"{block}/attn/proj", f"{layer}.attention.output.dense")
    norm(f"{block}/norm1", f"{layer}.attention.output.LayerNorm")
    dense(f"{block}/cross_attn/q", f"{layer}.crossattention.self.query")
    dense(f"{block}/cross_attn/kv", *(f"{layer}.crossattention.self.{part}" for part in ("key", "value")))
    dense(f"{block}/cross_attn/proj", f"{layer}.crossattention.output.dense")
    norm(f"{block}/norm_cross", f"{layer}.crossattention.output.LayerNorm")
    dense(f"{block}/mlp/fc1", f"{layer}.intermediate.dense")
    dense(f"{block}/mlp/fc2", f"{layer}.output.dense")
    norm(f"{block}/norm2", f"{layer}.output.LayerNorm")
  dense("heads/words/transform", f"{head}.transform.dense")
  norm("heads/words/norm", f"{head}.transform.LayerNorm")
  out["heads/words/bias"] = x[f"{head}.bias"]
  return out


def main() -> None:
  arrays = made(0)
  file = pathlib.Path(__file__).parent / "bert_decoder.npz"
  np.savez_compressed(file, **arrays)
  print(f"{file}: torch {torch.__version__}, transformers {transformers.__version__}", arrays["written"].tolist())


def made(seed: int) -> dict[str, np.ndarray]:
  torch.manual_seed(seed)
  config = transformers.BertConfig(
    vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=24,
    max_position_embeddings=LENGTH, is_decoder=True, add_cross_attention=True, bos_token_id=1, eos_token_id=2,
    pad_token_id=0, tie_word_embeddings=True,
  )  # fmt: skip
  model = transformers.BertLMHeadModel(config).eval()
  for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.4)
  model.tie_weights()
  draw = np.random.default_rng(0)
  read, ids = draw.normal(size=(IMAGES, CELLS, WIDTH)).astype(np.float32), draw.integers(3, WORDS, (IMAGES, LENGTH))
  ids[:, 0] = 1
  caches = (transformers.DynamicCache(config=config) for _ in range(2))
  with torch.no_grad():
    seen = torch.from_numpy(read)
    logits = model(torch.from_numpy(ids), encoder_hidden_states=seen).logits.numpy()
    written = model.generate(
      torch.full((IMAGES, 1), 1), encoder_hidden_states=seen, max_length=LENGTH, min_length=LENGTH, do_sample=False,
      num_beams=1, past_key_values=transformers.EncoderDecoderCache(*caches),
    ).numpy()  # fmt: skip
  arrays = renamed({name: value.detach().numpy() for name, value in model.named_parameters()})
  return arrays | dict(read=read, ids=ids.astype(np.int32), logits=logits, written=written)


if __name__ == "__main__":
  main()
