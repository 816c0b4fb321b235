"""An evaluation set of images and captions, one image an example, from its columns."""

import numpy as np

from mmcontrast.data.evaluation_set import EvaluationSet, ExampleViews, Things


def image_text_set(
  images, image_id, captions, caption_id, text_views=(), example_id=None, example_image=None, **columns
) -> EvaluationSet:
  """Images [M, ...] and C captions with their concepts; `columns` of the images; text views of E examples, "" for
  none, with the place of the image of each."""
  examples = np.arange(len(images))
  texts = [text for view in text_views for text in view]
  index = np.arange(len(texts)).reshape(len(text_views), -1) if text_views else np.zeros((0, len(images)), int)
  views = {} if example_id is None else {
    "image": ExampleViews(images, np.asarray(example_image)[None]),
    "text": ExampleViews(texts, np.where(np.array([bool(t) for t in texts]).reshape(index.shape), index, -1)),
  }  # fmt: skip
  return EvaluationSet(
    things={
      "image": Things(images, np.asarray(image_id), examples),
      "text": Things(list(captions), np.asarray(caption_id), np.full(len(captions), -1)),
    },
    views=views,
    example_id=np.asarray(image_id) if example_id is None else example_id,
    **{"labels": {}, "label_names": {}, "tags": np.zeros((len(images), 0)), "tag_names": [],
       "split": np.full(len(images), "")} | columns,
  )  # fmt: skip
