"""big_vision's files: outputs of its own tiny towers, its older layouts, and what is refused."""

import dataclasses
import re

import models
import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.interop import formats

SIGLIP, TOKEN = models.GOLDEN / "big_vision_siglip" / "model.npz", models.GOLDEN / "big_vision_tok" / "model.npz"


@pytest.mark.parametrize("case, pool", [("big_vision_tok", "cls"), ("big_vision_gap", "gap")])
def test_outputs_of_an_image_tower_are_theirs(case, pool):
  found = formats.read(f"big_vision:vit@{models.GOLDEN / case / 'model.npz'}")
  assert found.towers["image"]["pool"] == pool and found.image.size == 16 and found.image.mean == (0.5,) * 3
  expected = np.load(models.GOLDEN / case / "outputs.npz")
  out = models.encode_images(found, expected["images"])
  np.testing.assert_allclose(out.pooled, expected["pooled"], atol=1e-4)
  np.testing.assert_allclose(out.tokens, expected["tokens"], atol=1e-4)


def test_outputs_of_siglip_are_theirs():
  found = formats.read(f"big_vision:siglip@{SIGLIP}")
  expected = np.load(SIGLIP.parent / "outputs.npz")
  rows = models.outputs(found, expected["images"], expected["ids"])
  for name in ("image", "text"):
    unit = rows[name] / np.linalg.norm(rows[name], axis=1, keepdims=True)
    np.testing.assert_allclose(unit, expected[name], atol=1e-4)
  np.testing.assert_allclose(rows["logits"], expected["logits"], atol=1e-3)
  assert found.text.length == 6 and found.text.token_ids == {"pad": 1, "bos": -1, "eos": 1} and not found.text.tokenizer


def renamed(arrays, *pairs):
  for old, new in pairs:
    arrays = {re.sub(old, new, name): array for name, array in arrays.items()}
  return arrays


def stacked(arrays):
  """As their scan=True saves them."""
  layers = {}
  for name in sorted(name for name in arrays if "encoderblock_" in name):
    layers.setdefault(re.sub(r"encoderblock_\d+", "encoderblock", name), []).append(arrays[name])
  return {n: a for n, a in arrays.items() if "encoderblock_" not in n} | {n: np.stack(a) for n, a in layers.items()}


@pytest.mark.parametrize(
  "kind, file, change",
  [
    ("siglip", SIGLIP, stacked),
    ("vit", TOKEN, stacked),
    ("siglip", SIGLIP, lambda arrays: renamed(arrays, (r"^params/", "opt/target/")) | {"opt/state/step": np.zeros(1)}),
    ("siglip", SIGLIP, lambda arrays: renamed(arrays, (r"^params/", ""))),
    (
      "vit",
      TOKEN,
      lambda arrays: (
        renamed(
          arrays,
          ("LayerNorm_1", "LayerNorm_2"),
          ("MlpBlock_0", "MlpBlock_3"),
          ("Attention_0", "Attention_1"),
          ("^pos_embedding", "Transformer/posembed_input/pos_embedding"),
        )
        | {"pre_logits/bias": np.zeros(3)}
      ),
    ),
  ],
  ids=["siglip, scanned", "vit, scanned", "with an optimizer", "parameters alone", "vision_transformer"],
)
def test_other_layouts_of_the_same_arrays(tmp_path, kind, file, change):
  np.savez(tmp_path / "x.npz", **change(dict(np.load(file))))
  found, expected = (formats.read(f"big_vision:{kind}@{path}") for path in (tmp_path / "x.npz", file))
  models.assert_same_arrays(found, expected)
  assert found.towers == expected.towers


def test_a_position_for_the_class_token(tmp_path):
  arrays = dict(np.load(TOKEN))
  arrays["pos_embedding"] = np.concatenate([np.ones((1, 1, 24), np.float32), arrays["pos_embedding"]], axis=1)
  np.savez(tmp_path / "x.npz", **arrays)
  found, plain = (formats.read(f"big_vision:vit@{path}") for path in (tmp_path / "x.npz", TOKEN))
  assert found.towers["image"]["cls_position"] and not plain.towers["image"]["cls_position"]
  moved = dict(plain.arrays) | {"params/towers/image/cls_token": plain.arrays["params/towers/image/cls_token"] + 1}
  expected = models.encode_images(dataclasses.replace(plain, arrays=moved), np.ones((1, 16, 16, 3), np.float32))
  out = models.encode_images(found, np.ones((1, 16, 16, 3), np.float32))
  np.testing.assert_allclose(out.pooled, expected.pooled, atol=1e-5)


def edited(tmp_path, file, change):
  arrays = dict(np.load(file))
  change(arrays)
  np.savez(tmp_path / "x.npz", **arrays)
  return tmp_path / "x.npz"


@pytest.mark.parametrize("kind, file, change, message", [
  ("vit", SIGLIP, lambda a: None, "holds two towers; name it siglip@"),
  ("siglip2", TOKEN, lambda a: None, "holds one tower; name it vit@"),
  ("siglp", SIGLIP, lambda a: None, "did you mean 'siglip'"),
  ("siglip", SIGLIP, lambda a: a.pop("params/t"), "no array 't'"),
  ("siglip", SIGLIP, lambda a: a.pop("params/txt/head/bias"), r"'txt/head/bias'"),
  ("siglip", SIGLIP, lambda a: a.update({"params/img/pre_logits/bias": np.zeros(3)}), "'img/pre_logits/bias'"),
  ("vit", TOKEN, lambda a: a.pop("embedding/kernel"), "no array 'embedding/kernel'"),
  ("vit", TOKEN, lambda a: a.update({"pos_embedding": np.zeros((1, 15, 24))}), "15 positions .* not a square"),
], ids=("two towers", "one tower", "no kind", "no t", "no bias", "a bias", "no embedding", "positions"))  # fmt: skip
def test_what_is_not_one_of_their_models_is_refused(tmp_path, kind, file, change, message):
  with pytest.raises(UserError, match=message):
    formats.read(f"big_vision:{kind}@{edited(tmp_path, file, change)}")


def test_a_file_without_its_kind_is_refused():
  with pytest.raises(UserError, match="say what it is: vit, siglip, siglip2, such as siglip@"):
    formats.read(f"big_vision:{SIGLIP}")
