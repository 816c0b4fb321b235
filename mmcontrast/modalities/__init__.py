"""The modalities: what a view of each holds, how it is prepared, and how it is used."""

from __future__ import annotations

from mmcontrast.modalities.audio import Audio
from mmcontrast.modalities.image import Image
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.text import Text
from mmcontrast.modalities.use import nothing_of, stacked

MODALITIES: dict[str, Modality] = {modality.name: modality for modality in (Image(), Text(), Audio())}

__all__ = ["MODALITIES", "Modality", "nothing_of", "stacked"]
