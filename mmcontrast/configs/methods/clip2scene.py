"""CLIP2Scene-style (Chen et al., arXiv:2301.04926): points learn from the pixels they are seen in and from words.

    mmcontrast data build furniture
    mmcontrast train --config methods/clip2scene --workdir runs/clip2scene

Stage `clip` trains images and texts by contrast; a cell of the image's map goes through the same layer as the whole, so
cells can be compared with texts. Stage `points` leaves both as they are and trains the tower of points alone: a group
of points comes near the cell of its pixel, and gives the class that this cell is most like by text; of a share of
examples that rises to a half it gives what the points themselves answer. The prompts are means of texts by the room
that things stand in; that is all that is known of labels. Ours: single objects (`furniture_pixels`) for streets,
groups of a point transformer for superpixels, a small CLIP trained here, means of texts for names of classes, one scan
of each thing.
"""

from mmcontrast.config import base_config, sized

FROZEN = ("towers/image", "towers/text", "heads/image_joint", "heads/text_joint")


def get_config(arg=None):
  c = base_config()
  c.batch.size = 64
  c.data.update(dataset="furniture_pixels", split="train", image_size=64, text_length=12, views=dict(image=1, text=1))
  c.data.crop = dict(scale=(0.7, 1.0))
  c.data.points.update(count=512, rotate=180.0)
  c.augment = dict(image=dict(flip=0.5, brightness=0.2, jitter_probability=0.8))
  c.towers = dict(
    image=dict(name="resnet18", stages=(1, 1, 1), width=24, stem="patch2"),
    text=dict(name="text_transformer", width=64, depth=0, heads=4),
  )
  c.heads = {f"{name}_joint": dict(tower=name, name="linear", dim=128) for name in c.towers}
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      target="same_id",
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step"),
    )
  )
  c.optimizer = dict(name="adamw", learning_rate=dict(name="warmup_cosine", peak=1e-3, warmup_steps=50), clip_norm=1.0)
  held_out = dict(held_out=dict(dataset="furniture_pixels", split="test"))
  c.evaluation.update(image="image_joint", text="text_joint", data=held_out, sets=("held_out",))
  c.evaluation.evaluators = dict(retrieval=dict())
  c.stages = (dict(name="clip", steps=600), points(c))
  return sized(c, arg)


def points(c):
  """The stage that trains the tower of points, of what `clip` has trained."""
  tower = dict(name="point_transformer", width=96, depth=3, heads=3, groups=32, size=24, hidden=32, pool="gap")
  joint = dict(c.heads, points_joint=dict(tower="points", name="linear", dim=128))
  dense = {
    f"{name}_dense": dict(tower=name, name="token_linear", dim=128, shared=dict(fc1=f"{name}_joint"))
    for name in ("image", "points")
  }
  rising = dict(name="linear", init=0.0, end=0.5)
  return dict(
    name="points",
    steps=600,
    init={part: f"clip:{part}" for part in FROZEN},
    data=dict(views=dict(image=1, text=1, points=1), facts=("box", "pixel")),
    towers=dict(c.towers, points=tower),
    heads=joint | dense,
    objective=dict(
      points=dict(
        module=dict(name="point_pixels", label="group", classes=12, self_training=rising),
        embeddings=("points[0]/points_dense", "image[0]/image_dense"),
      )
    ),
    epoch_hooks=dict(prompts=dict(name="class_means", term="points", embedding="text[0]/text_joint", label="group")),
    optimizer=dict(frozen=tuple(f"{part}/.*" for part in FROZEN)),
    evaluation=dict(points="points_joint", features="points"),
  )
