"""The quickstart, ten times as long: where its ceiling is.

    mmcontrast train --config configs/mct_emoji.py --workdir runs/mct_emoji
"""

import quickstart

from mmcontrast.config import smoke


def get_config(arg=None):
  c = quickstart.get_config()
  c.steps *= 10
  c.checkpoint.every_steps = 2000
  return smoke(c) if arg == "smoke" else c
