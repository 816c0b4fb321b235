"""The modalities: what a view of each holds, how it is prepared, and how it is used."""

from __future__ import annotations

from mmcontrast.modalities.audio import Audio
from mmcontrast.modalities.graph import Graph
from mmcontrast.modalities.image import Image
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.points import Points
from mmcontrast.modalities.series import Series
from mmcontrast.modalities.text import Text
from mmcontrast.modalities.use import nothing_of, stacked
from mmcontrast.modalities.video import Video
from mmcontrast.modalities.written import Written

MODALITIES: dict[str, Modality] = {
  modality.name: modality for modality in (Image(), Text(), Audio(), Video(), Written(), Series(), Points(), Graph())
}

__all__ = ["MODALITIES", "Modality", "modality_of", "nothing_of", "original_of", "stacked"]


def modality_of(view_set: str) -> str:
  """The modality of a set of views, such as "image" of "image_small"; of an unknown one its name."""
  return next((name for name, modality in MODALITIES.items() if view_set in modality.view_sets), view_set)


def original_of(view_set: str) -> str:
  """The set whose views a set has other versions of, such as "image" of "image_masked"; of any other set its name."""
  modality = MODALITIES.get(modality_of(view_set))
  return modality.versions.get(view_set, view_set) if modality else view_set
