"""Views with hidden patches: which are hidden, what the tower sees of them, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SIZE, tiny_batch, tiny_config, tiny_spec

from mmcontrast.data.settings import resolve
from mmcontrast.encoders import build_encoder
from mmcontrast.errors import UserError
from mmcontrast.modalities.image_masks import Masking
from mmcontrast.parallel.sharding import make_mesh
from mmcontrast.training.program import build_program
from mmcontrast.training.step import init_state, prepared, train_step

STUDENTS, TEACHERS = (tuple(f"{views}[{v}]/patches{branch}" for v in range(2))
                      for views, branch in (("image_masked", ""), ("image", "@momentum")))  # fmt: skip


def config(patch=8, masked_views=2, tower=(), **data):
  c = tiny_config()
  c["data"] |= {
    "facts": ("masked",),
    "masked": dict(views=masked_views, patch=patch, share=(0.5, 0.5), probability=1.0),
  }
  c["data"] |= data
  c["towers"] = {"image": c["towers"]["image"] | {"mask_token": True} | dict(tower)}
  c["data"]["views"] = dict(image=2)
  c["heads"] = {"patches": dict(tower="image", name="token_prototypes", dim=5)}
  c["objective"] = dict(hidden=dict(module="ibot", embeddings=(*STUDENTS, *TEACHERS)))
  return c


def program(**changes):
  c = config(**changes)
  return build_program(c, tiny_spec(), make_mesh(c["mesh"], jax.devices()[:1]))


def test_so_many_patches_are_hidden_of_an_example_by_its_seed():
  masks = Masking(views=1, patch=4, share=(0.25, 0.5), probability=0.5)
  seeds = jnp.arange(400, dtype=jnp.uint32)
  hidden = np.asarray(masks.hidden(seeds, 0, 32))
  counts = hidden.sum(1)
  assert hidden.shape == (400, 64) and set(counts[counts > 0]) <= set(range(16, 33))
  assert 150 < (counts > 0).sum() < 250 and hidden[counts > 0].any(0).all()
  np.testing.assert_array_equal(masks.hidden(seeds[::-1], 0, 32), hidden[::-1])
  assert np.any(np.asarray(masks.hidden(seeds, 1, 32)) != hidden)


def test_blocks_of_patches_are_hidden_at_once():
  hidden = Masking(views=1, patch=4, share=(0.6, 0.6), probability=1.0, block=2).hidden(
    jnp.arange(50, dtype=jnp.uint32), 0, 32
  )
  blocks = np.asarray(hidden).reshape(50, 4, 2, 4, 2)
  first = blocks[:, :, :1, :, :1]
  assert (blocks == first).all() and (first.sum((1, 2, 3, 4)) == 10).all() and len(np.unique(hidden, axis=0)) > 40


def test_a_square_is_hidden_and_shown_enlarged():
  masks = Masking(views=1, patch=4, share=(0.2, 0.5), probability=0.8, shape="square")
  seeds = jnp.arange(60, dtype=jnp.uint32)
  hidden = np.asarray(masks.hidden(seeds, 0, 32)).reshape(60, 8, 8)
  row, column, side = (np.asarray(x) for x in masks.square(seeds, 0, 32))
  assert set(side) == {0, 4, 5, 6} and len(set(zip(row, column, side))) > 20  # of 64 patches 16 to 36, or none
  for example in range(60):
    square = np.zeros((8, 8), bool)
    square[row[example] :, column[example] :][: side[example], : side[example]] = True
    np.testing.assert_array_equal(hidden[example], square)
  y, x = np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij")
  picture = np.broadcast_to(np.stack([y, x, 0 * x], -1), (60, 32, 32, 3)).astype(np.float32)
  shown = np.asarray(jax.jit(lambda x: masks.regions(x, seeds, 0))(picture))
  for example in range(60):
    first, last = 4 * row[example], 4 * (row[example] + side[example])
    if not side[example]:
      np.testing.assert_allclose(shown[example], picture[example], atol=1e-5)
      continue
    at = first + (np.arange(32) + 0.5) * (last - first) / 32 - 0.5  # the centre of each pixel of the result
    np.testing.assert_allclose(shown[example, :, 0, 0], np.clip(at, 0, 31), atol=1e-4)


def test_the_tower_sees_a_token_in_the_place_of_a_hidden_patch():
  tower = build_encoder(dict(name="vit", patch=4, width=8, depth=1, heads=2, mask_token=True))
  x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
  variables = tower.init(jax.random.key(1), x, train=False)
  variables["params"]["mask_token"] += 1.0
  shown = jnp.array([[True, False, True, True], [True, True, True, True]])
  run = jax.jit(lambda x, mask: tower.apply(variables, x, mask, train=False).tokens)
  changed = x.at[0, :4, 4:].add(1.0)  # the hidden patch
  found = run(x, shown)
  np.testing.assert_array_equal(found, run(changed, shown))
  whole = tower.apply(variables, x, train=False).tokens
  np.testing.assert_allclose(found[1], whole[1], atol=1e-6)
  assert np.abs(found[0] - whole[0]).max() > 1e-3


def test_a_step_with_masked_views():
  """The term is told what was hidden; nothing is hidden where nothing trains; the token is learned."""
  made, batch = program(), {name: x for name, x in tiny_batch().items() if name != "text"}
  state = init_state(made.method, batch)
  new, metrics = jax.jit(lambda state, batch: train_step(made.method, None, state, batch))(state, batch)
  assert float(metrics["hidden/hidden"]) == 0.5 and float(metrics["hidden/loss"]) > 0
  tokens = [s.params["towers"]["image"]["mask_token"] for s in (state, new)]
  assert np.any(tokens[0] != tokens[1])
  views = prepared(made.method.preparations, batch, train=False)
  assert views["image_masked"].mask.all() and views["image_masked"].mask.shape == (16, 2, (SIZE // 8) ** 2)
  np.testing.assert_array_equal(views["image_masked"].values, views["image"].values)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(patch=4), r"data\.masked\.patch: hides some of 16 patches, and the tower has 4, of 8 px; set it to 8"),
    (dict(tower=dict(mask_token=False)), r"config\.data\.masked\.views: config\.towers\.image has no token for hidden"),
    (dict(facts=()), r"asks for the 'masked' of 'image_masked\[0\]/patches'; add it to config\.data\.facts"),
    (dict(masked_views=1), r"image_masked\[1\].*: data\.masked\.views is 1, so image_masked\[0\] to \[0\] exist"),
  ],
)
def test_runs_that_are_refused(changes, message):
  with pytest.raises(UserError, match=message) as error:
    program(**changes)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("masked", "message"),
  [
    (dict(views=3), r"data\.masked\.views: 3 masked versions of 2 image views"),
    (dict(views=1, patch=5), r"data\.masked\.patch: images of 32 px do not split into patches of 5 px"),
    (
      dict(views=1, patch=4, block=3),
      r"data\.masked\.block: 8 patches on a side do not split .* of 3; the nearest is 2",
    ),
    (
      dict(views=1, patch=4, block=2, shape="square"),
      r"data\.masked\.block: 2, and shape='square' hides one square any",
    ),
    (dict(shape="circle"), r"data\.masked\.shape: .*'circle'"),
    (dict(share=(0.5, 2)), r"data\.masked\.share: \(0\.5, 2\); give"),
    (dict(probability=0), r"data\.masked\.probability: 0; give a number over 0"),
    (dict(vews=1), r"data\.masked\.vews: unknown key; did you mean 'views'"),
  ],
)
def test_settings_that_are_refused(masked, message):
  with pytest.raises(UserError, match=message):
    resolve(dict(masked=masked))


def test_masks_without_masked_views():
  with pytest.raises(
    UserError, match=r"data\.facts: no view has 'masked'; set data\.masked\.views or data\.maps\.views or"
  ):
    resolve(dict(facts=("masked",)))
