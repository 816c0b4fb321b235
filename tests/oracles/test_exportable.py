"""A run on people's data: transformers and open_clip load its export, texts by their tokenizers, and give our rows."""

import pathlib
import sys

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from mmcontrast import load
from mmcontrast.interop.run import export_run

sys.path.append(str(pathlib.Path(__file__).parents[1] / "interop"))
from exportable import TEXTS, save_run, tokenizer_of


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_both_give_our_rows(kind, tmp_path):
  save_run(tmp_path / "run", tokenizer_of(kind, tmp_path))
  ours = load(tmp_path / "run")
  pictures = [Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)) for _ in range(2)]
  wanted = ours.encode_image(pictures), ours.encode_text(TEXTS)

  export_run(tmp_path / "run", "hf", tmp_path / "hf")
  model = AutoModel.from_pretrained(tmp_path / "hf").eval()
  words = AutoTokenizer.from_pretrained(tmp_path / "hf")(TEXTS, padding=True, truncation=True, return_tensors="pt")
  pixels = AutoImageProcessor.from_pretrained(tmp_path / "hf")(pictures, return_tensors="pt")
  with torch.no_grad():
    found = model(input_ids=words["input_ids"], attention_mask=words["attention_mask"], **pixels)
  rows = [found.image_embeds.numpy(), found.text_embeds.numpy()]

  export_run(tmp_path / "run", "open_clip", tmp_path / "open_clip")
  model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'open_clip'}")
  tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'open_clip'}")(TEXTS)
  model.eval()
  with torch.no_grad():
    rows += [
      model.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True).numpy(),
      model.encode_text(tokens, normalize=True).numpy(),
    ]
  for one, other in zip(rows, (*wanted, *wanted), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)
