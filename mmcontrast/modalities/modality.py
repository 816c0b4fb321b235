"""What a modality is: all that the rest of the house asks of images, texts, sounds.

A modality is a class in a file of its name and a line in modalities/__init__.py; nothing else names it.
docs/tutorials/new_modality.md adds one.
"""

from __future__ import annotations

from mmcontrast.modalities.use import InUse
from mmcontrast.modalities.views import Views


class Modality(InUse, Views):
  """A modality: in training (`Views`) and in use (`InUse`)."""
