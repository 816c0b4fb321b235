"""Terms between places of an image: their numbers and gradients against reference code, and what is refused.

The numbers of tests/golden/dense.json are of public code run in float64, named in each case's "source".
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh

from mmcontrast.encoders import Encoded, build_head
from mmcontrast.encoders.token_heads import cosines, grouped, propagate, unit, winners
from mmcontrast.errors import UserError
from mmcontrast.modalities import boxes
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.ibot import hidden_cross_entropy
from mmcontrast.objectives.pixpro import regression, same_place
from mmcontrast.objectives.slotcon import contrast, distill

CASES = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "dense.json").read_text())
pytestmark = pytest.mark.usefixtures("float64")
VIEWS = ("image[0]/map", "image[1]/map", "image[0]/map@momentum", "image[1]/map@momentum")


def case(name):
  return [{key: jnp.asarray(x) for key, x in CASES[name][part].items()} for part in ("inputs", "expected")]


def tokens(x):
  """[N, C, H, W] -> [N, H W, C]."""
  return jnp.moveaxis(x.reshape(*x.shape[:2], -1), 1, 2)


def value_and_gradients(function, *arguments):
  return compiled(jax.value_and_grad(function, tuple(range(len(arguments)))))(*arguments)


# ---- Against reference code ------------------------------------------------------------------------


def test_pixpro_direction_with_a_mirrored_box():
  x, expected = case("pixpro_direction")
  at = [boxes.places(x[f"box_{side}"], (3, 3)) for side in "qk"]
  positive = same_place(*at[0], *at[1], float(x["pos_ratio"]))

  def loss(q, k):
    return jnp.mean(regression(tokens(q), tokens(k), positive))

  value, gradients = value_and_gradients(loss, x["q"], x["k"])
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-6)  # the reference's mask is float32
  for found, side in zip(gradients, "qk"):
    np.testing.assert_allclose(found, expected[f"grad_{side}"], atol=1e-6)


def test_propagation():
  x, expected = case("pixpro_ppm")

  def loss(f, weight, bias):
    out = propagate(tokens(f), unit(tokens(f) @ weight.T + bias), None, float(x["p"]))
    return jnp.sum(tokens(x["w"]) * out)

  value, gradients = value_and_gradients(loss, x["f"], x["g_weight"], x["g_bias"])
  np.testing.assert_allclose(value, jnp.sum(x["w"] * expected["out"]), rtol=1e-6)
  for found, name in zip(gradients, ("grad_f", "grad_g_weight", "grad_g_bias")):
    np.testing.assert_allclose(found, expected[name], atol=1e-6)


def test_the_head_propagates():
  x, expected = case("pixpro_ppm")
  head = build_head(dict(name="pixel_propagation", power=2.0, dtype="float64"))
  params = {"value": {"kernel": x["g_weight"].T, "bias": x["g_bias"]}}
  found = head.apply({"params": params}, tokens(x["f"]), None, train=False)
  np.testing.assert_allclose(found.tokens, tokens(expected["out"]), atol=1e-6)


def test_grouping():
  x, expected = case("slotcon_grouping")

  def loss(f, prototypes):
    scores = cosines(tokens(f), prototypes.T)
    slots, _ = grouped(tokens(f), scores, None, 0.07)
    return jnp.sum(x["w"] * slots), (slots, scores)

  (_, (slots, scores)), gradients = compiled(jax.value_and_grad(loss, (0, 1), has_aux=True))(x["x"], x["prototypes"])
  np.testing.assert_allclose(slots, expected["slots"], atol=1e-6)
  np.testing.assert_allclose(scores, tokens(expected["dots"]), atol=1e-6)
  np.testing.assert_allclose(gradients[0], expected["grad_x"], atol=1e-6)
  np.testing.assert_allclose(gradients[1], expected["grad_prototypes"], atol=1e-6)


def test_distillation_of_groups():
  x, expected = case("slotcon_distill")
  temperatures = {"temperature": 0.1, "teacher_temperature": 0.07}
  value, (gradient,) = value_and_gradients(lambda q: jnp.mean(distill(q, x["k"] - x["center"], temperatures)), x["q"])
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-6)
  np.testing.assert_allclose(gradient, expected["grad_q"], atol=1e-6)


def test_the_centre_moves_after_use():
  """Of two examples whose teachers' maps hold the places of the reference, the whole image in view."""
  x, expected = case("slotcon_distill")
  teacher = jnp.stack([x["k"], x["k"]])[:, None]  # a map of one row
  views = {name: Encoded(None, teacher[:, 0], grid=(1, 7)) for name in VIEWS}
  term = dict(module="slot_distill", embeddings=VIEWS)
  _, new = compiled(lambda views: evaluate(term, views, state={"centre": x["center"][0]}))(views)
  np.testing.assert_allclose(new["centre"], expected["center_after"][0], atol=1e-6)


