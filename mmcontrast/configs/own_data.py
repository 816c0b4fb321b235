"""CLIP on pictures and captions of your own, from scratch: standard towers, which other packages load.

    mmcontrast data tokenizer jsonl:/data/mine.jsonl --source.image=None --out /data/mine.model
    mmcontrast train --config own_data --config.data.dataset=jsonl:/data/mine.jsonl \
        --config.data.tokenizer=/data/mine.model --workdir runs/mine
    mmcontrast evaluate --workdir runs/mine

A ViT and a causal transformer, as CLIP has them (Radford et al., arXiv:2103.00020), so that `mmcontrast export` to hf
and to open_clip take the run. Photographs are cropped at random, not flipped and not recoloured, since captions name
sides and colours. A tenth of the examples is held out, and retrieval on it is what `mmcontrast evaluate` shows.
Training goes over the data `epochs` times. Arguments, as in --config own_data:size=tiny,image_size=64,patch=8:

    size          tiny, small or base: width 192, 384 or 768 of the image tower
    image_size    pixels, a multiple of patch
    patch         pixels of a side of what the ViT takes for a token
    text_length   tokens of a caption, the first and the last mark included; what is longer is cut
    epochs        passes over the data
    batch         examples a step
    held_out      share of the examples that is not trained on; 0 where the data have a validation split of their own
    tokenizer     "clip" or "clip:PATH", CLIP's own; else as --config.data.tokenizer
    smoke         small enough for seconds on a CPU
"""

from mmcontrast.config import arguments, base_config, smoke
from mmcontrast.errors import UserError, choose

SIZES = {  # width of the image tower; width and depth of the text tower; length of the embeddings
  "tiny": (192, 192, 6, 192),
  "small": (384, 384, 8, 384),
  "base": (768, 512, 12, 512),
}


def get_config(arg=None):
  a = arguments(
    arg,
    size="small",
    image_size=224,
    patch=16,
    text_length=77,
    epochs=30.0,
    batch=256,
    held_out=0.1,
    tokenizer="sentencepiece",
    smoke=False,
  )
  width, text_width, text_depth, dim = SIZES[choose(a.size, SIZES, "the argument size")]
  if a.image_size % a.patch:
    raise UserError(f"the argument image_size={a.image_size} is not a multiple of patch={a.patch}")
  c = base_config()
  c.steps, c.epochs, c.batch.size = 0, a.epochs, a.batch
  c.data.update(
    dataset="",
    image_size=a.image_size,
    text_length=a.text_length,
    tokenizer=a.tokenizer,
    views=dict(image=1, text=1),
    crop=dict(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3)),
    resize=dict(mode="shortest", interpolation="bicubic"),
  )
  if a.held_out:
    c.data.source = dict(splits=dict(train=1 - a.held_out, validation=a.held_out))
  if a.tokenizer.partition(":")[0] == "clip":
    c.data.token_ids = dict(pad=0, bos=49406, eos=49407)
  c.augment = dict(image="none")
  c.normalize = dict(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))

  c.towers.image = dict(
    name="vit",
    patch=a.patch,
    width=width,
    depth=12,
    heads=width // 64,
    pool="cls",
    pre_norm=True,
    patch_bias=False,
    activation="gelu",
    norm_epsilon=1e-5,
  )
  c.towers.text = dict(
    name="text_transformer",
    width=text_width,
    depth=text_depth,
    heads=text_width // 64,
    causal=True,
    pool="eos",
    activation="gelu",
  )
  c.heads.image_joint = dict(tower="image", name="linear", dim=dim)
  c.heads.text_joint = dict(tower="text", name="linear", dim=dim)
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step"),
    )
  )
  c.optimizer = dict(
    name="adamw",
    b2=0.98,
    eps=1e-6,
    weight_decay=0.2,
    clip_norm=1.0,
    learning_rate=dict(name="warmup_cosine", peak=5e-4, warmup_epochs=a.epochs / 10),
  )
  c.evaluation.update(
    image="image_joint",
    text="text_joint",
    features="image",
    sets=("held_out",),
    data=dict(held_out=dict(split="validation")),
    evaluators=dict(retrieval=dict()),
  )
  return smoke(c) if a.smoke else c
