"""SimSiam (Chen and He, arXiv:2011.10566): a predictor on one view finds the other, which is held still.

    mmcontrast train --config methods/simsiam --workdir runs/simsiam

No negatives and no momentum branch: minus the mean cosine of both ways, plus 1 (a quarter of the squared distances of
unit vectors). The projector ends in a batch norm without scale and bias, the predictor is a bottleneck. Optimizer,
augmentation and schedule are the quickstart's; the paper keeps the predictor's learning rate constant.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=256, depth=3, batch_norm=True, batch_norm_last=True)
  c.heads.predictor = dict(of="image_ssl", name="mlp", dim=256, hidden=64, batch_norm=True)
  c.objective = {
    f"view_{v}": dict(
      regularizer="alignment",
      weight=1 / 4,
      stop_gradient=f"image[{1 - v}]/image_ssl",
      embeddings=(f"image[{v}]/predictor", f"image[{1 - v}]/image_ssl"),
    )
    for v in range(2)
  }
  return sized(c, arg)
