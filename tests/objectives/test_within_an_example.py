"""Shared queries, levels of tokens and interactions: their numbers and gradients against reference code."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import compiled
from term_rules import check_rules, function_of, module, random
from test_mixing_and_bags import multimodal
from test_module_terms import case

from mmcontrast.encoders import Encoded
from mmcontrast.encoders.heads import build_head
from mmcontrast.encoders.token_merge import clusters_of, merge
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.interaction import all_coalitions, distillation, drawn_coalitions, interaction
from mmcontrast.objectives.levels import divergence
from mmcontrast.objectives.module_loss import Facts
from mmcontrast.objectives.scores import Dot, build_score
from mmcontrast.objectives.shared_concepts import margin_ranking
from mmcontrast.objectives.term import Run

pytestmark = pytest.mark.usefixtures("float64")
IMAGE, TEXT = "image[0]/tokens", "text[0]/tokens"


def everyone(count):
  return Facts((), jnp.ones(count, bool), 0, {}, {})


# ---- GLSCL --------------------------------------------------------------------------------------


def glscl(x):
  """The case's arrays as heads of shared queries would give them: text, video."""
  text = jnp.concatenate([x["cls"][:, None], jnp.zeros_like(x["frames"]), x["text_queries"]], 1)
  video = jnp.concatenate([jnp.zeros_like(x["cls"])[:, None], x["frames"], x["video_queries"]], 1)
  frames = x["frame_mask"].astype(bool)
  real = jnp.ones((len(frames), 1), bool)
  return Encoded(None, text), Encoded(None, video, jnp.concatenate([real, frames, jnp.repeat(real, 2, 1)], 1))


@pytest.mark.parametrize(("weight", "expected"), [(0.5, "logits"), (0.0, "s1")])
def test_text_conditioned_frames(weight, expected):
  x, wanted = case("glscl_similarity")
  score = build_score(dict(name="text_conditioned_frames", queries=2, temperature=3.0, weight=weight), "score")

  def logits(cls, frames):
    text, video = (score.prepare(score.read(of)) for of in glscl(x | dict(cls=cls, frames=frames)))
    return score.tile(text, video), score.tile(7.0 * text, video)

  found, longer = logits(x["cls"], x["frames"])
  np.testing.assert_allclose(found, wanted[expected], rtol=1e-6)
  np.testing.assert_allclose(longer, 7 * found, rtol=1e-12)  # the scale of the logits
  if weight:
    arguments = (x["cls"], x["frames"])
    gradients = jax.jit(jax.grad(lambda *of: jnp.sum(x["w"] * logits(*of)[0]), (0, 1)))(*arguments)
    for gradient, name in zip(gradients, ("cls", "frames")):
      np.testing.assert_allclose(gradient, wanted[f"grad_{name}"], atol=1e-6)


def test_shared_concepts():
  x, wanted = case("glscl_similarity")
  text, video = glscl(x)
  term = module("shared_concepts", (IMAGE, TEXT), queries=2, beta=float(x["beta"]), divisor="queries")
  terms = objective.parse_terms({"t": term})
  loss, metrics = objective.evaluate(terms, {IMAGE: video, TEXT: text}, {}, {}, {}, {})
  np.testing.assert_allclose(1e-4 * metrics["t/diversity"], wanted["diversity"], rtol=1e-6)
  np.testing.assert_allclose(metrics["t/consistency"], wanted["consistency"], rtol=1e-6)
  np.testing.assert_allclose(loss, wanted["diversity"] + wanted["consistency"], rtol=1e-6)
  x, wanted = multimodal("glscl_margin")
  np.testing.assert_allclose(margin_ranking(x["sim"], float(x["margin"])), wanted["loss"], rtol=1e-6)


