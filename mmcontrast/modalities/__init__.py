"""The modalities: what a view of each holds and how it is prepared."""

from __future__ import annotations

from mmcontrast.modalities.audio_use import AudioInUse
from mmcontrast.modalities.image_use import ImageInUse
from mmcontrast.modalities.text_use import TextInUse
from mmcontrast.modalities.use import InUse as Modality
from mmcontrast.modalities.use import nothing_of, stacked

MODALITIES: dict[str, Modality] = {modality.name: modality for modality in (ImageInUse(), TextInUse(), AudioInUse())}

__all__ = ["MODALITIES", "Modality", "nothing_of", "stacked"]
