"""RS-M-CLIP (Silva et al., arXiv:2410.23370): CLIP in several languages, and self-distillation from local to global.

    mmcontrast train --config methods/rs_m_clip --workdir runs/rs_m_clip

Each text view is a name of the concept in one of nine languages, the paper's ten but Dutch, which the example draws;
CLIP's loss is on the first image view. As in DINO, an MLP of three layers and prototypes are on top of the image tower;
small crops follow the momentum teacher's whole views. The training code is not public: the weight of 1, the 1,024
prototypes and the teacher's temperatures are those of dino.py. The paper fine-tunes ViT-B/32 and XLM-R; data, towers
and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import clip, dino

LANGUAGES = ("en", "pt", "es", "fr", "de", "it", "zh", "ko", "ru")


def get_config(arg=None):
  c, distilled = clip.get_config(), dino.get_config()
  c.data.update(views=dict(image=2, text=1), languages=LANGUAGES, text_length=32, multi_crop=distilled.data.multi_crop)
  c.augment, c.momentum = distilled.augment, distilled.momentum
  c.heads.update(distilled.heads)
  c.objective.distillation = distilled.objective.views
  return sized(c, arg)