def token_lists(length, weights=False):
  """Two embeddings of 8 examples, of which some tokens are padding."""
  draw = {name: random(8, length, 4, seed=n) for n, name in enumerate((IMAGE, TEXT))}
  mask = (jnp.arange(length) < jnp.asarray([5, 3, 5, 4, 5, 3, 5, 5])[:, None]) | (jnp.arange(length) >= length - 2)
  return {name: Encoded(None, x, mask, random(8, length, seed=9 + n) if weights else None)
          for n, (name, x) in enumerate(draw.items())}  # fmt: skip


def test_rules_of_glscl():
  score = dict(name="text_conditioned_frames", queries=2)
  check_rules(dict(query=TEXT, key=IMAGE, score=score, direction="both", temperature=0.1), token_lists(7), {})
  term = module("shared_concepts", (IMAGE, TEXT), queries=2, diversity=1.0)
  plain = check_rules(term, token_lists(7), {})
  nobody = {"valid": jnp.zeros(7, bool)}
  (loss, _), _ = plain(jax.tree.map(lambda x: x[:-1], token_lists(7)), nobody)
  assert loss == 0


# ---- HBI ----------------------------------------------------------------------------------------


def test_token_merge():
  x, wanted = case("hbi_token_merge")
  mask, clusters, neighbours = x["mask"].astype(bool), int(x["clusters"]), int(x["k"])
  np.testing.assert_array_equal(clusters_of(x["x"], mask, clusters, neighbours), wanted["cluster"])
  score = jnp.log(jnp.maximum(x["weight"][..., 0], 1e-300))
  merged, real = merge(x["x"], mask, score, clusters, neighbours)
  np.testing.assert_allclose(merged, wanted["merged"], atol=1e-6)
  assert real.shape == (2, clusters) and (merged[~real] == 0).all()


def test_merged_tokens_are_those_of_the_real_ones():
  """Padding, however much and whatever it holds, changes nothing; the number of clusters stays. One token is one."""
  x = random(2, 4, 3)
  padded = jnp.concatenate([x, jnp.full((2, 3, 3), 50.0)], 1)
  mask, score = jnp.arange(7) < jnp.full((2, 1), 4), jnp.zeros((2, 7))
  merged, real = merge(padded, mask, score, 2, 3)
  others, _ = merge(padded.at[:, 4:].set(-9.0), mask, score, 2, 3)
  np.testing.assert_array_equal(merged, others)
  assert real.all()
  one, real = merge(padded, jnp.arange(7) < jnp.ones((2, 1)), score, 3, 3)
  assert real.sum(1).tolist() == [1, 1]
  np.testing.assert_allclose(one[real], x[:, 0], rtol=1e-5)
  same, real = merge(jnp.ones((1, 5, 3)), jnp.ones((1, 5), bool), jnp.zeros((1, 5)), 3, 3)  # all tokens are equal
  assert np.isfinite(same).all() and real[0, 0]


def test_divergence_of_levels():
  x, wanted = case("hbi_level_kl")
  one = jnp.eye(len(x["first"]))

  def loss(first, second):
    return divergence(Dot(), (first, second), (one, one), everyone(4), ("row",)) / 16

  found, gradients = compiled(jax.value_and_grad(loss, (0, 1)))(x["first"], x["second"])
  np.testing.assert_allclose(found, wanted["loss"], rtol=1e-6)
  for gradient, name in zip(gradients, ("first", "second")):
    np.testing.assert_allclose(gradient, wanted[f"grad_{name}"], atol=1e-6)
  across = divergence(Dot(), (x["first"], x["second"]), (one, one), everyone(4), ("column",)) / 16
  np.testing.assert_allclose(across, loss(x["first"].T, x["second"].T), rtol=1e-9)


def test_rules_of_levels():
  names = ("text[0]/coarse", "image[0]/coarse", TEXT, IMAGE)
  fine = token_lists(5, weights=True)
  coarse = {name: x.replace(tokens=x.tokens[:, :2], mask=x.mask[:, :2], weights=x.weights[:, :2])
            for name, x in zip(names[:2], fine.values())}  # fmt: skip
  check_rules(module("level_divergence", names), fine | coarse, {})


