"""Values and gradients of published losses, as their reference implementations compute them.

The numbers of tests/golden/image_text.json and the constants here come from public code run in
float64 (named in each case's "source"); inputs are `wave`s, or rows printed with the case.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import compiled
from token_arrays import with_tokens

from mmcontrast.objectives import terms as objective
from mmcontrast.stores import momentum as momentum_store
from mmcontrast.stores import queue as queue_store

CASES = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "image_text.json").read_text())
pytestmark = pytest.mark.usefixtures("float64")


def wave(n: int, d: int, shift: float) -> jax.Array:
  """[n, d]: sin(0.7 k + shift), k = 1, 2, ..."""
  return jnp.sin(0.7 * jnp.arange(1, n * d + 1) + shift).reshape(n, d)


def total(config, embeddings, info=None, parameters=None, queues=None):
  """The loss of terms with their configured weights."""
  terms = objective.parse_terms(config)
  weights = {name: term.weight for name, term in terms.items()}
  run = jax.jit(functools.partial(objective.evaluate, terms, weights=weights))
  return run(with_tokens(embeddings), info or {}, parameters or {}, queues or {})[0]


IMAGE, TEXT = "image[0]/joint", "text[0]/joint"
BOTH = dict(query=IMAGE, key=TEXT, direction="both")
VIEWS = ["image[0]/ssl", "image[1]/ssl"]
LABELS = {"labels": {"kind": np.array([0, 1, 2, 0, 1])}}


@pytest.mark.parametrize(
  ("term", "names", "info", "expected"),
  [
    (dict(BOTH, temperature=0.07), (IMAGE, TEXT), {}, 8.588983590695),
    (dict(query=VIEWS, key=VIEWS, temperature=0.1), VIEWS, {}, 6.087830552271),
    (dict(query=VIEWS, key=VIEWS, temperature=0.5), VIEWS, {}, 2.032140708118),
    (
      dict(query=VIEWS, key=VIEWS, temperature=0.1, weight=0.1 / 0.07, target=dict(name="same_label", label="kind")),
      VIEWS,
      LABELS,
      14.254251639054,
    ),
    (dict(BOTH, criterion="hinge", weight=10.0), (IMAGE, TEXT), {}, 9.701907986065),
    (dict(BOTH, criterion=dict(name="hinge", reduce="hardest"), weight=10.0), (IMAGE, TEXT), {}, 8.005800820898),
  ],
  ids=["clip", "nt_xent_0.1", "nt_xent_0.5", "supcon", "vse_sum", "vse_hardest"],
)
def test_five_waves(term, names, info, expected):
  embeddings = dict(zip(names, (wave(5, 7, 0.1), wave(5, 7, 1.3))))
  np.testing.assert_allclose(total({"t": term}, embeddings, info), expected, rtol=1e-11)


def test_moco_v3_is_two_terms_and_twice_the_temperature():
  queries, keys = (["image[0]/ssl", "image[1]/ssl"], ["image[1]/ssl@momentum", "image[0]/ssl@momentum"])
  config = {f"t{i}": dict(query=q, key=k, temperature=0.2, weight=0.4) for i, (q, k) in enumerate(zip(queries, keys))}
  embeddings = dict(zip([queries[0], keys[0], queries[1], keys[1]], (wave(5, 7, s) for s in (0.1, 1.3, 2.2, 3.9))))
  np.testing.assert_allclose(total(config, embeddings), 3.434411956749, rtol=1e-11)


def test_moco_v2_whole_module():
  """EMA before the keys, the loss against own key and queue, then the push and its pointer."""

  def parameters(shifts):
    shapes = [(6, 6), (1, 6), (8, 6), (1, 8)]
    return [wave(a * b, 1, s).reshape(a, b) for (a, b), s in zip(shapes, shifts)]

  def network(p, x):
    return jax.nn.relu(x @ p[0].T + p[1]) @ p[2].T + p[3]

  online, momentum = parameters((0, 1, 2, 3)), parameters((4, 5, 6, 7))
  columns = wave(8, 16, 8)
  queue = {"keys": (columns / jnp.linalg.norm(columns, axis=0)).T, "pointer": jnp.int32(0)}
  momentum = momentum_store.update(momentum, online, 0.9)
  query, key = "image[0]/ssl", "image[1]/ssl@momentum"
  embeddings = {query: network(online, wave(4, 6, 9)), key: network(momentum, wave(4, 6, 10))}
  config = {"t": dict(query=query, key=key, negatives="queue:16", temperature=0.2)}
  loss = total(config, embeddings, queues={key: queue})
  np.testing.assert_allclose(loss, 3.368507830072, rtol=1e-11)

  keys = objective.keys_to_push(objective.parse_terms(config), embeddings)[key]
  queue = queue_store.push(queue, keys, {})
  np.testing.assert_allclose(jnp.sum(queue["keys"]), -0.108489434346, rtol=1e-10)
  assert queue["pointer"] == 4


def check(case, function, tolerance=1e-9, **arguments):
  """`function` of the case's inputs: its value, and every gradient the case has."""
  expected = CASES[case]["expected"]
  value, gradients = compiled(jax.value_and_grad(function))(arguments)
  np.testing.assert_allclose(value, expected["loss"], rtol=tolerance)
  for name, gradient in gradients.items():
    if f"grad_{name}" in expected:
      np.testing.assert_allclose(
        gradient, expected[f"grad_{name}"], rtol=tolerance, atol=tolerance, err_msg=f"{case}: {name}"
      )


