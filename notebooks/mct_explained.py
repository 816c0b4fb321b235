# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # MCT's five terms on one batch
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/mct_explained.ipynb)
#
# *Multimodal Contrastive Training for Visual Representation Learning* (CVPR 2021) trains an image encoder and a text
# encoder by contrasts within each modality and between the two. Here one batch goes through the five terms: what each
# compares, what it calls positive, which weights it moves, and what a step along it does to the other four.
#
# The authors published no code; formulas, heads and weights are choices of this project ([the
# page](../docs/methods/mct.md)).

# %% cellView="form"
# @title Install
# @markdown In a checkout nothing need be filled in. Elsewhere give the address of the repository, such as
# @markdown `https://github.com/OWNER/NAME`. Add `,cuda` or `,tpu` to the extras on a GPU or a TPU.
repository = "ADDRESS"  # @param {type:"string"}
extras = "emoji"  # @param {type:"string"}

import os
import pathlib
import subprocess
import sys

above = [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]
checkout = next((path for path in above if (path / "mmcontrast" / "__init__.py").is_file()), None)
if not checkout and repository == "ADDRESS":
  raise ValueError("fill in `repository`: the address of the page where you found this notebook")
extras = f"[{extras}]" if extras else ""
package = f"{checkout}{extras}" if checkout else f"mmcontrast{extras} @ git+{repository}"
done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", package], capture_output=True, text=True)
if done.returncode:
  raise RuntimeError(done.stderr)
small = os.environ.get("MMCONTRAST_NOTEBOOKS") == "small"  # seconds instead of minutes, for tests

# %% [markdown]
# ## The five terms
#
# A term is an edge: a query, a key, which pairs are positive, and what the others are. The quickstart's queues of
# earlier keys are left out here, so that all of a term is in the matrix of one batch.

# %% cellView="form"
# @title Config
batch_size = 64  # @param {type:"integer"}
seed = 0  # @param {type:"integer"}

import mmcontrast

config = mmcontrast.load_config("quickstart:smoke" if small else "quickstart", [f"--config.seed={seed}"])
config["batch"]["size"] = batch_size = 16 if small else batch_size
config["objective"] = {
  name: {**{key: value for key, value in term.items() if key != "negatives"}, "negatives": "batch"}
  for name, term in config["objective"].items()
}
for name, term in config["objective"].items():
  target = term["target"] if isinstance(term["target"], str) else term["target"]["name"]
  print(f"{name:14} {term['query']:22} -> {term['key']:32} positive: {target:12} weight {term['weight']}")

# %% [markdown]
# ## One batch
#
# An example is an emoji: two drawings of it, by two artists, two of its names, and tags.

# %%
import matplotlib.pyplot as plt
import numpy as np

from mmcontrast.data import pipeline
from mmcontrast.data.build import build_dataset

build_dataset("emoji_views")
spec = pipeline.spec(config["data"], batch_size)
batches = pipeline.train_batches(config["data"], seed=seed, batch_size=batch_size)
batch = next(batches)
names = [batches.tokenizer.decode(batch["text"][:, view]) for view in range(2)]
figure, axes = plt.subplots(2, 8, figsize=(14, 4.4))
for column in range(8):
  for view in range(2):
    axes[view, column].imshow(batch["image"][column, view])
    axes[view, column].set_title(names[view][column][:18], fontsize=8)
    axes[view, column].axis("off")
plt.show()
for row in range(3):
  print(names[0][row], "|", ", ".join(tag for tag, has in zip(spec.tag_names, batch["tags"][row]) if has))

# %% [markdown]
# ## Encoders
#
# A few steps first, so that the matrices show something. The momentum encoders, which make the keys, are averages of
# the encoders over past steps.

# %% cellView="form"
# @title Train a little
steps = 150  # @param {type:"integer"}

import functools

import jax

from mmcontrast.training.program import make_plans
from mmcontrast.training.step import init_state

config["optimizer"]["learning_rate"]["warmup_steps"] = 10
config["steps"] = steps = 2 if small else steps
if small:
  config["optimizer"]["learning_rate"] = 1e-3
plan = make_plans(config, lambda run: spec)[""]
method = plan.program.method
state = jax.jit(functools.partial(init_state, method))(batch)
for _ in range(steps):
  state, metrics = plan.program.step(state, next(batches))
print({name: round(float(metrics[f"{name}/loss"]), 3) for name in config["objective"]})

# %% [markdown]
# ## What each term sees
#
# Each matrix holds the cosines of all queries and keys of the batch. White dots are the positives: the term pulls those
# up, and pushes the rest of their row down.
#
# - **image_image**: one drawing finds the other drawing of its emoji, as in MoCo.
# - **image_tags**: it also finds drawings of emoji that share tags, as in SupCon with tags for labels.
# - **text_text**: one name finds another name of its emoji.
# - **image_to_text** and **text_to_image**: a drawing finds its name, and a name its drawing, in a space of their own
#   heads.

# %%
import jax.numpy as jnp

from mmcontrast.objectives.terms import evaluate, required_embeddings
from mmcontrast.training.step import prepared

views = prepared(method.preparations, batch, train=False)
every = required_embeddings(method.terms)
online = [name for name in every if not name.endswith("@momentum")]
momentum = [name for name in every if name.endswith("@momentum")]
encode = jax.jit(lambda variables, which: method.model.embed(variables, views, which, train=False)[0], static_argnums=1)
keys = encode(state.momentum, tuple(momentum))
queries = encode({"params": state.params, "batch_stats": state.batch_stats}, tuple(online))


