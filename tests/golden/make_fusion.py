"""Golden numbers of fusion blocks, from BertModel's encoder with cross-attention: tests/golden/fusion.npz.

pip install torch transformers && python tests/golden/make_fusion.py
"""

import pathlib

import numpy as np
import torch
import transformers

WIDTH, CONTEXT, HEADS, DEPTH = 12, 20, 3, 2


def layer(kernels: dict, number: int, own: torch.nn.Module) -> None:
  """One layer's arrays, under the names of mmcontrast.encoders.fusion."""

  def dense(name, *modules):
    kernels[f"{name}/kernel"] = torch.cat([module.weight.T for module in modules], 1)
    kernels[f"{name}/bias"] = torch.cat([module.bias for module in modules])

  def norm(name, module):
    kernels[f"{name}/scale"], kernels[f"{name}/bias"] = module.weight, module.bias

  block, own_self, cross = f"blocks_{number}", own.attention, own.crossattention
  dense(f"{block}/attn/qkv", own_self.self.query, own_self.self.key, own_self.self.value)
  dense(f"{block}/attn/proj", own_self.output.dense)
  norm(f"{block}/norm1", own_self.output.LayerNorm)
  dense(f"{block}/cross_attn/q", cross.self.query)
  dense(f"{block}/cross_attn/kv", cross.self.key, cross.self.value)
  dense(f"{block}/cross_attn/proj", cross.output.dense)
  norm(f"{block}/norm_cross", cross.output.LayerNorm)
  dense(f"{block}/mlp/fc1", own.intermediate.dense)
  dense(f"{block}/mlp/fc2", own.output.dense)
  norm(f"{block}/norm2", own.output.LayerNorm)


def main() -> None:
  torch.manual_seed(0)
  config = transformers.BertConfig(
    hidden_size=WIDTH,
    num_hidden_layers=DEPTH,
    num_attention_heads=HEADS,
    intermediate_size=24,
    is_decoder=True,
    add_cross_attention=True,
    vocab_size=11,
    max_position_embeddings=8,
    attn_implementation="eager",
  )
  config.encoder_hidden_size = CONTEXT
  model = transformers.BertModel(config, add_pooling_layer=False).eval().double()
  for own in model.encoder.layer:  # keys and values of a context of another width
    for name in ("key", "value"):
      setattr(own.crossattention.self, name, torch.nn.Linear(CONTEXT, WIDTH).double())
  for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.4)
  draw = np.random.default_rng(0)
  x, context = draw.normal(size=(3, 5, WIDTH)), draw.normal(size=(3, 7, CONTEXT))
  mask, seen = np.arange(5) < np.array([[5], [3], [1]]), np.arange(7) < np.array([[7], [2], [5]])
  kernels: dict = {}
  for number, own in enumerate(model.encoder.layer):
    layer(kernels, number, own)
  out = {name: array.detach().numpy() for name, array in kernels.items()}
  for name, before in (("bidirectional", np.ones((5, 5), bool)), ("causal", np.tril(np.ones((5, 5), bool)))):
    allowed = torch.tensor(mask[:, None, None] & before)
    shut = torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, -1e30)
    shut_context = torch.zeros((3, 1, 1, 7), dtype=torch.float64).masked_fill(~torch.tensor(seen[:, None, None]), -1e30)
    with torch.no_grad():
      out[name] = model.encoder(
        torch.tensor(x), attention_mask=shut, encoder_hidden_states=torch.tensor(context),
        encoder_attention_mask=shut_context,
      )[0].numpy()  # fmt: skip
  file = pathlib.Path(__file__).parent / "fusion.npz"
  np.savez_compressed(file, x=x, context=context, mask=mask, seen=seen, **out)
  print(f"{file}: torch {torch.__version__}, transformers {transformers.__version__}")


if __name__ == "__main__":
  main()
