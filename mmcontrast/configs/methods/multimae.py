"""MultiMAE (Bachmann et al., arXiv:2204.01678): a sixth of the patches of several maps is seen, and all are painted.

    mmcontrast train --config methods/multimae --workdir runs/multimae

The maps are computed of the picture on the device: silhouette and edges stand for the paper's classes and depth.
How many patches are seen of which map is drawn by a Dirichlet distribution, from the example's own seed. A decoder for
each map attends to all that is seen. Colours: squared error of normalised patches; silhouette: cross entropy of two
classes; edges: absolute error. All of weight 1, as in the paper; `balance=True` of the three learns the weights. The
tower alone sees colours in evaluation. Ours: a ViT of patches of 4 px and the quickstart's data and schedule.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

LOSSES = {
  "colours": dict(dim=4 * 4 * 3, loss="mse", normalised=True),
  "silhouette": dict(dim=4 * 4 * 2, loss="cross_entropy", normalised=False),
  "edges": dict(dim=4 * 4, loss="l1", normalised=False),
}


def get_config(arg=None):
  c = emoji.images(views=1)
  c.data.update(facts=("masked", "pixels"), maps=dict(views=1, patch=4, kinds=("silhouette", "edges")))
  c.augment = dict(image="flip")
  c.towers.image = dict(name="map_vit", width=128, depth=4, heads=4, patch=4)
  c.heads = dict()
  for part, (name, of) in enumerate(LOSSES.items()):
    decoder = f"{name}_decoder"
    c.towers[decoder] = dict(name="map_decoder", reads=("image",), part=part, width=64, depth=2, heads=4)
    c.heads[name] = dict(tower=decoder, name="token_linear", dim=of["dim"], bias=True)
    module = dict(name="masked_pixels", loss=of["loss"], normalised=of["normalised"], part=part)
    c.objective[name] = dict(module=module, embeddings=f"{decoder}(image_maps[0])/{name}")
  return sized(c, arg)
