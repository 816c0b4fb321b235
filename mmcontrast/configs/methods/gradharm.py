"""After CM-GradHarm (Wu et al. 2022): what sound and text ask of the image tower must not point against each other.

    mmcontrast data build emoji_spoken
    mmcontrast train --config methods/gradharm --workdir runs/gradharm

Its paper could not be read: ours, not a reproduction. Two pair terms share the image tower. Of their gradients on it,
what one has against the other is taken out; and an example whose two gradients at the image embedding have a cosine
below a bound, which rises from -1 (none) to 0 over the run, teaches neither term in that step. The update rule costs a
backward pass a term. Data, towers and schedule are those of `trimodal`.
"""

from mmcontrast.config import sized
from mmcontrast.configs import trimodal


def get_config(arg=None):
  c = trimodal.three()
  for other in ("text", "audio"):
    c.objective[f"image_{other}"] = trimodal.pair("image", other)
  c.update_rule = dict(
    name="project_conflicts", on="towers/image/.*", drop_below=dict(name="linear", init=-1.0, end=0.0)
  )
  return sized(c, arg)
