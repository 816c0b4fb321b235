"""Orbax in object stores: gs:// as it is, s3:// with a part that it lacks.

Orbax (0.12.8) takes an s3:// address for a path of the disk when it tells TensorStore where to write, though both can
write there. On gs:// it asks whether the bucket has a hierarchical namespace, and fails where one may read and write
objects, but not ask that. Completeness is decided by a file that is written last: no store has a rename.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

from mmcontrast import folders

COMMIT_FILE = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)
"""How a checkpoint in a store is known to be complete: by its commit_success.txt."""


def mend() -> None:
  """From now on Orbax writes to s3:// in this process, and to gs:// by whoever may; done again, it does nothing."""
  if hasattr(gcs_utils.get_kvstore_for_gcs, "__wrapped__"):
    return
  normalize = tensorstore_utils._normalize_path
  tensorstore_utils._normalize_path = lambda path: normalize(path).replace("s3:/", "s3://")
  tensorstore_utils._use_gcs_driver = lambda path: path.startswith(tuple(f"{one}://" for one in folders.STORES))
  gcs_utils.get_kvstore_for_gcs = _or_s3(gcs_utils.get_kvstore_for_gcs)
  gcs_utils.is_hierarchical_namespace_enabled = _or_no(gcs_utils.is_hierarchical_namespace_enabled)


def _or_s3(spec: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
  @functools.wraps(spec)
  def of_either(path: str) -> dict[str, Any]:
    return _s3_spec(path) if path.startswith("s3://") else spec(path)

  return of_either


def _s3_spec(path: str) -> dict[str, Any]:
  """TensorStore's spec of s3://BUCKET/PATH, with the endpoint and the credentials of the environment, if any."""
  bucket, _, inner = path.removeprefix("s3://").partition("/")
  spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": inner}
  if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    spec |= {"endpoint": endpoint, "aws_region": region}
  if os.environ.get("AWS_ACCESS_KEY_ID"):
    spec["aws_credentials"] = {"type": "environment"}  # otherwise it complains about files that need not be there
  return spec


def _or_no(asks: Callable[[Any], bool]) -> Callable[[Any], bool]:
  @functools.wraps(asks)
  def as_far_as_allowed(path: str | os.PathLike) -> bool:
    try:
      return asks(path)
    except Exception:  # of many kinds: Forbidden, no credentials for that, no such package
      return False

  return as_far_as_allowed