def test_a_map_cut_along_boxes():
  x, expected = case("slotcon_roi")
  box = jnp.where(x["flip"][:, None], x["box"][:, jnp.array([2, 1, 0, 3])], x["box"])
  found = compiled(functools.partial(boxes.roi_align, size=(4, 4)))(jnp.moveaxis(x["x"], 1, 3), box)
  np.testing.assert_allclose(jnp.moveaxis(found, 3, 1), expected["out"], atol=1e-6)


def test_contrast_of_slots():
  x, expected = case("slotcon_slot_contrast")
  wins = [winners(tokens(x[f"dots_{side}"])) for side in "qk"]
  np.testing.assert_array_equal(wins, [expected["wins_q"], expected["wins_k"]])
  keys = unit(x["k"])

  def loss(q):
    return contrast(unit(q @ x["weight"].T + x["bias"]), keys, wins[0] & wins[1], wins[1], x["tau"])

  value, (gradient,) = value_and_gradients(loss, x["q"])
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-6)
  np.testing.assert_allclose(gradient, expected["grad_q"], atol=1e-6)


def test_hidden_patches():
  x, expected = case("ibot")

  def loss(s):
    return jnp.mean(hidden_cross_entropy(s, x["teacher_p"], x["mask"] > 0, 0.1))

  value, (gradient,) = value_and_gradients(loss, x["s"])
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-6)
  np.testing.assert_allclose(gradient, expected["grad_s"], atol=1e-6)


# ---- Boxes ---------------------------------------------------------------------------------------


def test_a_map_cut_along_its_own_sides_is_itself():
  x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
  whole = jnp.array([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]])
  found = boxes.roi_align(x, whole, (3, 5))
  np.testing.assert_allclose(found, jnp.stack([x[0], x[1, :, ::-1]]), atol=1e-12)


def test_what_two_views_have_in_common_is_cut_from_both():
  """A map whose cells say where they are: after the cut both views say the same, the mirrored one too."""
  grid = (16, 16)
  view = jnp.array([[0.1, 0.0, 0.7, 0.6], [0.9, 0.2, 0.3, 0.8]])
  at = [boxes.places(view[i : i + 1], grid)[0].reshape(1, *grid, 2) for i in range(2)]
  both = boxes.common(view[:1], view[1:])
  np.testing.assert_allclose(both, [[0.3, 0.2, 0.7, 0.6]])
  cut = [boxes.roi_align(at[i], boxes.within(both, view[i : i + 1]), (4, 4)) for i in range(2)]
  np.testing.assert_allclose(cut[0], cut[1], atol=1e-12)
  np.testing.assert_allclose(cut[0][0, 0, :, 0], [0.35, 0.45, 0.55, 0.65], atol=1e-12)


# ---- As terms: devices, absent examples, views ------------------------------------------------------


N, D, GRID = 8, 4, (2, 3)
TERMS = {
  "pixpro": dict(module="pixpro", embeddings=VIEWS),
  "slot_distill": dict(module="slot_distill", embeddings=VIEWS),
  "slot_contrast": dict(module="slot_contrast", embeddings=VIEWS),
  "ibot": dict(module="ibot", embeddings=("image_masked[0]/map", "image_masked[1]/map", *VIEWS[2:])),
}