def unit(rows):
  return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def positives_of(term):
  """Which pairs of the batch the target calls positive: bool [B, B]."""
  same = np.eye(batch_size, dtype=bool)
  if term["target"] == "same_id":
    return same | (batch["id"][:, None] == batch["id"][None, :])
  tags = batch["tags"].astype(float)
  shared = tags @ tags.T
  jaccard = shared / np.maximum(tags.sum(1)[:, None] + tags.sum(1)[None, :] - shared, 1)
  return same | (jaccard > term["target"]["threshold"])


cosines = {
  name: np.asarray(unit(queries[term["query"]].pooled) @ unit(keys[term["key"]].pooled).T)
  for name, term in config["objective"].items()
}
shown = min(batch_size, 32)
figure, axes = plt.subplots(1, 5, figsize=(18, 4))
for axis, (name, term) in zip(axes, config["objective"].items()):
  axis.imshow(cosines[name][:shown, :shown], vmin=-1, vmax=1, cmap="RdBu_r")
  rows, columns = np.nonzero(positives_of(term)[:shown, :shown])
  axis.scatter(columns, rows, s=4, c="white", edgecolors="black", linewidths=0.3)
  axis.set_title(f"{name}\n{positives_of(term).sum() / batch_size:.1f} positives a row", fontsize=10)
  axis.axis("off")
plt.show()

# %% [markdown]
# ## The loss of each
#
# One formula, with other positives $P_i$, rows and temperature:
#
# $$\mathrm{loss} = -\frac{1}{B}\sum_i \frac{1}{|P_i|}\sum_{j \in P_i} \log \frac{\exp(s_{ij}/\tau)}{\sum_k
# \exp(s_{ik}/\tau)}$$
#
# An encoder that knows nothing has $\log B$. The last column is what the library computes.


# %%
def losses_of(params):
  """The five losses of the batch as the library has them; gradients reach the queries only, not the keys."""
  made = method.model.embed({"params": params, "batch_stats": state.batch_stats}, views, online, train=False)[0]
  info = {"id": batch["id"], "tags": batch["tags"], "valid": batch["valid"]}
  losses = []
  for name, term in method.terms.items():
    losses.append(evaluate({name: term}, {**made, **keys}, info, params["terms"], {}, {name: 1.0})[0])
  return jnp.stack(losses)


now = jax.jit(losses_of)(state.params)
print(f"{'':14} {'formula':>8} {'library':>8}    log B = {np.log(batch_size):.3f}")
for (name, term), ours in zip(config["objective"].items(), now):
  positive = positives_of(term)
  logits = cosines[name] / term["temperature"]
  log_share = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  formula = -(np.where(positive, log_share, 0).sum(1) / positive.sum(1)).mean()
  print(f"{name:14} {formula:8.4f} {float(ours):8.4f}")
  assert abs(formula - float(ours)) < 1e-3 * max(1, formula)

# %% [markdown]
# ## Which weights each moves
#
# The length of a term's gradient, by part of the model. Terms within a modality leave the other modality alone; those
# between the two move the tower of their query, since keys get no gradient.

# %%
gradients = jax.jit(jax.jacrev(losses_of))(state.params)
arrays = jax.device_get(gradients)
parts = [(kind, part) for kind in ("towers", "heads") for part in state.params[kind]]


def length(tree, row):
  return np.sqrt(sum(np.sum(leaf[row] ** 2) for leaf in jax.tree.leaves(tree)))


table = np.array([[length(arrays[kind][part], row) for kind, part in parts] for row in range(5)])
print(f"{'':14}" + "".join(f"{part:>13}" for _, part in parts))
for name, row in zip(config["objective"], table):
  print(f"{name:14}" + "".join(f"{value:13.3f}" if value else f"{'-':>13}" for value in row))

# %% [markdown]
# ## What a step along one does to the others
#
# The same short step along each term's gradient alone; a cell is the change of the column's loss in per mille. On the
# diagonal a term lowers itself. Elsewhere is what it gives to the others, or takes from them.

# %% cellView="form"
# @title A step
step_length = 0.05  # @param {type:"number"}


@jax.jit
def after_a_step(row):
  """The five losses after a step along the gradient of term number `row`."""
  one = jax.tree.map(lambda leaf: leaf[row], gradients)
  norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(one)))
  return losses_of(jax.tree.map(lambda leaf, along: leaf - step_length * along / norm, state.params, one))


changes = np.array([np.asarray(after_a_step(row) / now - 1) * 1000 for row in range(5)])
figure, axis = plt.subplots(figsize=(6.5, 4.5))
bound = np.abs(changes).max()
axis.imshow(changes, cmap="RdBu_r", vmin=-bound, vmax=bound)
for (row, column), value in np.ndenumerate(changes):
  axis.text(column, row, f"{value:+.1f}", ha="center", va="center")
axis.set_xticks(range(5), config["objective"], rotation=30, ha="right")
axis.set_yticks(range(5), [f"step along {name}" for name in config["objective"]])
axis.set_title("change of each loss, per mille", fontsize=10)
plt.show()
batches.close()

# %% [markdown]
# Weights say how much each counts. Leave one out with `--config.objective.image_tags.weight=0`; [what each contributes
# after a whole training](../docs/results/mct_ablation.md) was measured with three seeds.
