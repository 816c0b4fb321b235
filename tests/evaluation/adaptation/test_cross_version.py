"""Retrieval of one version of a model in another's index: which node is compared with which, the gain, what is said."""

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation.adaptation.cross_version import update_gain
from mmcontrast.evaluation.embed import Space
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import check, check_space, embed_sets, run_suite

HEADS = dict(
  old=dict(image="old_image", text="old_text"),
  new=dict(image="new_image", text="new_text"),
  into_old=dict(image="image_old", text="text_old"),
)
NODES = {name: (modality,) for heads in HEADS.values() for modality, name in heads.items()}


def config(**changes):
  return {"sets": ("s",), "features": "", "evaluators": {"cross_version": HEADS | changes}}


def test_each_cell_compares_its_two_versions(world):
  """The old model is noisy, the new one is not, and lives in a turned space; "into_old" has a little noise."""
  turn = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]

  def embed(kind, values):
    modality, node = kind.removesuffix(".pooled").split("/")
    rows = world.embed(modality, values)
    noise = {"old": 3.0, "new": 0.0}.get(node[:3], 1.0) * np.random.default_rng(len(node)).normal(size=rows.shape)
    return (rows + noise) @ (turn if node.startswith("new") else np.eye(16))

  data = {"s": world.set("s", True)}
  space = Space(nodes=NODES, probed="image")
  sets = embed_sets(embed, config(), data.__getitem__, space=space)
  found = run_suite(embed, config(), data.__getitem__, sets=sets)
  names = ("old_to_old", "new_to_old", "new_to_new")
  recalls = [found[f"s/image_to_text_{name}/recall@1"] for name in names]
  assert recalls[0] < recalls[1] < recalls[2]
  assert found["s/image_to_text_cross_version/update_gain"] == pytest.approx(update_gain(*recalls))
  assert found["s/text_to_image_old_to_new/queries"] == 60
  assert sorted(metric_names(config(), lambda name: {})) == sorted(found)


def test_the_gain_is_the_share_of_what_a_new_index_brings():
  assert update_gain(0.2, 0.3, 0.6) == pytest.approx(0.25) and update_gain(0.2, 0.1, 0.4) == pytest.approx(-0.5)
  assert update_gain(0.5, 0.6, 0.5) == 0


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(new={}), "cross_version.new: give the heads of two modalities, such as dict"),
    (
      dict(into_old=dict(image="a", audio="b")),
      "cross_version.into_old: is of image and audio, and old of image and text",
    ),
  ],
)
def test_wrong_heads_are_one_line(changes, message):
  with pytest.raises(UserError, match=message):
    check(config(**changes))


def test_a_head_that_is_not_there_is_named():
  with pytest.raises(UserError, match="cross_version: no such choice 'new_imag'; did you mean 'new_image'"):
    check_space(config(new=dict(image="new_imag", text="new_text")), Space({}, "", NODES))
