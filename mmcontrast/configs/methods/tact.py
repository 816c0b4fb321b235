"""TACT (Bagad et al., arXiv:2301.02074): a film and its text, against both of them in reversed order.

    mmcontrast train --config methods/tact --workdir runs/tact

Originals and reversed copies are each other's hard negatives: in the denominator the own reversed one counts twice,
those of others half (the released loss takes any two weights; these are ours). Plain products without a temperature,
cross entropy both ways, added up. Two emoji side by side stand for a film of two events, "A before B" and "B after A"
for its text; the towers can tell places apart, and start from nothing, where the paper goes on from a trained model.
Evaluated on pairs of held-out concepts, each order an example of its own.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

WEIGHTS = (2.0, 0.5)


def start(of, modality):
  """Data, towers and evaluation of two things in an order; two views of each side, original and reversed."""
  c = emoji.pair()
  c.data.update(dataset="emoji_order", source=dict(of=of), split="train", captions=("forward", "reversed"))
  c.data.update(tokenizer="bytes", text_length=64, trim=False)
  c.data.views = {modality: 2, "text": 2}
  c.towers.text = dict(name="text_transformer", width=128, depth=2, heads=4, pool="mean")
  c.evaluation.update(sets=("order",), optional_sets=())
  c.evaluation.data.order = dict(dataset="emoji_order", source=dict(of=of, orders="one", pairs=1), split="test")
  c.evaluation.evaluators = dict(retrieval=dict())
  return c


def both_orders(modality, weights, temperature, **options):
  """Each side chooses among the other's originals and reversed copies: four terms of one temperature, of which each
  order has half."""
  first = f"text_{modality}_forward"
  sides = {side: [f"{side}[{order}]/{side}_joint" for order in range(2)] for side in (modality, "text")}
  found = {
    f"{query}_{key}_{('forward', 'reversed')[order]}": dict(
      query=sides[query][order],
      key=sides[key][order],
      negative_keys=sides[key][1 - order],
      negative_weights=weights,
      temperature=first,
      weight=0.5,
      **options,
    )
    for query, key in (("text", modality), (modality, "text"))
    for order in range(2)
  }
  found[first]["temperature"] = temperature
  return found


def get_config(arg=None):
  c = start("emoji_views", "image")
  c.data.update(drawings="in_order", image_size=32, crop=dict(scale=(0.8, 1.0), ratio=(1.0, 1.0)), centre_crop=1.0)
  c.towers.image = dict(name="vit", patch=4, width=128, depth=4, heads=4, pool="gap")
  c.objective = both_orders("image", WEIGHTS, 1.0, score="dot")
  return sized(c, arg)
