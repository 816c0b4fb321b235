"""Improved baselines for vision-language pre-training (Fini et al., arXiv:2305.08675), the losses of clip-rocket.

    mmcontrast train --config methods/improved_vlp --workdir runs/cl2l
    mmcontrast train --config methods/improved_vlp:loss=barlip --workdir runs/barlip      # or siamlip, swalip

CL2L: CLIP on plain views (weight 1/3), and on every pair of two augmented images and two texts (2/3) through heads of
their own, with label smoothing. The others add Barlow Twins, SimSiam or SwAV between images and texts. Names of a
concept stand for augmented captions; heads are 512 wide, not 4,096; data, towers and schedule are the quickstart's.
"""

import itertools

from mmcontrast.config import arguments, smoke
from mmcontrast.configs import emoji
from mmcontrast.errors import choose

LOCAL = tuple(itertools.product((1, 2), (1, 2)))  # views of the image, of the text
PAIRS = ((0, 0), *LOCAL)
WIDE = dict(name="mlp", dim=128, hidden=512, batch_norm=True)


def get_config(arg=None):
  a = arguments(arg, loss="cl2l", smoke=False)
  choose(a.loss, ("cl2l", "barlip", "siamlip", "swalip"), "the argument loss")
  c = emoji.pair(image=3, text=3)
  c.augment = dict(image=("none", *[c.augment.image.to_dict()] * 2))
  for tower in ("image", "text"):
    c.heads[f"{tower}_local"] = dict(WIDE, tower=tower, depth=3)
  c.objective = dict(
    plain=pair("joint", (0, 0), 1 / 3, 0.07, "softmax"),
    **{
      f"local_{v}{w}": pair("local", (v, w), 1 / 6, 0.1, dict(name="softmax", smoothing=0.1 * (a.loss != "swalip")))
      for v, w in LOCAL
    },
  )
  add = dict(barlip=add_barlip, siamlip=add_siamlip, swalip=add_swalip)
  if a.loss in add:
    add[a.loss](c)
  return smoke(c) if a.smoke else c


def add_barlip(c):
  for tower in ("image", "text"):
    c.heads[f"{tower}_redundancy"] = dict(WIDE, tower=tower)
  between = dict(regularizer=dict(name="barlow_twins", off_diagonal=0.005), weight=0.025 / 5)
  for v, w in PAIRS:
    c.objective[f"redundancy_{v}{w}"] = dict(between, embeddings=names("redundancy", v, w))


def add_siamlip(c):
  for tower in ("image", "text"):
    c.heads[f"{tower}_target"] = dict(WIDE, tower=tower, batch_norm_last=True)
    c.heads[f"{tower}_predictor"] = dict(WIDE, of=f"{tower}_target")
  for v, w in PAIRS:
    (image, text), (image_p, text_p) = names("target", v, w), names("predictor", v, w)
    for name, pair in ((f"to_text_{v}{w}", (image_p, text)), (f"to_image_{v}{w}", (text_p, image))):
      c.objective[name] = dict(regularizer="alignment", embeddings=pair, stop_gradient=pair[1], weight=0.1)


def add_swalip(c):
  (image, text), (other_image, other_text) = names("local", 1, 1), names("local", 2, 2)
  views = (image, other_image, text, other_text)
  c.objective.codes = dict(module=dict(name="swalip", temperature=0.1), embeddings=views, weight=0.2)


def names(head, image, text):
  return f"image[{image}]/image_{head}", f"text[{text}]/text_{head}"


def pair(head, views, weight, temperature, criterion):
  image, text = names(head, *views)
  shared = "local_11" if head == "local" and views != (1, 1) else dict(init=temperature, learned=True, min=0.01)
  return dict(query=image, key=text, direction="both", weight=weight, temperature=shared, criterion=criterion)
