"""ALPRO (Li et al., arXiv:2112.09583), of images: align, match, guess words, and say what a hidden region shows.

    mmcontrast train --config methods/alpro --workdir runs/alpro

Stage `prompter` trains the towers by contrast alone. Stage `align` goes on from there, and keeps what it started from
as a frozen branch: the prompter. It sees the crop of a region, and its similarities to the prompts of the entities,
here the mean of each subgroup's names, are the soft label that the rest of the image and the text must give, by a
fusion whose tokens are the image's patches. Besides contrast, matching with hard negatives and masked words, all of
weight 1.
Ours: images for videos; two fusions, one of words and one of patches, where the paper has one of both; subgroups of
emoji for a thousand nouns of captions; a learned token in the place of erased pixels; the shares of a region.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji
from mmcontrast.configs.methods import albef

PARTS = ("towers/image", "towers/text", "heads/image_joint", "heads/text_joint", "terms/image_text")


def get_config(arg=None):
  c = emoji.pair()
  c.towers.image = dict(name="vit", width=128, depth=4, heads=4, patch=4, mask_token=True)
  c.objective.image_text = dict(
    query="image[0]/image_joint",
    key="text[0]/text_joint",
    direction="both",
    temperature=dict(init=0.07, learned=True, form="tau", min=0.001, max=0.5),
  )
  prompter = emoji.stage(c.copy_and_resolve_references(), "prompter", steps=600)
  c.momentum.decay = 1.0  # the prompter stays as it is
  albef.add_fusion(c)
  albef.add_matching(c, "image_text", "image_text")
  albef.add_words(c)
  c.data.masked = dict(views=1, patch=4, shape="square", share=(0.2, 0.5), probability=1.0)
  c.towers.looking = dict(c.towers.fusion, reads=("image", "text"))
  c.heads.looked = dict(tower="looking", name="token_linear", dim=128)
  c.objective.entities = dict(
    module=dict(name="entity_prompts", label="subgroup", classes=100),
    embeddings=("looking(image_masked[0], text[0])/looked", "image_region[0]/image_joint@momentum"),
  )
  prompts = dict(name="class_means", term="entities", embedding="text[0]/text_joint", label="subgroup")
  align = dict(name="align", steps=1200, init={part: f"prompter:{part}" for part in PARTS})
  c.stages = (prompter, dict(align, epoch_hooks=dict(prompts=prompts)))
  return sized(c, arg)
