"""From files and words to rows beside open_clip's own preprocessing, tokenizer and model: within 1e-4."""

import json

import numpy as np
import open_clip
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import save_file

import mmcontrast
from mmcontrast.interop.run import import_run

CONFIG = {
  "embed_dim": 24,
  "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
  "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}
TEXTS = ["a photo of a cat", "Two DOGS, &amp; a 7-year-old's bike!", "naïve café ☃", "word " * 100, ""]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
  """open_clip's model, and ours of its file; and photographs in files."""
  folder = tmp_path_factory.mktemp("clip")
  torch.manual_seed(0)
  model = open_clip.CLIP(**CONFIG).eval()
  for parameter in model.parameters():
    parameter.data += 0.1 * torch.randn_like(parameter)
  (folder / "theirs").mkdir()
  save_file(
    {name: leaf.contiguous() for name, leaf in model.state_dict().items()},
    folder / "theirs" / "open_clip_model.safetensors",
  )
  (folder / "theirs" / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
  import_run(f"open_clip:{folder / 'theirs'}", folder / "run")
  paths = [folder / f"{name}.png" for name in ("astronaut", "coffee", "chelsea", "rocket")]
  for path in paths:
    Image.fromarray(getattr(skimage.data, path.stem)()).save(path)
  return model, mmcontrast.load(folder / "run"), paths


def test_images(both):
  theirs, ours, paths = both
  view = open_clip.image_transform(32, is_train=False)
  with torch.inference_mode():
    rows = theirs.encode_image(torch.stack([view(Image.open(path)) for path in paths]), normalize=True).numpy()
  np.testing.assert_allclose(ours.encode_image(paths), rows, atol=1e-4)
  assert rows.std(0).min() > 0.005  # or else the tolerance says nothing


def test_texts(both):
  theirs, ours, _ = both
  with torch.inference_mode():
    rows = theirs.encode_text(open_clip.tokenize(TEXTS), normalize=True).numpy()
  np.testing.assert_allclose(ours.encode_text(TEXTS), rows, atol=1e-4)
  assert rows.std(0).min() > 0.005
