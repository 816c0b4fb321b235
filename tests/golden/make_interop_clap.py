"""Writes tests/golden/interop/hf_{clap,swin,roberta}: tiny models by transformers' own saving, what
ClapFeatureExtractor makes of sounds, and what the models make of spectrograms, images and texts.

    HF_HUB_OFFLINE=1 PYTHONPATH=tests/oracles .venv-oracles/bin/python tests/golden/make_interop_clap.py
"""

import numpy as np
import tokenizers
import torch
import transformers
from make_interop_more_modalities import HERE, RANDOM, save, sound

WORDS = dict(
  vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
  max_position_embeddings=14, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
)  # fmt: skip
TEXTS = ["w1 w2", " ".join(f"w{n}" for n in range(1, 11)), "w9 w3 w3 w7 w5"]


def tokenizer() -> transformers.PreTrainedTokenizerFast:
  """Ids of the special tokens as RoBERTa has them."""
  numbers = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", *(f"w{n}" for n in range(1, 38))])}
  model = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="w37"))
  model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  model.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
  )
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=model, model_max_length=12, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="w37"
  )


def words_of() -> torch.Tensor:
  return torch.from_numpy(np.asarray(tokenizer()(TEXTS, padding="max_length", max_length=12)["input_ids"]))


def clap() -> None:
  audio = dict(
    window_size=4, num_mel_bins=16, spec_size=64, patch_size=4, patch_stride=[4, 4], hidden_size=32, depths=[2, 2],
    num_attention_heads=[2, 4], patch_embeds_hidden_size=16, enable_fusion=False, mlp_ratio=2.0, num_hidden_layers=2,
  )  # fmt: skip
  model = transformers.ClapModel(transformers.ClapConfig(text_config=WORDS, audio_config=audio, projection_dim=20))
  extractor = transformers.ClapFeatureExtractor(
    feature_size=16, sampling_rate=8_000, hop_length=80, max_length_s=1, fft_window_size=256, frequency_min=50,
    frequency_max=3_500, truncation="rand_trunc", padding="repeatpad",
  )  # fmt: skip
  waves = [sound(seconds, 8_000) for seconds in (0.3, 1.0, 0.7)]  # three times and silence, whole, once and silence
  values = extractor(waves, sampling_rate=8_000, return_tensors="np")["input_features"]
  ids = words_of()
  norm = model.audio_model.audio_encoder.batch_norm
  spread = torch.from_numpy(values).flatten(0, 2)
  norm.running_mean.copy_(spread.mean(0) + 1)
  norm.running_var.copy_(spread.var(0) * 2)

  def run(model):
    out = model(input_ids=ids, attention_mask=(ids != 1).long(), input_features=torch.from_numpy(values))
    found = dict(
      ids=ids, spectrograms=values, audio=out.audio_embeds, text=out.text_embeds, logits_a=out.logits_per_audio,
      logits_t=out.logits_per_text, audio_map=out.audio_model_output.last_hidden_state,
      audio_pooled=out.audio_model_output.pooler_output, text_tokens=out.text_model_output.last_hidden_state,
      **{f"{padding}": extractor(waves[:1], sampling_rate=8_000, return_tensors="np", padding=padding)["input_features"]
         for padding in ("repeat", "pad")},
    )  # fmt: skip
    return found | {f"wave{n}": wave for n, wave in enumerate(waves)}

  save("hf_clap", model, extractor, run)
  tokenizer().save_pretrained(HERE / "hf_clap")


def swin() -> None:
  """Maps of 10 x 10 and 5 x 5 cells: windows of 4 that are filled up, and a merging of an odd side."""
  config = transformers.SwinConfig(
    image_size=20, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, mlp_ratio=2.0
  )
  processor = transformers.ViTImageProcessor(size={"height": 20, "width": 20})
  images = RANDOM.standard_normal((2, 20, 20, 3)).astype(np.float32)

  def run(model):
    out = getattr(model, "swin", model)(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    return dict(images=images, pooled=out.pooler_output, tokens=out.last_hidden_state)

  save("hf_swin", transformers.SwinForImageClassification(config), processor, run)


def roberta() -> None:
  ids = words_of()

  def run(model):
    out = model(input_ids=ids, attention_mask=(ids != 1).long())
    return dict(ids=ids, pooled=out.pooler_output, tokens=out.last_hidden_state)

  save("hf_roberta", transformers.RobertaModel(transformers.RobertaConfig(**WORDS)), None, run)
  tokenizer().save_pretrained(HERE / "hf_roberta")


if __name__ == "__main__":
  print("torch", torch.__version__, "transformers", transformers.__version__)
  clap()
  swin()
  roberta()
