"""LXMERT-style (Tan and Bansal, arXiv:1908.07490): towers that read each other, matching and masked words.

    mmcontrast train --config methods/lxmert --workdir runs/lxmert

In each of the cross-modality layers text and image attend to each other by one module. Two of the paper's five tasks:
whether a text belongs to the image, every second one being of another example, all of them equally probable; and the
words of a masked text. Cells of the image tower's map stand for detected objects: their classes, attributes and
features are not predicted, and no questions are answered. There is no joint space, so that words and probes show what
it learns. Data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji
from mmcontrast.configs.methods import albef


def get_config(arg=None):
  c = emoji.pair()
  c.towers.fusion = dict(name="cross_modal_transformer", reads=("text", "image"), width=128, depth=2, heads=4)
  c.heads = dict(match=dict(tower="fusion", name="match"))
  c.objective.match = dict(
    module=dict(name="matching"),
    embeddings=("fusion(text[0], image[0])/match", "fusion(text[0]~uniform, image[0])/match"),
  )
  c.evaluation.update(image="", text="")
  del c.evaluation.evaluators.retrieval, c.evaluation.evaluators.zero_shot
  albef.add_words(c)
  return sized(c, arg)
