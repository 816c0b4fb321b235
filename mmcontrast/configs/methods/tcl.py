"""TCL (Yang et al., arXiv:2202.10401): triple contrast with momentum, matching with hard negatives, masked words.

    mmcontrast train --config methods/tcl --workdir runs/tcl

The six terms of `tcl_ita`; matching with hard negatives, which the scores of image to text and text to image draw;
masked words with the momentum branch in the target: both as in `albef`, with its fusion encoder. All three parts of
weight 1.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import albef, tcl_ita


def get_config(arg=None):
  c = tcl_ita.get_config()
  albef.add_fusion(c)
  albef.add_matching(c, "image_to_text", "text_to_image")
  c.evaluation.evaluators.retrieval.match_order = "head_and_cosine"
  albef.add_words(c, share=c.objective.image_to_text.target.share)
  return sized(c, arg)
