"""What the program costs: its train step against one written by hand for its method.

    python benchmarks/step_overhead.py --out docs/results/step_overhead.json

The bare step has no model, terms, stores or recipes: two Flax towers, linear and MLP heads, AdamW;
for methods/clip the textbook's loss (two cross entropies of one matrix with its diagonal, the scale
clipped at 100) and no metric but it; for the quickstart its losses as plain matrices, the momentum
branch and its queues. Both start from the same state and see the same batch; rounds alternate, and
the losses of the first step are compared. On a machine that others use, wall time says more of them
than of us, so the table also gives the fastest round and the CPU time of the process; for a steadier
clock still, give the process one core (`taskset -c 0 python benchmarks/step_overhead.py`).
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from record import record

from mmcontrast.config import load_config
from mmcontrast.data.pipeline import Spec
from mmcontrast.encoders import build_encoder, build_head
from mmcontrast.modalities import image_augmentation
from mmcontrast.runs.train_state import TrainState
from mmcontrast.training.program import make_method
from mmcontrast.training.step import init_state, train_step


def made_up(config: dict, tags: int = 241, vocabulary: int = 2000) -> tuple[Spec, dict]:
  """A data set's description and a batch of noise in the quickstart's shapes."""
  draw, size, data = np.random.default_rng(0), config["batch"]["size"], config["data"]
  side, length, views = data["image_size"], data["text_length"], data["views"]
  batch = {
    "image": draw.integers(0, 255, (size, views["image"], side, side, 3)).astype(np.uint8),
    # From 3: the ids before mark padding, beginning and end, and a text reaches to its first end.
    "text": draw.integers(3, vocabulary, (size, views["text"], length)).astype(np.int32),
    "tags": (draw.random((size, tags)) < 0.03).astype(np.uint8),
    "id": np.arange(size, dtype=np.int32), "index": np.arange(size, dtype=np.int32),
    "seed": draw.integers(0, 2**32, size, dtype=np.uint32),
    "mirror_safe": np.ones(size, bool), "valid": np.ones(size, bool),
  }  # fmt: skip
  shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in batch.items()}
  return Spec(
    examples=1903,
    steps_per_epoch=1903 // size,
    tag_names=("tag",) * tags,
    label_names={},
    styles=("one", "two"),
    vocab_size=vocabulary,
    batch=shapes,
  ), batch


def unit(rows):
  return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def cross_entropy(logits, weights):
  """Mean over rows of the cross entropy with row-normalised weights."""
  share = weights / weights.sum(1, keepdims=True)
  return jnp.mean(jax.nn.logsumexp(logits, 1) - jnp.sum(share * logits, 1))


def queued_positives(target, batch, queue):
  """Which queue entries are positives of which examples: [N, K] float32."""
  if target == "same_id":
    return (batch["id"][:, None] == queue["id"]).astype(jnp.float32)
  if target == "identity":
    return jnp.zeros((len(batch["id"]), len(queue["keys"])))
  a, b = batch["tags"].astype(jnp.float32), queue["tags"].astype(jnp.float32)  # shared_tags by Jaccard
  shared = a @ b.T
  union = jnp.maximum(a.sum(1)[:, None] + b.sum(1) - shared, 1.0)
  return (shared / union > target["threshold"]).astype(jnp.float32)


def bare_step(config: dict, method, state: TrainState, batch: dict):
  """The quickstart's or CLIP's step with nothing of ours but encoders, augmentation and optimizer."""
  vocabulary = state.params["towers"]["text"]["token_embedding"]["embedding"].shape[0]
  towers = {
    "image": build_encoder(config["towers"]["image"]),
    "text": build_encoder(
      {**config["towers"]["text"], "vocab_size": vocabulary, "max_length": config["data"]["text_length"]}
    ),
  }
  heads = {
    name: build_head({k: v for k, v in options.items() if k != "tower"}) for name, options in config["heads"].items()
  }
  prepared = method.preparations["image"]
  augmentation = dict(prepared.augmentations)["image"][0]

  def view(kind, number):
    if kind == "text":
      return batch["text"][:, number], batch["text"][:, number] != 0
    images = image_augmentation.augment(
      augmentation, batch["image"][:, number], batch["seed"], number, batch["mirror_safe"]
    )
    return image_augmentation.normalize(images, prepared.mean, prepared.std), None

  def forward(params, stats, kind, number, names):
    inputs, mask = view(kind, number)
    own = {"params": params["towers"][kind]}
    if kind in stats["towers"]:
      own["batch_stats"] = stats["towers"][kind]
    encoded, new = towers[kind].apply(own, inputs, mask, train=True, mutable=["batch_stats"])
    rows = {
      name: unit(heads[name].apply({"params": params["heads"][name]}, encoded.pooled, train=True).pooled)
      for name in names
    }
    return rows, {**stats, "towers": {**stats["towers"], **({kind: new["batch_stats"]} if new else {})}}

  def clip_loss(params):
    image, stats = forward(params, state.batch_stats, "image", 0, ("image_joint",))
    text, stats = forward(params, stats, "text", 0, ("text_joint",))
    (temperature,) = params["terms"].values()
    logits = jnp.exp(temperature["log_scale"]) * image["image_joint"] @ text["text_joint"].T
    own = jnp.arange(len(logits))
    directions = [jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x, own)) for x in (logits, logits.T)]
    return sum(directions) / 2, stats

  def mct_loss(params, keys):
    image, stats = forward(params, state.batch_stats, "image", 0, ("image_ssl", "image_joint"))
    text, stats = forward(params, stats, "text", 0, ("text_ssl", "text_joint"))
    loss, rows = 0.0, {**image, **text}
    for name, term in config["objective"].items():
      query, key = term["query"].split("/")[1], term["key"].removesuffix("@momentum")
      columns, momentum = rows.get(key.split("/")[1]), term["key"].endswith("@momentum")
      if momentum:
        columns = keys[key]
      temperature = method.terms[name].temperature
      scale = temperature.scale(params["terms"].get(method.terms[name].temperature_of, {}))
      own, size = rows[query] @ columns.T, len(columns)
      negatives = term.get("negatives", "batch")
      if negatives.startswith("queue"):  # the own key and the queue, not the rest of the batch
        logits, weights = jnp.sum(rows[query] * columns, 1)[:, None], jnp.ones((size, 1))
      else:
        logits, weights = own, jnp.eye(size)
      if "queue" in negatives:
        queue = state.queues[term["key"]]
        logits = jnp.concatenate([logits, rows[query] @ queue["keys"].T], 1)
        weights = jnp.concatenate([weights, queued_positives(term.get("target", "identity"), batch, queue)], 1)
      loss += method.weights[name](state.step) * cross_entropy(scale * logits, weights)
    return loss, stats

  if state.momentum is None:
    (loss, stats), gradients = jax.value_and_grad(clip_loss, has_aux=True)(state.params)
    momentum, queues = None, {}
  else:
    decay = config["momentum"]["decay"]
    copy = jax.tree.map(
      lambda old, new: decay * old + (1 - decay) * new,
      state.momentum["params"],
      method.model.branch({"params": state.params}, method.names[1])["params"],
    )
    keys, stats = {}, state.momentum["batch_stats"]
    for kind, number in sorted({(path.split("[")[0], int(path.split("[")[1][0])) for path in method.names[1]}):
      names = [path.removesuffix("@momentum").split("/")[1] for path in method.names[1] if path.startswith(kind)]
      rows, stats = forward(copy, stats, kind, number, names)
      keys |= {f"{kind}[{number}]/{name}": row for name, row in rows.items()}
    keys = jax.lax.stop_gradient(keys)
    momentum = {"params": copy, "batch_stats": stats}
    (loss, stats), gradients = jax.value_and_grad(mct_loss, has_aux=True)(state.params, keys)
    queues = {}
    for name, queue in state.queues.items():
      new = {
        "keys": keys[name.removesuffix("@momentum")],
        "tags": batch["tags"],
        "id": batch["id"],
        "valid": batch["valid"],
      }
      at = queue["pointer"]
      queues[name] = {k: jax.lax.dynamic_update_slice_in_dim(queue[k], v, at, 0) for k, v in new.items()}
      queues[name]["pointer"] = (at + len(batch["id"])) % len(queue["keys"])
  updates, opt_state = method.optimizer.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  if momentum is None:
    params["terms"] = jax.tree.map(lambda log_scale: jnp.minimum(log_scale, math.log(100.0)), params["terms"])
  return TrainState(state.step + 1, params, stats, opt_state, momentum, queues, state.tables), {"loss": loss}


def measure(name: str, rounds: int) -> dict:
  """One row: medians of both steps and their ratio."""
  config = load_config(name)
  config["heads"] = {
    k: v
    for k, v in config["heads"].items()
    if any(f"/{k}" in t[s] for t in config["objective"].values() for s in ("query", "key"))
  }
  spec, batch = made_up(config)
  method = make_method(config, spec)
  batch = jax.device_put(batch)
  steps = {"ours": functools.partial(train_step, method, None), "bare": functools.partial(bare_step, config, method)}
  seconds, cpu_seconds = {kind: [] for kind in steps}, {kind: [] for kind in steps}
  states, losses = {}, {}
  compiled = {kind: jax.jit(step, donate_argnums=0) for kind, step in steps.items()}
  for kind, step in compiled.items():
    states[kind] = jax.jit(functools.partial(init_state, method))(batch)
    states[kind], metrics = step(states[kind], batch)
    losses[kind] = float(metrics["loss"])
  for round_ in range(rounds):
    for kind in (("ours", "bare"), ("bare", "ours"))[round_ % 2]:  # neither always comes first
      start, cpu_start = time.perf_counter(), time.process_time()
      states[kind], metrics = compiled[kind](states[kind], batch)
      jax.block_until_ready((states[kind], metrics))
      seconds[kind].append(time.perf_counter() - start)
      cpu_seconds[kind].append(time.process_time() - cpu_start)
  ours, bare = (statistics.median(seconds[kind]) for kind in ("ours", "bare"))
  ratios = [a / b for a, b in zip(seconds["ours"], seconds["bare"])]
  return {
    "config": name,
    "batch": config["batch"]["size"],
    "rounds": rounds,
    "ours_seconds": round(ours, 4),
    "bare_seconds": round(bare, 4),
    "ratio_of_medians": round(ours / bare, 3),
    "median_of_ratios": round(statistics.median(ratios), 3),
    "ratio_of_fastest": round(min(seconds["ours"]) / min(seconds["bare"]), 3),
    "ratio_of_cpu_medians": round(statistics.median(cpu_seconds["ours"]) / statistics.median(cpu_seconds["bare"]), 3),
    "loss_difference": abs(losses["ours"] - losses["bare"]),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rounds", type=int, default=60)
  parser.add_argument("--configs", nargs="+", default=["methods/clip", "quickstart"])
  parser.add_argument("--out")
  options = parser.parse_args()
  record([measure(name, options.rounds) for name in options.configs], options.out)


if __name__ == "__main__":
  main()
