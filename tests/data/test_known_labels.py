"""Labels of which training knows a share."""

import numpy as np
import pytest
from own_data import OPTIONS, write_own_data

from mmcontrast.data import pipeline
from mmcontrast.data.known_labels import hide
from mmcontrast.data.settings import resolve
from mmcontrast.errors import UserError

NAMES = {"kind": ("a", "b", "c", "d"), "other": ("x", "y")}


def test_what_is_known_is_the_share():
  index = np.arange(4000)
  labels = {"kind": (index % 4).astype(np.int32), "other": (index % 2).astype(np.int32)}
  settings = {"known_labels": {"kind": {"classes": 0.5, "examples": 0.25}}}
  found = hide(settings, NAMES, labels, index)
  known = found["kind"] >= 0
  assert found["kind"].dtype == np.int32 and np.array_equal(found["other"], labels["other"])
  assert set(found["kind"]) == {-1, 0, 1} and (found["kind"][known] == labels["kind"][known]).all()
  assert abs(known.sum() / 2000 - 0.25) < 0.03
  part = hide(settings, NAMES, {name: values[7:9] for name, values in labels.items()}, index[7:9])
  assert np.array_equal(part["kind"], found["kind"][7:9])  # whatever else is in the batch
  assert set(hide({"known_labels": {"kind": {"classes": 0.01}}}, NAMES, labels, index)["kind"]) == {-1, 0}


def test_batches_hide_them(tmp_path):
  data = dict(dataset=write_own_data(str(tmp_path), "jsonl"), source=OPTIONS, split="train", views=dict(image=1))
  data |= dict(image_size=8)

  def labels(**more):
    with_labels = pipeline.train_batches(data | more, seed=0, batch_size=8)
    batch = next(with_labels)
    with_labels.close()
    return batch["labels"]["kind"]

  every, some = labels(), labels(known_labels=dict(kind=dict(classes=0.5)))
  assert (every >= 0).all() and -1 in some and set(some) < {-1, *every} and (some[some >= 0] == every[some >= 0]).all()
  with pytest.raises(UserError, match=r"data\.known_labels: no such choice 'kinds'; did you mean 'kind'"):
    labels(known_labels=dict(kinds=dict(classes=0.5)))


@pytest.mark.parametrize(
  ("value", "message"),
  [
    (0.5, r"data\.known_labels\.kind: 0\.5 is not a table of shares, such as"),
    (dict(class_share=0.5), r"data\.known_labels\.kind: no option 'class_share'; .*'classes'"),
    (dict(classes=0), r"data\.known_labels\.kind\.classes: 0 is not in \(0, 1\]"),
    (dict(examples=1.5), r"data\.known_labels\.kind\.examples: 1\.5 is not in \(0, 1\]"),
  ],
)
def test_what_is_refused(value, message):
  with pytest.raises(UserError, match=message):
    resolve({"known_labels": {"kind": value}})
