"""Masked image modelling: reference numbers, and a tower, a decoder and a term that see what they may."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh
from tiny import tiny_batch, tiny_config, tiny_spec

from mmcontrast.encoders import Encoded
from mmcontrast.encoders.patch_decoder import PatchDecoder
from mmcontrast.encoders.vit import ViT
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.masked_pixels import patches_of
from mmcontrast.parallel import sharding
from mmcontrast.training.program import build_program, make_method
from mmcontrast.training.step import train_step

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASE = json.loads((GOLDEN / "multimae.json").read_text())["multimae_masked"]
CLASSES = json.loads((GOLDEN / "addition.json").read_text())["multimae_semseg"]
PATH = "decoder(image_masked[0])/pixels"


def value_and_gradient(prediction, target, masked, valid=None, mesh=None, **options):
  """(loss, gradient of the prediction) of images [N, H, W, 3] in patches of 4 px."""
  grid = tuple(side // 4 for side in prediction.shape[1:3])
  terms = objective.parse_terms({"t": dict(module=dict(name="masked_pixels", **options), embeddings=PATH)})
  info = {"views": {"image_masked[0]": {"masked": masked, "pixels": target}}}
  info |= {} if valid is None else {"valid": valid}

  def loss(prediction):
    nodes = {PATH: Encoded(tokens=patches_of(prediction, grid), grid=grid)}
    return objective.evaluate(terms, nodes, info, {}, {}, {}, mesh=mesh)[0]

  return compiled(jax.value_and_grad(loss))(prediction)


def golden():
  prediction, target = (jnp.moveaxis(jnp.asarray(CASE["inputs"][name]), 1, -1) for name in ("prediction", "target"))
  return prediction, target, jnp.asarray(CASE["inputs"]["mask"]) > 0


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
  ("name", "options"), [("mse", dict(normalised=False)), ("mse_norm", {}), ("l1", dict(loss="l1", normalised=False))]
)
def test_of_multimae(name, options):
  loss, gradient = value_and_gradient(*golden(), **options)
  np.testing.assert_allclose(loss, CASE["expected"][name], rtol=1e-9)
  np.testing.assert_allclose(jnp.moveaxis(gradient, -1, 1), CASE["expected"][f"grad_{name}"], atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_classes_of_one_of_several_maps():
  """The third map of colours and two others: its part of the mask and of the pixels, and of nothing else."""
  inputs = CLASSES["inputs"]
  logits = jnp.moveaxis(jnp.asarray(inputs["logits"]), 1, -1)
  terms = objective.parse_terms(
    {"t": dict(module=dict(name="masked_pixels", loss="cross_entropy", normalised=False, part=2), embeddings=PATH)}
  )
  pixels = jnp.concatenate([jnp.full((2, 4, 4, 4), 7.0), jnp.asarray(inputs["label"], float)[..., None]], -1)
  masked = jnp.concatenate([jnp.ones((2, 8), bool), jnp.asarray(inputs["mask"]) > 0], 1)
  info = {"views": {"image_masked[0]": {"masked": masked, "pixels": pixels}}}

  def loss(logits):
    return objective.evaluate(terms, {PATH: Encoded(tokens=patches_of(logits, (2, 2)), grid=(2, 2))}, info, {}, {}, {})[
      0
    ]

  value, gradient = compiled(jax.value_and_grad(loss))(logits)
  np.testing.assert_allclose(value, CLASSES["expected"]["loss"], rtol=1e-9)
  np.testing.assert_allclose(jnp.moveaxis(gradient, -1, 1), CLASSES["expected"]["grad_logits"], atol=1e-9)
  with pytest.raises(UserError, match=r"normalised: True, and with loss='cross_entropy' pixels are classes; set norma"):
    objective.parse_terms({"t": dict(module=dict(name="masked_pixels", loss="cross_entropy"), embeddings=PATH)})


@pytest.mark.usefixtures("float64")
def test_patches_that_a_tower_left_out():
  """The same as those that the data hide, of a whole view; where every example has equally many."""
  prediction, target, _ = golden()
  masked = jnp.array([[0, 1, 1, 0], [1, 0, 0, 1]]) > 0
  path = "painter(unrelated(image[0], text[0]), text[0])/pixels"
  terms = objective.parse_terms({"t": dict(module=dict(name="masked_pixels", hidden="tower"), embeddings=path)})
  info = {"views": {"image[0]": {"pixels": target}}}
  seen = Encoded(tokens=patches_of(prediction, (2, 2)), grid=(2, 2), places=jnp.array([[0, 3], [1, 2]]))
  loss = objective.evaluate(terms, {path: seen}, info, {}, {}, {})[0]
  np.testing.assert_allclose(loss, value_and_gradient(prediction, target, masked)[0], rtol=1e-12)
  with pytest.raises(UserError, match=r"hidden='tower', and .* reads no tower that leaves patches out; name one"):
    objective.evaluate(terms, {path: seen.replace(places=None)}, info, {}, {}, {})


@pytest.mark.usefixtures("float64")
def test_nothing_hidden_absent_images_and_devices():
  prediction, target, masked = golden()
  one_row = jnp.array([[0, 0, 0, 0], [0, 1, 0, 1]]) > 0
  found = value_and_gradient(prediction, target, one_row, normalised=False)[0]
  np.testing.assert_allclose(found, CASE["expected"]["mse_zero_row"], rtol=1e-9)
  prediction, target, masked = (jnp.concatenate([x, x[::-1] * 2]) for x in (prediction, target, masked))
  whole = value_and_gradient(prediction, target, masked > 0)
  mesh = make_mesh(4)
  cut = jax.device_put((prediction, target, masked > 0), jax.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
  assert_close(value_and_gradient(*cut, mesh=mesh), whole, 1e-9)
  fewer, of_fewer = value_and_gradient(prediction[:-1], target[:-1], masked[:-1] > 0)
  broken = prediction.at[-1].set(1e6)
  without, gradient = value_and_gradient(broken, target, masked > 0, jnp.arange(4) < 3)
  np.testing.assert_allclose(without, fewer, rtol=1e-9)
  np.testing.assert_allclose(gradient[:-1], of_fewer, atol=1e-12)
  np.testing.assert_array_equal(gradient[-1], 0)


def test_what_is_left_out_is_not_seen_and_is_put_back_in_its_place():
  """A tower of seen patches gives each what it would have among all of them but the others' influence; the decoder
  paints a hidden patch from its place alone, whatever was there."""
  draw = np.random.default_rng(0)
  images = draw.normal(size=(2, 16, 16, 3)).astype(np.float32)
  mask = np.zeros((2, 16), bool)
  mask[0, [1, 4, 8, 15]] = mask[1, [0, 2, 9, 10]] = True
  tower = ViT(width=16, depth=1, heads=2, patch=4, positions="sincos2d", leave_out=0.75)
  decoder = PatchDecoder(width=16, depth=1, heads=2)
  params = jax.jit(functools.partial(tower.init, train=False))(jax.random.key(0), images)
  made = jax.jit(lambda images: tower.apply(params, images, mask, train=True))(images)
  np.testing.assert_array_equal(made.places, [[1, 4, 8, 15], [0, 2, 9, 10]])
  assert made.grid is None and made.whole == (4, 4) and made.tokens.shape == (2, 4, 16)
  hidden = np.repeat(np.repeat(~mask.reshape(2, 4, 4), 4, 1), 4, 2)[..., None]
  other = jax.jit(lambda images: tower.apply(params, images, mask, train=True))(np.where(hidden, 9.0, images))
  np.testing.assert_array_equal(other.tokens, made.tokens)
  whole = tower.apply(params, images, mask, train=False)
  assert whole.places is None and whole.tokens.shape == (2, 16, 16)
  of_decoder = jax.jit(functools.partial(decoder.init, train=False))(jax.random.key(1), made)
  painted = jax.jit(lambda made: decoder.apply(of_decoder, made, train=True))(made)
  order = np.array([2, 0, 3, 1])  # the order in which patches come does not matter, only their places
  turned = made.replace(tokens=made.tokens[:, order], places=made.places[:, order])
  np.testing.assert_allclose(decoder.apply(of_decoder, turned, train=True).tokens, painted.tokens, atol=1e-5)
  assert painted.grid == (4, 4) and painted.tokens.shape == (2, 16, 16)


@pytest.mark.usefixtures("float64")
def test_tubelets_in_numpy_on_devices_and_without_a_video():
  """Each hidden tubelet's squared error of normalised pixels, as plain loops over frames and squares have it."""
  draw, path = np.random.default_rng(0), "decoder(video_masked[0])/pixels"
  target, valid = draw.normal(size=(4, 4, 8, 8, 3)), np.array([True, True, True, False])
  found, hidden = draw.normal(size=(4, 8, 96)), np.arange(8) % 4 > np.array([1, 2, 0, 1])[:, None]
  terms = objective.parse_terms({"t": dict(module="masked_pixels", embeddings=path)})

  def loss(found, target, hidden, mesh=None):
    nodes = {path: Encoded(tokens=found, grid=(2, 2, 2))}
    info = {"views": {"video_masked[0]": {"masked": hidden, "pixels": target}}, "valid": valid}
    return objective.evaluate(terms, nodes, info, {}, {}, {}, mesh=mesh)[0]

  of_videos = []
  for video in range(3):
    errors = []
    for place in np.flatnonzero(hidden[video]):
      time, row, column = place // 4, place % 4 // 2, place % 2
      cut = target[video, 2 * time : 2 * time + 2, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(-1)
      wanted = (cut - cut.mean()) / np.sqrt(cut.var(ddof=1) + 1e-6)
      errors.append(np.mean((found[video, place] - wanted) ** 2))
    of_videos.append(np.mean(errors))
  whole = compiled(jax.value_and_grad(loss))(found, target, hidden)
  np.testing.assert_allclose(whole[0], np.mean(of_videos), rtol=1e-9)
  assert not np.any(whole[1][~hidden]) and not np.any(whole[1][3]) and np.any(whole[1][:3][hidden[:3]])
  mesh = make_mesh(4)
  given = (np.where(valid[:, None, None], found, 1e6), target, hidden)
  cut = jax.device_put(given, jax.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
  assert_close(compiled(jax.value_and_grad(functools.partial(loss, mesh=mesh)))(*cut), whole, 1e-9)


def test_tubelets_are_put_back_in_their_places():
  seen = Encoded(tokens=np.ones((1, 2, 6), np.float32) * [[[1], [-1]]], places=np.array([[5, 2]]), whole=(2, 2, 2))
  decoder = PatchDecoder(width=8, depth=1, heads=2)
  made, params = decoder.init_with_output(jax.random.key(0), seen, train=True)
  assert made.grid == (2, 2, 2) and made.tokens.shape == (1, 8, 8)
  turned = seen.replace(tokens=seen.tokens[:, ::-1], places=seen.places[:, ::-1])
  np.testing.assert_allclose(decoder.apply(params, turned, train=True).tokens, made.tokens, atol=1e-5)
  wrong = seen.replace(places=seen.places[:, ::-1])
  assert np.abs(decoder.apply(params, wrong, train=True).tokens - made.tokens).max() > 1e-3


def config(tower=None, masked=None, dim=48, facts=("masked", "pixels"), **changes):
  c = tiny_config(objective=dict(pixels=dict(module="masked_pixels", embeddings=PATH)), **changes)
  c["data"].update(facts=facts, masked=dict(views=1, patch=4, share=(0.75, 0.75), probability=1.0) | (masked or {}))
  c["towers"]["image"] = dict(name="vit", width=16, depth=1, heads=2, patch=4) | (tower or {"leave_out": 0.75})
  c["towers"]["decoder"] = dict(name="patch_decoder", reads=("image",), width=16, depth=1, heads=2)
  c["heads"]["pixels"] = dict(tower="decoder", name="token_linear", dim=dim, bias=True)
  return c


def traced(**changes):
  """The shapes of a step."""
  program = build_program(config(**changes), tiny_spec(), sharding.make_mesh({"data": 1}, jax.devices()[:1]))
  return jax.eval_shape(functools.partial(train_step, program.method, None), program.state, tiny_batch())


def test_a_step_can_be_made():
  """MAE's; and with a token in place of hidden patches and the head on the tower, SimMIM's."""
  assert "pixels/loss" in traced()[1]
  c = config(tower=dict(mask_token=True))
  del c["towers"]["decoder"]
  c["heads"]["pixels"]["tower"] = "image"
  c["objective"]["pixels"] = dict(
    module=dict(name="masked_pixels", loss="l1", normalised=False), embeddings="image_masked[0]/pixels"
  )
  method = make_method(c, tiny_spec())
  assert "pixels" in method.terms and method.preparations["image"].tells_pixels


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(masked=dict(share=(0.1, 0.5))), r"towers\.image\.leave_out: leaves 0\.75 of .*share of \(0\.1, 0\.5\)"),
    (dict(tower=dict(depth=1)), r"data\.masked\.views: .*use a ViT with mask_token=True, or with leave_out"),
    (dict(facts=("masked",)), r"asks for the 'pixels' of 'decoder.*config\.data\.facts"),
    (dict(dim=47), r"pixels' gives 47 numbers a patch, and a patch has 48 .*set dim=48 of its head"),
  ],
)
def test_one_line(changes, message):
  with pytest.raises(UserError, match=message) as error:
    traced(**changes)
  assert "\n" not in str(error.value)
