"""silc and tips, the objectives as they are shipped, against plain formulas: a pair term, DINO's and iBOT's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import compiled

from mmcontrast.config import load_config
from mmcontrast.encoders import Encoded
from mmcontrast.objectives import terms as objective

pytestmark = pytest.mark.usefixtures("float64")
N, D, K, L = 6, 5, 7, 4


def clip(image, text, temperature=0.07):
  unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)]
  logits = unit[0] @ unit[1].T / temperature
  both = jax.nn.log_softmax(logits, 1), jax.nn.log_softmax(logits, 0)
  return -sum(np.mean(np.diagonal(x)) for x in both) / 2


def follow(teacher, student, teacher_temperature=0.04):
  return -np.sum(jax.nn.softmax(teacher / teacher_temperature, -1) * jax.nn.log_softmax(student / 0.1, -1), -1)


def setup(method):
  """(the config's terms, random embeddings of all that they read, which patches are hidden)."""
  terms = objective.parse_terms(load_config(method)["objective"])
  draw = np.random.default_rng(0)
  widths = {"joint": D, "second": D, "dino": K}
  x = {
    name: draw.normal(size=(N, L, K) if "ibot" in name else (N, widths[name.partition("@")[0].rpartition("_")[2]]))
    for name in objective.required_embeddings(terms)
  }
  return terms, x, draw.random((N, L)) < 0.6


def value_and_gradients(terms, x, hidden):
  shapes = {name: encoded(leaf) for name, leaf in x.items()}
  learned = objective.init_parameters(terms, jax.random.key(0), shapes)
  states = objective.init_states(terms, jax.random.key(0), shapes)
  info = {"views": {"image_masked[0]": {"masked": jnp.asarray(hidden)}}}
  scheduled = {name: dict(temperature=0.1, teacher_temperature=0.04) for name in ("local_to_global", "patches")}
  scheduled = {name: now for name, now in scheduled.items() if name in terms}

  def loss(x):
    nodes = {name: encoded(leaf) for name, leaf in x.items()}
    return objective.evaluate(terms, nodes, info, learned, {}, {}, scheduled=scheduled, states=states)[0]

  return compiled(jax.value_and_grad(loss))(jax.tree.map(jnp.asarray, x))


def encoded(leaf):
  return Encoded(None, leaf, grid=(2, 2)) if leaf.ndim == 3 else Encoded(leaf)


@pytest.mark.parametrize("method", ["silc", "tips"])
def test_the_objective_is_the_sum_of_its_parts(method):
  terms, x, hidden = setup(method)
  value, gradients = value_and_gradients(terms, x, hidden)
  small = [x[f"image_small[{v}]/image_dino"] for v in range(4)]
  teachers = [x[name] for name in x if name.endswith("image_dino@momentum")]
  assert len(teachers) == (2 if method == "silc" else 1)
  wanted = np.mean([np.mean(follow(t, s)) for t in teachers for s in small])
  if method == "silc":
    text = x["text[0]/text_joint"]
    wanted += (clip(x["image[0]/image_joint"], text) + clip(x["image[1]/image_joint"], text)) / 2
  else:
    first, second = (
      clip(x["image[0]/image_joint"], x["text[0]/text_joint"]),
      clip(x["image[0]/image_second"], x["text[1]/text_joint"]),
    )
    each = np.where(hidden, follow(x["image[0]/image_ibot@momentum"], x["image_masked[0]/image_ibot"]), 0.0)
    wanted += (first + second) / 2 + 2 * np.mean(each.sum(1) / np.maximum(hidden.sum(1), 1))
  np.testing.assert_allclose(value, wanted, rtol=1e-6)  # temperatures are float32
  for name, gradient in gradients.items():
    assert np.any(gradient) == (not name.endswith("@momentum")), name
  if method == "tips":
    assert not np.any(gradients["image_masked[0]/image_ibot"][~hidden])


def test_the_teacher_of_silc_stays_at_a_distance():
  """Its momentum does not go to one, where it would no longer follow what texts teach."""
  for method in ("silc", "tips"):
    assert load_config(method)["momentum"] == dict(decay=0.98, update="after_step")
