"""Where configs name modalities and their sets of views: what they may say, and what is said of what they may not."""

import jax
import pytest
from tiny import tiny_config, tiny_spec

from mmcontrast.config.options import section
from mmcontrast.data.settings import resolve
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES, modality_of
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.parallel.sharding import make_mesh
from mmcontrast.training.program import build_program


def build(**changes):
  config = tiny_config()
  for path, value in changes.items():
    *sections, key = path.split("__")
    inner = config
    for name in sections:
      inner = inner[name]
    inner[key] = value
  return build_program(config, tiny_spec(), make_mesh(config["mesh"], jax.devices()[:1]))


IMAGES_ALONE = dict(image=dict(query="image[0]/image_ssl", key="image[1]/image_ssl"))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      dict(data__views=dict(image=2), objective=IMAGES_ALONE),
      r"config\.towers\.text: it reads text views, and config\.data\.views\.text is 0; set it to 1 or more, or leave",
    ),
    (dict(towers__vidio=dict(name="vit")), r"config\.towers\.vidio\.modality: no such choice 'vidio'"),
    (dict(towers__image__modality="imge"), r"towers\.image\.modality: no such choice 'imge'; did you mean 'image'"),
    (dict(augment=dict(txet="flip")), r"config\.augment: no such choice 'txet'; did you mean 'text'"),
    (
      dict(objective=dict(one=dict(query="image_small[0]/image_ssl", key="image[1]/image_ssl"))),
      r"'image_small\[0\]/image_ssl': data\.multi_crop\.views is 0, so there are none",
    ),
    (
      dict(objective=dict(one=dict(query="text[5]/text_ssl", key="text[1]/text_ssl"))),
      r"'text\[5\]/text_ssl': data\.views\.text is 2, so text\[0\] to \[1\] exist",
    ),
    (
      dict(objective=dict(one=dict(query="imag[0]/image_ssl", key="image[1]/image_ssl"))),
      r"modality: no such choice 'imag'; did you mean 'image'",
    ),
  ],
)
def test_wrong_names_are_one_line(changes, message):
  with pytest.raises(UserError, match=message):
    build(**changes)


@pytest.mark.parametrize(
  ("views", "message"),
  [
    (dict(imege=1), r"data\.views\.imege: unknown key; did you mean 'image'"),
    (dict(image=-1), r"data\.views\.image: -1 is not a number of views"),
    (dict(image=True), r"data\.views\.image: True is not a number of views"),
    ({}, r"data\.views: no view at all; set data\.views\.image or data\.views\.text"),
    (3, r"data\.views: 3 is not a table of image, text"),
  ],
)
def test_wrong_views_are_one_line(views, message):
  with pytest.raises(UserError, match=message):
    resolve({"views": views})


def test_a_set_of_views_is_of_one_modality():
  sets = [view_set for modality in MODALITIES.values() for view_set in modality.view_sets]
  assert len(set(sets)) == len(sets) and {modality_of(name) for name in sets} == set(MODALITIES)
  assert parse_embedding("image_small[0]/image_ssl").modality == modality_of("image_small") == "image"
  assert all(modality.view_sets[0] == name for name, modality in MODALITIES.items())


def test_keys_of_two_modalities_differ():
  """Each key of config.data, and each array of a batch, is of one of them."""
  settings = resolve({"views": dict.fromkeys(MODALITIES, 1), "multi_crop": {"views": 1}})
  for names in ([list(one.defaults) for one in MODALITIES.values()],
                [list(one.arrays(settings)) for one in MODALITIES.values()]):  # fmt: skip
    flat = [name for of_one in names for name in of_one]
    assert len(set(flat)) == len(flat)


def test_a_config_may_hold_what_the_registry_knows():
  base = {"augment": {"image": "moco_v2"}, "data": {}}
  assert set(section(("data", "views"), {}, base).options) == set(MODALITIES)
  assert {"image", "image_small", "text"} <= set(section(("augment",), {}, base).options)
  assert section(("augment", "image_small"), {"base": "flip"}, base).options["flip"] == 0.5
  assert section(("augment", "image", "[0]"), "flip", base).options["flip"] == 0.5
