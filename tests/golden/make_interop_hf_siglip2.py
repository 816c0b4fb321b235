"""Writes tests/golden/interop/hf_siglip2 and hf_siglip2_vision: tiny Siglip2Models (NaFlex) by transformers' own
saving, and what they give for images of several ratios.

    HF_HUB_OFFLINE=1 PYTHONPATH=tests/oracles .venv-oracles/bin/python tests/golden/make_interop_hf_siglip2.py

outputs.npz has the images, what the processor makes of them (by Pillow), and the outputs at two budgets of patches.
"""

import numpy as np
import torch
import transformers
from make_interop_hf_clip import HERE, SHARED, TEXTS, WORDS, randomise, tokenizer
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

SIZES = [(30, 50), (64, 17), (20, 20), (9, 41), (200, 130)]
VISION = dict(SHARED, patch_size=4, num_patches=9)
BUDGETS = (12, 20)


def pictures() -> list[np.ndarray]:
  draw = np.random.default_rng(0)
  coarse = [draw.integers(0, 256, (4, 4, 3)) for _ in SIZES]
  return [
    np.kron(one, np.ones((-(-height // 4), -(-width // 4), 1)))[:height, :width].astype(np.uint8)
    for one, (height, width) in zip(coarse, SIZES)
  ]


def main() -> None:
  print("torch", torch.__version__, "transformers", transformers.__version__)
  images = pictures()
  arrays = {f"image{number}": image for number, image in enumerate(images)} | {"texts": np.array(TEXTS)}
  processor = Siglip2ImageProcessorPil(patch_size=4, max_num_patches=BUDGETS[0])
  made = {most: processor(images, max_num_patches=most, return_tensors="pt") for most in BUDGETS}
  text = dict(SHARED, vocab_size=len(WORDS), max_position_embeddings=8)
  config = transformers.Siglip2Config(
    text_config=dict(text, bos_token_id=3, eos_token_id=1, pad_token_id=1), vision_config=VISION
  )
  for case, model in (
    ("hf_siglip2", transformers.Siglip2Model(config)),
    ("hf_siglip2_vision", transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**VISION))),
  ):
    folder = HERE / case
    randomise(model.eval())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    out = dict(arrays)
    with torch.no_grad():
      for most, inputs in made.items():
        vision = model.get_image_features if case == "hf_siglip2" else model
        found = vision(**inputs)
        out |= {f"{name}{most}": np.asarray(inputs[name]) for name in inputs}
        out |= {f"pooled{most}": found.pooler_output, f"tokens{most}": found.last_hidden_state}
      if case == "hf_siglip2":
        words = tokenizer(False)
        words.save_pretrained(folder)
        ids = words(TEXTS, padding="max_length", max_length=8, truncation=True, return_tensors="pt")["input_ids"]
        both = model(input_ids=ids, **made[BUDGETS[1]])
        out |= {"ids": ids.int(), "text": model.get_text_features(ids).pooler_output, "logits": both.logits_per_image}
    np.savez_compressed(folder / "outputs.npz", **{name: np.asarray(array) for name, array in out.items()})
    print(
      case, sum(path.stat().st_size for path in folder.iterdir()), "bytes", sorted(p.name for p in folder.iterdir())
    )


if __name__ == "__main__":
  main()
