"""ALPRO's entity prompts against the formula in NumPy; devices, absent examples; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.term import Run

PATHS = ("looking(image_masked[0], text[0])/looked", "image_region[0]/joint@momentum")
DRAW = np.random.default_rng(0)
TOKENS, CROP = DRAW.normal(size=(8, 9, 4)), DRAW.normal(size=(8, 5))
PROMPTS = DRAW.normal(size=(6, 5)) * (np.arange(6) != 2)[:, None]  # no example of class 2
PROMPTS /= np.maximum(np.linalg.norm(PROMPTS, axis=1, keepdims=True), 1e-12)
REGION = DRAW.random((8, 9)) < 0.4
REGION[3], REGION[4:, 0] = False, True  # nothing of example 3 is hidden
OWN = {
  "fc1": {"kernel": DRAW.normal(size=(4, 8)), "bias": DRAW.normal(size=8)},
  "fc2": {"kernel": DRAW.normal(size=(8, 6)), "bias": DRAW.normal(size=6)},
}


def terms(**options):
  module = dict(name="entity_prompts", label="kind", classes=6, temperature=0.5, threshold=0.3) | options
  return objective.parse_terms({"t": dict(module=module, embeddings=PATHS)})


def value_and_gradients(tokens, crop, region, valid, own=OWN, prompts=PROMPTS, mesh=None):
  info = {"views": {"image_masked[0]": {"masked": region}}, "valid": valid}

  def loss(tokens, crop, own):
    nodes = {PATHS[0]: Encoded(tokens=tokens), PATHS[1]: Encoded(crop)}
    return objective.evaluate(
      terms(), nodes, info, {"t": own}, {}, {}, states={"t": {"prototypes": jnp.asarray(prompts)}}, mesh=mesh
    )

  return compiled(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(tokens, crop, own)


def by_hand(tokens, crop, region, valid):
  """(loss, examples that took part): with the class that has no prompt left out."""
  there = PROMPTS.any(1)
  losses = []
  for x, c, hidden, real in zip(tokens, crop, region, valid):
    logits = (PROMPTS[there] @ (c / np.linalg.norm(c))) / 0.5
    q = np.exp(logits) / np.exp(logits).sum()
    if not (real and hidden.any() and q.max() >= 0.3):
      continue
    hidden = np.maximum(x[hidden].mean(0) @ OWN["fc1"]["kernel"] + OWN["fc1"]["bias"], 0)
    z = hidden @ OWN["fc2"]["kernel"] + OWN["fc2"]["bias"]
    losses.append(-(q * (z - np.log(np.exp(z).sum()))[there]).sum())
  return np.mean(losses), len(losses)


@pytest.mark.usefixtures("float64")
def test_it_is_the_formula_on_any_devices():
  valid = np.arange(8) != 6
  (loss, metrics), gradients = whole = value_and_gradients(TOKENS, CROP, REGION, valid)
  expected, count = by_hand(TOKENS, CROP, REGION, valid)
  assert 2 < count < 7
  np.testing.assert_allclose(loss, expected, rtol=1e-9)
  np.testing.assert_allclose(metrics["t/sure"], count / 7, rtol=1e-6)
  at, step = (0, int(np.argmax(REGION[0])), 1), 1e-6
  up, down = TOKENS.copy(), TOKENS.copy()
  up[at], down[at] = up[at] + step, down[at] - step
  slope = (by_hand(up, CROP, REGION, valid)[0] - by_hand(down, CROP, REGION, valid)[0]) / (2 * step)
  np.testing.assert_allclose(gradients[0][at], slope, atol=1e-8)
  assert not np.asarray(gradients[0])[~REGION].any() and not np.asarray(gradients[1]).any()
  mesh = make_mesh(4)
  cut = jax.device_put((TOKENS, CROP, REGION, valid), jax.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
  assert_close(value_and_gradients(*cut, mesh=mesh), whole, 1e-9)
  broken = TOKENS.copy()
  broken[6] = np.nan
  assert np.isfinite(value_and_gradients(broken, CROP, REGION, valid)[0][0])
  assert value_and_gradients(TOKENS, CROP, REGION, valid, prompts=0 * PROMPTS)[0][0] == 0


RUN = Run(
  heads={"looked": "looking", "joint": "image"}, batch_size=8, labels={"kind": "abcdef"}, token_heads=("looked",),
  facts={"image_masked": ("masked",)},
)  # fmt: skip


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(classes=5), r"objective\.t\.module\.classes: label 'kind' has 6, not 5; set it to 6"),
    (dict(label="kint"), r"objective\.t\.module\.label: .*'kint'.*did you mean 'kind'"),
    (dict(classes=1), r"classes: 1 is not a whole number of 2 or more"),
    (dict(threshold=1), r"threshold: 1 is not a probability below 1; ALPRO's is 0\.2"),
    (
      dict(embeddings=PATHS[:1]),
      r"embeddings: .*; name tokens of an image of which a region is hidden, and what the fro",
    ),
    (dict(embeddings=(PATHS[0], PATHS[1].removesuffix("@momentum"))), r"'image_region\[0\]/HEAD@momentum'"),
  ],
)
def test_one_line(changes, message):
  changes = dict(changes)
  embeddings = changes.pop("embeddings", PATHS)
  with pytest.raises(UserError, match=message) as error:
    module = dict(name="entity_prompts", label="kind", classes=6) | changes
    term = objective.parse_terms({"t": dict(module=module, embeddings=embeddings)})["t"]
    term.check(RUN)
  assert "\n" not in str(error.value)


def test_tokens_of_other_places():
  with pytest.raises(UserError, match=r"gives 4 tokens of 9 patches; let it be of a tower that reads the image first"):
    value_and_gradients(TOKENS[:, :4], CROP, REGION, np.ones(8, bool))
