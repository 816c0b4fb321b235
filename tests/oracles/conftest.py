"""Tests beside torch, open_clip, timm and transformers: `make oracles`, never part of `make test`."""

import torchvision_ops  # noqa: F401
