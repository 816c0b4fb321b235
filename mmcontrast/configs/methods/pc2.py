"""PC2 (Duan et al., arXiv:2408.01349): of pairs of which some are wrong, the right teach and the wrong borrow captions.

    mmcontrast train --config methods/pc2 --workdir runs/pc2                  # 40 % of the captions are shuffled
    mmcontrast train --config methods/pc2:noise=0.6 --workdir runs/pc2_60
    mmcontrast train --config methods/clip --config.data.shuffled_captions.share=0.4 --workdir runs/clip_40

A hinge whose margin grows with how likely a pair is right. Two mixtures between epochs say so: of losses, and of how
far pseudo-classes moved. The image of a wrong pair borrows the text of the right one of the batch with the most similar
classes. Margin 0.2, its exponential growth, weight of the entropy, threshold, and the classes' loss as a mean beside a
hinge that is a sum over the batch are released. Ours: 64 classes, from the joint embeddings, one network for two, a
split every 4 epochs, 8 epochs of warm-up on the mean negative, as there, and 30 over which the hardest takes its place:
if it does so at once, all embeddings become one. Data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import arguments, smoke
from mmcontrast.configs import emoji

CLASSES = 64
PATHS = dict(images="image[0]/image_joint", texts="text[0]/text_joint", classes="image[0]/image_classes")


def get_config(arg=None):
  a = arguments(arg, noise=0.4, smoke=False)
  c = emoji.pair()
  c.data.shuffled_captions = dict(share=a.noise, seed=0)
  c.heads.image_classes = dict(of="image_joint", name="linear", dim=CLASSES)
  c.heads.text_classes = dict(of="text_joint", name="linear", dim=CLASSES, shared=dict(fc1="image_classes"))
  warmed_up = dict(name="linear", init=0.0, end=1.0, begin_epochs=8, epochs=30)
  c.objective = dict(
    pairs=dict(
      module=dict(name="noisy_pairs", count=CLASSES, hardest=warmed_up),
      embeddings=(*PATHS.values(), "text[0]/text_classes"),
    )
  )
  c.epoch_hooks = dict(right=dict(name="pair_mixture", term="pairs", **PATHS, every_epochs=4, first_epoch=8))
  return smoke(c) if a.smoke else c
