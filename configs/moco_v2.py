"""MoCo v2 (Chen et al., arXiv:2003.04297) on emoji: MCT's image-image term alone.

    mmcontrast train --config configs/moco_v2.py --workdir runs/moco_v2

Towers, data and schedule are the quickstart's. There is no text, so no joint space to
retrieve in: the probes say what the features are worth.
"""

import quickstart

from mmcontrast.config import smoke


def get_config(arg=None):
  c = quickstart.get_config()
  del c.towers.text, c.heads.image_joint, c.heads.text_ssl, c.heads.text_joint
  c.data.views = dict(image=2)
  c.objective = dict(image_image=c.objective.image_image)
  del c.objective.image_image.target            # the own key alone is positive
  c.evaluation.update(image="", text="")
  del c.evaluation.evaluators.retrieval, c.evaluation.evaluators.zero_shot
  return smoke(c) if arg == "smoke" else c
