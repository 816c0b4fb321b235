"""MV-DHEL (Koromilas et al., arXiv:2507.06979): views attract together, and repel within each view.

    mmcontrast train --config methods/mv_dhel --workdir runs/mv_dhel

All but the criterion is mv_infonce.py's: four views, two drawings of a concept, each augmented twice; temperature 0.5.
"""

from mmcontrast.configs.methods import mv_infonce


def get_config(arg=None):
  c = mv_infonce.get_config(arg)
  c.objective.image_image.criterion = "mv_dhel"
  return c
