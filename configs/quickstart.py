"""MCT-style training on emoji: ten minutes on two CPU cores.

    mmcontrast train --config configs/quickstart.py --workdir runs/quickstart

Two drawings of a concept (Twemoji, OpenMoji) are its two image views, two of its
names its caption views, CLDR keywords its tags. Intra-modal terms compare with a
momentum encoder's queue, inter-modal ones with the batch. Google's drawings (emoji_noto) are
never trained on: retrieval on them is the number to look at.
"""

from mmcontrast.config import base_config, smoke


def get_config(arg=None):
  c = base_config()
  c.steps, c.batch.size = 1800, 128
  c.data.update(dataset="emoji_views", split="all", image_size=32, trim=True, text_length=12,
                views=dict(image=2, text=2), crop=dict(scale=(0.7, 1.0), ratio=(0.8, 1.25)))
  # Colour means something here, and a run this short has no time for strong augmentation.
  c.augment = dict(image=dict(flip=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.03,
                              jitter_probability=0.8, grey=0.05))

  c.towers.image = dict(name="resnet18", width=24, stem="patch")
  c.towers.text = dict(name="text_transformer", width=128, depth=1, heads=4, pool="mean")
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128)
  c.heads.image_joint = dict(tower="image", name="linear", dim=128)
  c.heads.text_ssl = dict(tower="text", name="mlp", dim=128)
  c.heads.text_joint = dict(tower="text", name="linear", dim=128)
  c.momentum = dict(decay=0.99, update="before_keys")

  c.objective = dict(
      image_image=dict(query="image[0]/image_ssl", key="image[1]/image_ssl@momentum",
                       negatives="queue:1024", temperature=0.1, weight=1.0),
      image_tags=dict(query="image[0]/image_ssl", key="image[1]/image_ssl@momentum",
                      negatives="queue:1024", temperature=0.1, weight=0.2,
                      target=dict(name="shared_tags", overlap="jaccard", threshold=0.3)),
      text_text=dict(query="text[0]/text_ssl", key="text[1]/text_ssl@momentum",
                     negatives="queue:1024", temperature=0.1, weight=0.2),
      image_to_text=dict(query="image[0]/image_joint", key="text[0]/text_joint", weight=1.0,
                         temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step")),
      text_to_image=dict(query="text[0]/text_joint", key="image[0]/image_joint", weight=1.0,
                         temperature="image_to_text"))

  c.optimizer = dict(name="adamw", learning_rate=dict(name="warmup_cosine", peak=2e-3, warmup_steps=100),
                     weight_decay=0.05, clip_norm=1.0)
  c.evaluation.update(
      image="image_joint", text="text_joint", features="image",
      sets=("emoji_views:twemoji", "emoji_views:openmoji", "emoji_noto"), optional_sets=("emoji_noto",),
      evaluators=dict(
          retrieval=dict(),
          zero_shot=dict(label="group", templates=("{}", "a drawing of {}")),
          knn=dict(label=("concept", "group", "subgroup")),
          linear_probe=dict(label="group"),
          tagging=dict()))
  return smoke(c) if arg == "smoke" else c