def evaluate(term, views, valid=None, state=None, mesh=None, box=None):
  """(loss, new state) of a term "t"."""
  terms, count = objective.parse_terms({"t": term}), len(jax.tree.leaves(views)[0])
  state = {"centre": jnp.zeros(next(iter(views.values())).tokens.shape[-1])} if state is None else state
  whole = jnp.tile(jnp.array([0.0, 0.0, 1.0, 1.0]), (count, 1))
  facts = {name[:8]: {"box": whole if box is None else box[name[:8]]} for name in views if name in VIEWS}
  facts |= {name.split("/")[0]: {"masked": ~view.mask} for name, view in views.items() if "masked" in name}
  info = {"views": facts} | ({} if valid is None else {"valid": valid})
  loss, _, _, new = objective.evaluate_and_remember(terms, views, info, {}, {}, {}, mesh=mesh, states={"t": state})
  return loss, new.get("t", {})


def random_views(seed=0, count=N):
  draw = np.random.default_rng(seed)
  made = {name: jnp.asarray(draw.normal(size=(count, 6, D))) for name in VIEWS}
  wins = {name: jnp.asarray(draw.random((count, 6)) < 0.7) for name in VIEWS}
  low, high = draw.random((2, count, 2)) * 0.4, 0.6 + draw.random((2, count, 2)) * 0.4
  box = np.concatenate([low, high], -1)
  box[1, ::2] = box[1, ::2][:, [2, 1, 0, 3]]  # mirrored
  return made, wins, {f"image[{v}]": jnp.asarray(box[v]) for v in range(2)}


def value_and_gradient(name, x, wins, box, **options):
  masks = wins if name in ("slot_contrast", "ibot") else dict.fromkeys(wins)

  def loss(x):
    names = dict(zip(VIEWS, TERMS[name]["embeddings"]))
    views = {names[key]: Encoded(None, value, masks[key], grid=GRID) for key, value in x.items()}
    return evaluate(TERMS[name], views, box=box, **options)

  return compiled(jax.value_and_grad(loss, has_aux=True))(x)


@pytest.mark.parametrize("name", TERMS)
def test_devices_absent_examples_and_order(name):
  """Four devices do what one does; who is absent, NaN and all, has no part; order does not count."""
  x, wins, box = random_views()
  valid = np.arange(N) != 3
  (value, new), gradients = value_and_gradient(name, x, wins, box, valid=valid)
  teachers = {key: gradients.pop(key) for key in VIEWS[2:]}
  assert all(np.any(g) for g in gradients.values()) and not any(np.any(g) for g in teachers.values())

  mesh = make_mesh(4)
  cut = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  on_four = value_and_gradient(name, *jax.device_put((x, wins, box), cut), valid=valid, mesh=mesh)
  assert_close(on_four, ((value, new), {**gradients, **teachers}), 1e-9)

  broken = {key: leaf.at[3].set(jnp.nan) for key, leaf in x.items()}
  lost = {key: leaf.at[3].set(jnp.nan) for key, leaf in box.items()}
  assert_close(value_and_gradient(name, broken, wins, lost, valid=valid)[0], (value, new), 1e-12)

  order = np.array([6, 1, 0, 7, 2, 5, 4])
  fewer = [{key: leaf[order] for key, leaf in tree.items()} for tree in (x, wins, box)]
  (other, state), moved = value_and_gradient(name, *fewer)
  assert_close((other, state), (value, new), 1e-9)
  assert_close({key: moved[key] for key in gradients}, {key: g[order] for key, g in gradients.items()}, 1e-9)


@pytest.mark.parametrize("name", ["pixpro", "slot_distill", "slot_contrast"])
def test_views_without_anything_in_common(name):
  """Nothing to compare gives 0 and a gradient of zeros; slots, which have no place, are compared all the same."""
  x, wins, _ = random_views()
  box = {f"image[{v}]": jnp.tile(jnp.array([[0.0, 0.0, 0.3, 0.3], [0.7, 0.7, 1.0, 1.0]][v]), (N, 1)) for v in range(2)}
  lost = wins if name != "slot_contrast" else {key: jnp.zeros_like(mask) for key, mask in wins.items()}
  (value, _), gradients = value_and_gradient(name, x, lost, box)
  assert float(value) == 0
  assert not any(np.any(g) for g in gradients.values())


