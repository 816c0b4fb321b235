"""CLIP-MoE (Zhang et al., arXiv:2409.19291): a dense CLIP fine-tuned twice, its MLPs the experts of a sparse one.

    mmcontrast train --config methods/clip_moe --workdir runs/clip_moe

Stage `dense` is CLIP; `second` trains its MLPs alone, every batch of one cluster of what `dense` takes for the same
(MCL, arXiv:2402.11816), so that they tell apart what it does not; `experts` puts the MLPs of both side by side, two of
each, of which a gate chooses two for each token, with the balance of the two towers' experts at 0.01. Ours: two dense
models for four, small towers, everything trained in the last stage, and one text for a short and a long one. Data and
schedule are the quickstart's, in three parts.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

EXPERTS, TOP = 4, 2
PARTS = ("towers/image", "towers/text", "heads/image_joint", "heads/text_joint", "terms/image_text")


def get_config(arg=None):
  c = emoji.pair()
  dense = dict(
    image=dict(name="vit", width=96, depth=3, heads=3, patch=4, pool="gap", activation="quick_gelu"),
    text=dict(name="text_transformer", width=96, depth=2, heads=3, pool="mean", activation="quick_gelu"),
  )
  image, text = "image[0]/image_joint", "text[0]/text_joint"
  temperature = dict(init=0.07, learned=True, min=0.01, clamp="after_step")
  pair = dict(query=image, key=text, direction="both", temperature=temperature)
  c.towers = dense
  c.objective = dict(image_text=pair)
  sparse = {name: dict(options, experts=EXPERTS, top_experts=TOP) for name, options in dense.items()}
  balance = dict(module=dict(name="expert_balance"), embeddings=(image, text), weight=0.01)
  clusters = dict(name="cluster_batches", clusters=5, embeddings=("image[0]/features",))
  c.stages = (
    dict(name="dense", steps=900),
    dict(
      name="second",
      steps=300,
      towers=dict(dense, before=dict(dense["image"], modality="image")),
      heads=dict(c.heads, features=dict(tower="before", name="identity")),
      init={part: f"dense:{part}" for part in PARTS} | {"towers/before": "dense:towers/image"},
      optimizer=dict(frozen=(r"towers/before/.*", r"(towers|heads)/(?!.*/mlp/).*", "terms/.*")),
      epoch_hooks=dict(groups=clusters),
    ),
    dict(
      name="experts",
      steps=600,
      towers=sparse,
      objective=dict(image_text=pair, balance=balance),
      init={
        **{part: dict(experts=(f"dense:{part}", f"second:{part}")) for part in PARTS[:2]},
        **{part: f"dense:{part}" for part in PARTS[2:]},
      },
    ),
  )
  return sized(c, arg)
