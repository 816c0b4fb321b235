"""Views with maps that are computed of them: what the maps show, which patches are seen, and what is refused."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_batch, tiny_config, tiny_spec

from mmcontrast.errors import UserError
from mmcontrast.modalities.image_maps import Maps, edges, seen_by_shares, silhouette
from mmcontrast.parallel.sharding import make_mesh
from mmcontrast.training.program import build_program, make_method
from mmcontrast.training.step import train_step

CASE = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "addition.json").read_text())["multimae_masks"]
MAPS = Maps(views=1, patch=4, kinds=("silhouette", "edges"), seen=0.25, alpha=1.0)


def test_the_patches_that_are_seen_are_multimaes():
  share, noise = CASE["inputs"]["share"], CASE["inputs"]["noise"]
  for example in range(2):
    *each, again = (jnp.asarray(part[example]) for part in noise)
    seen = seen_by_shares(jnp.asarray(share[example]), each, again, CASE["inputs"]["keep"])
    masks = [CASE["expected"][f"mask_{name}"][example] for name in ("rgb", "depth", "seg")]
    np.testing.assert_array_equal(seen, np.concatenate(masks) == 0)


def test_equally_many_are_seen_of_an_example_by_its_seed():
  seeds = jnp.arange(300, dtype=jnp.uint32)
  shown = np.asarray(MAPS.shown(seeds, 0, 16)).reshape(300, 3, 16)
  assert (shown.sum((1, 2)) == 12).all() and shown.any(0).all()
  counts = shown.sum(2)  # of uneven shares: some maps are not seen at all, others nearly alone
  assert (counts == 0).any() and counts.max() == 12 and np.abs(counts.mean(0) - 4).max() < 0.7
  np.testing.assert_array_equal(np.asarray(MAPS.shown(seeds[::-1], 0, 16)).reshape(shown.shape), shown[::-1])
  even = np.asarray(MAPS._replace(alpha=1000.0).shown(seeds, 0, 16)).reshape(300, 3, 16).sum(2)
  assert even.std() < 0.5


def test_what_the_maps_show():
  page = np.ones((5, 6, 3), np.float32)
  page[:, 3:] = 0.0  # the right half is black
  np.testing.assert_array_equal(silhouette(page), np.tile([0, 0, 0, 1, 1, 1], (5, 1)))
  np.testing.assert_allclose(edges(page), np.tile([0, 0, 1, 1, 0, 0], (5, 1)), atol=1e-6)
  np.testing.assert_allclose(edges(page.swapaxes(0, 1)), np.tile([0, 0, 1, 1, 0, 0], (5, 1)).T, atol=1e-6)


def config(tower=None, maps=None, part=1, loss="cross_entropy", dim=2 * 16, facts=("masked", "pixels")):
  path = "decoder(image_maps[0])/silhouette"
  module = dict(name="masked_pixels", loss=loss, normalised=False, part=part)
  c = tiny_config(objective=dict(silhouette=dict(module=module, embeddings=path)))
  c["data"].update(facts=facts, maps=dict(views=1, patch=4) | (maps or {}))
  c["towers"]["image"] = dict(name="map_vit", width=16, depth=1, heads=2, patch=4) | (tower or {})
  c["towers"]["decoder"] = dict(name="map_decoder", reads=("image",), part=part, width=16, depth=1, heads=2)
  c["heads"]["silhouette"] = dict(tower="decoder", name="token_linear", dim=dim, bias=True)
  return c


def traced(**changes):
  """The shapes of a step."""
  program = build_program(config(**changes), tiny_spec(), make_mesh({"data": 1}, jax.devices()[:1]))
  return jax.eval_shape(
    lambda state, batch: train_step(program.method, None, state, batch), program.state, tiny_batch()
  )


def test_a_step_can_be_made_and_the_views_are_the_images():
  assert "silhouette/loss" in traced()[1]
  method = make_method(config(), tiny_spec())
  views = jax.jit(lambda batch: method.preparations["image"](batch, train=True))(tiny_batch())
  whole, maps = views["image"].values[:, 0], views["image_maps"]
  assert maps.values.shape[-1] == 5 and maps.mask.shape[-1] == 3 * 16
  np.testing.assert_array_equal(maps.values[:, 0, ..., :3], whole)
  assert set(np.unique(maps.values[:, 0, ..., 3])) <= {0.0, 1.0}
  assert method.preparations["image"](tiny_batch(), train=False)["image_maps"].mask.all()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(maps=dict(views=3)), r"data\.maps\.views: 3 versions with maps of \d image views?; set data\.views\.image"),
    (dict(maps=dict(patch=5)), r"data\.maps\.patch: images of 16 px do not split into patches of 5 px"),
    (dict(maps=dict(kinds=("edge",))), r"data\.maps\.kinds.*'edge'.*did you mean 'edges'"),
    (dict(maps=dict(kinds=())), r"data\.maps\.kinds: \(\) is no list of different maps"),
    (dict(maps=dict(seen=0)), r"data\.maps\.seen: 0; give a share"),
    (dict(maps=dict(alpha=0)), r"data\.maps\.alpha: 0 is not above 0"),
    (
      dict(maps=dict(patch=8)),
      r"data\.maps\.patch: shows some of 4 patches, and the tower has 16, of 4 px; set it to 4",
    ),
    (dict(tower=dict(name="vit")), r"config\.data\.maps\.views: .*image reads colours alone; use name='map_vit'"),
    (dict(part=3), r"config\.towers\.decoder: part: 3 is none of the 3 maps; give 0, the colours, to 2"),
    (dict(dim=17), r"silhouette' gives 17 numbers a patch, .* 16 .*set so many logits for each, dim=16 x classes"),
    (dict(facts=("masked",)), r"asks for the 'pixels' of 'decoder.*config\.data\.facts"),
  ],
)
def test_one_line(changes, message):
  with pytest.raises(UserError, match=message) as error:
    traced(**changes)
  assert "\n" not in str(error.value)
