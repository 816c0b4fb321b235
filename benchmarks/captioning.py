"""What captioning costs: a step of `coca` beside `clip`, and captions a second beside transformers' generate.

    python benchmarks/captioning.py steps --out docs/results/captioning_steps.json
    python benchmarks/captioning.py captions --out docs/results/captioning_speed.json

steps: milliseconds of the train step of config coca, and of config clip with coca's towers, in turns on one machine, of
a batch that is in memory; the median of the rounds, and the median of each round's ratio.

captions: a BERT decoder with cross-attention of random weights, written greedily by transformers' `generate` and by
`mmcontrast.inference.generation`, with a cache, on the same image tokens. Both write the same words, which is checked
first. Needs what `make oracles` installs.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import record

ROUNDS = 9
WIDTH, DEPTH, HEADS, WORDS, LENGTH, CELLS, IMAGES = 256, 4, 4, 2000, 16, 50, 64


def steps(rounds: int) -> list[dict]:
  from mmcontrast.config import load_config
  from mmcontrast.data.pipeline import spec
  from mmcontrast.training.program import make_plans
  from mmcontrast.training.step import init_state

  configs = {name: load_config(name) for name in ("clip", "coca")}
  for part in ("image", "text"):
    configs["clip"]["towers"][part] = configs["coca"]["towers"][part]
  run = {}
  for name, config in configs.items():
    (plan,) = make_plans(config, lambda data: spec(data["data"], data["batch"]["size"])).values()
    program = plan.program
    made = jax.tree.map(_drawn, program.batch)
    state = jax.jit(functools.partial(init_state, program.method))(made)
    run[name] = functools.partial(_one_step, program.step, [state], made)
  return _in_turns(run, rounds, "clip")


def _drawn(leaf):
  return np.random.default_rng(0).integers(0, 2, leaf.shape).astype(leaf.dtype)


def _one_step(step, held, batch):
  """A step from where the last one ended."""
  held[0], metrics = step(held[0], batch)
  jax.block_until_ready(metrics)


def captions(rounds: int) -> list[dict]:
  import torch

  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "oracles"))
  import torchvision_ops  # noqa: F401
  import transformers

  config = transformers.BertConfig(
    vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
    intermediate_size=4 * WIDTH, max_position_embeddings=LENGTH, is_decoder=True, add_cross_attention=True,
    bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
  )  # fmt: skip
  torch.manual_seed(0)
  theirs = transformers.BertLMHeadModel(config).eval()
  for parameter in theirs.parameters():
    torch.nn.init.normal_(parameter, std=0.15)
  theirs.tie_weights()
  read = np.random.default_rng(0).normal(size=(IMAGES, CELLS, WIDTH)).astype(np.float32)
  ours = _ours(theirs)

  @torch.no_grad()
  def generate():
    first = torch.full((IMAGES, 1), 1)
    caches = (transformers.DynamicCache(config=config) for _ in range(2))  # of the words, and of the image
    return theirs.generate(
      first, encoder_hidden_states=torch.from_numpy(read), max_length=LENGTH, do_sample=False, num_beams=1,
      use_cache=True, min_length=LENGTH, past_key_values=transformers.EncoderDecoderCache(*caches),
    ).numpy()  # fmt: skip

  write = lambda: np.asarray(ours(read))  # noqa: E731
  found, wanted = write(), generate()
  same = (found[:, 1:] == wanted[:, 1 : found.shape[1]]).all(1).mean()
  print(f"captions that are word for word the same: {same:.3f}")
  rows = _in_turns({"transformers": generate, "mmcontrast": write}, rounds, "transformers")
  return [row | {"captions/s": IMAGES / row["ms"] * 1e3, "the same": float(same)} for row in rows]


def _ours(theirs):
  """image tokens [N, S, D] -> ids [N, LENGTH], by our decoder of their weights; nothing ends before LENGTH."""
  from mmcontrast.encoders import Encoded
  from mmcontrast.inference.generation import Search, write
  from mmcontrast.models import decoding
  from mmcontrast.models.model import build_model

  small = dict(width=WIDTH, heads=HEADS)
  model = build_model(
    dict(
      data=dict(views=dict(image=1, text=1), text_length=LENGTH, token_ids=dict(pad=0, bos=1, eos=2)),
      towers=dict(
        image=dict(name="vit", depth=1, **small),
        text=dict(name="bert", depth=0, vocab_size=WORDS, max_length=LENGTH, **small),
        decoder=dict(
          name="fusion_transformer", reads=("text", "image"), depth=DEPTH, causal=True, pool="last", norm="post",
          activation="gelu", norm_epsilon=1e-12, **small,
        ),
      ),
      heads=dict(words=dict(tower="decoder", name="words", tied=True, bias=True, transform=True)),
    )
  )  # fmt: skip
  params = jax.tree.map(jnp.asarray, _params(dict(theirs.named_parameters())))
  decoder = decoding.decoder_of(model)

  @jax.jit
  def run(read):
    variables = {"params": params, "batch_stats": {"towers": {}, "heads": {}}}
    first = jnp.full(len(read), 1, jnp.int32)
    logits, cache = decoding.start(model, variables, decoder, [Encoded(None, read)], first)
    step = functools.partial(decoding.step, model, variables, decoder)
    start, end, pad = (WORDS + number for number in range(3))  # no word ends or is left out, as with min_length
    return write(step, logits, cache, Search(length=LENGTH), start, end, pad, None)[0]

  return run


def _params(given: dict) -> dict:
  """BertLMHeadModel's weights under our names."""
  x = {name: value.detach().numpy() for name, value in given.items()}

  def dense(*names):
    return {
      "kernel": np.concatenate([x[f"{name}.weight"].T for name in names], 1),
      "bias": np.concatenate([x[f"{name}.bias"] for name in names]),
    }

  def norm(name):
    return {"scale": x[f"{name}.weight"], "bias": x[f"{name}.bias"]}

  embeddings, blocks = "bert.embeddings", {}
  for i in range(DEPTH):
    layer = f"bert.encoder.layer.{i}"
    own, cross = f"{layer}.attention", f"{layer}.crossattention"
    blocks[f"blocks_{i}"] = {
      "attn": {
        "qkv": dense(*(f"{own}.self.{part}" for part in ("query", "key", "value"))),
        "proj": dense(f"{own}.output.dense"),
      },
      "norm1": norm(f"{own}.output.LayerNorm"),
      "cross_attn": {
        "q": dense(f"{cross}.self.query"), "kv": dense(f"{cross}.self.key", f"{cross}.self.value"),
        "proj": dense(f"{cross}.output.dense"),
      },
      "norm_cross": norm(f"{cross}.output.LayerNorm"),
      "mlp": {"fc1": dense(f"{layer}.intermediate.dense"), "fc2": dense(f"{layer}.output.dense")},
      "norm2": norm(f"{layer}.output.LayerNorm"),
    }  # fmt: skip
  head = "cls.predictions"
  text = {
    "token_embedding": {"embedding": x[f"{embeddings}.word_embeddings.weight"]},
    "pos_embed": x[f"{embeddings}.position_embeddings.weight"],
    "type_embed": x[f"{embeddings}.token_type_embeddings.weight"],
    "norm_pre": norm(f"{embeddings}.LayerNorm"),
  }
  words = {
    "transform": dense(f"{head}.transform.dense"), "norm": norm(f"{head}.transform.LayerNorm"),
    "bias": x[f"{head}.bias"],
  }  # fmt: skip
  return {"towers": {"text": text, "decoder": blocks}, "heads": {"words": words}}


def _in_turns(run: dict, rounds: int, base: str) -> list[dict]:
  """Milliseconds of each, the median of rounds in which each has its turn, and the median of the ratios to `base`."""
  for one in run.values():
    one()
  taken: dict[str, list[float]] = {name: [] for name in run}
  for _ in range(rounds):
    for name, one in run.items():
      start = time.perf_counter()
      one()
      taken[name].append(1e3 * (time.perf_counter() - start))
  ratios = {name: statistics.median(a / b for a, b in zip(taken[name], taken[base])) for name in run}
  return [{"case": name, "ms": statistics.median(taken[name]), f"times {base}": ratios[name]} for name in run]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("what", choices=["steps", "captions"])
  parser.add_argument("--rounds", type=int, default=ROUNDS)
  parser.add_argument("--out")
  options = parser.parse_args()
  rows = {"steps": steps, "captions": captions}[options.what](options.rounds)
  record.record(rows, options.out)


if __name__ == "__main__":
  main()
