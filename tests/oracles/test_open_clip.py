"""open_clip's models of full size: our outputs are theirs, and open_clip loads our export and gives our outputs."""

import pathlib
import shutil
import sys

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from open_clip.push_to_hf_hub import save_config_for_hf

from mmcontrast.interop import formats

TESTS = pathlib.Path(__file__).parents[1]
sys.path.append(str(TESTS / "interop"))
from models import assert_same_file, outputs  # noqa: E402

NAMES = ("ViT-B-32", "ViT-B-32-quickgelu", "RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32")
FORMAT = formats.FORMATS["open_clip"]


def drawn(name: str) -> torch.nn.Module:
  """A model at its random start, with no norm's scale left at 1 and no bias at 0."""
  torch.manual_seed(0)
  model = open_clip.create_model(name, load_weights=False).eval()
  for key, array in model.state_dict().items():
    if array.ndim == 1 and array.is_floating_point():
      array.add_(0.02 * torch.randn_like(array))
    if key.endswith("running_var"):
      array.abs_().add_(0.5)
  return model


def theirs(model, images, ids):
  with torch.no_grad():
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2))
    rows = {"image": model.encode_image(pixels, normalize=False), "text": model.encode_text(ids, normalize=False)}
    image, text = (torch.nn.functional.normalize(rows[kind], dim=-1) for kind in ("image", "text"))
    bias = 0 if model.logit_bias is None else model.logit_bias
    rows["logits"] = model.logit_scale.exp() * image @ text.T + bias
  return {name: array.numpy() for name, array in rows.items()}


@pytest.mark.parametrize("name", NAMES)
def test_in_and_out(name, tmp_path):
  model, source, out = drawn(name), tmp_path / "in", tmp_path / "out"
  source.mkdir()
  safetensors.torch.save_file(model.state_dict(), source / "open_clip_model.safetensors")
  save_config_for_hf(model, source / "open_clip_config.json", open_clip.get_model_config(name))
  if "SigLIP" in name:  # a tokenizer of a few words stands in for theirs, which is not on this machine
    for file in ("tokenizer.json", "tokenizer_config.json"):
      shutil.copy(TESTS / "golden" / "interop" / "open_clip_siglip" / file, source)
  found = FORMAT.read(str(source))
  size = found.image.size
  images = np.random.default_rng(0).standard_normal((2, size, size, 3)).astype(np.float32)
  ids = open_clip.get_tokenizer(f"local-dir:{source}")(["a red heart", "two dogs with a cat, and a heart", ""])
  ours, given = outputs(found, images, ids.numpy().astype(np.int32)), theirs(model, images, ids)
  for kind, tolerance in (("image", 1e-4), ("text", 1e-4), ("logits", 1e-3)):
    np.testing.assert_allclose(ours[kind], given[kind], rtol=0, atol=tolerance, err_msg=kind)
    assert given[kind].std() > 0.01, kind
  FORMAT.write(found, out)
  assert_same_file(
    source / "open_clip_model.safetensors", out / "open_clip_model.safetensors", r".*\.num_batches_tracked"
  )
  again, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{out}")
  for kind, rows in theirs(again.eval(), images, ids).items():
    np.testing.assert_allclose(ours[kind], rows, rtol=0, atol=1e-3 if kind == "logits" else 1e-4, err_msg=kind)
  assert tuple(preprocess.transforms[-1].mean) == found.image.mean
  assert torch.equal(open_clip.get_tokenizer(f"local-dir:{out}")(["a red heart"]), ids[:1])


def test_an_activation_that_is_not_said_is_another_model(tmp_path):
  """The same file as ViT-B-32 and as ViT-B-32-quickgelu: only the config tells them apart, so it is asked for."""
  model = drawn("ViT-B-32-quickgelu")
  safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
  plain, quick = (FORMAT.read(f"{name}@{tmp_path}/w.safetensors") for name in ("ViT-B-32", "ViT-B-32-quickgelu"))
  assert plain.towers["image"]["activation"] == "gelu" and quick.towers["image"]["activation"] == "quick_gelu"
  images = np.random.default_rng(0).standard_normal((1, 224, 224, 3)).astype(np.float32)
  with torch.no_grad():
    rows = model.encode_image(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
  assert np.abs(outputs(quick, images, None)["image"] - rows).max() < 1e-4
  assert np.abs(outputs(plain, images, None)["image"] - rows).max() > 1e-3
