"""The order of texts, and the contrast of their mean, against TVTS's; devices, absent examples; what is refused."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from meshes import assert_close, compiled, make_mesh

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.term import Run

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "addition.json").read_text())
TEXTS, VIDEO = tuple(f"text[{k}]/sorted" for k in range(3)), "video[0]/shown"


def made_up(shape, shift):
  return np.sin(0.7 * (np.arange(np.prod(shape)) + 1) + shift).reshape(shape)


def parameters(listed):
  flat = {}
  for number, (name, shape) in enumerate(listed):
    x = made_up(shape, START + number)
    is_scale = "norm" in name and name.endswith("weight")
    x = x / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1 * x + is_scale
    kind = "bias" if name.endswith("bias") else "scale" if is_scale else "kernel"
    path = name.replace("blocks.0", "blocks_0").split(".")[:-1]
    flat[(*path, kind) if path else (name,)] = x[0] if name == "type_embed" else x.T
  return unflatten_dict(flat)


START = 0.4  # of the parameters: the logits agree to the last bit, and of no other multiple of 0.05 in [-1, 5] at all


def value_and_gradients(text, video, own, valid=None, mesh=None, mask=None):
  module = dict(name="order", depth=1, heads=2)
  terms = objective.parse_terms({"t": dict(module=module, embeddings=(*TEXTS, VIDEO), weight=2.0)})
  info = {} if valid is None else {"valid": valid}

  def loss(text, video, own):
    nodes = {name: Encoded(text[:, k]) for k, name in enumerate(TEXTS)} | {VIDEO: Encoded(tokens=video, mask=mask)}
    return objective.evaluate(terms, nodes, info, {"t": own}, {}, {}, mesh=mesh)[0]

  return compiled(jax.value_and_grad(loss, (0, 1, 2)))(text, video, own)


def by_hand(text, video, own):
  """The loss of one block in NumPy."""

  def norm(x, at):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * at["scale"] + at["bias"]

  def dense(x, at):
    return x @ at["kernel"] + at["bias"]

  def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

  block = own["blocks_0"]
  x = np.concatenate([video + own["type_embed"][0], text + own["type_embed"][1]], 1)
  q, k, v = np.split(dense(norm(x, block["norm1"]), block["attn"]["qkv"]), 3, -1)
  q, k, v = (part.reshape(*part.shape[:2], 2, 4) for part in (q, k, v))
  shares = softmax(np.einsum("blhd,bmhd->bhlm", q, k) / 2)
  x = x + dense(np.einsum("bhlm,bmhd->blhd", shares, v).reshape(x.shape), block["attn"]["proj"])
  hidden = dense(norm(x, block["norm2"]), block["mlp"]["fc1"])
  hidden = hidden / 2 * (1 + np.vectorize(math.erf)(hidden / np.sqrt(2)))
  x = x + dense(hidden, block["mlp"]["fc2"])
  logits = dense(norm(x[:, -3:], own["norm"]), own["head"])
  return logits, -2 * np.log(softmax(logits))[:, np.arange(3), np.arange(3)].mean()


@pytest.mark.usefixtures("float64")
def test_it_is_tvts():
  case = GOLDEN["tvts_sort"]
  own = parameters(case["inputs"]["parameters"])
  text, video = made_up((2, 3, 8), 0.8), made_up((2, 5, 8), 2.1)
  loss, (of_text, of_video, of_own) = value_and_gradients(text, video, own)
  np.testing.assert_allclose(by_hand(text, video, own)[0], case["expected"]["logits"], atol=1e-6)
  np.testing.assert_allclose(loss, case["expected"]["sort_loss"], atol=1e-6)
  assert not np.asarray(of_text).any()
  step, place = 1e-6, (1, 3, 2)
  up, down = video.copy(), video.copy()
  up[place], down[place] = up[place] + step, down[place] - step
  slope = (by_hand(text, up, own)[1] - by_hand(text, down, own)[1]) / (2 * step)
  np.testing.assert_allclose(of_video[place], slope, atol=1e-7)
  np.testing.assert_allclose(np.sum(of_own["head"]["bias"]), 0, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_the_contrast_with_the_mean_of_the_texts_is_a_pair_term():
  """NormSoftmaxLoss is the sum of both directions, and ours their mean."""
  case = GOLDEN["tvts_align"]
  sim = jnp.asarray(case["inputs"]["sim"])
  pair = dict(query="a", key="b", direction="both", temperature=0.05, weight=2.0, score="dot")
  pair |= dict(query="video[0]/joint", key="text[0]/joint")
  terms = objective.parse_terms({"t": pair})

  def loss(sim):
    return objective.evaluate(terms, {"video[0]/joint": sim, "text[0]/joint": jnp.eye(4)}, {}, {}, {}, {})[0]

  value, gradient = compiled(jax.value_and_grad(loss))(sim)
  np.testing.assert_allclose(value, case["expected"]["loss"], rtol=1e-9)
  np.testing.assert_allclose(gradient, case["expected"]["grad_sim"], atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_devices_padding_and_absent_examples():
  own = parameters(GOLDEN["tvts_sort"]["inputs"]["parameters"])
  text, video = made_up((8, 3, 8), 0.8), made_up((8, 5, 8), 2.1)
  valid, real = np.arange(8) != 5, np.arange(5) < np.array([5, 5, 3, 2, 5, 5, 1, 4])[:, None]
  whole = value_and_gradients(text, video, own, valid, mask=real)
  mesh = make_mesh(4)
  cut = jax.device_put((text, video), jax.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
  assert_close(value_and_gradients(*cut, own, valid, mesh, mask=real), whole, 1e-6)  # attention adds in float32
  broken = np.where(real[..., None], video, 7.0)
  broken[5] = np.nan
  loss, gradients = value_and_gradients(text, broken, own, valid, mask=real)
  np.testing.assert_allclose(loss, whole[0], rtol=1e-6)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      dict(embeddings=(TEXTS[0], VIDEO)),
      r"objective\.t\.embeddings: .*; name two or more texts in the order in which th",
    ),
    (dict(embeddings=(VIDEO, *TEXTS)), r"then the tokens of what shows it: 'text\[0\]/HEAD', 'text\[1\]/HEAD', 'video"),
    (dict(heads=3), r"objective\.t\.module\.heads: 3 heads do not divide the 8 dimensions of 'video\[0\]/shown'"),
    (dict(depth=0), r"depth: 0 is not a whole number of 1 or more"),
  ],
)
def test_one_line(changes, message):
  changes = dict(changes)
  embeddings = changes.pop("embeddings", (*TEXTS, VIDEO))
  run = Run({"sorted": "text", "shown": "video"}, 4, token_heads=("shown",), head_dims={"sorted": 8, "shown": 8})
  with pytest.raises(UserError, match=message) as error:
    objective.parse_terms({"t": dict(module=dict(name="order", **changes), embeddings=embeddings)})["t"].check(run)
  assert "\n" not in str(error.value)
