"""SyCoCa-style (Ma et al., arXiv:2401.02137): CoCa, and an image painted by its text, each of half the patches.

    mmcontrast train --config methods/sycoca --workdir runs/sycoca
    mmcontrast caption drawing.png --workdir runs/sycoca

A patch is related to the text as much as the most similar of its tokens. The captioner reads the more related half of
the patches; an image decoder reads the other half and the text, and gives the pixels of the related ones. Weights 1
(contrast), 2 (captions) and 1, as in the paper. In use the captioner reads all patches. Towers are compared as they
are, without a projection, so that patches and words are in one space. Not known of the paper, so ours: the pixels' loss
(squared, of normalised patches, as MAE's) and the depth of their decoder; and the quickstart's data and schedule.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import coca

CAPTION, PICTURE = "decoder(text[0], related(image[0], text[0]))", "painter(unrelated(image[0], text[0]), text[0])"


def get_config(arg=None):
  c = coca.get_config()
  c.data.facts = ("ids", "pixels")
  c.towers.image = dict(name="vit", width=128, depth=4, heads=4, patch=4)
  c.towers.related = dict(name="attentive_mask", reads=("image", "text"), hides="unrelated")
  c.towers.unrelated = dict(name="attentive_mask", reads=("image", "text"), hides="related")
  c.towers.decoder.reads = ("text", "related")
  c.towers.painter = dict(name="patch_decoder", reads=("unrelated", "text"), width=64, depth=2, heads=4)
  c.heads = dict(
    image_joint=dict(tower="image", name="identity"),
    text_joint=dict(tower="text", name="identity"),
    words=c.heads.words,
    pixels=dict(tower="painter", name="token_linear", dim=4 * 4 * 3, bias=True),
  )
  c.objective.caption.embeddings = f"{CAPTION}/words"
  c.objective.pixels = dict(module=dict(name="masked_pixels", hidden="tower"), embeddings=f"{PICTURE}/pixels")
  return sized(c, arg)
