"""Protocols by name: what a number was measured by, written beside it, so that two of one name can be compared.

A protocol fixes what two implementations may do differently: how images are made square, which captions count, how ties
fall, on what a probe trains. What a run chooses itself (the size of its images, for one) stands in the same record:
`described`. docs/protocols.md says of each what is verified and how.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmcontrast.errors import choose
from mmcontrast.evaluation.protocols.named import CLIP_BENCHMARK, OF_RUN, OURS, PROTOCOLS, Protocol

__all__ = [
  "CLIP_BENCHMARK",
  "OURS",
  "PROTOCOLS",
  "Protocol",
  "described",
  "digest",
  "names_in",
  "names_of",
  "of_images",
]


def described(name: str, config: Mapping[str, Any] | None = None, **facts: Any) -> dict[str, Any]:
  """What is written beside a result.

  Args:
    name: of PROTOCOLS.
    config: of the run, for what the protocol leaves to it.
    facts: what else is known, such as split="test" or prompts=`digest(...)`; None is left out.
  """
  one = PROTOCOLS[choose(name, PROTOCOLS, "protocol")]
  out = {"protocol": one.name, "version": one.version, "ties": one.ties, **one.details}
  if config is not None:
    out |= {**of_images(config), **({} if one.resize == OF_RUN else {"asked_resize": one.resize})}
  return out | {key: value for key, value in facts.items() if value is not None}


def names_of(given: str | Sequence[str]) -> list[str]:
  """The protocols that an evaluator is asked for: one or several."""
  return [given] if isinstance(given, str) else list(given)


def names_in(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """The protocols of records of `described`, each once."""
  return list(dict.fromkeys(f"{one['protocol']}-{one['version']}" for one in records.values()))


def of_images(config: Mapping[str, Any]) -> dict[str, Any]:
  """How a run's evaluation makes images: size, resize, crop, interpolation and normalisation."""
  data, norm = config["data"], config.get("normalize", {})
  resize = data.get("resize", {})
  return {
    **_sizes(data),
    "interpolation": resize.get("interpolation"),
    "crop": data.get("centre_crop"),
    **({"trim": True} if data.get("trim") else {}),
    "normalisation": {key: list(value) for key, value in norm.items()},
    "text_length": data.get("text_length"),
  }


def _sizes(data: Mapping[str, Any]) -> dict[str, Any]:
  """How large images are, and how they are made so."""
  native = data.get("native", {})
  if native.get("patches"):
    return {"patch": native["patch"], "patches": native["patches"][-1], "resize": "native"}
  return {"image_size": data.get("image_size"), "resize": data.get("resize", {}).get("mode")}


def digest(*parts: Sequence[Any]) -> str:
  """16 hexadecimal digits of texts, such as templates and names of classes, in their order."""
  text = json.dumps([list(part) for part in parts], ensure_ascii=False, default=list)
  return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
