"""What the methods on videos start from: clips of furniture that only time tells apart, and what is said of them."""

from mmcontrast.config import base_config
from mmcontrast.configs.methods import tact
from mmcontrast.data.sources.furniture import MOTIONS, ORDERS


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


def tokens(head="token_linear"):
  """As `pair`, with one head of tokens a tower, of frames and of words, into the joint space."""
  c = pair("transformer", temporal_heads=2)
  c.heads = {f"{name}_tokens": dict(tower=name, name=head, dim=96) for name in c.towers}
  c.evaluation.update(video="video_tokens", text="text_tokens")
  return c


def in_both_orders(c):
  """Two clips and two captions an example, of the same frames in both orders, each the other's hard negative: the terms
  of a batch without its like in it need no time.

  The motions are classes too, of the clips and of the captions. Where towers begin with nothing, opposite orders are
  nearly one vector to either, and neither gains by telling apart what the other does not: a classifier waits for no
  other tower. A small ResNet sees each frame, which learns more of some hundred objects than a transformer of patches.
  Places in time begin as large as what frames show, the vector of a text is the mean of its tokens, so that words of
  names count alike wherever they stand, and a batch norm in the heads takes out what all clips, or all texts, have in
  common.
  """
  c.steps, c.batch.size = 700, c.batch.size // 2
  c.data.update(source=dict(orders="both"), captions=ORDERS, views=dict(video=2, text=2))
  c.data.video.columns = "in_order"
  between = dict(temporal=c.towers.video.temporal, temporal_heads=2, temporal_positions=0.5)
  c.towers.video = dict(name="frames", of=dict(name="resnet18", stages=(1, 1, 1), width=32, stem="patch4"), **between)
  c.towers.text = dict(name="text_transformer", width=64, depth=1, heads=2, pool="mean")
  for tower in c.towers:
    c.heads[f"{tower}_joint"] = dict(tower=tower, name="mlp", depth=1, dim=96, batch_norm_last=True)
    c.heads[f"{tower}_motion"] = dict(tower=tower, name="match", dim=len(MOTIONS))
  held_out, to_fit = (dict(dataset="furniture_turns", split=split) for split in ("validation", "train"))
  c.evaluation.data = dict(held_out=held_out, to_fit=to_fit)
  learned = dict(init=0.07, learned=True, min=0.01)
  motions = {
    label: dict(
      module=dict(name="classification", label=label),
      embeddings=tuple(f"{tower}[{view}]/{tower}_motion" for tower in c.towers),
      weight=1.0,
    )
    for view, label in enumerate(("motion", "reversed_motion"))
  }
  c.objective = dict(**motions, **tact.both_orders("video", (1.0, 1.0), learned, target="same_id"))
  c.optimizer.update(weight_decay=0.05)
  c.optimizer.learning_rate.peak = 3e-3


def contrast():
  """CLIP's term of a clip and its caption; of two with one caption both are right."""
  return dict(
    query="video[0]/video_joint",
    key="text[0]/text_joint",
    direction="both",
    target="same_id",
    temperature=dict(init=0.07, learned=True, min=0.01),
  )
