"""SigLIP ViT-B/16 at 224 px (Zhai et al., arXiv:2303.15343), for 256 chips, v5e:16x16.

    mmcontrast train --config recipes/siglip_vit_b16 --dry_run --topology v5e:16x16
    mmcontrast train --config recipes/siglip_vit_b16 --workdir gs://bucket/siglip_b16 \
        --config.data.dataset='webdataset:gs://bucket/pairs/{00000..39999}.tar' --config.data.tokenizer=c4.model

Section 3.2 and algorithm 1: log scale from log 10, bias -10; section 4: batch 32,768, 9 billion pairs seen, a
vocabulary of 32,000 pieces, b2 0.95 for stability. As the released models (github.com/google-research/big_vision at
0127fb6, SigLIP_demo.ipynb): texts of 64 tokens, where the paper's experiments keep 16; attention pooling, the last
position of the text, no head for images, a text head with a bias. Rate 1e-3 and gradients clipped at 1 as in
that repository's siglip_lit_coco.py; no training config of SigLIP from scratch was published, so decay 1e-4 (not
multiplied by the rate there, ours is: 0.1 here), 10,000 steps of warm-up and a cosine are LiT's (arXiv:2111.07991).
Ours: AdamW, bfloat16; resizing without a crop, no flip.
"""

from mmcontrast.config import base_config, sized

SEEN, BATCH = 9_000_000_000, 32_768


def get_config(arg=None):
  c = base_config()
  c.steps, c.batch.size = SEEN // BATCH, BATCH
  c.data.update(
    dataset="webdataset:/data/{split}/{00000..39999}.tar",
    image_size=224,
    text_length=64,
    views=dict(image=1, text=1),
    crop=dict(scale=(1.0, 1.0), ratio=(1.0, 1.0)),
  )
  c.augment = dict(image="none")
  c.normalize = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
  shape = dict(width=768, depth=12, heads=12, norm_epsilon=1e-6, dtype="bfloat16", scan=True, remat="keep_products")
  c.towers.image = dict(name="vit", patch=16, pool="map", **shape)
  c.towers.text = dict(name="text_transformer", max_length=64, pool="last", attend_padding=True, **shape)
  c.heads.image_joint = dict(tower="image", name="identity")
  c.heads.text_joint = dict(tower="text", name="linear", dim=768, bias=True)
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      criterion="sigmoid",
      temperature=dict(init=0.1, learned=True),
      bias=dict(init=-10.0),
    )
  )
  c.optimizer = dict(
    name="adamw",
    b2=0.95,
    weight_decay=0.1,
    clip_norm=1.0,
    learning_rate=dict(name="warmup_cosine", peak=1e-3, warmup_steps=10_000),
  )
  c.checkpoint.update(every_steps=2000, keep_last=2)
  c.evaluation.update(image="image_joint", text="text_joint")
  c = sized(c, arg)
  if arg is not None:
    c.heads.text_joint.dim = c.towers.image.width  # the image has no head
  return c
