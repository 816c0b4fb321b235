"""Writes tests/golden/interop/open_clip_*: tiny models by open_clip's own saving, and what they give.

    HF_HUB_OFFLINE=1 PYTHONPATH=tests/oracles .venv-oracles/bin/python tests/golden/make_interop_open_clip.py

Each folder has the config, the weights and outputs.npz: images [B, H, W, 3] and ids [B, L], and the embeddings and
logits of both, float32; of CoCa also "words" [B, L, V], the logits of the decoder.
"""

import json
import pathlib
import tempfile

import numpy as np
import safetensors.torch
import tokenizers
import torch
import torchvision_ops  # noqa: F401

import open_clip  # isort: skip
import timm  # isort: skip
import transformers  # isort: skip
from open_clip.push_to_hf_hub import save_config_for_hf  # isort: skip

HERE = pathlib.Path(__file__).parent / "interop"
TEXT = {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 2}
VIT = {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
SIGLIP = {
  **TEXT,
  "no_causal_mask": True,
  "proj_bias": True,
  "pool_type": "last",
  "norm_kwargs": {"eps": 1e-6},
  "hf_tokenizer_name": "of/another-place",
  "tokenizer_kwargs": {"clean": "canonicalize"},
}
TEXTS = ["A red heart!", "two  dogs, a cat's heart; a dog and a cat of two red hearts", "_dog_", ""]
CASES = {
  "clip": {"embed_dim": 12, "vision_cfg": VIT, "text_cfg": TEXT},
  "quickgelu": {
    "embed_dim": 12,
    "quick_gelu": True,
    "vision_cfg": {**VIT, "ls_init_value": 0.5, "no_ln_pre": True},
    "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 39},
  },
  "resnet": {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": [1, 2, 1, 1], "width": 2, "head_width": 16, "patch_size": None},
    "text_cfg": {**TEXT, "layers": 1},
  },
  "siglip": {
    "embed_dim": 16,
    "init_logit_bias": -10,
    "custom_text": True,
    "text_cfg": SIGLIP,
    "vision_cfg": {
      "image_size": 16,
      "timm_model_name": "vit_tiny_patch8_siglip_16",
      "timm_pool": "map",
      "timm_proj": "none",
    },
  },
  "coca": {
    "embed_dim": 16,
    "custom_text": True,
    "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
    "vision_cfg": {
      **VIT,
      "width": 24,
      "attentional_pool": True,
      "attn_pooler_heads": 2,
      "attn_pooler_queries": 3,
      "output_tokens": True,
    },
    "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
  },
}


@timm.models.register_model
def vit_tiny_patch8_siglip_16(pretrained: bool = False, **options) -> torch.nn.Module:
  """timm's SigLIP ViT, as small as the others."""
  shape = dict(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, class_token=False, global_pool="map")
  return timm.models.vision_transformer._create_vision_transformer(
    "vit_tiny_patch8_siglip_16", pretrained, **{**shape, **options}
  )


def randomise(model: torch.nn.Module) -> None:
  """Gives every number a value of its own, those of norms and running statistics too."""
  torch.manual_seed(0)
  for name, array in model.state_dict().items():
    if name.endswith("running_var"):
      array.uniform_(0.5, 1.5)
    elif array.is_floating_point():
      norm = array.ndim == 1 and name.endswith("weight")
      array.normal_(1.0 if norm else 0.0, 0.2)
  model.logit_scale.data.fill_(2.125)
  if model.logit_bias is not None:
    model.logit_bias.data.fill_(-3.25)


def ids(vocabulary: int, length: int) -> torch.Tensor:
  """Texts of 3, 5 and all tokens, which begin with the last id but one, end with the last, and are padded with 0."""
  draw = np.random.default_rng(0)
  rows = np.zeros((3, length), np.int64)
  for row, used in zip(rows, (3, 5, length)):
    row[:used] = [vocabulary - 2, *draw.integers(1, vocabulary - 2, used - 2), vocabulary - 1]
  return torch.from_numpy(rows)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
  """Words, with an eos after texts, which pads them too, and no bos: what SigLIP's tokenizer does."""
  words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "a", "red", "heart", "cat", "dog", "two", "s"])}
  model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
  model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  model.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=model, pad_token="</s>", eos_token="</s>", unk_token="<unk>"
  )


def save(case: str, config: dict) -> None:
  folder = HERE / f"open_clip_{case}"
  with tempfile.TemporaryDirectory() as scratch:
    (pathlib.Path(scratch) / f"{case}.json").write_text(json.dumps(config))
    open_clip.add_model_config(scratch)
    model = open_clip.create_model(case).eval()
  randomise(model)
  folder.mkdir(parents=True, exist_ok=True)
  safetensors.torch.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
  save_config_for_hf(model, folder / "open_clip_config.json", config)
  size = config["vision_cfg"]["image_size"]
  images = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 3, size, size)).astype(np.float32))
  texts = ids(TEXT["vocab_size"], TEXT["context_length"])
  with torch.no_grad():
    image, text = model.encode_image(images, normalize=False), model.encode_text(texts, normalize=False)
    unit = [torch.nn.functional.normalize(rows, dim=-1) for rows in (image, text)]
    logits = model.logit_scale.exp() * unit[0] @ unit[1].T + (0 if model.logit_bias is None else model.logit_bias)
  arrays = {"images": images.permute(0, 2, 3, 1), "ids": texts.int(), "image": image, "text": text, "logits": logits}
  if "hf_tokenizer_name" in config["text_cfg"]:
    tokenizer().save_pretrained(folder)
    arrays["texts"] = np.array(TEXTS)
    arrays["texts_ids"] = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS).int()
  if "multimodal_cfg" in config:
    with torch.no_grad():
      arrays["words"] = model(images, texts, output_labels=False)["logits"]
  np.savez_compressed(folder / "outputs.npz", **{name: np.asarray(array) for name, array in arrays.items()})
  print(folder, sum(file.stat().st_size for file in folder.iterdir()) // 1024, "KB; open_clip", open_clip.__version__)


if __name__ == "__main__":
  for name, tower in CASES.items():
    save(name, tower)
