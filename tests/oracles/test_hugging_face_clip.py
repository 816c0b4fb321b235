"""transformers' CLIP, SigLIP and SigLIP 2 of full size: our outputs are theirs, and AutoModel loads our export."""

import pathlib
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers

from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.interop import formats
from mmcontrast.interop.pretrained import TextInput
from mmcontrast.interop.tokenizer_files import contents

TESTS = pathlib.Path(__file__).parents[1]
sys.path.append(str(TESTS / "interop"))
from models import assert_same_file, outputs  # noqa: E402

FORMAT = formats.FORMATS["hf"]
IDS = dict(bos_token_id=3, eos_token_id=1)
MODELS = {  # clip-vit-base-patch32, siglip-base-patch16-224, and siglip2-base-patch16-224 with a fourth of its layers
  "clip": (transformers.CLIPModel, transformers.CLIPConfig(text_config=dict(IDS, pad_token_id=0))),
  "siglip": (transformers.SiglipModel, transformers.SiglipConfig(text_config=dict(IDS, pad_token_id=1))),
  "siglip2": (
    transformers.SiglipModel,
    transformers.SiglipConfig(
      text_config=dict(IDS, pad_token_id=1, vocab_size=256_000, num_hidden_layers=3),
      vision_config=dict(num_hidden_layers=3),
    ),
  ),
}
PROCESSORS = {
  "clip": transformers.CLIPImageProcessor,
  "siglip": transformers.SiglipImageProcessor,
  "siglip2": transformers.SiglipImageProcessor,
}


def theirs(model, images, ids):
  with torch.no_grad():
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2))
    image, text = (rows.pooler_output for rows in (model.get_image_features(pixels), model.get_text_features(ids)))
    logits = model(input_ids=ids, pixel_values=pixels).logits_per_image
  return {"image": image.numpy(), "text": text.numpy(), "logits": logits.numpy()}


@pytest.mark.parametrize("name", MODELS)
def test_in_and_out(name, tmp_path):
  source, out = tmp_path / "in", tmp_path / "out"
  torch.manual_seed(0)
  builder, config = MODELS[name]
  model = builder(config).eval()
  for array in model.state_dict().values():
    if array.ndim == 1 and len(array) > 1:
      array.add_(0.02 * torch.randn_like(array))
  if name != "clip":
    model.logit_scale.data.fill_(4.7)
    model.logit_bias.data.fill_(-16.5)
  model.save_pretrained(source)
  PROCESSORS[name]().save_pretrained(source)
  for file in ("tokenizer.json", "tokenizer_config.json"):  # of a few words
    shutil.copy(TESTS / "golden" / "interop" / ("hf_clip" if name == "clip" else "hf_siglip") / file, source)
  found = FORMAT.read(str(source))
  size = found.image.size
  images = np.random.default_rng(0).standard_normal((2, size, size, 3)).astype(np.float32)
  texts = ["a red heart", "two dog with a cat and a heart", ""]
  ids = transformers.AutoTokenizer.from_pretrained(source)(
    texts, padding="max_length", max_length=found.text.length, return_tensors="pt"
  )["input_ids"]
  ours, given = outputs(found, images, ids.numpy().astype(np.int32)), theirs(model, images, ids)
  for kind, tolerance in (("image", 1e-4), ("text", 1e-4), ("logits", 1e-3)):
    np.testing.assert_allclose(ours[kind], given[kind], rtol=0, atol=tolerance, err_msg=kind)
    assert given[kind].std() > 0.01, kind
  FORMAT.write(found, out)
  assert_same_file(source / "model.safetensors", out / "model.safetensors")
  again = transformers.AutoModel.from_pretrained(out).eval()
  for kind, rows in theirs(again, images, ids).items():
    np.testing.assert_allclose(ours[kind], rows, rtol=0, atol=1e-3 if kind == "logits" else 1e-4, err_msg=kind)
  processor = transformers.AutoImageProcessor.from_pretrained(out)
  assert tuple(processor.image_mean) == tuple(found.image.mean) and processor.resample == 3
  words = transformers.AutoTokenizer.from_pretrained(out)
  again_ids = words(texts, padding="max_length", max_length=found.text.length, return_tensors="pt")["input_ids"]
  assert torch.equal(again_ids, ids)


def test_clips_own_tokenizer_as_a_file(tmp_path):
  """What we write of CLIP's BPE gives, read by transformers, the ids of CLIP's."""
  text = TextInput(77, "clip", {"pad": 0, "bos": 49406, "eos": 49407})
  for name, content in contents(text, with_clip=True).items():
    (tmp_path / name).write_bytes(content)
  texts = ["A photo of a DOG, don't   panic!", "naïve café ", "1,234 hearts <3 and 🙂", ""]
  ids = transformers.AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"]
  ours = make_tokenizer("clip", lower=True).encode(texts, 77)
  for row, own in zip(ids, ours):
    assert row == own[: len(row)].tolist() and row[-1] == 49407
