"""Writes tests/golden/interop/hf_clip and hf_siglip: tiny models by transformers' own saving, and what they give.

    HF_HUB_OFFLINE=1 PYTHONPATH=tests/oracles .venv-oracles/bin/python tests/golden/make_interop_hf_clip.py

Each folder has the model, its processor's file, a tokenizer of a few words, and outputs.npz as those of open_clip's.
"""

import pathlib

import numpy as np
import tokenizers
import torch
import torchvision_ops  # noqa: F401
import transformers

HERE = pathlib.Path(__file__).parent / "interop"
WORDS = ["<pad>", "</s>", "<unk>", "<s>", "a", "red", "heart", "cat", "dog", "two", "and", "of"]
TEXTS = ["a red heart", "two dog and a cat of two red heart and a dog", "", "cat cat"]
SHARED = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
IMAGES = dict(patch_size=8, image_size=16)


def randomise(model: torch.nn.Module) -> None:
  """Gives every number a value of its own: no norm's scale is left 1, no bias 0."""
  torch.manual_seed(0)
  for name, parameter in model.named_parameters():
    torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.2)
  if hasattr(model, "logit_scale"):
    model.logit_scale.data.fill_(2.125)
  if hasattr(model, "logit_bias"):
    model.logit_bias.data.fill_(-3.25)


def tokenizer(bos: bool) -> transformers.PreTrainedTokenizerFast:
  """CLIP's texts have a bos and SigLIP's none; an eos ends both, and pads SigLIP's."""
  numbers = {word: i for i, word in enumerate(WORDS)}
  model = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="<unk>"))
  model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  model.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A </s>" if bos else "$A </s>", special_tokens=[("<s>", 3), ("</s>", 1)]
  )
  names = dict(pad_token="<pad>", bos_token="<s>") if bos else dict(pad_token="</s>")
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=model, model_max_length=8, eos_token="</s>", unk_token="<unk>", **names
  )


def save(case: str, model: transformers.PreTrainedModel, processor, words) -> None:
  folder = HERE / case
  randomise(model.eval())
  model.save_pretrained(folder)
  processor.save_pretrained(folder)
  words.save_pretrained(folder)
  ids = words(TEXTS, padding="max_length", max_length=8, truncation=True, return_tensors="pt")["input_ids"]
  images = np.random.default_rng(0).standard_normal((3, 16, 16, 3)).astype(np.float32)
  with torch.no_grad():
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2))
    image, text = (rows.pooler_output for rows in (model.get_image_features(pixels), model.get_text_features(ids)))
    logits = model(input_ids=ids, pixel_values=pixels).logits_per_image
  arrays = {"images": images, "ids": ids.int(), "image": image, "text": text, "logits": logits, "texts": TEXTS}
  np.savez_compressed(folder / "outputs.npz", **{name: np.asarray(array) for name, array in arrays.items()})
  print(case, sum(path.stat().st_size for path in folder.iterdir()), "bytes")


def main() -> None:
  print("torch", torch.__version__, "transformers", transformers.__version__)
  text = dict(SHARED, vocab_size=len(WORDS), max_position_embeddings=8)
  save(
    "hf_clip",
    transformers.CLIPModel(
      transformers.CLIPConfig(
        text_config=dict(text, eos_token_id=1, bos_token_id=3, pad_token_id=0, hidden_act="gelu"),
        vision_config=dict(SHARED, **IMAGES),
        projection_dim=12,
      )
    ),
    transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
    tokenizer(True),
  )
  save(
    "hf_siglip",
    transformers.SiglipModel(
      transformers.SiglipConfig(
        text_config=dict(text, bos_token_id=3, eos_token_id=1, pad_token_id=1), vision_config=dict(SHARED, **IMAGES)
      )
    ),
    transformers.SiglipImageProcessor(size={"height": 16, "width": 16}),
    tokenizer(False),
  )


if __name__ == "__main__":
  main()
