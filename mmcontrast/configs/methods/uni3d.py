"""Uni3D (Zhou et al., arXiv:2310.06773), in its manner: points, an image and a text of each thing in one space.

    mmcontrast data build furniture
    mmcontrast train --config methods/uni3d --workdir runs/uni3d

CLIP's loss of points with images and of points with texts, and, since here nothing is pretrained, of images with texts;
in the paper these two towers are a frozen EVA-CLIP, and the third a ViT that starts from images. The tower of points is
theirs: groups about farthest points, a small PointNet, a transformer, colours too. Data are `furniture`, some of
whose objects are held out.
"""

from mmcontrast.config import base_config, sized


def get_config(arg=None):
  c = base_config()
  c.steps, c.batch.size = 600, 64
  c.data.update(
    dataset="furniture",
    split="train",
    image_size=64,
    text_length=12,
    views=dict(image=1, text=1, points=1),
    crop=dict(scale=(0.7, 1.0)),
  )
  c.data.points.update(count=512, rotate=180.0)
  c.augment = dict(image=dict(flip=0.5, brightness=0.2, jitter_probability=0.8))
  c.towers = dict(
    image=dict(name="resnet18", stages=(1, 1, 1, 1), width=24, stem="patch2"),
    text=dict(name="text_transformer", width=64, depth=0, heads=4),
    points=dict(name="point_transformer", width=96, depth=3, heads=3, groups=32, size=24, hidden=32),
  )
  c.heads = {f"{name}_joint": dict(tower=name, name="linear", dim=128) for name in c.towers}
  temperature = dict(init=0.07, learned=True, min=0.01, clamp="after_step")
  common = dict(direction="both", target="same_id")
  points, image, text = "points[0]/points_joint", "image[0]/image_joint", "text[0]/text_joint"
  c.objective = dict(
    points_image=dict(query=points, key=image, temperature=temperature, **common),
    points_text=dict(query=points, key=text, temperature="points_image", **common),
    image_text=dict(query=image, key=text, temperature="points_image", **common),
  )
  c.optimizer = dict(name="adamw", learning_rate=dict(name="warmup_cosine", peak=1e-3, warmup_steps=50), clip_norm=1.0)
  c.evaluation.update(
    image="image_joint",
    text="text_joint",
    points="points_joint",
    features="points",
    data=dict(held_out=dict(dataset="furniture", split="test")),
    sets=("held_out",),
    evaluators=dict(retrieval=dict()),
  )
  return sized(c, arg)
