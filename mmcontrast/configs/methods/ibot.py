"""iBOT (Zhou et al., arXiv:2111.07832): DINO, and a teacher's word on the patches that the student does not see.

    mmcontrast train --config methods/ibot --workdir runs/ibot

Of half of the whole views 10 to 50 % of the patches are hidden behind a learned token, at random (published: in
blocks). The student's first token follows the teacher's of the other view, its hidden patches those of the same view;
both weights are 1. Heads share no layer (as DINOv2's), ReLU for GELU, a ViT of patches of 4 px; the rest is `dino`'s.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import dino


def get_config(arg=None):
  c = dino.get_config()
  c.data.update(facts=("masked",), masked=dict(views=2, patch=4, share=(0.1, 0.5), probability=0.5))
  c.towers.image = dict(name="vit", width=128, depth=4, heads=4, patch=4, pool="cls", mask_token=True)
  c.heads.image_patch = dict(tower="image", name="token_mlp", dim=128, hidden=512, depth=3)
  c.heads.image_ibot = dict(of="image_patch", name="token_prototypes", dim=1024)
  masked, small = [f"image_masked[{v}]" for v in range(2)], [f"image_small[{v}]" for v in range(4)]
  teachers = [f"image[{v}]" for v in range(2)]
  c.objective.views.embeddings = (*through("image_dino", [*masked, *small]), *through("image_dino@momentum", teachers))
  c.objective.patches = dict(
    module=dict(c.objective.views.module, name="ibot"),
    embeddings=(*through("image_ibot", masked), *through("image_ibot@momentum", teachers)),
  )
  return sized(c, arg)


def through(head, views):
  return tuple(f"{view}/{head}" for view in views)
