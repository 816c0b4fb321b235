"""FastCLIP v3 (Wei et al., arXiv:2407.01445): a softmax whose denominators are remembered for each example.

    mmcontrast train --config methods/fastclip --workdir runs/fastclip

Data, towers and schedule are the quickstart's. rho, and gamma's fall from 1 to 0.2 over half the run, are those
of the released CC3M command; that gamma falls at every step rather than every epoch, and that the temperature
has the towers' learning rate, is our choice. v1: multiply_tau=False and temperature=0.07.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      criterion=dict(name="compositional", rho=6.5, gamma=dict(name="cosine", init=1.0, end=0.2, steps=c.steps // 2)),
      temperature=dict(init=0.07, learned=True, min=0.01, max=1.0, clamp="after_step"),
    )
  )
  return sized(c, arg)
