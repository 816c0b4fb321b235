"""The quickstart, ten times as long.

mmcontrast train --config mct_emoji --workdir runs/mct_emoji
"""

from mmcontrast.config import sized
from mmcontrast.configs import quickstart


def get_config(arg=None):
  c = quickstart.get_config()
  c.steps *= 10
  c.checkpoint.every_steps = 2000
  return sized(c, arg)
