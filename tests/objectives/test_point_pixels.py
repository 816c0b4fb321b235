"""Points against the pixels that show them and what a text says of these: in NumPy's words, and who takes part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.point_pixels import STREAM
from mmcontrast.objectives.term import Run

pytestmark = pytest.mark.usefixtures("float64")
N, G, P, D, C, GRID = 8, 3, 10, 4, 5, (3, 4)
POINTS, IMAGE = "points[0]/dense", "image[0]/dense"
MODULE = dict(name="point_pixels", label="kind", classes=C, temperature=0.5, self_training=0.5, consistency=0.7)
TERM = dict(module=MODULE, embeddings=(POINTS, IMAGE))


def inputs(seed=0):
  """(tokens and map, all that is told of the batch); of the view of example 1 left is right, 2 shows no point, and the
  first point of each is not seen."""
  draw = np.random.default_rng(seed)
  x = {POINTS: draw.normal(size=(N, G, D)), IMAGE: draw.normal(size=(N, 12, D))}
  box = np.tile([0.1, 0.0, 0.9, 1.0], (N, 1))
  box[1] = box[1, [2, 1, 0, 3]]
  box[2] = [0.0, 0.0, 0.01, 0.01]
  pixel = draw.uniform(0.02, 1, (N, P, 2))
  pixel[:, 0] = -1
  places = np.stack([draw.permutation(P)[:G] for _ in range(N)]).astype(np.int32)
  places[:4, 0] = 0
  told = {
    "places": places,
    "views": {"image[0]": {"box": box}, "points[0]": {"pixel": pixel}},
    "labels": {"kind": draw.integers(0, C, N)},
    "seed": draw.integers(0, 2**32, N, dtype=np.uint32),
    "valid": np.arange(N) != 3,
  }
  prompts = draw.normal(size=(C, D))
  prompts[4] = 0
  prompts /= np.maximum(np.linalg.norm(prompts, axis=1, keepdims=True), 1e-9)
  return *jax.tree.map(jnp.asarray, (x, told)), jnp.asarray(prompts)


def term_of(share=0.5, mesh=None):
  """(embeddings, told, prompts) -> ((loss, metrics), gradients), compiled."""
  terms = objective.parse_terms({"t": TERM})

  def loss(x, told, prompts):
    views = {POINTS: Encoded(None, x[POINTS], places=told["places"]), IMAGE: Encoded(None, x[IMAGE], grid=GRID)}
    found = objective.evaluate_and_remember(
      terms, views, told, {}, {}, {}, states={"t": {"prototypes": prompts}}, mesh=mesh,
      scheduled={"t": {"temperature": 0.5, "self_training": share}},
    )  # fmt: skip
    return found[:2]

  return compiled(jax.value_and_grad(loss, has_aux=True))


def in_numpy(x, told, prompts, themselves):
  """(loss, semantic, consistency, share of groups that are seen) by loops over groups."""
  unit = lambda v: v / np.linalg.norm(v)  # noqa: E731
  semantic, apart, seen, groups = [], [], 0, 0
  for n in np.flatnonzero(told["valid"]):
    image = np.asarray(x[IMAGE][n]).reshape(*GRID, D)
    x0, y0, x1, y1 = np.asarray(told["views"]["image[0]"]["box"][n])
    for g in range(G):
      groups += 1
      at = np.asarray(told["views"]["points[0]"]["pixel"][n, told["places"][n, g]])
      where = np.array([(at[0] - x0) / (x1 - x0), (at[1] - y0) / (y1 - y0)])
      if at.min() < 0 or where.min() < 0 or where.max() > 1:
        continue
      seen += 1
      column, row = (np.clip(where * [GRID[1], GRID[0]] - 0.5, 0, [GRID[1] - 1, GRID[0] - 1])).tolist()
      q = np.zeros(D)
      for r in range(GRID[0]):
        for c in range(GRID[1]):
          q += max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c)) * image[r, c]
      p, q = unit(np.asarray(x[POINTS][n, g])), unit(q)
      of_points, of_pixels = (np.array([vector @ t for t in prompts[:4]]) for vector in (p, q))  # the last has no text
      label = np.argmax(of_points if themselves[n] else of_pixels)
      semantic.append(np.log(np.exp(of_points / 0.5).sum()) - of_points[label] / 0.5)
      apart.append(1 - p @ q)
  return np.mean(semantic) + 0.7 * np.mean(apart), np.mean(semantic), np.mean(apart), seen / groups


def test_in_numpy_and_who_takes_part():
  x, told, prompts = inputs()
  run = term_of()
  (value, metrics), gradients = wanted = run(x, told, prompts)
  drawn = compiled(
    jax.vmap(lambda seed: jax.random.uniform(jax.random.fold_in(jax.random.key(seed), STREAM), dtype="f4"))
  )
  themselves = np.asarray(drawn(told["seed"])) < 0.5
  names, plain = ("loss", "semantic", "consistency", "seen"), jax.tree.map(np.asarray, (x, told, prompts))
  ways = [in_numpy(*plain, way) for way in (themselves, themselves | True, themselves & False)]
  np.testing.assert_allclose([metrics[f"t/{name}"] for name in names], ways[0], rtol=1e-9)
  assert len({way[0] for way in ways}) == 3  # some, all and none of the examples train themselves
  assert not np.any(gradients[IMAGE]) and np.any(gradients[POINTS][0]) and not np.any(gradients[POINTS][2])
  assert not np.any(gradients[POINTS][3]) and not np.any(gradients[POINTS][0, 0])  # its first point is not seen

  mesh = make_mesh(4)
  cut = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  assert_close(term_of(mesh=mesh)(*jax.device_put((x, told), cut), prompts), wanted, 1e-9)
  lost = {name: told[name] if name in ("valid", "places", "seed", "labels") else jax.tree.map(
    lambda leaf: leaf.at[3].set(jnp.nan), told[name]) for name in told}  # fmt: skip
  broken = jax.tree.map(lambda leaf: leaf.at[3].set(jnp.nan), x)
  assert_close(run(broken, lost, prompts)[0][0], value, 1e-12)
  order = np.array([6, 1, 0, 7, 2, 5, 4, 3])
  (moved, _), there = run(*jax.tree.map(lambda leaf: leaf[order], (x, told)), prompts)
  assert_close((moved, there), (value, {key: g[order] for key, g in gradients.items()}), 1e-9)

  (value, metrics), gradients = run(x, told, jnp.zeros_like(prompts))  # before there are prompts
  np.testing.assert_allclose(value, 0.7 * metrics["t/consistency"], rtol=1e-12)
  assert metrics["t/semantic"] == 0 and np.isfinite(gradients[POINTS]).all()


RUN = dict(views={"image": 1, "points": 1}, heads={"dense": "points"}, batch_size=8, token_heads=("dense",),
           labels={"kind": ("a",) * C}, facts={"image": ("box",), "points": ("pixel",)})  # fmt: skip


@pytest.mark.parametrize(
  ("options", "embeddings", "run", "message"),
  [
    (dict(classes=1), None, {}, r"t\.module\.classes: 1 is not a whole number of 2 or more"),
    (dict(self_training=1.5), None, {}, r"t\.module\.self_training: 1\.5 is not a share from 0 to 1"),
    (dict(self_training=dict(name="linear", init=0.0, end=2.0)), None, {}, r"self_training: 2\.0 is not a share"),
    (dict(consistency=-1.0), None, {}, r"t\.module\.consistency: -1\.0 is not a weight of 0 or more"),
    (dict(temperature=0), None, {}, r"t\.module\.temperature: 0 divides scores"),
    ({}, (IMAGE, POINTS), {}, r"t\.embeddings: .*; name tokens of points, then the map of the image"),
    (
      {},
      None,
      dict(facts={"image": ("box",)}),
      r"asks for the 'pixel' of 'points\[0\]/dense'; add it to config\.data\.f",
    ),
    (dict(label="kinds"), None, {}, r"t\.module\.label: .* did you mean 'kind'"),
    (dict(classes=7), None, {}, r"t\.module\.classes: label 'kind' has 5, not 7; set it to 5"),
  ],
)
def test_what_is_refused(options, embeddings, run, message):
  with pytest.raises(UserError, match=message) as error:
    term = dict(module=MODULE | options, embeddings=embeddings or (POINTS, IMAGE))
    objective.parse_terms({"t": term})["t"].check(Run(**RUN | run))
  assert "\n" not in str(error.value)