def test_exact_interactions():
  x, wanted = case("hbi_banzhaf_exact")
  alike, text, frame = (x[name][None] for name in ("similarity", "text_weight", "video_weight"))
  masks = jnp.ones(text.shape, bool), jnp.ones(frame.shape, bool)
  found = interaction(alike, text, frame, *masks, all_coalitions(*alike.shape[1:]))[0]
  np.testing.assert_allclose(found, wanted["interaction"], rtol=1e-6)
  # A word that is not there, whatever it holds, takes part in no coalition.
  more = jnp.concatenate([alike, jnp.full((1, 1, 2), 0.0)], 1), jnp.concatenate([text, jnp.full((1, 1), 5.0)], 1)
  padded = interaction(*more, frame, jnp.arange(4)[None] < 3, masks[1], all_coalitions(4, 2))[0]
  assert (padded[3] == 0).all()
  coalitions = {tuple(map(bool, row)) for row in np.concatenate([x[:, 0] for x in all_coalitions(2, 3)], 1)}
  assert coalitions == set(itertools.product((False, True), repeat=5))


def test_shapley_weighs_sizes_alike():
  """The mean over sizes of the mean over coalitions of a size; drawn coalitions come to the same."""
  alike, text, frame = random(1, 3, 2), random(1, 3, seed=1), random(1, 2, seed=2)
  masks = jnp.ones((1, 3), bool), jnp.ones((1, 2), bool)
  found = interaction(alike, text, frame, *masks, all_coalitions(3, 2), True)[0, 0, 0]
  one = [(jnp.asarray([[[False, *a]]]), jnp.asarray([[[False, *b]]]))
         for a in itertools.product((False, True), repeat=2) for b in ((False,), (True,))]  # fmt: skip
  each = [float(interaction(alike, text, frame, *masks, of)[0, 0, 0]) for of in one]
  sizes = [int(a.sum() + b.sum()) for a, b in one]
  wanted = np.mean([np.mean([x for x, size in zip(each, sizes) if size == k]) for k in range(4)])
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  drawn = drawn_coalitions(jnp.arange(1, dtype=jnp.uint32), 4000, 3, 2, True)
  near = interaction(alike, text, frame, *masks, drawn)[0, 0, 0]
  np.testing.assert_allclose(near, wanted, atol=0.02)


def test_distilled_interactions():
  x, wanted = case("hbi_interaction_distill")
  every = jnp.ones(x["student"].shape, bool)

  def loss(student, *axes):
    return sum(distillation(student, x["teacher"], every, axis) for axis in axes)

  np.testing.assert_allclose(loss(x["student"], 2, 1), wanted["loss_intended"], rtol=1e-6)
  released, gradient = jax.value_and_grad(loss)(x["student"], 2, 0)  # its transpose reverses all axes
  np.testing.assert_allclose(released, wanted["loss_released"], rtol=1e-6)
  np.testing.assert_allclose(gradient, wanted["grad_student_released"], atol=1e-6)


def test_rules_of_interactions():
  term = module("interaction", (TEXT, IMAGE), width=3, draws=2, exact=0)
  info = {"seed": jnp.arange(8, dtype=jnp.uint32)}
  embeddings = token_lists(3, weights=True)
  terms = objective.parse_terms({"t": term})
  learned = objective.init_parameters(terms, jax.random.key(0), embeddings)
  assert set(learned["t"]["network"]) == {"conv1", "q", "k", "v", "conv2"}
  check_rules(term, embeddings, info, parameters=jax.tree.map(lambda x: x.astype(jnp.float64), learned))


