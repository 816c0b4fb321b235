"""LXMERT-style (Tan and Bansal, arXiv:1908.07490): words and regions that read each other, and four of its five tasks.

    mmcontrast data build emoji_scenes
    mmcontrast train --config methods/lxmert --workdir runs/lxmert

Composed scenes of emoji with true boxes: a region is what the image's map has within a box, and where that is. In the
cross-modality layers text and regions attend to each other by one module. Whether a text belongs to the image, every
second one being of another example, all equally probable; the words of a masked text; and of 15 % of the regions,
hidden, the words of their names and their features, normalised, as the momentum branch has them. All of weight 1, as
published; no questions. There is no joint space: words and probes show what it learns. Schedule as the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import albef, cloc

REGIONS = "regions(cells(image[0]))"
HIDE = 0.15


def get_config(arg=None):
  c = cloc.scenes()
  c.towers.cells = dict(name="region_cells", reads=("image",), cells=2)
  c.towers.regions = dict(name="region_transformer", reads=("cells",), width=128, depth=1, heads=4, hide=HIDE)
  c.towers.fusion = dict(
    name="cross_modal_transformer", reads=("text", "regions"), width=128, depth=2, heads=4, second=True
  )
  c.towers.seen = dict(name="second_stream", reads=("fusion",))
  c.heads = dict(match=dict(tower="fusion", name="match"))
  c.objective = dict(
    match=dict(
      module=dict(name="matching"),
      embeddings=(f"fusion(text[0], {REGIONS})/match", f"fusion(text[0]~uniform, {REGIONS})/match"),
    )
  )
  c.evaluation.update(image="", text="", sets=("scenes",))
  c.evaluation.evaluators = dict()
  albef.add_words(c)
  c.objective.words.embeddings = (f"fusion(text_masked[0], {REGIONS})/words",)
  c.data.facts = ("ids", "masked", "box")
  add_regions(c)
  return sized(c, arg)


def add_regions(c):
  """Hidden regions: the words of their names, and their features."""
  c.heads.region_words = dict(tower="seen", name="words", transform=True, bias=True)
  c.heads.seen_as_they_are = dict(tower="seen", name="token_identity")
  c.heads.cells_as_they_are = dict(tower="cells", name="token_identity")
  seen = f"seen(fusion(text[0], {REGIONS}))"
  c.objective.region_words = dict(module=dict(name="region_words", share=HIDE), embeddings=f"{seen}/region_words")
  c.objective.region_features = dict(
    module=dict(name="region_features", share=HIDE, normalised=True),
    embeddings=(f"{seen}/seen_as_they_are", "cells(image[0])/cells_as_they_are@momentum"),
  )
  c.momentum.decay = 0.99
