"""CoCu-style (Xing et al., arXiv:2309.13505): what captions leave out, found in an archive of concepts before training.

    mmcontrast data retrieve emoji_views --split all --workdir runs/clip --texts concepts.txt --field concept \
        --out concepts.jsonl
    mmcontrast train --config methods/cocu:concepts=concepts.jsonl --workdir runs/cocu

No code could be read: this is the idea alone, retrieved concepts as further captions of an image. CLIP's loss with the
caption and with each of two concepts, a third each, of one temperature. The archive is any list of texts; the run that
finds the concepts stands for the paper's CLIP. Data, towers and schedule are the quickstart's; the paper's ranking of
concepts by clusters of images and its segmentation are not part of this.
"""

from mmcontrast.config import arguments, smoke
from mmcontrast.configs import emoji

FIELDS = ("caption", "concept", "concept")


def get_config(arg=None):
  a = arguments(arg, concepts="concepts.jsonl", smoke=False)
  c = emoji.pair(text=len(FIELDS))
  c.data.update(added_captions=a.concepts, captions=FIELDS)
  for view in range(len(FIELDS)):
    c.objective[f"text_{view}"] = dict(
      query="image[0]/image_joint",
      key=f"text[{view}]/text_joint",
      direction="both",
      weight=1 / len(FIELDS),
      temperature="text_0" if view else dict(init=0.07, learned=True, min=0.01),
    )
  return smoke(c) if a.smoke else c
