"""LiT with a locked ViT-L/16 (Zhai et al., arXiv:2111.07991), for 64 chips, v5e:8x8.

    mmcontrast train --config recipes/lit_vit_l16 --dry_run --topology v5e:8x8
    mmcontrast train --config recipes/lit_vit_l16 --workdir gs://bucket/lit_l16 \
        --config.init.towers/image=big_vision:vit@L_16.npz \
        --config.data.dataset='webdataset:gs://bucket/pairs/{00000..9999}.tar' --config.data.tokenizer=c4.model

The image tower keeps the weights it starts with and has no head; without `config.init` it is a random one and stays
so. The paper's setting for public data: batch 16,384 and 983 million pairs, which are 60,000 steps (so the released
LiT-B16B_2: github.com/google-research/vision_transformer at c6de1e5, model_cards/lit.md), rate 1e-3 after 10,000 steps
and a cosine, decay 1e-4, which is not multiplied by the rate, ours is, so it is 0.1 here. Gradients clipped at 1, scale
from 10, texts of 16 tokens, no head for images, a text head of 1,024 with a bias: github.com/google-research/big_vision
at 0127fb6, configs/proj/image_text. The text tower is L: 24 blocks of width 1,024. Ours: a text tower from scratch
where the released L16L starts from BERT, AdamW where the paper has its Adafactor, bfloat16.
"""

from mmcontrast.config import base_config, sized


def get_config(arg=None):
  c = base_config()
  c.steps, c.batch.size = 60_000, 16_384
  c.data.update(
    dataset="webdataset:/data/{split}/{00000..09999}.tar",
    image_size=224,
    text_length=16,
    views=dict(image=1, text=1),
    crop=dict(scale=(1.0, 1.0), ratio=(1.0, 1.0)),
  )
  c.augment = dict(image="none")
  c.normalize = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
  shape = dict(width=1024, depth=24, heads=16, dtype="bfloat16", scan=True)
  c.towers.image = dict(name="vit", patch=16, pool="cls", activation="gelu", **shape)
  c.towers.text = dict(name="text_transformer", max_length=16, pool="cls", remat="keep_products", **shape)
  c.heads.image_joint = dict(tower="image", name="identity")
  c.heads.text_joint = dict(tower="text", name="linear", dim=1024, bias=True)
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint", key="text[0]/text_joint", direction="both", temperature=dict(init=0.1, learned=True)
    )
  )
  c.optimizer = dict(
    name="adamw",
    b2=0.95,
    weight_decay=0.1,
    clip_norm=1.0,
    frozen=("towers/image/.*",),
    learning_rate=dict(name="warmup_cosine", peak=1e-3, warmup_steps=10_000),
  )
  c.checkpoint.update(every_steps=2000, keep_last=2)
  c.evaluation.update(image="image_joint", text="text_joint")
  c = sized(c, arg)
  if arg is not None:
    c.heads.text_joint.dim = c.towers.image.width
  return c
