"""CAPro (Qin et al., arXiv:2310.09761): classes from doubtful labels, by moving prototypes and votes of a queue.

    mmcontrast train --config methods/capro --workdir runs/capro

The label is the emoji's group. Prototypes are the means of its classes before epoch 20, and move from then on; labels
are corrected, and doubtful examples left out, from step 600. Weights, temperature, momentum and threshold are the
released ones (WebVision). Ours: prototypes start from all examples (the paper's from those whose text matches the class
best), and the labels are not those of a web search. Data, tower and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_features = dict(tower="image", name="identity")
  views = ("image[0]/image_ssl", "image[0]/image_features", "image[1]/image_ssl@momentum")
  c.objective = dict(
    classes=dict(module=dict(name="capro", label="group", classes=9, queue=1024, clean_from=600), embeddings=views)
  )
  c.epoch_hooks = dict(
    prototypes=dict(name="class_means", term="classes", embedding=views[2], label="group", first_epoch=20)
  )
  return sized(c, arg)
