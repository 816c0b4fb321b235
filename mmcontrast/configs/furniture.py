"""What the methods on videos start from: clips of furniture that only time tells apart, and what is said of them."""

from mmcontrast.config import base_config


def pair(temporal="mean", **tower):
  """Clips of 8 frames of 32 px and captions, a head into the joint space each, no term."""
  c = base_config()
  c.steps, c.batch.size = 1200, 64
  c.data.update(dataset="furniture_turns", split="train", crop=dict(scale=(0.7, 1.0)), text_length=32)
  c.data.views = dict(video=1, text=1)
  c.data.video.update(frames=8, size=32)
  c.augment = {}
  c.towers = dict(
    video=dict(name="video_vit", width=96, depth=3, heads=3, patch=8, temporal=temporal, **tower),
    text=dict(name="text_transformer", width=96, depth=2, heads=3),
  )
  c.heads = {f"{name}_joint": dict(tower=name, name="linear", dim=96) for name in c.towers}
  c.optimizer = dict(name="adamw", learning_rate=dict(name="warmup_cosine", peak=1e-3, warmup_steps=100), clip_norm=1.0)
  c.evaluation.update(
    video="video_joint",
    text="text_joint",
    features="video",
    data=dict(held_out=dict(split="validation"), to_fit=dict(split="train")),
    sets=("held_out",),
    train_sets=("to_fit",),
    evaluators=dict(retrieval=dict(), linear_probe=dict(label="motion")),
  )
  return c


def contrast():
  """CLIP's term of a clip and its caption; of two with one caption both are right."""
  return dict(
    query="video[0]/video_joint",
    key="text[0]/text_joint",
    direction="both",
    target="same_id",
    temperature=dict(init=0.07, learned=True, min=0.01),
  )
