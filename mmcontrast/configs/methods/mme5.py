"""mmE5's loss (Chen et al., arXiv:2502.08468): a query, its target, and hard negatives that it alone sees.

    mmcontrast data retrieve emoji_views --split all --workdir runs/clip --field negative --out negatives.jsonl
    mmcontrast train --config methods/mme5:negatives=negatives.jsonl --workdir runs/mme5

Queries choose among the batch's targets and three further columns of their own, temperature 0.02, as released. The
paper's negatives are written by a model for its tasks; here they are the names of other concepts that a trained run
finds nearest to a drawing, made before (`data.added_captions`). Ours too: images are the queries, towers and schedule
are the quickstart's; the paper's is one multimodal language model with LoRA for both sides.
"""

from mmcontrast.config import arguments, smoke
from mmcontrast.configs import emoji

NEGATIVES = 3


def get_config(arg=None):
  a = arguments(arg, negatives="negatives.jsonl", smoke=False)
  c = emoji.pair(text=1 + NEGATIVES)
  c.data.update(added_captions=a.negatives, captions=("caption", *("negative",) * NEGATIVES))
  c.objective = dict(
    query_target=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      negative_keys=tuple(f"text[{1 + k}]/text_joint" for k in range(NEGATIVES)),
      negative_weights=(1.0, 0.0),
      temperature=0.02,
    )
  )
  return smoke(c) if a.smoke else c
