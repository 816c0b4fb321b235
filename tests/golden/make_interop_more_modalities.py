"""Writes tests/golden/interop/hf_{xclip,videomae*,ast*,whisper}: tiny models of videos and sounds by transformers' own
saving, what their processors make of a sound, and what the models make of clips, spectrograms and texts.

    HF_HUB_OFFLINE=1 PYTHONPATH=tests/oracles .venv-oracles/bin/python tests/golden/make_interop_more_modalities.py
"""

import pathlib

import numpy as np
import tokenizers
import torch
import torchvision_ops  # noqa: F401
import transformers

HERE = pathlib.Path(__file__).parent / "interop"
RANDOM = np.random.default_rng(0)


def randomise(model: torch.nn.Module) -> None:
  """Gives every number a value of its own: no norm's scale is left 1, no bias 0."""
  torch.manual_seed(0)
  for name, parameter in model.named_parameters():
    one = ("norm" in name or "_ln." in name) and "weight" in name
    torch.nn.init.normal_(parameter, mean=1.0 if one else 0.0, std=0.2)


def save(case: str, model: transformers.PreTrainedModel, processor, run) -> None:
  """`run`: model -> what it makes, by name."""
  folder = HERE / case
  randomise(model.eval())
  model.save_pretrained(folder)
  if processor is not None:
    processor.save_pretrained(folder)
  with torch.no_grad():
    arrays = {name: np.asarray(array) for name, array in run(model).items()}
  np.savez_compressed(folder / "outputs.npz", **arrays)
  (folder / "generation_config.json").unlink(missing_ok=True)
  print(case, sum(path.stat().st_size for path in folder.iterdir()), "bytes", {n: a.shape for n, a in arrays.items()})


def clips(frames: int, size: int = 16) -> np.ndarray:
  return RANDOM.standard_normal((2, frames, size, size, 3)).astype(np.float32)


def turned(videos: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(videos.transpose(0, 1, 4, 2, 3).copy())


def sound(seconds: float, rate: int = 16_000) -> np.ndarray:
  at = np.arange(round(seconds * rate)) / rate
  return (0.3 * np.sin(2 * np.pi * 600 * at**2) + 0.02 * RANDOM.standard_normal(len(at))).astype(np.float32)


def xclip() -> None:
  same = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3)
  text = dict(same, vocab_size=40, max_position_embeddings=12, eos_token_id=39, pad_token_id=0, bos_token_id=38)
  vision = dict(
    same, patch_size=8, image_size=16, num_frames=3, mit_hidden_size=16, mit_intermediate_size=64,
    mit_num_hidden_layers=2, mit_num_attention_heads=2,
  )  # fmt: skip
  model = transformers.XCLIPModel(
    transformers.XCLIPConfig(
      text_config=text, vision_config=vision, projection_dim=16, prompt_num_attention_heads=2, prompt_layers=2
    )
  )
  videos, words = clips(3), tokenizer()
  texts = ["w1 w2", " ".join(f"w{n}" for n in range(1, 11)), "w9 w3 w3 w7 w5"]
  ids = np.asarray(words(texts, padding="max_length", max_length=12)["input_ids"])

  def run(model):
    out = model(
      input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(ids > 0), pixel_values=turned(videos),
      return_loss=False,
    )  # fmt: skip
    plain = model.text_projection(out.text_model_output.pooler_output)
    return dict(
      videos=videos, ids=ids, video=out.video_embeds, text=plain, told=out.text_embeds, logits=out.logits_per_video
    )

  save("hf_xclip", model, video_processor(), run)
  words.save_pretrained(HERE / "hf_xclip")


def tokenizer() -> transformers.PreTrainedTokenizerFast:
  """Texts end with the highest id, as CLIP's do."""
  numbers = {word: i for i, word in enumerate(["<pad>", *(f"w{n}" for n in range(1, 38)), "<s>", "</s>"])}
  model = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="w37"))
  model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  model.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 38), ("</s>", 39)]
  )
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=model, model_max_length=12, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="w37"
  )


def video_processor():
  return transformers.VideoMAEImageProcessor(
    size={"shortest_edge": 18}, crop_size={"height": 16, "width": 16}, do_center_crop=True
  )


def videomae() -> None:
  shared = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, patch_size=8, image_size=16,
    num_frames=4, tubelet_size=2, decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
    decoder_intermediate_size=8,
  )  # fmt: skip
  videos = clips(4)
  makers = {
    "hf_videomae": (transformers.VideoMAEModel, dict(use_mean_pooling=True)),
    "hf_videomae_norm": (transformers.VideoMAEForPreTraining, dict(use_mean_pooling=False)),
    "hf_videomae_classes": (transformers.VideoMAEForVideoClassification, dict(num_labels=3)),
  }
  for case, (maker, options) in makers.items():
    processor = transformers.VideoMAEVideoProcessor(
      size={"shortest_edge": 18}, crop_size={"height": 16, "width": 16}
    ) if case == "hf_videomae_norm" else video_processor()  # fmt: skip

    def run(model):
      tokens = getattr(model, "videomae", model)(turned(videos)).last_hidden_state
      pooled = model.fc_norm(tokens.mean(1)) if hasattr(model, "fc_norm") else tokens.mean(1)
      return dict(videos=videos, tokens=tokens, pooled=pooled)

    save(case, maker(transformers.VideoMAEConfig(**shared, **options)), processor, run)


def ast() -> None:
  shared = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, max_length=50, num_mel_bins=24
  )
  extractor = transformers.ASTFeatureExtractor(num_mel_bins=24, max_length=50)
  waves = [sound(0.3), sound(0.7)]
  values = extractor(waves, sampling_rate=16_000, return_tensors="np")["input_values"]
  for case, maker in (("hf_ast", transformers.ASTModel), ("hf_ast_classes", transformers.ASTForAudioClassification)):
    options = dict(patch_size=8, frequency_stride=6, time_stride=7) if case == "hf_ast" else dict(num_labels=3)

    def run(model):
      out = getattr(model, "audio_spectrogram_transformer", model)(torch.from_numpy(values))
      found = dict(tokens=out.last_hidden_state[:, 2:], pooled=out.pooler_output, spectrograms=values)
      return found | {f"wave{n}": wave for n, wave in enumerate(waves)}

    save(case, maker(transformers.ASTConfig(**shared, **options)), extractor, run)


def whisper() -> None:
  config = transformers.WhisperConfig(
    d_model=24, encoder_layers=2, encoder_attention_heads=3, encoder_ffn_dim=40, num_mel_bins=16,
    max_source_positions=50, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8, vocab_size=11,
    max_target_positions=4, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    suppress_tokens=None, begin_suppress_tokens=None,
  )  # fmt: skip
  extractor = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1)
  waves = [sound(0.4), sound(1.0)]
  values = extractor(waves, sampling_rate=16_000, return_tensors="np")["input_features"]

  def run(model):
    encoder = model.encoder if hasattr(model, "encoder") else model.model.encoder
    tokens = encoder(torch.from_numpy(values)).last_hidden_state
    found = dict(tokens=tokens, pooled=tokens.mean(1), spectrograms=values.transpose(0, 2, 1))
    return found | {f"wave{n}": wave for n, wave in enumerate(waves)}

  save("hf_whisper", transformers.WhisperModel(config), extractor, run)


def main() -> None:
  print("torch", torch.__version__, "transformers", transformers.__version__)
  xclip()
  videomae()
  ast()
  whisper()


if __name__ == "__main__":
  main()
