"""CLIP ViT-B/16 as published (Radford et al., arXiv:2103.00020), for 256 chips, v5e:16x16.

    mmcontrast train --config recipes/clip_vit_b16 --dry_run --topology v5e:16x16
    mmcontrast train --config recipes/clip_vit_b16 --workdir gs://bucket/clip_b16 \
        --config.data.dataset='webdataset:gs://bucket/pairs/{00000..39999}.tar'

Tables 18 and 19: batch 32,768, 32 epochs of 400 million pairs, rate 5e-4 after 2,000 steps of warm-up and a cosine,
AdamW with b2 0.98 and eps 1e-6, decay 0.2, temperature from 0.07, the scale at most 100, 76 tokens and the mark;
section 2.3: a random square crop and nothing else. Ours: bfloat16 where the paper has half precision, no clipping of
gradients. CLIP's vocabulary is the file of OpenAI's release: see docs/tokenizers.md.
"""

from mmcontrast.config import base_config, sized

PAIRS, BATCH, EPOCHS = 400_000_000, 32_768, 32


def get_config(arg=None):
  c = base_config()
  c.steps, c.batch.size = EPOCHS * PAIRS // BATCH, BATCH
  c.data.update(
    dataset="webdataset:/data/{split}/{00000..39999}.tar",
    image_size=224,
    text_length=77,
    tokenizer="clip",
    token_ids=dict(pad=0, bos=49406, eos=49407),
    views=dict(image=1, text=1),
    crop=dict(scale=(0.9, 1.0), ratio=(1.0, 1.0)),
    resize=dict(mode="shortest", interpolation="bicubic"),
  )
  c.augment = dict(image="none")
  c.normalize = dict(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
  shape = dict(depth=12, activation="quick_gelu", norm_epsilon=1e-5, dtype="bfloat16", scan=True, remat="keep_products")
  c.towers.image = dict(name="vit", patch=16, width=768, heads=12, pool="cls", pre_norm=True, patch_bias=False, **shape)
  c.towers.text = dict(name="text_transformer", width=512, heads=8, causal=True, pool="eos", **shape)
  c.heads.image_joint = dict(tower="image", name="linear", dim=512)
  c.heads.text_joint = dict(tower="text", name="linear", dim=512)
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
    learning_rate=dict(name="warmup_cosine", peak=5e-4, warmup_steps=2000),
  )
  c.checkpoint.update(every_steps=2000, keep_last=2)
  c.evaluation.update(image="image_joint", text="text_joint")
  return sized(c, arg)