def test_heads_of_queries_and_levels():
  tokens, mask = random(2, 6, 8), jnp.arange(6) < jnp.asarray([[6], [2]])
  head = build_head(dict(name="shared_queries", dim=4, queries=3, depth=1, heads=2))
  variables = head.init(jax.random.key(0), tokens, mask, tokens[:, 0], train=False)
  made = head.apply(variables, tokens, mask, tokens[:, 0], train=False)
  assert made.tokens.shape == (2, 1 + 6 + 3, 4) and made.mask.sum(1).tolist() == [10, 6]
  broken = head.apply(variables, jnp.where(mask[..., None], tokens, 7.0), mask, tokens[:, 0], train=False)
  np.testing.assert_allclose(jnp.where(made.mask[..., None], made.tokens - broken.tokens, 0), 0, atol=1e-6)
  assert set(variables["params"]) == {"fc1", "fc2", "decoder"}
  head = build_head(dict(name="token_merge", dim=4, rate=0.4, heads=2))
  variables = head.init(jax.random.key(0), tokens, mask, train=False)
  made = head.apply(variables, tokens, mask, train=False)
  assert made.tokens.shape == (2, 3, 4) and made.weights.shape == made.mask.shape == (2, 3)
  assert made.mask.sum(1).tolist() == [3, 2]


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (module("shared_concepts", (IMAGE,)), r"t\.embeddings: .* are 1; name the tokens of images, then those of texts"),
    (module("shared_concepts", (IMAGE, TEXT), queries=0), r"t\.module\.queries: 0 is not a number of queries"),
    (module("level_divergence", (IMAGE, TEXT)), r"t\.embeddings: .* are 2; name texts and images of a coarse level"),
    (module("interaction", (IMAGE,)), r"t\.embeddings: .* are 1; name the tokens of texts, then those of images"),
    (
      module("interaction", (IMAGE, TEXT), exact=17),
      r"t\.module\.exact: 17 tokens have 2\^17 coalitions; give 0 to 16",
    ),
    (module("interaction", (IMAGE, TEXT), draws=0), r"t\.module\.draws: 0 is not a number of coalitions"),
    (
      dict(query=TEXT, key=IMAGE, score=dict(name="text_conditioned_frames", queries=0)),
      r"t\.score\.queries: 0 is not a number of queries; give that of the heads",
    ),
    (dict(query=TEXT, key=IMAGE, score=dict(name="text_conditioned_frames", temperature=0.0)), r"not above 0; GLSCL"),
  ],
)
def test_what_is_refused(term, message):
  heads = {"tokens": "image"}
  with pytest.raises(UserError, match=message) as error:
    objective.parse_terms({"t": term})["t"].check(Run(heads, 8, made={"tokens": {"tokens", "weights"}}))
  assert "\n" not in str(error.value)


def test_a_head_of_too_few_tokens_is_named():
  score = build_score("text_conditioned_frames", "score")
  with pytest.raises(UserError, match=r"queries=8 and a global vector are not in 5 tokens; use heads 'shared_queries'"):
    score.prepare(score.read(Encoded(None, random(2, 5, 3))))
  with pytest.raises(UserError, match=r"queries: 8, and 'image\[0\]/tokens' has 5 tokens; give its head's queries"):
    function_of(module("shared_concepts", (IMAGE, TEXT)))(
      {IMAGE: Encoded(None, random(2, 5, 3)), TEXT: Encoded(None, random(2, 5, 3))}, {}
    )
  for options, message in (
    (dict(name="token_merge", dim=4, rate=0.0), r"heads\.rate: 0\.0 is not in \(0, 1\]"),
    (dict(name="token_merge", dim=4, neighbours=0), r"heads\.neighbours: 0 is not a number of neighbours"),
    (dict(name="shared_queries", dim=4, queries=0), r"heads\.queries: 0 is not a whole number of 1 or more"),
    (dict(name="shared_queries", dim=5), r"heads: width 5 does not split into 4 heads"),
  ):  # fmt: skip
    with pytest.raises(UserError, match=message):
      build_head(options)
