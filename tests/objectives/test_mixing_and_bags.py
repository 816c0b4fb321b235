"""Mixtures, bags and groups: their numbers and gradients against reference code, and what must not change them."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import compiled
from term_rules import check_rules, function_of, module, random
from test_module_terms import case

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.gated_subspaces import subspace_loss
from mmcontrast.objectives.grouping import grouped, within
from mmcontrast.objectives.module_loss import Facts
from mmcontrast.objectives.score import normalize
from mmcontrast.objectives.sepclr import attribute_alignment, joint_entropy, uniformity
from mmcontrast.objectives.snippet_bags import choose_snippets, contrasts
from mmcontrast.objectives.term import Run

pytestmark = pytest.mark.usefixtures("float64")
IMAGE_TEXT = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "image_text.json").read_text())
VIEWS = ("image[0]/joint", "image[1]/joint")


# ---- SupReMix -----------------------------------------------------------------------------------


MIXED = module("supremix", VIEWS, label="age", alpha=0.2, offsets="apart", unit=False)
NUMBERS = {"labels": {"age": jnp.asarray([1, 3, 4])}}


def features():
  x, expected = case("supremix")
  return {name: x["features"][:, view] for view, name in enumerate(VIEWS)}, expected


def test_supremix():
  embeddings, expected = features()
  function = function_of(MIXED)
  (loss, metrics), gradients = function(embeddings, NUMBERS)
  np.testing.assert_allclose(loss, expected["loss"], rtol=1e-6)
  for view, name in enumerate(VIEWS):
    np.testing.assert_allclose(gradients[name], expected["grad_features"][:, view], atol=1e-6)
  np.testing.assert_allclose(metrics["t/positives"], (6 + 2 * 4) / 6)
  (loss, _), gradients = function(embeddings, {"labels": {"age": jnp.asarray([-1, -1, -1])}})
  assert loss == 0 and not any(x.any() for x in gradients.values())  # no example has a number


@pytest.mark.parametrize(
  ("options", "expected"),  # of a plain loop over anchors and mixtures
  [
    (dict(offsets="apart", denominator="positives_and_one"), 2.598266915914395),
    (dict(offsets="one", denominator="positives_and_one"), 2.4841149233321715),
  ],
)
def test_both_public_denominators(options, expected):
  term = dict(MIXED, module=MIXED["module"] | options)
  loss = objective.evaluate(objective.parse_terms({"t": term}), features()[0], NUMBERS, {}, {}, {})[0]
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_rules_of_supremix():
  embeddings = {name: random(8, 3, seed=view) for view, name in enumerate(VIEWS)}
  info = {"labels": {"age": jnp.asarray([0, 3, 1, 2, 4, 2, 1, 3])}, "seed": jnp.arange(8, dtype=jnp.uint32)}
  check_rules(module("supremix", VIEWS, label="age", partners=5), embeddings, info)


# ---- SepCLR -------------------------------------------------------------------------------------


def test_parts_of_sepclr():
  """Its three losses on one batch, and the alignment of an attribute, as the released functions compute them."""
  x, expected = multimodal("sepclr")
  tau, some = float(x["tau"]), Facts((), jnp.ones(len(x["common"]), bool), 0, {}, {})
  np.testing.assert_allclose(uniformity(x["common"], some, tau), expected["uniform"], rtol=1e-9)
  np.testing.assert_allclose(joint_entropy(x["common"], x["salient"], some, tau), expected["kjem"], rtol=1e-9)
  x, expected = case("sepclr_sup_align")
  facts = Facts((), jnp.ones(len(x["x"]), bool), 0, {}, {})

  def loss(of):
    return attribute_alignment(of, x["y"], facts.valid, facts, float(x["tau"]))

  value, gradient = jax.value_and_grad(loss)(x["x"])
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-9)
  np.testing.assert_allclose(gradient, expected["grad_x"], atol=1e-9)


def test_rules_of_attributes():
  info = {"labels": {"age": jnp.asarray([0, 3, 1, -1, 4, 2, 1, 3])}}
  term = module("attribute_alignment", VIEWS[:1], label="age", dimension=1, temperature=2.0)
  check_rules(term, {VIEWS[0]: random(8, 3)}, info)


# ---- Hydra --------------------------------------------------------------------------------------


def wave(shift):
  """[5, 7]: the inputs of the numbers below, which are of erow/hydra, vitookit and FastSSL."""
  return jnp.sin(0.7 * (jnp.arange(35.0).reshape(5, 7) + 1) + shift)


@pytest.mark.parametrize(
  ("form", "mean", "expected"),
  [
    ("renormalized", "positives", 7.156421171175),
    ("renormalized", "examples", 8.064743119095),
    ("weighted", "positives", 2.345837100230),
    ("weighted", "examples", 2.400254385198),
  ],
)
def test_gated_subspaces(form, mean, expected):
  labels, partners = jnp.asarray([0, 1, 2, 0, 1]), jnp.asarray([1, 0, 0, 2, 1])
  facts, gates = Facts((), jnp.ones(5, bool), 0, {}, {}), jax.nn.sigmoid(wave(6.6))
  arguments = (wave(0.1), wave(1.3), gates, labels, partners, facts.valid, 10.0, form, mean, facts)
  loss, _ = subspace_loss(*arguments)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)  # of sums to which 1e-6 is added


def test_rules_of_subspaces():
  term = module("gated_subspaces", VIEWS, label="kind", classes=3)
  embeddings = {name: random(8, 3, seed=n) for n, name in enumerate(VIEWS)}
  info = {"labels": {"kind": jnp.asarray([0, 1, 2, 1, -1, 0, 2, 1])}, "seed": jnp.arange(8, dtype=jnp.uint32)}
  learned = objective.init_parameters(
    objective.parse_terms({"t": term}), jax.random.key(0), {n: Encoded(x) for n, x in embeddings.items()}
  )
  plain = check_rules(term, embeddings, info, 1e-5, learned)  # gates are float32
  alone = {"labels": {"kind": jnp.full(7, -1)}, "seed": info["seed"][:7], "valid": jnp.ones(7, bool)}
  (loss, _), _ = plain({name: x[:7] for name, x in embeddings.items()}, alone)
  assert loss == 0


# ---- MACIL --------------------------------------------------------------------------------------


def test_contrast_of_bags():
  x, expected = case("macil_cmal")
  mask = jnp.arange(x["audio"].shape[1]) < x["length"].astype(int)[:, None]
  facts = Facts((), jnp.ones(len(mask), bool), 0, {}, {})

  def losses(audio, video):
    sets = [choose_snippets(*of, mask) for of in ((audio, x["audio_score"]), (video, x["video_score"]))]
    found = contrasts(x["bag"] > 0.5, *sets, facts, 0.1)
    return jnp.sum(found), found

  (_, found), gradients = compiled(jax.value_and_grad(losses, (0, 1), has_aux=True))(x["audio"], x["video"])
  np.testing.assert_allclose(found, expected["losses"], rtol=1e-6)
  for gradient, name in zip(gradients, ("audio", "video")):
    np.testing.assert_allclose(gradient, expected[f"grad_{name}"], atol=1e-6)


BAGS = module("snippet_bags", VIEWS, label="kind", positive=(1, 2))


def bags(count=8, length=18):
  mask = jnp.arange(length) < jnp.asarray([18, 1, 17, 3, 15, 16, 18, 2])[:count, None]
  return {name: Encoded(None, random(count, length, 3, seed=n), mask, random(count, length, seed=5 + n))
          for n, name in enumerate(VIEWS)}  # fmt: skip


def test_rules_of_bags():
  """And bags that cannot be contrasted: of one snippet each; none called positive; none there at all."""
  plain = check_rules(BAGS, bags(), {"labels": {"kind": jnp.asarray([0, 1, 2, -1, 0, 1, 2, 0])}})
  some = bags(7)
  one = {name: x.replace(mask=x.mask & (jnp.arange(18) == 4)) for name, x in some.items()}
  quiet = {name: x.replace(weights=x.weights - 100) for name, x in some.items()}
  for embeddings, valid in ((one, True), (quiet, True), (some, False)):
    info = {"labels": {"kind": jnp.arange(7) % 2}, "valid": jnp.full(7, valid)}
    (loss, metrics), gradients = plain(embeddings, info)
    assert np.isfinite(loss) and all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    assert (metrics["t/contrasted"] > 0) == (embeddings is one)


# ---- Grouping -----------------------------------------------------------------------------------


def multimodal(name):
  found = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "multimodal.json").read_text())[name]
  return [{key: jnp.asarray(x) for key, x in found[part].items()} for part in ("inputs", "expected")]


def golden(name):
  return [{key: jnp.asarray(x) for key, x in IMAGE_TEXT[name][part].items()} for part in ("inputs", "expected")]


def test_sparc():
  """The reference compares patches as they are, of six decimals, and makes what it groups of unit length."""
  x, expected = golden("sparc_fg")
  mask, there = jnp.ones(x["patches"].shape[:2], bool), x["mask"].astype(bool)

  def loss(patches, texts):
    groups, _ = grouped(patches, mask, texts, float(x["thr"]))
    return within(groups * x["scale"], normalize(texts), there)

  found, gradients = compiled(jax.value_and_grad(loss, (0, 1)))(x["patches"], x["texts"])
  np.testing.assert_allclose(found, expected["loss"], rtol=1e-6)
  for gradient, name in zip(gradients, ("patches", "texts")):
    np.testing.assert_allclose(gradient, expected[f"grad_{name}"], atol=1e-6)
  term = module("grouping", VIEWS, negatives="example", threshold=float(x["thr"]), temperature=1 / float(x["scale"]))
  embeddings = {VIEWS[0]: Encoded(None, x["patches"]), VIEWS[1]: Encoded(None, x["texts"], there)}
  assert np.isclose(objective.evaluate(objective.parse_terms({"t": term}), embeddings, {}, {}, {}, {})[0], found)


TEXTS = ("text[0]/joint", "text[1]/joint", "text[2]/joint")


def test_rules_of_grouping():
  """Both forms at once; the sentences of the batch against a plain softmax; an image of one patch, of equal ones."""
  mask = jnp.arange(5) < jnp.asarray([5, 1, 4, 3, 5, 2, 5, 5])[:, None]
  patches = random(8, 5, 3).at[4].set(1.0)
  embeddings = {VIEWS[0]: Encoded(None, patches, mask)} | {
    name: Encoded(random(8, 3, seed=n)) for n, name in enumerate(TEXTS)
  }
  term = module("grouping", (VIEWS[0], *TEXTS), threshold=-1.0, temperature=0.5)
  plain = check_rules(term, embeddings, {})
  fewer = jax.tree.map(lambda x: x[:-1], embeddings)
  (loss, _), gradients = plain(fewer, {"valid": jnp.ones(7, bool)})
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
  texts = jnp.stack([normalize(fewer[name].pooled) for name in TEXTS], 1)
  groups, share = grouped(normalize(fewer[VIEWS[0]].tokens), fewer[VIEWS[0]].mask, texts, -1.0)
  logits = 2 * jnp.einsum("id,jd->ij", groups.reshape(21, 3), texts.reshape(21, 3))
  expected = -sum(jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits, axis))) for axis in (0, 1)) / 2
  np.testing.assert_allclose(loss, expected, rtol=1e-9)
  assert share[1].tolist() == [1, 1, 1] == share[4].tolist()
  np.testing.assert_allclose(groups[4], normalize(jnp.ones((3, 3))))
  apart = dict(term, module=term["module"] | dict(negatives="example"))
  value = objective.evaluate(objective.parse_terms({"t": apart}), embeddings, {"valid": jnp.arange(8) < 7}, {}, {}, {})[
    0
  ]
  logits = 2 * jnp.einsum("nkd,nld->nkl", groups, texts)
  each = [jax.nn.log_softmax(x, -1)[:, jnp.arange(3), jnp.arange(3)] for x in (logits, jnp.swapaxes(logits, 1, 2))]
  np.testing.assert_allclose(value, -jnp.mean(sum(each)) / 2, rtol=1e-9)


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (module("supremix", VIEWS, label="ages"), r"t\.module\.label: .*'ages'.*did you mean 'age'"),
    (module("supremix", VIEWS, label="age", alpha=1.5), r"t\.module\.alpha: 1\.5 is not in \[0, 1\]; None draws it"),
    (module("supremix", VIEWS, label="age", window=0.0), r"t\.module\.window: 0\.0 is not above 0"),
    (module("supremix", VIEWS, label="age", partners=-1), r"t\.module\.partners: -1 is not a number of embeddings"),
    (module("supremix", VIEWS, label="age", distance="far"), r"t\.module\.distance: .*'far'.*wider"),
    (module("snippet_bags", ("image[0]/words",), label="age"), r"t\.embeddings: .* are 1; name the tokens of two"),
    (module("snippet_bags", ("image[0]/words", "text[0]/words"), label="ages"), r"t\.module\.label: .*'ages'"),
    (
      module("snippet_bags", ("image[0]/words", "text[0]/words"), label="age", positive=(5,)),
      r"t\.module\.positive: label 'age' has classes 0 to 1, and no 5",
    ),
    (module("snippet_bags", VIEWS, label="age"), r"t\.embeddings: the module takes tokens, which head 'joint' does"),
    (module("attribute_alignment", VIEWS, label="ages"), r"t\.module\.label: .*'ages'.*did you mean 'age'"),
    (
      module("attribute_alignment", VIEWS, label="age", dimension=7),
      r"t\.module\.dimension: head 'joint' gives vectors of 4 numbers, and no number 7; give one from 0 to 3",
    ),
    (module("attribute_alignment", VIEWS, temperature=0.0), r"t\.module\.temperature: 0\.0 divides scores; give"),
    (module("gated_subspaces", VIEWS[:1], label="age"), r"t\.embeddings: .* are 1; name queries and keys"),
    (module("gated_subspaces", VIEWS, label="age", classes=5), r"t\.module\.classes: 5, and label 'age' has 2 classes"),
    (module("gated_subspaces", VIEWS, label="age", scale=0.0), r"t\.module\.scale: 0\.0 is not above 0"),
    (module("grouping", VIEWS[:1]), r"t\.embeddings: .* are 1; name an image's tokens, then its sentences"),
    (module("grouping", VIEWS), r"t\.embeddings: the first is of patches, and head 'joint' gives no tokens; .*words"),
    (module("grouping", ("image[0]/words", "text[0]/words", "text[1]/words")), r"several sentences are vectors"),
    (module("grouping", VIEWS, threshold=1.5), r"t\.module\.threshold: 1\.5 is above 1"),
    (module("grouping", VIEWS, negatives="queue"), r"t\.module\.negatives: .*'queue'"),
  ],
)  # fmt: skip
def test_what_is_refused(term, message):
  heads = {"joint": "image", "words": "text"}
  run = Run(
    heads,
    8,
    labels={"age": ("young", "old")},
    head_dims={"joint": 4},
    made={"joint": {"pooled"}, "words": {"tokens", "weights"}},
  )
  with pytest.raises(UserError, match=message) as error:
    objective.parse_terms({"t": term})["t"].check(run)
  assert "\n" not in str(error.value)