def test_a_mirrored_view_is_compared_mirrored():
  """The same map, mirrored, with a box that says so, is at distance nothing; without saying so it is not."""
  rows = np.random.default_rng(0).normal(size=(2, 3, 4, D))
  flip = functools.partial(jnp.asarray, rows[:, :, ::-1].reshape(2, 12, D))
  maps = {VIEWS[0]: jnp.asarray(rows.reshape(2, 12, D)), VIEWS[3]: flip()}
  views = {key: Encoded(None, value, grid=(3, 4)) for key, value in maps.items()}
  whole = jnp.tile(jnp.array([0.0, 0.0, 1.0, 1.0]), (2, 1))
  mirrored = whole[:, jnp.array([2, 1, 0, 3])]
  term = dict(module=dict(name="pixpro", distance=0.1), embeddings=tuple(views))
  loss = compiled(lambda second: evaluate(term, views, box={"image[0]": whole, "image[1]": second})[0])
  told, untold = loss(mirrored), loss(whole)
  np.testing.assert_allclose(told, -2.0, rtol=1e-5)
  assert untold > -1.5


# ---- Heads ---------------------------------------------------------------------------------------


def test_batch_norm_of_tokens_leaves_padding_out():
  head = build_head(dict(name="token_mlp", dim=3, hidden=5, batch_norm=True))
  x = jax.random.normal(jax.random.key(0), (2, 4, 6), jnp.float32)
  mask = jnp.array([[True, True, True, False], [True, False, False, False]])
  variables = head.init(jax.random.key(1), x, mask, train=False)
  run = functools.partial(head.apply, variables, train=True, mutable=["batch_stats"])
  found, new = run(x, mask)
  broken, same = run(jnp.where(mask[..., None], x, 1e3), mask)
  np.testing.assert_allclose(found.tokens[mask], broken.tokens[mask], atol=1e-5)
  real, alone = run(x[mask][None], None)
  np.testing.assert_allclose(found.tokens[mask], real.tokens[0], atol=1e-5)
  assert_close(new, same, 1e-5)
  assert_close(new, alone, 1e-5)


@pytest.mark.parametrize(
  ("head", "message"),
  [
    (dict(name="pixel_propagation", power=0.5), r"power: 0\.5 is below 1"),
    (dict(name="slots", slots=1), r"slots: 1 is not a number of slots"),
    (dict(name="slots", slots=4, temperature=0), r"temperature: 0 is not above 0"),
  ],
)
def test_wrong_heads(head, message):
  with pytest.raises(UserError, match=message):
    build_head(head)


# ---- What is refused ------------------------------------------------------------------------------


RUN = dict(views={"image": 2, "image_small": 0, "image_masked": 2, "text": 0},
           heads={"map": "image", "joint": "image"}, batch_size=8,
           token_heads=("map",), facts={"image": ("box",)})  # fmt: skip


@pytest.mark.parametrize(
  ("term", "run", "message"),
  [
    (dict(module="pixpro", embeddings=VIEWS[:2]), {}, r"t\.embeddings: .* no student of another view than a teacher"),
    (dict(module="pixpro", embeddings=VIEWS[::2]), {}, r"t\.embeddings: .* no student of another view than a teacher"),
    (dict(module="slot_distill", embeddings=VIEWS), dict(facts={}), r"asks for the 'box' .* config\.data\.facts"),
    (dict(module="slot_contrast", embeddings=("image[0]/joint", VIEWS[3])), {}, r"takes tokens, which head 'joint'"),
    (
      dict(module="ibot", embeddings=VIEWS[1:3]),
      dict(facts={"image": ("masked",)}),
      r"t\.embeddings: 'image\[1\]/map' has no other version of its view",
    ),
    (dict(module="ibot", embeddings=()), {}, r"t\.embeddings: "),
    (dict(module=dict(name="pixpro", distance=0), embeddings=VIEWS), {}, r"t\.module\.distance: 0 is not above 0"),
    (dict(module=dict(name="slot_distill", momentum=1), embeddings=VIEWS), {}, r"t\.module\.momentum: 1 is not in"),
  ],
)
def test_what_is_refused(term, run, message):
  with pytest.raises(UserError, match=message) as error:
    objective.check_terms(objective.parse_terms({"t": term}), **{**RUN, **run})
  assert "\n" not in str(error.value)


def test_tokens_that_are_no_map():
  terms = objective.parse_terms({"t": TERMS["pixpro"]})
  with pytest.raises(UserError, match=r"t: wants a feature map \(grid\) of 'image\[0\]/map', which makes tokens only"):
    objective.check_nodes(terms, dict.fromkeys(VIEWS, Encoded(None, jnp.zeros((2, 6, D)))))
