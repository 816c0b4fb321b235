"""TIPS-style (Maninis et al., arXiv:2410.16512): two captions, crops that follow whole views, and hidden patches.

    mmcontrast train --config methods/tips --workdir runs/tips

    1/2 (pair with caption 1 + pair with caption 2) + local to global + 2 x hidden patches

Each caption has a head of its own on one whole view (published: a first token of its own; one caption noisy, one
written by a model). 75 % of the patches are hidden at random (iBOT's loss). No training code is public: heads,
momentum and prototypes (1,024, published 32k) are ours, as in `silc`. It is with `silc` what SigLIP 2 adds to SigLIP.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods.silc import SMALL, distillation, start


def get_config(arg=None):
  c = start()
  c.heads.image_second = dict(c.heads.image_joint)
  c.heads.image_patch = dict(tower="image", name="token_mlp", dim=128, hidden=512, depth=3)
  c.heads.image_ibot = dict(of="image_patch", name="token_prototypes", dim=1024)
  pair = dict(direction="both", weight=0.5)
  distill = distillation(c, *SMALL, "image[0]/image_dino@momentum")
  c.objective = dict(
    first=dict(
      pair, query="image[0]/image_joint", key="text[0]/text_joint", temperature=dict(init=0.07, learned=True, min=0.01)
    ),
    second=dict(pair, query="image[0]/image_second", key="text[1]/text_joint", temperature="first"),
    local_to_global=distill,
    patches=dict(
      module=dict(distill["module"], name="ibot"),
      embeddings=("image_masked[0]/image_ibot", "image[0]/image_ibot@momentum"),
      weight=2.0,
    ),
  )
  return sized(c, arg)
