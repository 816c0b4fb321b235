"""MCT-style training on emoji: ten minutes on two CPU cores.

    mmcontrast train --config quickstart --workdir runs/quickstart

Two drawings of a concept (Twemoji, OpenMoji) are its two image views, two of its names its
caption views, CLDR keywords its tags. Every term compares with momentum keys and a queue of
them; a key of the same concept (in image_tags: of overlapping tags) is a positive. Google's
drawings (emoji_noto) are never trained on: retrieval on them is the number to look at.
"""

from mmcontrast.config import base_config, sized


def get_config(arg=None):
  c = base_config()
  c.steps, c.batch.size = 1800, 128
  c.data.update(
    dataset="emoji_views",
    split="all",
    image_size=32,
    trim=True,
    centre_crop=0.875,
    text_length=12,
    views=dict(image=2, text=2),
    crop=dict(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3)),
  )
  # MoCo v2's jitter, but less grey and no blur: colour means something here, and 32 px are few.
  c.augment = dict(
    image=dict(flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter_probability=0.8, grey=0.1)
  )

  c.towers.image = dict(name="resnet18", stages=(1, 1, 1, 1), width=24, stem="patch2")
  c.towers.text = dict(name="text_transformer", width=128, depth=0, heads=4, pool="mean")  # a bag of word pieces
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128)
  c.heads.image_joint = dict(tower="image", name="linear", dim=128)
  c.heads.text_ssl = dict(tower="text", name="mlp", dim=128)
  c.heads.text_joint = dict(tower="text", name="linear", dim=128)
  c.momentum = dict(decay=0.98, update="before_keys")

  c.objective = dict(
    image_image=dict(
      query="image[0]/image_ssl",
      key="image[1]/image_ssl@momentum",
      target="same_id",
      negatives="queue:1024",
      temperature=0.1,
      weight=1.0,
    ),
    image_tags=dict(
      query="image[0]/image_ssl",
      key="image[1]/image_ssl@momentum",
      negatives="queue:1024",
      temperature=0.1,
      weight=0.2,
      target=dict(name="shared_tags", overlap="jaccard", threshold=0.3),
    ),
    text_text=dict(
      query="text[0]/text_ssl",
      key="text[1]/text_ssl@momentum",
      target="same_id",
      negatives="queue:1024",
      temperature=0.1,
      weight=0.2,
    ),
    image_to_text=dict(
      query="image[0]/image_joint",
      key="text[1]/text_joint@momentum",
      target="same_id",
      negatives="batch+queue:1024",
      temperature=0.07,
      weight=1.0,
    ),
    text_to_image=dict(
      query="text[0]/text_joint",
      key="image[1]/image_joint@momentum",
      target="same_id",
      negatives="batch+queue:1024",
      temperature=0.07,
      weight=1.0,
    ),
  )

  c.optimizer = dict(
    name="adamw",
    learning_rate=dict(name="warmup_cosine", peak=2e-3, warmup_steps=100),
    weight_decay=0.05,
    clip_norm=1.0,
  )
  c.evaluation.update(
    image="image_joint",
    text="text_joint",
    features="image",
    sets=("emoji_views:twemoji", "emoji_views:openmoji", "emoji_noto"),
    optional_sets=("emoji_noto",),
    evaluators=dict(
      retrieval=dict(),
      zero_shot=dict(label="group", templates=("{}", "a drawing of {}")),
      # The same on raw pixels and on these towers before training: what they stand on.
      knn=dict(label=("concept", "group", "subgroup"), baselines=("pixels", "untrained")),
      linear_probe=dict(label="group", baselines=("pixels", "untrained")),
      tagging=dict(),
    ),
  )
  return sized(c, arg)
