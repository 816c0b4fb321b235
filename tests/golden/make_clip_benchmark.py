"""Makes clip_benchmark.json: what CLIP_benchmark itself gives for stored embeddings, with and without equal scores.

Needs torch, scikit-learn and `pip install --no-deps clip-benchmark==1.6.2`:

    python tests/golden/make_clip_benchmark.py
"""

import json
import pathlib
import types

import numpy as np
import torch
from clip_benchmark.metrics import image_caption_selection, zeroshot_classification, zeroshot_retrieval

# Newer numpy makes no number of an array of one, which the package asks for.
zeroshot_classification.float = lambda value: float(np.asarray(value).reshape(()))
OUT = pathlib.Path(__file__).with_name("clip_benchmark.json")


class Stored:
  """A model that looks its embeddings up: a picture is its number, a text its number as a string."""

  def __init__(self, images, texts):
    self.images, self.texts = (torch.tensor(np.asarray(rows, np.float32)) for rows in (images, texts))

  def encode_image(self, pixels):
    return self.images[pixels.reshape(len(pixels), -1)[:, 0].long()]

  def encode_text(self, numbers):
    return self.texts[numbers]


def tokens(texts):
  return torch.tensor([int(text) for text in texts])


def pictures(count, first=0):
  return torch.arange(first, first + count).float().reshape(-1, 1, 1, 1)


def retrieval(images, texts, owner):
  """`owner`: the image of each text."""
  captions = [[str(t) for t in np.flatnonzero(np.asarray(owner) == i)] for i in range(len(images))]
  order = [int(t) for of in captions for t in of]
  assert order == list(range(len(texts))), "texts go by their images"
  batches = [(pictures(len(images)), captions)]
  found = zeroshot_retrieval.evaluate(
    Stored(images, texts), batches, tokens, "cpu", amp=False, recall_k_list=[1, 5, 10]
  )
  return {key: float(value) for key, value in found.items()}


def classification(images, prompts, labels):
  """`prompts`: rows [K, T, D] of T templates of K classes."""
  classes = len(prompts)
  texts = np.asarray(prompts).reshape(-1, np.shape(prompts)[-1])
  templates = len(texts) // classes
  # Class c has the prompts c * T to c * T + T - 1.
  names = [str(c) for c in range(classes)]
  numbered = {name: [str(int(name) * templates + t) for t in range(templates)] for name in names}
  loader = type("Loader", (list,), {})([(pictures(len(images)), torch.tensor(labels))])
  loader.dataset = types.SimpleNamespace(classes=names)
  found = zeroshot_classification.evaluate(Stored(images, texts), loader, tokens, names, numbered, "cpu", amp=False)
  return {key: float(value) for key, value in found.items() if value == value}


def multilabel(images, prompts, targets):
  names = [str(c) for c in range(len(prompts))]
  loader = type("Loader", (list,), {})([(pictures(len(images)), torch.tensor(targets))])
  loader.dataset = types.SimpleNamespace(classes=names)
  numbered = {name: [name] for name in names}
  found = zeroshot_classification.evaluate(
    Stored(images, np.asarray(prompts)[:, 0]), loader, tokens, names, numbered, "cpu", amp=False
  )
  return {key: float(value) for key, value in found.items()}


def selection(images, texts):
  """Rows [B, I, D] and [B, T, D]."""
  (count, several, _), of = np.shape(images), np.shape(texts)[1]
  numbers = torch.arange(count * several).float().reshape(count, several, 1, 1, 1)
  captions = [[str(b * of + t) for t in range(of)] for b in range(count)]
  rows = [np.asarray(x).reshape(-1, np.shape(x)[-1]) for x in (images, texts)]
  found = image_caption_selection.evaluate(Stored(*rows), [(numbers, captions)], tokens, "cpu", amp=False)
  return {key: float(value) for key, value in found.items()}


def cases():
  draw = np.random.default_rng(0)
  normal = lambda *shape: np.round(draw.normal(size=shape), 3)  # noqa: E731
  # Rows of four equal numbers among eight: cosines are multiples of a fourth, exactly, and many are equal.
  coarse = lambda *shape: np.stack([  # noqa: E731
    draw.permutation([1, 1, 1, 1, 0, 0, 0, 0]) * draw.choice([-1, 1], 8) for _ in range(int(np.prod(shape)))
  ]).reshape(*shape, 8).astype(float)  # fmt: skip
  for name, rows in (("normal", lambda *shape: normal(*shape, 6)), ("ties", coarse)):
    owner = np.sort(draw.integers(0, 24, 90))  # some images have no caption
    yield f"retrieval_{name}", retrieval, {"images": rows(24), "texts": rows(90), "owner": owner}
    for classes in (3, 5, 7):
      labels = draw.integers(0, classes - 1, 40)  # the last class has no picture
      inputs = {"images": rows(40), "prompts": rows(classes, 2), "labels": labels}
      yield f"classification_{classes}_{name}", classification, inputs
    yield f"selection_{name}", selection, {"images": rows(30, 1), "texts": rows(30, 2)}
    yield f"selection_pairs_{name}", selection, {"images": rows(30, 2), "texts": rows(30, 2)}
  targets = (draw.random((40, 5)) < 0.3).astype(int)
  yield "multilabel_normal", multilabel, {"images": normal(40, 6), "prompts": normal(5, 1, 6), "targets": targets}


def main():
  out = {}
  for name, function, inputs in cases():
    given = {key: np.asarray(value).tolist() for key, value in inputs.items()}
    out[name] = {"inputs": given, "expected": function(**given)}
  OUT.write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
  main()
