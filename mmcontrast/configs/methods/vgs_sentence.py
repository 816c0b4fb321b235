"""VGS sentence embeddings (Merkx and Frank, arXiv:1903.11393): texts as letters, a hinge, and what they say of meaning.

    mmcontrast train --config methods/vgs_sentence --workdir runs/vgs_sentence
    mmcontrast evaluate --workdir runs/vgs_sentence --config.evaluation.evaluators.similarity.file=sts-test.tsv

The caption encoder reads bytes and knows no words; every negative must score 0.2 less than the own pair, all of them
count, both ways. The released loss divides the sum by N^2: 2/N times ours. Ours: a transformer for the recurrent
network over characters, and the quickstart's image tower. Evaluated as the paper does, by the similarity of texts:
here of names, by the tags that emoji share, or of any file of rated pairs.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji
from mmcontrast.configs.methods import vse_hinge


def get_config(arg=None):
  c = emoji.pair()
  c.data.update(tokenizer="bytes", text_length=48)
  c.towers.text = dict(name="text_transformer", width=128, depth=2, heads=4, pool="mean")
  c.objective = vse_hinge.get_config().objective
  c.evaluation.evaluators.similarity = dict(sets=("emoji_noto",))
  return sized(c, arg)
