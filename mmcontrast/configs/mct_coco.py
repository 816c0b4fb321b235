"""MCT-style training on COCO captions, for eight devices; see docs/methods/mct.md.

    mmcontrast train --config mct_coco --workdir runs/mct_coco \
        --config.data.dataset=coco:/data/coco     # train2017/, val2017/, annotations/

ResNet-50 at 224 px; the instance categories of an image are its tags (as VirTex builds
them); two of its five captions are the caption views. Optimizer and schedule follow
MoCo v2's, 200 epochs: the paper's own could not be read, so they are our choice.
"""

from mmcontrast.config import base_config, sized


def get_config(arg=None):
  c = base_config()
  c.steps, c.batch.size = 92_000, 256  # 200 epochs of 118,287 images, 32 a device
  c.data.update(
    dataset="coco:data/coco",
    split="train",
    image_size=224,
    centre_crop=0.875,
    text_length=32,
    views=dict(image=2, text=2),
    tokenizer="data/coco/tokenizer.model",
    crop=dict(scale=(0.2, 1.0)),
  )
  c.augment = dict(image="moco_v2")

  c.towers.image = dict(name="resnet50")
  c.towers.text = dict(name="text_transformer", width=512, depth=6, heads=8, pool="mean")
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128)
  c.heads.image_joint = dict(tower="image", name="mlp", dim=128)
  c.heads.text_ssl = dict(tower="text", name="mlp", dim=128)
  c.heads.text_joint = dict(tower="text", name="mlp", dim=128)
  c.momentum = dict(decay=0.999, update="before_keys")

  c.objective = dict(
    image_image=dict(
      query="image[0]/image_ssl",
      key="image[1]/image_ssl@momentum",
      negatives="queue:16384",
      temperature=0.2,
      weight=1.0,
    ),
    image_tags=dict(
      query="image[0]/image_ssl",
      key="image[1]/image_ssl@momentum",
      negatives="queue:16384",
      temperature=0.2,
      weight=1.0,
      target=dict(name="shared_tags", overlap="jaccard", threshold=0.5),
    ),
    text_text=dict(
      query="text[0]/text_ssl", key="text[1]/text_ssl@momentum", negatives="queue:16384", temperature=0.2, weight=1.0
    ),
    image_to_text=dict(
      query="image[0]/image_joint",
      key="text[1]/text_joint@momentum",
      negatives="queue:16384",
      temperature=0.07,
      weight=1.0,
    ),
    text_to_image=dict(
      query="text[0]/text_joint",
      key="image[1]/image_joint@momentum",
      negatives="queue:16384",
      temperature=0.07,
      weight=1.0,
    ),
  )

  c.optimizer = dict(
    name="sgd",
    momentum=0.9,
    weight_decay=1e-4,
    clip_norm=10.0,
    learning_rate=dict(name="warmup_cosine", peak=0.03, warmup_steps=1000),
  )
  c.checkpoint.update(every_steps=2000, keep_last=2)
  c.evaluation.update(
    image="image_joint",
    text="text_joint",
    features="image",
    sets=("coco_val",),
    data=dict(coco_val=dict(split="val")),
    evaluators=dict(retrieval=dict()),
  )
  return sized(c, arg)