def inputs(case):
  return {name: jnp.asarray(value) for name, value in CASES[case]["inputs"].items()}


LEARNED = dict(init=0.07, learned=True)


def test_clip():
  x = inputs("clip")

  def loss(a):
    return total(
      {"t": dict(BOTH, score="dot", temperature=LEARNED)},
      {IMAGE: a["zi"], TEXT: a["zt"]},
      parameters={"t": {"log_scale": jnp.log(a["scale"])}},
    )

  check("clip", loss, **x)


def test_siglip():
  x = inputs("siglip")

  def loss(a):
    term = dict(query=IMAGE, key=TEXT, score="dot", criterion="sigmoid", temperature=LEARNED, bias=dict(init=-10.0))
    return total(
      {"t": term},
      {IMAGE: a["zi"], TEXT: a["zt"]},
      parameters={"t": {"log_scale": jnp.log(a["scale"]), "bias": a["bias"]}},
    )

  check("siglip", loss, **x)


def test_simclr():
  x = inputs("simclr")
  term = dict(query=VIEWS, key=VIEWS, temperature=0.1)
  check("simclr", lambda a: total({"t": term}, dict(zip(VIEWS, (a["a"], a["b"])))), **x)


def test_one_image_many_captions():
  x = inputs("one_to_k")
  captions = x["texts"].shape[1]
  keys = [f"text[{k}]/joint" for k in range(captions)]
  term = dict(query=IMAGE, key=keys, score="dot", temperature=float(x.pop("tau")))
  config = {"rows": dict(term, weight=0.5), "columns": dict(term, direction="columns", weight=0.5 / captions)}

  def loss(a):
    return total(config, {IMAGE: a["zi"]} | {k: a["texts"][:, i] for i, k in enumerate(keys)})

  check("one_to_k", loss, **x)


def test_sdm():
  """IRRA's loss: the reverse KL of both directions, added up."""
  x = inputs("sdm")
  term = dict(BOTH, target="same_id", criterion="reverse_kl", temperature=1 / float(x["scale"]), weight=2.0)

  def loss(a):
    return total({"t": term}, {IMAGE: a["a"], TEXT: a["b"]}, {"id": x["pid"]})

  check("sdm", loss, a=x["a"], b=x["b"])


def test_cwcl():
  x = inputs("cwcl")
  term = dict(query=IMAGE, key=TEXT, score="dot", temperature=LEARNED)
  config = {
    "soft": dict(term, target=dict(name="soft_similarity", of="image[0]/frozen")),
    "back": dict(term, direction="columns", temperature="soft"),
  }

  def loss(a):
    embeddings = {IMAGE: a["zi"], TEXT: a["zt"], "image[0]/frozen": x["frozen"]}
    return total(config, embeddings, parameters={"soft": {"log_scale": a["log_scale"]}})

  # The reference adds 1e-8 to the sum of a row's weights.
  check("cwcl", loss, 1e-7, **{k: x[k] for k in ("zi", "zt", "log_scale")})


def test_distillation():
  x = inputs("distill_clip")
  target = dict(
    name="teacher",
    query="image[0]/teacher",
    key="text[0]/teacher",
    temperature=1 / float(x["tscale"]),
    normalized=False,
  )
  term = dict(BOTH, score="dot", target=target, temperature=1 / float(x["scale"]))

  def loss(a):
    return total({"t": term}, {IMAGE: a["zi"], TEXT: a["zt"], "image[0]/teacher": x["ti"], "text[0]/teacher": x["tt"]})

  check("distill_clip", loss, zi=x["zi"], zt=x["zt"])


def test_albef():
  x = inputs("albef_itc")
  image_key, text_key = f"{IMAGE}@momentum", f"{TEXT}@momentum"
  length = x["qi"].shape[0]
  tau, alpha = float(x["tau"]), float(x["alpha"])
  common = dict(negatives=f"batch+queue:{length}", temperature=tau, weight=0.5)
  config = {
    "image_to_text": dict(common, query=IMAGE, key=text_key, target=dict(name="teacher", query=image_key, share=alpha)),
    "text_to_image": dict(common, query=TEXT, key=image_key, target=dict(name="teacher", query=text_key, share=alpha)),
  }
  queues = {image_key: {"keys": x["qi"], "pointer": jnp.int32(0)}, text_key: {"keys": x["qt"], "pointer": jnp.int32(0)}}

  def embeddings(a):
    return {IMAGE: a["hi"][:, 0], TEXT: a["ht"][:, 0], image_key: x["him"][:, 0], text_key: x["htm"][:, 0]}

  check("albef_itc", lambda a: total(config, embeddings(a), queues=queues), hi=x["hi"], ht=x["ht"])
  keys = objective.keys_to_push(objective.parse_terms(config), embeddings(x))
  queue = queue_store.push(queues[image_key], keys[image_key], {})
  np.testing.assert_allclose(queue["keys"], CASES["albef_itc"]["expected"]["image_queue_after"], rtol=1e-12)
